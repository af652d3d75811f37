"""Written files read back bit by bit, by our loader and by others; nothing is written by halves."""

from __future__ import annotations

import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors
from files import ELEMENTS, random_array
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import wwfunc
from loaders.errors import ElementTypeError, HeaderError, UnsupportedError
from wwfunc.checkpoint import ArrayHandle, Checkpoint
from wwfunc.lowrank import LowRank
from wwfunc.saving import check_target, save
from wwfunc.transforms.models import smooth


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


class Made:
    """A tensor of 8 MiB that is made when it is read."""

    shape, dtype, nbytes = (1024, 1024), np.dtype(np.float64), 1 << 23

    def __init__(self, value):
        self.value = value

    @property
    def key(self):
        return self.value

    def read(self, rows=slice(None)):
        return np.full(self.shape, self.value)[rows]


def test_a_tensor_at_a_time(tmp_path):
    checkpoint = Checkpoint({f"t{i}": Made(float(i)) for i in range(8)})
    tracemalloc.start()
    save(checkpoint, tmp_path / "x.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * Made.nbytes
    assert wwfunc.load(tmp_path / "x.safetensors")["t7"].read()[-1, -1] == 7.0


# Refusals -------------------------------------------------------------------------------------

EYE = np.eye(2)
LOW = LowRank(ArrayHandle(EYE), ArrayHandle(EYE), 1.0, (2, 2))
REFUSED = {
    "complex": ("x.safetensors", {"w": EYE.astype(complex)}, ElementTypeError, "no complex128"),
    "float8": (
        "x.safetensors",
        {"w": EYE.astype(ml_dtypes.float8_e3m4)},
        ElementTypeError,
        "no float8_e3m4",
    ),
    "float6": (
        "x.safetensors",
        {"w": EYE.astype(ml_dtypes.float6_e2m3fn)},
        ElementTypeError,
        "no float6",
    ),
    "text": ("x.safetensors", {"w": np.array(["a"])}, ElementTypeError, "no str"),
    "odd": (
        "x.safetensors",
        {"w": np.ones(3, ml_dtypes.float4_e2m1fn)},
        ElementTypeError,
        "whole bytes",
    ),
    "reserved": ("x.safetensors", {"__metadata__": EYE}, HeaderError, "no name"),
    "surrogate": ("x.safetensors", {"\ud800": EYE}, HeaderError, "no Unicode"),
    "adapter": ("x.safetensors", {"w": LOW}, UnsupportedError, "low-rank change"),
    "bfloat16": ("x.npz", {"w": EYE.astype(ml_dtypes.bfloat16)}, ElementTypeError, "write .safet"),
    "entry": ("x.npz", {"a\0b": EYE}, HeaderError, "no name"),
    "absolute": ("x.npz", {"/abs": EYE}, HeaderError, "no name"),
    "upwards": ("x.npz", {"../e": EYE}, HeaderError, "no name"),
    "backslash": ("x.npz", {"a\\b": EYE}, HeaderError, "no name"),
    "long": ("x.npz", {"a" * 70_000: EYE}, HeaderError, "no name"),
    "two": ("x.npy", {"a": EYE, "b": EYE}, wwfunc.OptionError, "takes one array"),
    "format": ("x.pt", {"a": EYE}, wwfunc.OptionError, "'x.safetensors'"),
    "suffix": ("model", {"a": EYE}, wwfunc.OptionError, "'model.safetensors'"),
    "folder": ("no/x.npz", {"a": EYE}, wwfunc.OptionError, "no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_has_no_place_for_is_refused_before_anything_is_written(case, tmp_path):
    name, tensors, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        save(Checkpoint(tensors), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(HeaderError, match="not all text"):
        save(Checkpoint({"a": EYE}, metadata={"n": 3}), tmp_path / "x.safetensors")


def test_a_header_longer_than_others_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("loaders.saving._LONGEST_HEADER", 1000)
    save(Checkpoint({"a": EYE}, metadata={"n": "x" * 900}), tmp_path / "x.safetensors")
    with pytest.raises(HeaderError, match="1,000 at most"):
        save(Checkpoint({"a": EYE}, metadata={"n": "x" * 1000}), tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize("lost", [1.0, "pt"])
def test_a_value_that_would_be_lost_is_refused_and_a_function_is_not(lost, tmp_path):
    with pytest.raises(wwfunc.InputError, match="1 leaves hold no array and would be lost: a;"):
        save({"a": lost, "b": EYE}, tmp_path / "x.safetensors")
    save({"activation": np.tanh, "b": EYE}, tmp_path / "x.safetensors")


@pytest.mark.parametrize("path", [3, b"x.npz", "\0.npz", "a" * 300 + ".npz", "x.npz/y.npz"])
def test_what_is_no_path_is_an_option_error(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").touch()
    with pytest.raises(wwfunc.OptionError):
        save({"a": EYE}, path)


def test_the_adapter_may_be_written_as_the_change_that_it_is(tmp_path):
    save(Checkpoint({"w": LOW}).read(), tmp_path / "x.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["w"], EYE)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(wwfunc.OptionError, match="a folder"):
        save({"a": EYE}, tmp_path / "x.safetensors")


def test_the_file_that_is_read_from_is_never_written(tmp_path):
    path = tmp_path / "in.safetensors"
    save_file({"a": EYE, "b": EYE}, path)
    (tmp_path / "link.safetensors").symlink_to(path)
    (tmp_path / "hard.safetensors").hardlink_to(path)
    loaded = wwfunc.load(path)
    before = path.read_bytes()
    parts = Checkpoint({"x": loaded["a"], "y": np.ones(3)})  # its source is not known
    for model in (loaded, parts, path, smooth(loaded, 1)):
        for name in ("in", "link", "hard"):
            with pytest.raises(wwfunc.OptionError, match="read from this file"):
                save(model, tmp_path / f"{name}.safetensors")
            with pytest.raises(wwfunc.OptionError, match="read from this file"):
                check_target(model, tmp_path / f"{name}.safetensors")
    assert path.read_bytes() == before


def test_shards_become_one_file_and_none_of_them_is_written(tmp_path):
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": EYE}, tmp_path / "one.safetensors")
    save_file({"b": 2 * EYE}, tmp_path / "two.safetensors")
    model = wwfunc.load(tmp_path)
    with pytest.raises(wwfunc.OptionError, match="read from this file"):
        save(model, tmp_path / "two.safetensors")
    (tmp_path / "new").mkdir()
    save(model, tmp_path / "new" / "whole.safetensors")
    assert wwfunc.load(tmp_path / "new").digest() == model.digest()


def test_nothing_is_written_into_the_folder_that_the_model_was_opened_as(tmp_path):
    """Else the folder, opened again, would be another model, or two of which none is meant."""
    folder = tmp_path / "model"
    folder.mkdir()
    save({"a": EYE}, folder / "foo.safetensors")
    (tmp_path / "alias").symlink_to(folder)
    (tmp_path / "out.npz").symlink_to(folder / "bar.npz")
    (folder / "away.npz").symlink_to(tmp_path / "away.npz")
    for path in ("model/bar.npz", "alias/model.safetensors", "out.npz", "model/away.npz"):
        with pytest.raises(wwfunc.OptionError, match="opened as the folder"):
            check_target(wwfunc.load(folder), tmp_path / path)
    save(folder / "foo.safetensors", folder / "bar.npz")  # a file was opened, not the folder


def test_a_failure_leaves_what_was_there(tmp_path):
    class Broken(Made):
        def read(self, rows=slice(None)):
            raise OSError(5, "disk")

    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    for name in ("x.safetensors", "x.npz"):
        with pytest.raises(OSError, match="disk"):
            save(Checkpoint({"a": Made(1.0), "b": Broken(2.0)}), tmp_path / name)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "read", [np.zeros((2, 2)), np.zeros(Made.shape, np.int64)], ids=["shape", "type"]
)
def test_a_handle_that_reads_something_else_is_caught(read, tmp_path):
    class Liar(Made):
        def read(self, rows=slice(None)):
            return read

    for name in ("x.safetensors", "x.npz", "x.npy"):
        with pytest.raises(HeaderError, match=f"read as {read.dtype} of shape"):
            save(Checkpoint({"a": Liar(1.0)}), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
