"""The pickle machine against Python's own pickler, and what it does where Python would run code."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import math
import pickle
import pickletools
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickles import call, code, mapping, name, new, op, persistent, pickled

from loaders import Budget
from loaders.errors import BudgetError, PickleError, UnsafeGlobalError
from loaders.pickles.byte_strings import bytes_of
from loaders.pickles.machine import PickleMachine
from loaders.pickles.nodes import Blob, Global, Instance, Persistent, TupleKey
from wwfunc.errors import CheckpointError

HERE = Path("x.pt")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def machine(**options):
    budget = Budget(**{k: v for k, v in options.items() if k in Budget.__dataclass_fields__})
    rest = {k: v for k, v in options.items() if k not in Budget.__dataclass_fields__}
    return PickleMachine(HERE, budget, **rest)


def read(content, **options):
    return machine(**options).load_whole(content)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**127), 2**127 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS), terse=st.booleans())
def test_law_plain_values_are_those_that_python_reads(value, protocol, terse):
    content = pickle.dumps(value, protocol)
    found = read(pickletools.optimize(content) if terse else content)
    assert found == value
    assert repr(found) == repr(value)  # 1 is not True


@settings(max_examples=60, deadline=None)
@given(value=st.binary(max_size=600), protocol=st.sampled_from(PROTOCOLS))
def test_law_bytes(value, protocol):
    """Long ones stay where they are; protocols 0 to 2 write a call."""
    content = pickle.dumps([value], protocol)
    (found,) = read(content)
    octets = bytes_of(found)
    if isinstance(octets, Blob):
        octets = content[octets.start : octets.start + octets.nbytes]
    assert octets == value
    assert type(found) is not bytes or len(found) <= 256


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_object_in_two_places_stays_one(protocol):
    shared = [1]
    found = read(pickle.dumps({"a": shared, "b": (shared,)}, protocol))
    assert found["a"] is found["b"][0]
    circle = []
    circle.append(circle)
    found = read(pickle.dumps(circle, protocol))
    assert found[0] is found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nan(protocol):
    assert math.isnan(read(pickle.dumps(float("nan"), protocol)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dict(protocol):
    """Protocols 0 and 1 give the pairs as an argument in no version of Python 3."""
    found = read(pickle.dumps(collections.OrderedDict(a=1, b=2), protocol))
    assert type(found) is Instance
    assert found.function == Global("collections", "OrderedDict")
    assert found.entries == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [set, frozenset])
def test_sets(protocol, kind):
    found = read(pickle.dumps(kind([1]), protocol))
    assert found.function == ("builtins", kind.__name__)
    assert (found.items or found.args[0]) == [1]


HARMLESS = [
    datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    argparse.Namespace(a=1),
    Path("a/b"),
    complex(1, 2),
    slice(1, 2),
    range(3),
    bytearray(b"ab"),
    collections.defaultdict(list, a=1),
    collections.Counter("aab"),
    collections.deque([1]),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
def test_harmless_objects_are_nodes(value, protocol):
    found = read(pickle.dumps([value], protocol))[0]
    assert type(found) in (Instance, bytes)


class Strange:
    def __init__(self):
        self.a, self.b = 1, [2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_object_of_an_unknown_class(protocol):
    found = read(pickle.dumps(Strange(), protocol))
    assert (found.function.name, found.called) == ("Strange", False)
    assert found.state == {"a": 1, "b": [2]}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unknown_call_is_refused_with_its_place(protocol):
    tree = {"callbacks": [{"fn": functools.partial(print, 1)}]}
    content = pickle.dumps(tree, protocol)
    with pytest.raises(
        UnsafeGlobalError, match=r"^x\.pt: .* 'functools\.partial', for 'callbacks\.0\.fn'"
    ):
        read(content)
    node = read(content, inert=True)["callbacks"][0]["fn"]
    assert (str(node.function), node.called) == ("functools.partial", True)


def test_place_of_a_call_within_an_object():
    tree = {"m": new("a.B", state={"x": [call("os.system", "x")]})}
    with pytest.raises(UnsafeGlobalError, match=r"'os\.system', for 'm\.x\.0', at byte \d+;"):
        read(pickled(tree))


def test_call_that_is_thrown_away_is_refused():
    content = pickled(op(call("os.system", "x"), b"0", code(1)))
    with pytest.raises(UnsafeGlobalError, match=r"'os\.system', at byte \d+;"):
        read(content)
    assert read(content, inert=True) == 1


def test_pickles_in_a_row():
    """One budget for all; each has a memo of its own."""
    parts = [pickle.dumps([n, n], 4) for n in range(4)]
    data, at, found = b"".join(parts), 0, []
    one = machine()
    while at < len(data):
        root, at = one.load(data, at)
        found.append(root)
    assert found == [[n, n] for n in range(4)]
    alone = machine()
    alone.load(parts[0])
    assert one.spent == 4 * alone.spent
    small = machine(opcodes=2 * alone.spent - 1)
    _, at = small.load(data)
    with pytest.raises(BudgetError, match="opcodes"):
        small.load(data, at)


def test_a_part_of_the_data():
    data = b"junk" + pickle.dumps({"a": b"x" * 300}) + b"more"
    root = machine().load_whole(data, 4, len(data) - 4)
    blob = root["a"]
    assert data[blob.start : blob.start + blob.nbytes] == b"x" * 300
    with pytest.raises(PickleError, match="4 bytes after its end"):
        machine().load_whole(data, 4)
    with pytest.raises(PickleError, match="has a frame that ends after the file"):
        machine().load_whole(data, 4, len(data) - 5)
    with pytest.raises(PickleError, match="ends without its last opcode"):
        machine().load_whole(b"]N.", 0, 2)


def test_persistent_ids():
    content = pickled({"a": persistent(("storage", name("torch", "FloatStorage"), "0"))})
    found = read(content)["a"]
    assert type(found) is Persistent
    assert found.pid == ("storage", ("torch", "FloatStorage"), "0")
    assert content[found.at : found.at + 1] == b"Q"
    assert read(content, persistent=lambda pid, at: (pid[2], at))["a"] == ("0", found.at)


PYTHON2 = {
    b"U\x03abc.": "abc",
    b"T\x03\0\0\0abc.": "abc",
    b"U\x02\xc3\xa9.": "é",
    b"U\x01\xff.": b"\xff",
    b"S'a\\'\\x41\\n'\n.": "a'A\n",
    b'S"\\\\"\n.': "\\",
    b"V\\u00e9\n.": "é",
    b"I01\n.": True,
    b"I00\n.": False,
    b"I1\n.": 1,
    b"L-12L\n.": -12,
    b"F1e-07\n.": 1e-07,
    b"(lp1\nI5\na.": [5],
    b"(dp1\nS'k'\nI5\ns.": {"k": 5},
    b"(I1\nI2\nt.": (1, 2),
}


@pytest.mark.parametrize("content", PYTHON2)
def test_what_python_2_wrote(content):
    """Its strings are text where they can be, and bytes where they cannot."""
    assert read(content) == PYTHON2[content]
    assert type(read(content)) is type(PYTHON2[content])


def test_names_of_python_2():
    found = read(b"c__builtin__\nset\n((lI1\natR.")
    assert found.function == ("builtins", "set")
    made = read(b"ccopy_reg\n_reconstructor\n(ca\nB\nc__builtin__\nobject\nNtR.")
    assert (made.function, made.called) == (("a", "B"), False)


KEYS = {
    "tuple": ((1, "a"), TupleKey),
    "number of 16 bytes": (2**120, TupleKey),
    "class": (name("a", "b"), Global),
    "object": (new("a.B"), Instance),
    "None": (None, type(None)),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_of_dicts(case):
    key, kind = KEYS[case]
    (found,) = read(pickled(mapping((key, 1))))
    assert type(found) is kind


def test_the_same_key_twice():
    with pytest.raises(PickleError, match="the same key twice"):
        read(pickled(mapping(("a", 1), ("b", 2), ("a", 3))))
    with pytest.raises(PickleError, match="the same key twice"):
        read(pickled(op(b"}", code("a"), b"Ns", code("a"), b"Ns")))


def test_memo_may_leave_places_out():
    assert read(b"\x80\x02]r\x04\0\0\0j\x04\0\0\0\x86.") == ([], [])
    with pytest.raises(PickleError, match=r"place 1000 of the memo, after too few opcodes"):
        read(b"\x80\x02]r\xe8\x03\0\0.")
    with pytest.raises(PickleError, match="gets place 1 of the memo, which is empty"):
        read(b"\x80\x02]q\x02h\x01\x86.")


def test_budget_until_it_is_raised():
    content = pickle.dumps([{}] * 1000)
    exact = machine()
    exact.load(content)
    assert read(content, opcodes=exact.spent) == [{}] * 1000
    with pytest.raises(BudgetError, match=rf"Budget\(opcodes={exact.spent}\)"):
        read(content, opcodes=exact.spent - 1)


def test_marks_within_marks():
    assert read(b"(" * 200 + b"t" * 200 + b".")
    with pytest.raises(BudgetError, match="nesting"):
        read(b"(" * 201 + b"t" * 201 + b".")


TREE = {
    "state_dict": collections.OrderedDict(a=[1, 2.5], b=("x", None)),
    "c": {1, 2},
    "d": b"x" * 300,
    "e": datetime.date(2024, 1, 2),
    "f": Strange(),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_truncation_is_refused(protocol):
    content = pickle.dumps(TREE, protocol)
    for size in range(len(content)):
        with pytest.raises(CheckpointError):
            read(content[:size])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_read_or_refused(protocol, bit):
    content = pickle.dumps(TREE, protocol)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        reads_or_refuses(bytes(damaged))


@settings(max_examples=500, deadline=None)
@given(content=st.binary(max_size=60))
def test_law_any_bytes_are_read_or_refused(content):
    reads_or_refuses(content)


OPCODES = st.sampled_from(
    [bytes([c]) for c in b"()]}0125aehjlotudsbRQN\x81\x85\x86\x87\x8f\x90\x91\x92\x93\x94i"]
    + [b"K\x01", b"h\x00", b"q\x00", b"X\x01\0\0\0a", b"ccollections\nOrderedDict\n", b"ca\nb\n"]
)


@settings(max_examples=1000, deadline=None)
@given(parts=st.lists(OPCODES, max_size=30))
def test_law_any_opcodes_are_read_or_refused(parts):
    reads_or_refuses(b"\x80\x04" + b"".join(parts) + b".")


def reads_or_refuses(content):
    """Read, or refused with one message of bounded length."""
    with suppress(CheckpointError):
        read(content)
        return
    with pytest.raises(CheckpointError, match=r"\Ax\.pt: [^\n]{1,500}\Z"):
        read(content)
