"""NumPy's files: every type and layout that NumPy writes, read without NumPy's reader."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from files import write
from jax_files import fields, npy, npz
from jax_trees import npz_arrays, ramp
from test_safetensors import same

from loaders import Budget, errors
from loaders.npz import load_npz
from wwfunc.errors import OptionError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "jax"
ARRAYS = npz_arrays()


@pytest.mark.parametrize("file", ["stored", "deflated"])
@pytest.mark.parametrize("name", ARRAYS)
def test_array_that_numpy_saved(file, name):
    handle, expected = load_npz(FIXTURES / f"{file}.npz")[name], ARRAYS[name]
    assert same(handle.read(), expected)
    assert (handle.shape, handle.dtype) == (expected.shape, expected.dtype)
    assert handle.nbytes == expected.nbytes
    if expected.ndim:
        assert same(handle.read(slice(1, None)), expected[1:])


def test_names_are_those_of_the_entries():
    assert load_npz(FIXTURES / "stored.npz").keys() == ARRAYS.keys()


def test_stored_array_is_mapped(tmp_path):
    np.savez(tmp_path / "a.npz", a=ramp((64, 64), "float32"))
    view = load_npz(tmp_path / "a.npz")["a"].read()
    while not isinstance(view, np.memmap):
        view = view.base
    assert view.filename == tmp_path / "a.npz"


@pytest.mark.parametrize("name", ["fortran", "int8"])
@pytest.mark.parametrize("file", ["stored", "deflated"])
def test_handles_are_read_only_and_travel(file, name):
    handle = load_npz(FIXTURES / f"{file}.npz")[name]
    copy = pickle.loads(pickle.dumps(handle))
    assert (copy, copy.key) == (handle, handle.key)
    assert not copy.read().flags.writeable
    assert same(copy.read(), ARRAYS[name])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_lone_array_of_each_version(tmp_path, version):
    with open(tmp_path / "weights.npy", "wb") as file:
        np.lib.format.write_array(file, ARRAYS["float64"], version)
    found = load_npz(tmp_path / "weights.npy")
    assert [*found] == ["weights"]
    assert same(found["weights"].read(), ARRAYS["float64"])


HEADERS = {
    "Python 2": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 1L), }\n",
    "other order": b"{'shape':(2,1),'descr':'<f4','fortran_order':False}",
    "padded": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }" + b" " * 900 + b"\n",
}


@pytest.mark.filterwarnings("ignore:Reading .* created on Python 2")
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_header_that_other_writers_use(tmp_path, header):
    path = write(tmp_path / "a.npy", npy(header, np.float32([1.5, -2]).tobytes()))
    assert np.load(path).tolist() == [[1.5], [-2]]
    assert load_npz(path)["a"].read().tolist() == [[1.5], [-2]]


LOST = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"]


@pytest.mark.parametrize("name", LOST)
def test_type_that_numpy_loses_must_be_said(tmp_path, name):
    array = ramp((2, 3), getattr(ml_dtypes, name))
    np.savez(tmp_path / "a.npz", a=array)
    with pytest.raises(errors.ElementTypeError, match=r"'a.npy' holds bare .* dtype='bfloat16'"):
        load_npz(tmp_path / "a.npz")
    assert same(load_npz(tmp_path / "a.npz", dtype=name)["a"].read(), array)


def test_type_that_is_said_must_fit(tmp_path):
    np.save(tmp_path / "a.npy", ramp((2,), ml_dtypes.bfloat16))
    with pytest.raises(errors.ElementTypeError, match="bare '<V2'"):
        load_npz(tmp_path / "a.npy", dtype="float8_e4m3fn")
    with pytest.raises(OptionError, match="dtype='float7' is no element type"):
        load_npz(tmp_path / "a.npy", dtype="float7")


def pickled():
    content = io.BytesIO()
    np.save(content, np.array([{}], object), allow_pickle=True)
    return content.getvalue()


EIGHT = bytes(8)
H, T, L = errors.HeaderError, errors.TruncatedError, errors.LayoutError
E = errors.ElementTypeError
MALFORMED = {
    "version 4": (npy(fields(), EIGHT, version=4), H, "version 1, 2 or 3"),
    "no version": (b"\x93NUMPY", H, "version 1, 2 or 3"),
    "half a length": (b"\x93NUMPY\x02\0\x10\0\0", T, "ends within its header"),
    "length over the file": (npy(fields(), EIGHT)[:40], T, "ends within its header"),
    "length of 4 GiB": (b"\x93NUMPY\x02\0\xff\xff\xff\xff" + EIGHT, H, "4,294,967,307 bytes"),
    "not a dictionary": (npy(b"[]\n"), H, "has a header that NumPy does not write: '\\[\\]"),
    "an expression": (
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1+1,), }"),
        H,
        "not",
    ),
    "a call": (
        npy(b"{'descr': __import__('os').getcwd(), 'fortran_order': 0, 'shape': ()}"),
        H,
        "n",
    ),
    "deep brackets": (npy(b"(" * 60_000), H, r"does not write: '\(\("),
    "deep minus": (npy(b"{'shape': (" + b"-" * 60_000 + b"1,)}"), H, "does not write"),
    "key missing": (npy({"descr": "<f4", "shape": (2,)}), H, "does not write"),
    "key twice": (npy(b"{'shape': (), 'shape': (), 'descr': '<f4'}"), H, "does not write"),
    "key of another name": (npy({**fields(), "more": 1}), H, "does not write"),
    "shape a number": (
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2)}"),
        H,
        "no tuple",
    ),
    "shape of one comma": (npy(b"{'descr':'<f4','fortran_order':False,'shape':(,)}"), H, "shape"),
    "negative side": (npy(fields(shape=(-2,)), EIGHT), H, "does not write"),
    "side of 20 digits": (npy(fields(shape=(10**20,)), EIGHT), H, "has the shape '1000"),
    "33 sides": (npy(fields(shape=(1,) * 33), b"1234"), H, "has the shape '1, 1"),
    "shape overflows": (npy(fields(shape=(2**40, 2**40)), EIGHT), L, "overflows"),
    "nothing overflows": (npy(fields(shape=(0, 2**62, 2**62))), L, "overflows"),
    "terabytes": (npy(fields(shape=(10**12,)), EIGHT), T, "takes 4,000,000,000,000 bytes, and 8"),
    "a byte short": (npy(fields(), EIGHT[:7]), T, "takes 8 bytes, and 7 follow"),
    "a byte more": (npy(fields(), EIGHT + b"\0"), L, "1 bytes follow the last element"),
    "objects": (pickled(), E, "holds Python objects"),
    "records": (npy(fields(descr=[("a", "<f4"), ("b", "<i4")], shape=(1,)), EIGHT), E, "records"),
    "subarray": (npy(fields(descr="(9,9)f4")), E, r"unknown element type '\(9,9\)f4'"),
    "long double": (
        npy(fields(descr="<f16", shape=(1,)), bytes(16)),
        E,
        "holds numbers of NumPy's longdouble",
    ),
    "dates": (
        npy(fields(descr="<M8[ns]", shape=(1,)), EIGHT),
        E,
        "holds dates, which are not read",
    ),
    "text of no length": (npy(fields(descr="<U0")), E, "element type '<U0'"),
    "bare bytes": (npy(fields(descr="|V8", shape=(1,)), EIGHT), E, "bare '|V8' elements"),
}


@pytest.mark.parametrize(("content", "error", "match"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(tmp_path, content, error, match):
    path = write(tmp_path / "a.npy", content)
    with pytest.raises(error, match=f"^{re.escape(str(path))}: array 'a'.*{match}") as caught:
        load_npz(path)
    assert caught.type is error
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("case", ["a byte short", "terabytes", "bare bytes", "deep brackets"])
def test_malformed_in_an_archive(tmp_path, case, method):
    content, error, match = MALFORMED[case]
    path = npz(tmp_path / "a.npz", method, good=npy(fields(), EIGHT), bad=content)
    with pytest.raises(error, match=f"array 'bad.npy'.*{match}"):
        load_npz(path)


UNREAD = {
    "Python objects": np.array([{}], object),
    "records": np.zeros(2, [("a", "f4"), ("b", "i4")]),
    "dates": np.zeros(2, "M8[ns]"),
    "spans of time": np.zeros(2, "m8[25s]"),
    "numbers of NumPy's longdouble": np.zeros(2, np.longdouble),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_beside_the_weights_are_named(tmp_path, save):
    save(tmp_path / "a.npz", good=np.float32([1, 2]), **UNREAD)
    found = load_npz(tmp_path / "a.npz")
    assert [*found] == ["good"]
    assert found["good"].read().tolist() == [1, 2]
    assert found.metadata == {name: f"an array of {name}, which is not read" for name in UNREAD}


@pytest.mark.parametrize("words", UNREAD)
def test_nothing_but_arrays_that_are_not_read(tmp_path, words):
    np.savez(tmp_path / "a.npz", a=UNREAD[words], b=UNREAD[words])
    with pytest.raises(errors.ElementTypeError, match=f"array 'a.npy' holds {words}, which are"):
        load_npz(tmp_path / "a.npz")


def test_headers_count_together(tmp_path):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)" + b" " * 4_000 + b"}"
    path = npz(tmp_path / "a.npz", **{str(number): npy(head, b"1234") for number in range(3)})
    assert len(load_npz(path, budget=Budget(header_bytes=13_000))) == 3
    with pytest.raises(errors.BudgetError, match="header bytes are over the budget of 9,000"):
        load_npz(path, budget=Budget(header_bytes=9_000))


def test_entry_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(errors.UnsupportedError, match=r"'readme.txt' is no .npy array"):
        load_npz(tmp_path / "a.npz")


def test_wrong_checksum_of_a_deflated_entry(tmp_path):
    path = npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, a=npy(fields(), EIGHT))
    content = bytearray(path.read_bytes())
    for place in (content.find(b"PK\x03\x04") + 14, content.find(b"PK\x01\x02") + 16):
        content[place] ^= 1
    handle = load_npz(write(path, bytes(content)))["a"]
    with pytest.raises(errors.ArchiveError, match=r"CRC of tensor 'a.npy' is wrong"):
        handle.read()


def test_over_the_budget_until_it_is_raised_as_the_message_says(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(30_000))
    with pytest.raises(errors.BudgetError, match="240,000 bytes of tensors") as caught:
        load_npz(tmp_path / "a.npz", budget=Budget(free_bytes=1_000))
    asked = int(re.search(r"free_bytes=(\d+)", str(caught.value))[1])
    found = load_npz(tmp_path / "a.npz", budget=Budget(free_bytes=asked))
    assert same(found["a"].read(), np.zeros(30_000))
