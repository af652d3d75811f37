"""Hostile pickles: each is refused, nothing runs, nothing is spent."""

from __future__ import annotations

import struct

import pytest
from harness import accepted
from pickles import Raw, call, code, mapping, name, op, persistent, pickled, stack_name, text
from torch_attacks import CALLS, DATA, MARKER, TOUCH, W, says
from torch_files import hooks, legacy_bytes, legacy_storage, tar_bytes, tensor, torch_tar, torch_zip

import loaders
from loaders.errors import BudgetError, PickleError, UnsafeGlobalError

P, X, B = PickleError, UnsafeGlobalError, BudgetError


@pytest.fixture
def good(tmp_path):
    return torch_zip(tmp_path / "good.pt", {"w": W}, DATA)


def beside(attack):
    """A state dict that is good but for one more entry."""
    return {"w": W, "x": attack}


SYSTEM = name("os", "system")
ATTACKS = {
    "REDUCE": (call("os.system", TOUCH), X, r"os\.system.*x"),
    "REDUCE of posix": (call("posix.system", TOUCH), X, r"posix\.system"),
    "REDUCE of eval": (call("builtins.eval", "1"), X, r"builtins\.eval"),
    "REDUCE of Python 2's eval": (call("__builtin__.eval", "1"), X, r"eval"),
    "REDUCE of exec": (call("builtins.exec", ""), X, r"builtins\.exec"),
    "REDUCE of getattr": (call("builtins.getattr", name("os", "x"), "system"), X, "getattr"),
    "REDUCE of __import__": (call("builtins.__import__", "this"), X, "__import__"),
    "REDUCE of numpy.load": (call("numpy.load", "x.npy"), X, r"numpy\.load"),
    "REDUCE of torch.load": (call("torch.load", "x.pt"), X, r"torch\.load"),
    "REDUCE of runpy": (call("runpy._run_code", "1"), X, r"runpy\._run_code"),
    "REDUCE of a dotted name": (
        call(stack_name("collections", "_sys.modules"), "x"),
        X,
        r"collections\._sys\.modules",
    ),
    "REDUCE of a name like a good one": (call("collections.OrderedDict2"), X, "OrderedDict2"),
    "REDUCE of a name of another case": (call("Collections.OrderedDict"), X, "Collections"),
    "REDUCE of a module with a tail": (call("torch._utils .os"), X, "torch._utils .os"),
    "REDUCE of what a REDUCE made": (
        Raw(call("os.system", TOUCH) + code(()) + b"R"),
        X,
        r"os\.system",
    ),
    "REDUCE of a number": (Raw(code(1) + code(()) + b"R"), P, "REDUCE"),
    "REDUCE with a list": (Raw(SYSTEM + code([TOUCH]) + b"R"), P, "REDUCE"),
    "INST": (op(b"(", code(TOUCH), b"ios\nsystem\n"), X, r"os\.system"),
    "OBJ": (op(b"(", SYSTEM, code(TOUCH), b"o"), X, r"os\.system"),
    "NEWOBJ_EX": (op(SYSTEM, code((TOUCH,)), b"}", b"\x92"), X, r"os\.system"),
    "EXT1": (op(b"\x82\x01"), P, "EXT1"),
    "EXT2": (op(b"\x83\x01\x00"), P, "EXT2"),
    "EXT4": (op(b"\x84\x01\x00\x00\x00"), P, "EXT4"),
    "STACK_GLOBAL out of the memo": (
        op(text("os"), b"q\x00", b"0", text("system"), b"q\x01", b"0h\x00h\x01\x93")
        + code((TOUCH,))
        + b"R",
        X,
        r"os\.system",
    ),
    "STACK_GLOBAL of numbers": (op(code(1), code(2), b"\x93"), P, "STACK_GLOBAL"),
    "STACK_GLOBAL of bytes": (op(code(b"os"), code(b"system"), b"\x93"), P, "STACK_GLOBAL"),
    "a callable that hides in a tuple": (((call("os.system", TOUCH),),), X, r"os\.system"),
    "a callable that is popped": (op(call("os.system", TOUCH), b"0", code(1)), X, r"os\.system"),
    "a callable behind a rebuild": (
        call("torch._utils._rebuild_parameter", call("os.system", TOUCH), False, hooks()),
        X,
        r"os\.system",
    ),
    "a subclass that rebuilds by another function": (
        call("torch._tensor._rebuild_from_type_v2", SYSTEM, SYSTEM, (TOUCH,), {}),
        X,
        r"os\.system",
    ),
    "copyreg makes another class": (
        call("copyreg._reconstructor", SYSTEM, name("os", "x"), TOUCH),
        X,
        r"os\.",
    ),
    "BUILD on a name": (op(name("torch", "load"), code({"__code__": 1}), b"b"), P, "BUILD"),
    "SETITEM on a name": (op(name("os", "environ"), code("k"), code("v"), b"s"), P, "SETITEM"),
    "APPEND on a name": (op(name("sys", "path"), code("k"), b"a"), P, "APPEND"),
    "SETITEM on a list": (op(b"]", code(2**31), code(1), b"s"), P, "SETITEM"),
    "APPEND on a text": (op(code("t"), code(1), b"a"), P, "APPEND"),
    "PERSID of text": (op(b"P0\n"), P, "PERSID"),
    "NEXT_BUFFER": (op(b"\x97"), P, "NEXT_BUFFER"),
    "READONLY_BUFFER": (op(code(b"x"), b"\x98"), P, "READONLY_BUFFER"),
    "an opcode that there is not": (op(b"\xff"), P, r"at byte \d+"),
    "a bytearray of 2 GiB": (call("builtins.bytearray", 2**31), None, ""),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_call(good, tmp_path, case):
    attack, error, match = ATTACKS[case]
    bad = torch_zip(
        tmp_path / "bad.pt", beside(Raw(attack) if type(attack) is bytes else attack), DATA
    )
    if error is None:  # it may stay in the file, where it is harmless
        accepted(good, bad)
    else:
        says(good, bad, error, match)
    assert not (tmp_path / MARKER).exists()


def in_every_file(pickle):
    """Files of every kind of which `pickle` is the one that matters."""
    return {
        "legacy": legacy_bytes(pickle),
        "tar": tar_bytes(torch_tar(pickle, [(7, 3, *FLAT)], [(3, "FloatStorage", 6, bytes(24))])),
        "pickle": pickle,
        "garbage after": pickle + b"\0 what no pickle holds \xff" * 9 + b".",
    }


LEGACY = legacy_storage("FloatStorage", "0", 6)
NESTED = legacy_bytes(LEGACY, [("0", 6, bytes(24))])
FLAT = ("FloatTensor", (6,), (1,), 0)
HARMLESS = {
    "legacy": legacy_bytes({"w": tensor(LEGACY)}, [("0", 6, bytes(24))]),
    "tar": in_every_file(pickled({"w": persistent(7)}))["tar"],
    "pickle": pickled({"w": tensor(call("torch.storage._load_from_bytes", NESTED))}),
}
HARMLESS["garbage after"] = HARMLESS["pickle"]


@pytest.mark.parametrize("protocol", CALLS)
@pytest.mark.parametrize("kind", HARMLESS)
def test_call_in_every_file(tmp_path, kind, protocol):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(HARMLESS[kind])
    bad.write_bytes(in_every_file(CALLS[protocol])[kind])
    says(good, bad, X, r"os\.system")


@pytest.mark.parametrize("protocol", CALLS)
def test_call_in_a_zip(good, tmp_path, protocol):
    says(good, torch_zip(tmp_path / "bad.pt", CALLS[protocol], DATA), X, r"os\.system")


def test_an_unknown_call_on_request(good, tmp_path):
    """`inert` keeps it as an object; a tensor that it would make is no tensor."""
    path = torch_zip(tmp_path / "x.pt", beside(call("a.b", 1)), DATA)
    says(good, path, X, r"a\.b")
    accepted(good, path, inert=True)
    assert list(loaders.load(path, inert=True)) == ["w"]
    made = tensor(call("a.b", 1))
    bad = torch_zip(tmp_path / "bad.pt", {"w": W, "v": made}, DATA)
    says(good, bad, P, "v", inert=True)


# Sizes and structures.


def deep(depth, opcode=b"\x85"):
    return op(b")", opcode * depth)


def dag(levels):
    """A tuple of a tuple twice, and so on: 2^levels paths through it."""
    return op(b")", b"2\x86" * levels)


HUGE = {
    "memo index of 2^31": (op(code(1), b"r\xff\xff\xff\x7f"), P, "memo"),
    "memo index of text": (op(code(1), b"p99999999999999999999\n"), P, "memo"),
    "memo that is not there": (op(b"j\xff\xff\xff\x7f"), P, "memo"),
    "LONG4 of 2 GiB": (op(b"\x8b\xff\xff\xff\x7f"), P, r"at byte \d+"),
    "LONG4 of 1 MiB": (op(b"\x8b\0\0\x10\0", b"\x01" * (1 << 20)), P, "LONG4"),
    "LONG4 of a negative size": (op(b"\x8b\xff\xff\xff\xff"), P, r"at byte \d+"),
    "LONG1 of 255 bytes": (op(b"\x8a\xff", b"\x01" * 255), None, ""),
    "LONG1 beyond the end": (op(b"\x8a\xff", b"\x01" * 9), P, "LONG1"),
    "INT of a million digits": (op(b"I", b"9" * 10**6, b"\n"), P, r"at byte \d+"),
    "LONG of a million digits": (op(b"L", b"9" * 10**6, b"L\n"), P, r"at byte \d+"),
    "FLOAT of a million digits": (op(b"F", b"9" * 10**6, b"\n"), P, r"at byte \d+"),
    "INT of no digits": (op(b"Ix\n"), P, r"at byte \d+"),
    "INT with underscores": (op(b"I1_0\n"), P, r"at byte \d+"),
    "FLOAT of no digits": (op(b"Fx\n"), P, r"at byte \d+"),
    "STRING without quotes": (op(b"Sx\n"), P, r"at byte \d+"),
    "STRING with a bad escape": (op(b"S'\\xq'\n"), P, r"at byte \d+"),
    "UNICODE with a bad escape": (op(b"V\\uqqqq\n"), P, r"at byte \d+"),
    "a surrogate alone": (op(b"X\x03\0\0\0\xed\xa0\x80"), None, ""),
    "no UTF-8": (op(b"X\x01\0\0\0\xff"), P, "UTF-8"),
    "BINBYTES8 of 2^62": (op(b"\x8e", struct.pack("<Q", 2**62)), P, r"at byte \d+"),
    "BINUNICODE8 of 2^63": (op(b"\x8d", struct.pack("<Q", 2**63)), P, "not there"),
    "BYTEARRAY8 of 2^64 - 1": (op(b"\x96", struct.pack("<Q", 2**64 - 1)), P, r"at byte \d+"),
    "BINSTRING of a negative size": (op(b"T", struct.pack("<i", -1)), P, "not there"),
    "BINUNICODE beyond the end": (op(b"X\xff\xff\xff\x7f"), P, "not there"),
    "FRAME of 2^40": (op(b"\x95", struct.pack("<Q", 2**40), code(1)), P, "FRAME"),
    "a line without an end": (op(b"cos"), P, r"at byte \d+"),
    "POP of nothing": (op(b"000000000"), P, r"at byte \d+"),
    "MARK alone": (op(b"((((", code(1)), P, r"at byte \d+"),
    "TUPLE without MARK": (op(b"ttt"), P, r"at byte \d+"),
    "SETITEMS of an odd number": (op(b"}(", code(1), b"u"), P, "SETITEMS"),
    "five million tuples": (deep(5_000_000), B, "budget"),
    "300,000 tuples": (deep(300_000), B, "nesting"),
    "140,000 lists": (op(b"]" * 140_000, b"a" * 139_999), B, "nesting"),
    "150 lists": (op(b"]" * 150, b"a" * 149), None, ""),
    "201 marks": (op(b"(" * 201), B, "nesting"),
    "a recursive list": (op(b"]q\x05h\x05a"), None, ""),
    "a recursive dict": (op(b"}q\x05", code("d"), b"h\x05s"), None, ""),
    "2^60 paths": (dag(60), None, ""),
    "2^60 paths as a key": (mapping((dag(60), 1)), None, ""),
    "a tuple of a thousand as a key": (mapping((tuple(range(1000)), 1)), None, ""),
    "a call within a key of 2^60 paths": (
        mapping((op(dag(60), call("a.b"), b"\x86"), 1)),
        X,
        r"a\.b",
    ),
    "a tensor under a key of 2^60 paths": (mapping((dag(60), W)), P, "a tuple|no name"),
    "a list as a key": (mapping(([], 1)), P, "key"),
    "a dict as a key": (mapping(({}, 1)), P, "key"),
    "a huge key": (mapping((op(b"\x8a\x10", b"\x7f" * 16), 1)), None, ""),
}


@pytest.mark.parametrize("case", HUGE)
def test_size(good, tmp_path, case):
    attack, error, match = HUGE[case]
    bad = torch_zip(tmp_path / "bad.pt", beside(attack), DATA)
    if error is None:
        accepted(good, bad)
        assert "w" in loaders.load(bad)
    else:
        says(good, bad, error, match)


ENDS = {
    "two STOPs": (pickled({"w": W}) + b".", P, r"at byte \d+"),
    "bytes behind STOP": (pickled({"w": W}) + b"\0", P, r"at byte \d+"),
    "two pickles": (pickled({"w": W}) * 2, P, r"at byte \d+"),
    "no STOP": (pickled({"w": W})[:-1], P, r"at byte \d+"),
    "nothing": (b"", P, r"at byte \d+"),
    "PROTO alone": (b"\x80\x02", P, r"at byte \d+"),
    "STOP alone": (b"\x80\x02.", P, r"at byte \d+"),
    "two objects": (b"\x80\x02NN.", P, r"at byte \d+"),
    "protocol 6": (b"\x80\x06N.", P, "protocol"),
    "PROTO later": (b"\x80\x02N0\x80\x02N.", None, ""),
    "malware, then garbage": (
        b"\x80\x02cos\nsystem\n" + code((TOUCH,)) + b"R" + b"\xff garbage",
        X,
        r"os\.system",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_end(good, tmp_path, case):
    pickle, error, match = ENDS[case]
    bad = torch_zip(tmp_path / "bad.pt", pickle, DATA)
    says(good, bad, error or P, match)
