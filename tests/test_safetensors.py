"""safetensors files: every element type, no copies, and every way to be malformed."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from files import ELEMENTS, encoded, framed, random_array, stored, write

import loaders
from loaders import errors


def same(found, expected):
    """Equal shape, element type and bits: NaNs compare too, and -0 is not 0."""
    return (found.shape, found.dtype, found.tobytes()) == (
        expected.shape,
        expected.dtype,
        expected.tobytes(),
    )


def owner(array):
    """The memory map under a view."""
    while not isinstance(array, np.memmap):
        array = array.base
    return array


@pytest.mark.parametrize("shape", [(6, 4), (2,), (3, 0, 2), (1, 2, 1, 2)])
@pytest.mark.parametrize("element", ELEMENTS)
def test_round_trip(tmp_path, element, shape):
    array = random_array(element, shape)
    handle = loaders.load(write(tmp_path / "x", {"a": array}))["a"]
    assert (handle.shape, handle.dtype) == (array.shape, array.dtype)
    assert handle.nbytes == len(stored(array))
    assert same(handle.read(), array)
    assert same(handle.read(slice(1, 2)), array[1:2])


VALUES = [
    ("BOOL", b"\x01", True),
    ("I16", b"\xfe\xff", -2),
    ("U64", b"\0\0\0\0\0\0\0\x80", 2**63),
    ("F8_E4M3", b"\x7e", 448.0),
    ("F8_E5M2", b"\x7b", 57344.0),
    ("F8_E8M0", b"\x80", 2.0),
    ("F8_E4M3FNUZ", b"\x7f", 240.0),
    ("F8_E5M2FNUZ", b"\x7f", 57344.0),
    ("F16", b"\0\xc0", -2.0),
    ("BF16", b"\xc0\x3f", 1.5),
    ("F32", b"\0\0\xc0\x3f", 1.5),
    ("F64", b"\0\0\0\0\0\0\xf8\x3f", 1.5),
    ("C64", b"\0\0\x80\x3f\0\0\0\xc0", 1 - 2j),
]


@pytest.mark.parametrize(("element", "octets", "value"), VALUES)
def test_scalar_has_its_value(tmp_path, element, octets, value):
    entry = {"dtype": element, "shape": [], "data_offsets": [0, len(octets)]}
    handle = loaders.load(write(tmp_path / "x", framed({"a": entry}, octets)))["a"]
    assert handle.read().shape == handle.read(slice(0, 1)).shape == ()
    assert handle.read() == value


def test_two_f4_share_a_byte_the_low_half_first(tmp_path):
    entry = {"dtype": "F4", "shape": [2, 2], "data_offsets": [0, 2]}
    handle = loaders.load(write(tmp_path / "x", framed({"a": entry}, b"\x21\xf7")))["a"]
    assert handle.read().astype(float).tolist() == [[0.5, 1.0], [6.0, -6.0]]


def test_unaligned_tensor(tmp_path):
    arrays = {"a": random_array("U8", (1,)), "b": random_array("F32", (3, 2))}
    read = loaders.load(write(tmp_path / "x", arrays)).read()
    assert all(same(read[name], arrays[name]) for name in arrays)


def test_empty_file(tmp_path):
    assert dict(loaders.load(write(tmp_path / "x", b"\x02" + bytes(7) + b"{}"))) == {}


def test_file_of_the_library(tmp_path):
    arrays = {
        "half": random_array("BF16", (5, 3)),
        "single": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.empty((0, 3), np.int64),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x", metadata={"format": "np"})
    found = loaders.load(tmp_path / "x")
    assert found.metadata == {"format": "np"}
    assert found.keys() == arrays.keys()
    assert all(same(found[name].read(), arrays[name]) for name in arrays)
    assert found["half"].dtype == ml_dtypes.bfloat16


def test_library_reads_the_files_of_these_tests():
    arrays = {name: random_array(name, (4, 2)) for name in ("F32", "I64", "U8", "F16")}
    found = safetensors.numpy.load(encoded(arrays, {"a": "b"}, pad=600))
    assert all(same(found[name], arrays[name]) for name in arrays)


def test_read_maps_and_does_not_copy(tmp_path):
    array = random_array("F32", (100, 7))
    path = write(tmp_path / "x", encoded({"a": array}, pad=120))
    handle = loaders.load(path)["a"]
    for view, expected in (handle.read(), array), (handle.read(slice(10, 20)), array[10:20]):
        assert owner(view).filename == path
        assert view.flags.aligned
        assert not view.flags.writeable
        assert same(view, expected)
    with open(path, "r+b") as file:
        file.seek(128)
        file.write(b"\0\0\x80\x3f")
    assert handle.read()[0, 0] == 1.0


def test_handles_travel_and_are_read_by_many(tmp_path):
    array = random_array("BF16", (64, 33))
    handle = loaders.load(write(tmp_path / "x", {"a": array}))["a"]
    copy = pickle.loads(pickle.dumps(handle))
    assert copy == handle
    assert copy.key == handle.key
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda row: copy.read(slice(row, row + 1)), range(64)))
    assert same(np.concatenate(rows), array)


@pytest.mark.parametrize("size", [0, 100, 208, 212, 223])
def test_file_that_shrinks_after_it_was_opened(tmp_path, size):
    arrays = {"a": random_array("U8", (4,)), "b": random_array("F32", (3,))}
    path = write(tmp_path / "x", encoded(arrays, pad=200))
    handle = loaders.load(path)["b"]
    os.truncate(path, size)
    with pytest.raises(errors.TruncatedError, match="/x: tensor 'b' can no longer be mapped"):
        handle.read()


def test_file_that_vanishes_after_it_was_opened(tmp_path):
    path = write(tmp_path / "x", {"a": random_array("F32", (3,))})
    handle = loaders.load(path)["a"]
    path.unlink()
    with pytest.raises(errors.NotReadableError, match="/x: tensor 'a' cannot be mapped: No such"):
        handle.read()
