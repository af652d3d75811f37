"""Malformed safetensors files: each has its own error, and chance finds no other."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from files import ELEMENTS, encoded, framed, python, random_array, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_safetensors import same

import loaders
from loaders import errors
from wwfunc.errors import CheckpointError


def one(dtype='"F32"', shape="[2]", offsets="[0, 8]", data=bytes(8), more=""):
    entry = f'"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}'
    return framed(f'{{"a": {{{entry}}}{more}}}'.encode(), data)


def spans(size=8, **tensors):
    """U8 tensors from their start to their end, over `size` bytes of data."""
    header = {
        name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        for name, (start, end) in tensors.items()
    }
    return framed(header, bytes(size))


B, T, H = errors.BudgetError, errors.TruncatedError, errors.HeaderError
L, E = errors.LayoutError, errors.ElementTypeError
MALFORMED = {
    "length 2^63": (framed(b"{}", length=2**63), B, "9,223,372,036,854,775,808 header bytes"),
    "length over that of the format": (
        framed(b"{}", length=100_000_001),
        B,
        "header_bytes=1000000",
    ),
    "length over the file": (framed(b"{}", length=3), T, "claims 3 bytes, the file has 10"),
    "length 0": (bytes(8), H, "not valid JSON"),
    "no file at all": (b"", T, "0 bytes are too few"),
    "half a length": (b"\x02\0\0\0\0\0\0", T, "7 bytes are too few"),
    "overlap": (spans(a=[0, 5], b=[4, 8]), L, "'b' overlaps the one before, at byte 13"),
    "same place twice": (spans(a=[0, 8], b=[0, 8]), L, "'b' overlaps"),
    "hole": (spans(a=[0, 3], b=[4, 8]), L, "'b' leaves a hole before it"),
    "hole at the start": (spans(a=[1, 4], b=[4, 8]), L, "'a' leaves a hole"),
    "missing byte": (spans(7, a=[0, 4], b=[4, 8]), T, "'b' ends at byte 1.., the file at 1.."),
    "trailing byte": (spans(9, a=[0, 4], b=[4, 8]), L, "1 bytes follow the last tensor"),
    "data of no tensor": (framed(b"{}", b"\0"), L, "1 bytes follow"),
    "negative offset": (one(offsets="[-8, 0]"), H, r"'a': data_offsets \[-8, 0\] is not a list"),
    "float offset": (one(offsets="[0.0, 8]"), H, r"'a': data_offsets \[0.0, 8\] is not"),
    "bool offset": (one(offsets="[false, 8]"), H, r"'a': data_offsets \[False, 8\] is not"),
    "text offset": (one(offsets='["0", 8]'), H, r"'a': data_offsets \['0', 8\] is not"),
    "NaN offset": (one(offsets="[NaN, 8]"), H, "NaN is no JSON number"),
    "infinite offset": (one(offsets="[0, -Infinity]"), H, "-Infinity is no JSON number"),
    "offset over 2^63": (one(offsets=f"[0, {2**63}]"), H, "'a': data_offsets .* is not a list"),
    "offsets of 4300 digits": (one('"U8"', "[0]", f"[{'9' * 4300}, {'9' * 4300}]"), H, "'a'.* not"),
    "integer of 5000 digits": (one(offsets=f"[0, {'1' * 5000}]"), H, "not valid JSON: Exceeds"),
    "offsets reversed": (one(offsets="[8, 0]"), L, r"'a': data_offsets \[8, 0\] are not a start"),
    "one offset": (one(offsets="[0]"), L, r"'a': data_offsets \[0\] are not"),
    "three offsets": (one(offsets="[0, 4, 8]"), L, r"'a': data_offsets \[0, 4, 8\] are not"),
    "offsets null": (one(offsets="null"), H, "'a': data_offsets None is not a list"),
    "wrong size": (one(shape="[3]"), L, r"'a': F32 of shape \[3\] does not take 8 bytes"),
    "half a byte": (one('"F4"', "[15]"), L, r"'a': F4 of shape \[15\] does not take 8"),
    "shape overflow": (one(shape=f"[{2**40}, {2**40}]"), L, "'a': shape .* overflows"),
    "overflow of nothing": (
        one(shape=f"[0, {2**62}, {2**62}]", offsets="[0, 0]", data=b""),
        L,
        "'a': shape .* overflows",
    ),
    "33 dimensions": (one(shape=f"[{'1, ' * 32}2]"), L, "'a': a shape of 33 dimensions"),
    "negative shape": (one(shape="[-2]"), H, r"'a': shape \[-2\] is not a list of natural"),
    "shape no list": (one(shape="2"), H, "'a': shape 2 is not a list"),
    "shape an object": (one(shape='{"0": 2}'), H, "'a': shape {'0': 2} is not a list"),
    "duplicate name": (one(more=', "a": {}'), H, "the name 'a' stands twice"),
    "duplicate key": (one(more=', "b": {"dtype": "U8", "dtype": "U8"}'), H, "'dtype' stands twice"),
    "deep nesting": (framed(b'{"a":' + b"[" * 100_000), H, "nested too deep"),
    "BOM": (framed(b"\xef\xbb\xbf{}"), H, "not valid JSON: Unexpected UTF-8 BOM"),
    "bad UTF-8": (framed(b'{"\xff": {}}'), H, "not valid JSON: 'utf-8' codec can't decode"),
    "raw surrogate": (framed(b'{"\xed\xa0\x80": {}}'), H, "'utf-8' codec can't decode"),
    "escaped lone surrogate": (framed(b'{"\\ud800": {}}'), H, "surrogates not allowed"),
    "UTF-16": (framed("{}".encode("utf-16-le")), H, "not valid JSON"),
    "NUL padding": (framed(b"{}\0\0"), H, "not valid JSON: Extra data"),
    "array": (framed(b"[]"), H, "expected a JSON object, found list"),
    "null": (framed(b"null"), H, "expected a JSON object, found NoneType"),
    "half an object": (framed(b'{"a": '), H, "not valid JSON: Expecting value"),
    "unknown element type": (one('"F31"'), E, "'a' has the unknown element type 'F31'"),
    "element type no text": (one('["F32"]'), E, r"'a' has the unknown element type \['F32'\]"),
    "no packing": (one('"F6_E2M3"', "[8]", "[0, 6]"), E, "'a': F6_E2M3 has no defined packing"),
    "entry no object": (framed({"a": [0, 8]}), H, "'a' lacks dtype, shape or data_offsets"),
    "name of a million": (framed({"x" * 1_000_000: 0}), H, r"tensor 'xxx.*\.\.\..*xxx' lacks"),
    "entry without shape": (framed({"a": {"dtype": "U8", "data_offsets": [0, 0]}}), H, "'a' lacks"),
    "metadata no text": (framed({"__metadata__": {"a": 1}}), H, "__metadata__ is not a mapping"),
    "metadata no object": (framed({"__metadata__": "a"}), H, "__metadata__ is not a mapping"),
}


@pytest.mark.parametrize(("content", "error", "match"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(tmp_path, content, error, match):
    path = write(tmp_path / "x.safetensors", content)
    with pytest.raises(error, match=f"^{re.escape(str(path))}: .*{match}") as caught:
        loaders.load_safetensors(path)
    assert caught.type is error
    assert len(str(caught.value)) < len(str(path)) + 400


BUDGETS = [
    ("header_bytes", 20, framed(b" " * 19 + b"{}")),
    ("tensors", 1, spans(a=[0, 4], b=[4, 8])),
]


@pytest.mark.parametrize(("limit", "allowed", "content"), BUDGETS)
def test_over_the_budget_until_it_is_raised_as_the_message_says(tmp_path, limit, allowed, content):
    path = write(tmp_path / "x", content)
    with pytest.raises(errors.BudgetError, match=f"over the budget of {allowed}") as caught:
        loaders.load(path, budget=loaders.Budget(**{limit: allowed}))
    asked = re.search(rf"Budget\({limit}=(\d+)\)", str(caught.value))
    loaders.load(path, budget=loaders.Budget(**{limit: int(asked[1])}))


MANY_NAMES = b'{"x":0,' + b",".join(b'"%d":0' % i for i in range(150_000)) + b',"149999":0}'
MANY_SIDES = one('"U8"', f"[{'9223372036854775807, ' * 100_000}1]")
HEAVY = [(framed(MANY_NAMES), "'149999' stands twice"), (MANY_SIDES, "100001 dimensions")]


@pytest.mark.parametrize(("content", "match"), HEAVY, ids=["names", "sides"])
def test_heavy_header_is_refused_at_once(tmp_path, content, match):
    path = write(tmp_path / "x", content)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match):
        loaders.load(path)
    assert time.process_time() - start < 2.0


def test_whitespace_around_the_header(tmp_path):
    content = framed(b" \t\r\n" + one()[8:-8] + b" \n", bytes(8))
    assert loaders.load(write(tmp_path / "x", content))["a"].shape == (2,)


def test_empty_tensors_share_a_place_with_others(tmp_path):
    found = loaders.load(write(tmp_path / "x", spans(full=[0, 8], late=[8, 8], early=[0, 0])))
    shapes = {name: handle.read().shape for name, handle in found.items()}
    assert shapes == {"full": (8,), "late": (0,), "early": (0,)}


def test_unknown_fields_are_ignored(tmp_path):
    content = one(offsets='[0, 8], "note": [1.5, null]')
    assert loaders.load(write(tmp_path / "x", content))["a"].shape == (2,)


OPENED = """
import sys, loaders
loaders.load(sys.argv[1]).read()  # imports what reads this format
opened = []
sys.addaudithook(lambda event, of: opened.append(of[0]) if event == "open" else None)
print(sorted(loaders.load(sys.argv[1]).read()))
print({str(path) for path in opened})
"""


def test_a_name_is_only_a_name(tmp_path):
    names = ["", "../../x", "/etc/passwd", "a\0b", "__metadata"]
    arrays = {name: random_array("U8", (2,)) for name in names}
    path = write(tmp_path / "x", arrays)
    assert python("-c", OPENED, path) == f"{sorted(names)}\n{ {str(path)} }\n"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("laws") / "x"


LAW = settings(max_examples=200, deadline=None)
NAMES = st.text(max_size=8).filter(lambda name: name != "__metadata__")
TENSORS = st.tuples(
    st.sampled_from(list(ELEMENTS)),
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(0, 99),
)


@LAW
@given(drawn=st.dictionaries(NAMES, TENSORS, max_size=6), pad=st.integers(0, 300))
def test_law_whatever_is_written_is_read(scratch, drawn, pad):
    arrays = {
        name: random_array(element, (*shape, 2) if element == "F4" else shape, seed)
        for name, (element, shape, seed) in drawn.items()
    }
    found = loaders.load(write(scratch, encoded(arrays, {"pad": str(pad)}, pad)))
    assert list(found) == list(arrays)
    assert all(same(found[name].read(), arrays[name]) for name in arrays)


VALID = encoded({"a": random_array("F32", (2,)), "b": random_array("F4", (4,))}, {"k": "v"})


def loads_or_is_refused(path):
    with suppress(CheckpointError):
        loaders.load(path).read()


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_loads_or_is_a_checkpoint_error(scratch, bit):
    for place in range(len(VALID)):
        damaged = bytearray(VALID)
        damaged[place] ^= 1 << bit
        loads_or_is_refused(write(scratch, bytes(damaged)))


def test_any_truncation_is_a_checkpoint_error(scratch):
    for size in range(len(VALID)):
        with pytest.raises(CheckpointError):
            loaders.load(write(scratch, VALID[:size]))


@LAW
@given(place=st.integers(0, len(VALID) - 1), octet=st.integers(0, 255))
def test_law_any_other_byte_loads_or_is_a_checkpoint_error(scratch, place, octet):
    loads_or_is_refused(write(scratch, VALID[:place] + bytes([octet]) + VALID[place + 1 :]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELD = JSON | st.sampled_from(["F32", "U8", "F4", [0], [4], [0, 4], [4, 4], [2**62, 0], []])


@LAW
@given(entry=st.fixed_dictionaries(dict.fromkeys(("dtype", "shape", "data_offsets"), FIELD)))
def test_law_any_json_loads_or_is_a_checkpoint_error(scratch, entry):
    loads_or_is_refused(write(scratch, framed({"a": entry}, bytes(4))))
