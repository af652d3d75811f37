"""Flax's msgpack files: what Flax wrote, and every way to be malformed."""

from __future__ import annotations

import pickle
import re
from contextlib import suppress
from pathlib import Path

import flax.serialization
import msgpack
import numpy as np
import pytest
from files import write
from hypothesis import given, settings
from hypothesis import strategies as st
from jax_files import ext
from jax_trees import cut_tree, every_type, msgpack_tree, ramp
from test_safetensors import same

from loaders import Budget, errors
from loaders.flax.msgpack import load_flax_msgpack as load
from wwfunc.errors import CheckpointError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "jax"
TREE = load(FIXTURES / "tree.msgpack")


@pytest.mark.parametrize("name", every_type())
def test_array_that_flax_saved(name):
    handle, expected = TREE[f"types.{name}"], every_type()[name]
    assert (handle.shape, handle.dtype, handle.nbytes) == ((2, 3), expected.dtype, expected.nbytes)
    assert same(handle.read(), expected)
    assert same(handle.read(slice(1, 2)), expected[1:2])


def test_names_lead_through_dictionaries_and_lists():
    types = [f"types.{name}" for name in sorted(every_type())]
    assert sorted(TREE) == sorted(
        [
            *types,
            *["params.Dense_0.kernel", "params.Dense_0.bias", "complex", "tuple.0"],
            *["tuple.1.inner", "empty", "step", "rate", "flag", "number"],
        ]
    )
    assert TREE.metadata == {"note": "text"}


@pytest.mark.parametrize("name", ["step", "rate", "flag", "number"])
def test_number_is_a_tensor_without_axes(name):
    expected = np.asarray(msgpack_tree()[name])
    assert same(TREE[name].read(), expected)
    assert same(TREE[name].read(slice(0, 1)), expected)


def test_scalar_and_empty_arrays():
    assert same(TREE["tuple.1.inner"].read(), np.float32(0.5))
    assert same(TREE["empty"].read(), np.zeros((2, 0, 3), "float32"))


def test_array_is_mapped_and_travels():
    handle = TREE["params.Dense_0.kernel"]
    view = handle.read()
    assert not view.flags.writeable
    while not isinstance(view, np.memmap):
        view = view.base
    assert view.filename == FIXTURES / "tree.msgpack"
    copy = pickle.loads(pickle.dumps(handle))
    assert (copy, copy.key) == (handle, handle.key)


ROWS = [
    slice(None),
    slice(2, 5),
    slice(5, 2, -2),
    slice(7, None),
    slice(3, 3),
    slice(None, None, -1),
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", cut_tree())
def test_array_that_flax_cut_in_pieces(name, rows):
    handle, expected = load(FIXTURES / "cut.msgpack")[name], cut_tree()[name]
    assert (handle.shape, handle.dtype, handle.nbytes) == (
        expected.shape,
        expected.dtype,
        expected.nbytes,
    )
    found = handle.read(rows)
    assert same(found, expected[rows])
    assert not found.flags.writeable or not found.size
    assert pickle.loads(pickle.dumps(handle)) == handle


def test_bytes_are_numbers_of_eight_bits(tmp_path):
    path = write(tmp_path / "x", msgpack.packb({"raw": b"\x01\xff"}))
    assert same(load(path)["raw"].read(), np.array([1, 255], np.uint8))


NUMBERS = [0, 127, 128, 2**16, 2**32, 2**64 - 1, -1, -32, -33, -(2**15), -(2**31), -(2**63), 0.1]


@pytest.mark.parametrize("number", NUMBERS)
def test_number_of_each_width(tmp_path, number):
    path = write(tmp_path / "x", msgpack.packb({"n": number}))
    assert load(path)["n"].read() == number


def one(value):
    return msgpack.packb({"a": value})


def inner(*parts):
    """An array's extension out of any parts."""
    return one(msgpack.ExtType(1, msgpack.packb(parts)))


A = b"\x81\xa1a"
H, T, L = errors.HeaderError, errors.TruncatedError, errors.LayoutError
E, B = errors.ElementTypeError, errors.BudgetError
CUT = "__msgpack_chunked_array__"
PIECE = ext((2,), "float32", bytes(8))


def cut(shape=None, chunks=None, mark=True, **more):
    shape = {"0": 2} if shape is None else shape
    chunks = {"0": PIECE} if chunks is None else chunks
    return one({CUT: mark, "shape": shape, "chunks": chunks, **more})


MALFORMED = {
    "empty": (b"", T, "1 bytes should follow byte 0, the file has 0"),
    "a list": (msgpack.packb([1]), H, "holds no dictionary"),
    "an array": (msgpack.packb(PIECE), H, "holds no dictionary"),
    "half a dictionary": (A, T, "1 bytes should follow byte 3"),
    "more follows": (one(1) + b"\0", H, "1 bytes follow the dictionary"),
    "4 billion entries": (b"\xdf\xff\xff\xff\xff\xa1a\1", T, "dictionary of 4,294,967,295 entries"),
    "list of 4 billion": (A + b"\xdd\xff\xff\xff\xff", T, "a list of 4,294,967,295 entries"),
    "text of 4 GiB": (b"\x81\xdb\xff\xff\xff\xffa", T, "a text of 4,294,967,295 bytes"),
    "bytes of 4 GiB": (A + b"\xc6\xff\xff\xff\xff", T, "4,294,967,295 bytes of elements"),
    "extension of 4 GiB": (A + b"\xc9\xff\xff\xff\xff\1", T, "an extension of 4,294,967,295"),
    "code without meaning": (A + b"\xc1", H, "byte 4: the code 0xc1"),
    "key twice": (b"\x82\xa1a\1\xa1a\2", H, "the key 'a' stands twice"),
    "key a number": (b"\x81\1\1", H, "a key is no text but a number"),
    "key bytes": (b"\x81\xc4\1a\1", H, "a key is no text but a bytes"),
    "key a dictionary": (b"\x81\x80\1", H, "a key is no text but a dictionary"),
    "key no UTF-8": (b"\x81\xa1\xff\1", H, r"the text b'\\xff' is not UTF-8"),
    "key a surrogate": (b"\x81\xa3\xed\xa0\x80\1", H, "is not UTF-8"),
    "names that join to one": (
        msgpack.packb({"a.b": 1, "a": {"b": 2}, "a/b": 3}),
        H,
        "two values are named 'a/b'",
    ),
    "nothing but text": (inner((2,), "str64", bytes(16)), E, "'a' holds text, which are not read"),
    "text cut off": (one(msgpack.ExtType(1, inner((2,), "str64", bytes(16))[6:-1])), T, "bytes"),
    "name of 5000": (one({"x" * 5_000: 1}), H, "a name of 5,002 characters"),
    "deep": (b"\x81\xa1a" * 100_000, B, r"Budget\(nesting=201\)"),
    "other extension": (one(msgpack.ExtType(5, b"")), H, "the extension 5 is none of Flax's"),
    "time": (one(msgpack.Timestamp(1)), H, "the extension 255"),
    "no elements": (inner((2,), "float32"), H, "a list stands where Flax"),
    "shape a number": (inner(2, "float32", bytes(8)), H, "a number stands where Flax"),
    "side a text": (inner(("2",), "float32", bytes(8)), H, "a shape holds 1"),
    "side negative": (inner((-2,), "float32", bytes(8)), H, "a shape holds -2"),
    "side a float": (inner((2.0,), "float32", bytes(8)), H, r"a shape holds 2\.0"),
    "side true": (inner((True, 2), "float32", bytes(8)), H, "a shape holds True"),
    "33 sides": (inner((1,) * 33, "float32", bytes(4)), H, "a list stands where Flax"),
    "no name": (inner((2,), 5, bytes(8)), H, "no name of its element type"),
    "elements a text": (
        inner((2,), "float32", "x" * 8),
        H,
        "a text stands where Flax writes another bytes",
    ),
    "unknown type": (inner((2,), "float31", bytes(8)), E, "unknown element type 'float31'"),
    "objects": (inner((2,), "object", bytes(16)), E, "unknown element type 'object'"),
    "code of NumPy": (inner((2,), "O", bytes(16)), E, "unknown element type 'O'"),
    "subarray": (inner((2,), "(9,9)f4", bytes(8)), E, r"unknown element type '\(9,9\)f4'"),
    "a byte short": (inner((2,), "float32", bytes(7)), L, r"shape \[2\] does not take 7 bytes"),
    "a byte more": (inner((2,), "float32", bytes(9)), L, r"shape \[2\] does not take 9 bytes"),
    "shape overflows": (inner((2**40, 2**40), "int8", b""), L, "does not take 0 bytes"),
    "nothing overflows": (inner((0, 2**62, 2**62), "int8", b""), L, "does not take 0 bytes"),
    "extension too long": (
        one(msgpack.ExtType(1, PIECE.data + b"\0")),
        H,
        "an extension ends -1 bytes from its end",
    ),
    "extension too short": (A + b"\xc7\x05\1" + PIECE.data, H, "ends [+]1[0-9] bytes from"),
    "complex of one": (
        one(msgpack.ExtType(2, msgpack.packb((1.0,)))),
        H,
        "where Flax writes another list",
    ),
    "complex of texts": (one(msgpack.ExtType(2, msgpack.packb(("1", "2")))), H, "no pair of num"),
    "not marked": (cut(mark=False), H, "'a' is not made of a shape and chunks"),
    "a key more": (cut(more=1), H, "not made of"),
    "no chunks": (cut(chunks={}), H, "not made of"),
    "chunk missing": (cut(chunks={"0": PIECE, "2": PIECE}), H, "not made of"),
    "chunks a list": (cut(chunks=[PIECE]), H, "not made of"),
    "chunk a number": (cut(chunks={"0": 1}), H, "not made of"),
    "cut shape of texts": (cut(shape={"0": "2"}), H, "not made of"),
    "cut shape negative": (cut(shape={"0": -1, "1": -2}), L, r"do not fill shape \[-1, -2\]"),
    "cut shape too large": (cut(shape={"0": 3}), L, r"2 elements do not fill shape \[3\]"),
    "chunks of two types": (
        cut({"0": 4}, {"0": PIECE, "1": ext((2,), "int32", bytes(8))}),
        L,
        "several types",
    ),
    "chunk with axes": (cut(chunks={"0": ext((1, 2), "float32", bytes(8))}), L, "several axes"),
}


@pytest.mark.parametrize(("content", "error", "match"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(tmp_path, content, error, match):
    path = write(tmp_path / "x", content)
    with pytest.raises(error, match=f"^{re.escape(str(path))}: .*{match}") as caught:
        load(path)
    assert caught.type is error
    assert len(str(caught.value)) < len(str(path)) + 400


def test_keys_with_dots_that_would_join_to_one_name(tmp_path):
    tree = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}, "c.d": 4}, "a.c": {"d": 5}, "x": {"y.z": 6}}
    found = load(write(tmp_path / "x", msgpack.packb(tree)))
    names = ["a.b", "a/b", "a/c/d", "a/c.d", "a.c/d", "x.y.z"]
    assert {name: handle.read().item() for name, handle in found.items()} == {
        name: number for number, name in enumerate(names, 1)
    }


UNREAD = {
    "str64": "text",
    "bytes24": "text",
    "datetime64[ns]": "dates",
    "timedelta64": "spans of time",
    "float128": "numbers of NumPy's longdouble",
}


@pytest.mark.parametrize("element", UNREAD)
def test_arrays_beside_the_weights_are_named(tmp_path, element):
    tree = {"a": ext((2,), element, bytes(32)), "w": PIECE, "n": "text"}
    found = load(write(tmp_path / "x", msgpack.packb(tree)))
    assert [*found] == ["w"]
    words = f"an array of {UNREAD[element]}, which is not read"
    assert found.metadata == {"n": "text", "a": words}


def test_text_that_flax_saved(tmp_path):
    tree = {"w": np.ones(2, np.float32), "words": np.array(["ab", "c"])}
    found = load(write(tmp_path / "x", flax.serialization.msgpack_serialize(tree)))
    assert found["w"].read().tolist() == [1, 1]
    assert found.metadata == {"words": "an array of text, which is not read"}


BUDGETS = {
    "tensors": (2, {"a": 1, "b": 2, "c": 3}),
    "nesting": (2, {"a": {"b": {"c": 1}}}),
    "header_bytes": (4, {"a": 1.0}),
    "index_bytes": (5, {"abc": 1, "def": 2}),
}


@pytest.mark.parametrize("limit", BUDGETS)
def test_over_the_budget_until_it_is_raised_as_the_message_says(tmp_path, limit):
    allowed, tree = BUDGETS[limit]
    path = write(tmp_path / "x", msgpack.packb(tree))
    with pytest.raises(errors.BudgetError, match=f"over the budget of {allowed}") as caught:
        load(path, budget=Budget(**{limit: allowed}))
    asked = int(re.search(rf"Budget\({limit}=(\d+)\)", str(caught.value))[1])
    assert len(load(path, budget=Budget(**{limit: 2 * asked}))) == len(tree)


VALID = flax.serialization.msgpack_serialize(
    {"a": {"b": ramp((2, 2), "float32")}, "c": [1.5, "t", None], "d": 1j}
)


def loads_or_is_refused(path):
    with suppress(CheckpointError):
        load(path).read()


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_loads_or_is_a_checkpoint_error(tmp_path, bit):
    for place in range(len(VALID)):
        damaged = bytearray(VALID)
        damaged[place] ^= 1 << bit
        loads_or_is_refused(write(tmp_path / "x", bytes(damaged)))


def test_any_truncation_is_a_checkpoint_error(tmp_path):
    for size in range(len(VALID)):
        with pytest.raises(CheckpointError):
            load(write(tmp_path / "x", VALID[:size]))


LEAVES = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans() | st.binary(max_size=9)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(tree=st.dictionaries(st.text("abc", min_size=1, max_size=3), TREES, max_size=4))
def test_law_values_are_those_that_msgpack_unpacks(tmp_path_factory, tree):
    path = write(tmp_path_factory.getbasetemp() / "law", msgpack.packb(tree))
    expected = [*leaves(msgpack.unpackb(path.read_bytes(), strict_map_key=False))]
    with suppress(errors.HeaderError):  # names that join to one
        found = [handle.read() for handle in load(path).values()]
        assert len(found) == len(expected)
        assert all(bits(a) == bits(b) for a, b in zip(found, expected, strict=True))


def leaves(value):
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)


def bits(array):
    return array.shape, array.dtype, array.tobytes()


def test_window_of_the_scanner_may_end_anywhere(tmp_path):
    """Arrays and texts of sizes around that of the stretches that are read at once."""
    for size in (16_370, 16_383, 16_384, 40_000):
        tree = {"x" * 3_000: 1.5, "t": "y" * size, "a": ramp((size,), "int8"), "b": 2}
        found = load(write(tmp_path / "x", flax.serialization.msgpack_serialize(tree)))
        assert found.metadata == {"t": "y" * size}
        assert same(found["a"].read(), tree["a"])
        assert (found["b"].read(), found["x" * 3_000].read()) == (2, 1.5)
