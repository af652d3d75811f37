"""Written files read back bit by bit, by our loader and by others; nothing is written by halves."""

from __future__ import annotations

import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import safetensors
from files import ELEMENTS, Made, random_array
from safetensors import safe_open
from safetensors.numpy import load_file

import wwfunc
from wwfunc.checkpoint import ArrayHandle, Checkpoint
from wwfunc.saving import save


def bits(array):
    array = np.ascontiguousarray(array)
    return array.shape, array.dtype.name, array.reshape(-1).view(np.uint8).tobytes()


def bits_of(checkpoint):
    return {name: bits(leaf.read()) for name, leaf in checkpoint.items()}


def header_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length]


SHAPES = [(), (0,), (3,), (2, 0, 5), (5, 7), (2, 3, 4, 5)]


def zoo():
    """Every element type in every kind of shape, narrow ones before wide ones."""
    return {
        f"{element}.{'x'.join(map(str, shape))}": random_array(element, shape, seed)
        for seed, element in enumerate(ELEMENTS)
        for shape in SHAPES
        if element != "F4" or np.prod(shape) % 2 == 0
    }


def test_every_element_type_and_shape_is_kept(tmp_path):
    tensors = zoo()
    checkpoint = Checkpoint(tensors, metadata={"format": "pt", "näme": "日本"})
    path = tmp_path / "zoo.safetensors"
    save(checkpoint, path)
    again = wwfunc.load(path)
    assert list(again) == list(tensors), "in the checkpoint's order"
    assert dict(again.metadata) == {"format": "pt", "näme": "日本"}
    assert bits_of(again) == {name: bits(array) for name, array in tensors.items()}


def test_the_header_is_padded_and_tensors_are_aligned(tmp_path):
    save(Checkpoint(zoo()), tmp_path / "zoo.safetensors")
    header = header_of(tmp_path / "zoo.safetensors")
    assert len(header) % 8 == 0
    for name, entry in json.loads(header).items():
        assert entry["data_offsets"][0] % np.dtype(ELEMENTS[name.split(".")[0]]).itemsize == 0


def test_the_safetensors_package_reads_what_is_written(tmp_path):
    named = {n: a for n, a in zoo().items() if a.dtype.kind in "biuf" and "F8" not in n}
    save(Checkpoint(named, metadata={"a": "b"}), tmp_path / "x.safetensors")
    assert {n: bits(a) for n, a in load_file(tmp_path / "x.safetensors").items()} == {
        n: bits(a) for n, a in named.items()
    }
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"a": "b"}
    early = int(safetensors.__version__.split(".")[1]) < 6
    new = ("F4", "F8_E8M0", "FNUZ", "C64") if early else ()  # types that releases before 0.6 lack
    known = {name: array for name, array in zoo().items() if not any(t in name for t in new)}
    save(Checkpoint(known), tmp_path / "zoo.safetensors")
    with safe_open(tmp_path / "zoo.safetensors", "np") as file:
        assert set(file.keys()) == set(known), "it checks offsets and sizes of all types"


def test_a_file_is_copied_bit_by_bit_and_the_input_stays(digits_path, tmp_path):
    before = digits_path.read_bytes()
    checkpoint = wwfunc.load(digits_path)
    done = []
    save(checkpoint, tmp_path / "copy.safetensors", progress=lambda *step: done.append(step))
    copy = wwfunc.load(tmp_path / "copy.safetensors")
    assert copy.digest() == checkpoint.digest()
    assert (list(copy), copy.metadata) == (list(checkpoint), checkpoint.metadata)
    assert digits_path.read_bytes() == before
    assert [step[:2] for step in done] == [(i, len(checkpoint)) for i in range(1, len(done) + 1)]
    assert {step[2] for step in done} == set(checkpoint)


def test_other_orders_of_bytes_and_axes_are_kept_as_numbers(tmp_path):
    array = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    given = {
        "big": array.astype(">f8"),
        "fortran": np.asfortranarray(array),
        "strided": array[:, ::2, ::-1],
        "half": np.arange(6, dtype=">f2").reshape(3, 2),
    }
    for suffix in ("safetensors", "npz"):
        save(given, tmp_path / f"x.{suffix}")
        again = wwfunc.load(tmp_path / f"x.{suffix}").read()
        for name, expected in given.items():
            np.testing.assert_array_equal(again[name], expected)


def test_no_tensors_and_long_rows(tmp_path, monkeypatch):
    save(Checkpoint({}), tmp_path / "none.safetensors")
    assert len(wwfunc.load(tmp_path / "none.safetensors")) == 0
    monkeypatch.setattr("loaders.blocks._BLOCK_BYTES", 100)
    array = np.arange(999.0).reshape(27, 37).T
    save({"x": array}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(wwfunc.load(tmp_path / "x.safetensors")["x"].read(), array)


def test_numpy_files(tmp_path):
    tensors = {
        "layer/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "wörter": np.array(["a", "bcd"]),
        "complex": np.array([1 + 2j]),
        "scalar": np.array(3, np.int64),
        "none": np.empty((0, 4), np.float32),
        "big": np.arange(4, dtype=">i4"),
    }
    save(Checkpoint(tensors), tmp_path / "x.npz")
    ours = wwfunc.load(tmp_path / "x.npz")
    assert list(ours) == list(tensors)
    with np.load(tmp_path / "x.npz") as theirs:
        for name, expected in tensors.items():
            assert bits(theirs[name]) == bits(expected)
            assert bits(ours[name].read()) == bits(expected)
            assert theirs[name].dtype.str == expected.dtype.str
    save({"only": tensors["layer/weight"].T}, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), tensors["layer/weight"].T)
    np.testing.assert_array_equal(
        wwfunc.load(tmp_path / "x.npy")["x"].read(), tensors["layer/weight"].T
    )


def test_an_archive_of_equal_tensors_is_equal(tmp_path):
    for name in ("a.npz", "b.npz"):
        save({"x": np.eye(3)}, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class Counted(ArrayHandle):
    """A handle that counts how often it is read, and how many of its tensors are alive."""

    reads = 0

    def read(self, rows=slice(None)):
        type(self).reads += 1
        return np.array(self.array)


def test_two_types_over_one_memory_are_two_tensors(tmp_path):
    memory = np.arange(64, dtype=np.uint8)
    types = (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz)
    tensors = {kind.__name__: memory.view(kind) for kind in types}
    save(tensors, tmp_path / "x.safetensors")
    assert bits_of(wwfunc.load(tmp_path / "x.safetensors")) == {
        name: bits(array) for name, array in tensors.items()
    }


def test_tied_tensors_are_read_once(tmp_path):
    Counted.reads = 0
    shared = np.ones((4, 4))
    tied = {"a": Counted(shared), "b": ArrayHandle(np.zeros(3)), "c": Counted(shared)}
    save(Checkpoint(tied), tmp_path / "x.safetensors")
    assert Counted.reads == 1
    again = wwfunc.load(tmp_path / "x.safetensors").read()
    assert list(again) == ["a", "b", "c"]
    np.testing.assert_array_equal(again["a"], again["c"])


def test_a_tensor_at_a_time(tmp_path):
    checkpoint = Checkpoint({f"t{i}": Made(float(i)) for i in range(8)})
    tracemalloc.start()
    save(checkpoint, tmp_path / "x.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * Made.nbytes
    assert wwfunc.load(tmp_path / "x.safetensors")["t7"].read()[-1, -1] == 7.0
