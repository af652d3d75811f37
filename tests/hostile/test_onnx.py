"""ONNX models from an attacker: each is refused for its own reason, at once."""

from __future__ import annotations

import os

import pytest
from files import python, write
from harness import MEMORY, SECONDS, accepted, refused
from onnx_files import (
    BOOL,
    FLOAT,
    HALF,
    INT8,
    INT64,
    attribute,
    external,
    floats,
    initializer,
    integer,
    message,
    model,
    node,
    small,
    tensor,
    varint,
)

from loaders import errors

B, T, H = errors.BudgetError, errors.TruncatedError, errors.HeaderError
L, E, U = errors.LayoutError, errors.ElementTypeError, errors.UnsupportedError
N = errors.NotReadableError
RAW = message(9, bytes(8))
AFTER = integer(99, 0)
GOOD = initializer("a", (2,), FLOAT, bytes(8))


def one(dims, kind=FLOAT, *fields):
    return model(message(5, tensor("a", dims, kind, None, *fields)))


def outside(location, offset=None, length=None, *more):
    return one((2,), FLOAT, external(location, offset, length, *more))


def nested(depth):
    graph = GOOD
    for _ in range(depth):
        graph = node("If", "", "", attribute("b", message(6, graph)))
    return model(graph)


PLACE = "'a': its external file .* is no plain name"
HOSTILE = {
    "no graph": (integer(1, 9) + message(2, "x"), H, "it has no version or no graph"),
    "graph twice": (small() + message(7, GOOD), H, "the model's field 7 stands twice"),
    "field over the end": (small()[:-1], T, "the field at byte .* ends at"),
    "trailing bytes": (small() + bytes(5), H, "no field has the tag 0, at byte"),
    "length 2^64 - 1": (small() + b"\x3a" + varint(-1), T, "ends at 18446744073709551"),
    "length over 64 bits": (small() + b"\x3a" + b"\xff" * 9 + b"\2", H, "the number .* too large"),
    "varint of 11 bytes": (small() + b"\x08" + b"\x80" * 10 + b"\0", H, "the number .* too large"),
    "varint without end": (small() + b"\x08" + b"\xff" * 5, T, "the field at byte"),
    "tag of 10 bytes": (small() + b"\xfa" + b"\xff" * 8 + b"\1\0", H, "no field has the tag"),
    "group": (small() + b"\x0b\x0c", H, "no field has the tag 11"),
    "wire type 7": (small() + b"\x0f\0", H, "no field has the tag 15"),
    "field over its message": (
        model(b"\x2a\x05ab", more=AFTER),
        H,
        "the field at byte .*, its message at",
    ),
    "tensor over its message": (
        model(message(5, b"\x4a\x7f"), more=AFTER),
        H,
        "the field at byte .*, its message at",
    ),
    "unknown type": (one((2,), 99, RAW), E, "'a' has the unknown element type 99"),
    "no type": (model(message(5, message(8, "a"))), E, "'a' has the unknown element type 0"),
    "negative type": (one((2,), -1, RAW), E, "unknown element type 18446744073709551615"),
    "no name": (model(initializer("", (2,), FLOAT, bytes(8))), H, "initializer .* has no name"),
    "name not UTF-8": (model(message(5, message(8, b"\xff"))), H, "a name at byte .* is not UTF-8"),
    "name a number": (model(message(5, integer(8, 1))), H, "has the field 8 twice, or with wire"),
    "name twice": (one((2,), FLOAT, RAW, message(8, "b")), H, "has the field 8 twice"),
    "two of one name": (model(GOOD, GOOD), H, "two tensors are named 'a'"),
    "dims -1": (one((-1,), FLOAT, RAW), L, r"the dims .* are negative, or over 32: \[-1\]"),
    "dims 2^62": (one((2**62, 2**62), FLOAT, RAW), L, "'a': shape .* overflows"),
    "dims 0 and 2^62": (one((0, 2**62, 2**62)), L, "'a': shape .* overflows"),
    "33 dims": (one((1,) * 33, FLOAT, RAW), L, "the dims .* over 32"),
    "many packed dims": (one((), FLOAT, message(1, b"\1" * 400)), L, "the dims .* are over 32"),
    "packed dims without end": (one((), FLOAT, message(1, b"\xff")), L, "its numbers do not end"),
    "dims of 4 bytes": (one((), FLOAT, b"\x0d" + bytes(4)), H, "dims of wire type 5"),
    "data twice": (one((2,), FLOAT, RAW, RAW), H, "has the field 9 twice"),
    "data in two fields": (one((2,), FLOAT, RAW, message(4, floats(1, 2))), L, "in two places"),
    "data here and there": (one((2,), FLOAT, RAW, external("x")), L, "in two places"),
    "no data": (one((2,)), L, r"'a' of shape \[2\] has no elements in it"),
    "too few bytes": (one((3,), FLOAT, RAW), L, r"float32 of shape \[3\] does not take 8 bytes"),
    "too many bytes": (one((1,), FLOAT, RAW), L, r"float32 of shape \[1\] does not take 8 bytes"),
    "half an element": (one((2,), 21, message(9, bytes(2))), L, "uint4 .* does not take 2 bytes"),
    "floats of another size": (one((3,), FLOAT, message(4, floats(1))), L, "does not take 4 bytes"),
    "not its field": (one((1,), INT64, message(5, b"\1")), L, "'a': int64 elements in field 5"),
    "not packed": (
        one((2,), INT64, integer(7, 1), integer(7, 2)),
        U,
        "elements that are not packed",
    ),
    "2^50 numbers": (
        one((2**50,), INT64, message(7, b"\1" * 99)),
        L,
        "99 bytes are not 1125899906",
    ),
    "a number too many": (
        one((2,), INT64, message(7, b"\1\1\1")),
        L,
        "does not have the 2 elements",
    ),
    "a number too few": (
        one((3,), INT64, message(7, b"\1\x81\1")),
        L,
        "does not have the 3 elements",
    ),
    "a number of 11 bytes": (
        one((2,), INT64, message(7, b"\xff" * 10 + b"\0\0")),
        L,
        "tensor 'a': a number is over 64 bits",
    ),
    "numbers without end": (
        one((1,), INT64, message(7, b"\x81")),
        L,
        "'a': its numbers do not end",
    ),
    "int8 of 128": (one((1,), INT8, message(5, varint(128))), L, "a number that int8 cannot hold"),
    "bool of 2": (one((1,), BOOL, message(5, b"\2")), L, "a number that bool cannot hold"),
    "float16 of 2^16": (one((1,), HALF, message(5, varint(2**16))), L, "float16 cannot hold"),
    "float6 of 64": (one((1,), 27, message(5, b"\x40")), L, "float6_e2m3fn cannot hold"),
    "segment": (one((2,), FLOAT, RAW, message(3, integer(1, 0))), U, "'a' is a segment"),
    "sparse initializer": (model(message(15, message(1, tensor("a")))), U, "is sparse"),
    "sparse attribute": (model(node("C", "", "c", attribute("v", message(22)))), U, "is sparse"),
    "61 graphs deep": (nested(61), H, "over 60 graphs within graphs"),
    "5,000 graphs deep": (nested(5_000), H, "over 60 graphs within graphs"),
    "property twice": (small() + 2 * message(14, message(1, "k")), H, "the property 'k' stands"),
    "many properties": (
        small() + b"".join(message(14, message(1, str(key))) for key in range(5_000)),
        H,
        "there are over 4,096",
    ),
    "too many fields": (model(integer(9, 0) * 750_001), B, "fields are over the budget"),
    "9 MiB of names": (
        model(initializer("a" * (9 << 20), (2,), FLOAT, bytes(8))),
        B,
        "header_bytes",
    ),
    "parent folder": (outside("../x"), U, PLACE),
    "dots": (outside(".."), U, PLACE),
    "dot": (outside("."), U, PLACE),
    "absolute": (outside("/etc/passwd"), U, PLACE),
    "sub-folder": (outside("a/b"), U, PLACE),
    "backslash": (outside("..\\x"), U, PLACE),
    "drive": (outside("C:x"), U, PLACE),
    "NUL": (outside("x\0y"), U, PLACE),
    "no location": (one((2,), FLOAT, integer(14, 1)), U, PLACE),
    "missing": (outside("missing"), N, "its external file 'missing' cannot be read: No such file"),
    "long name": (outside("x" * 5_000), N, "cannot be read: File name too long"),
    "folder": (outside("folder"), U, "'folder' is a link, or no regular file"),
    "FIFO": (outside("fifo"), U, "'fifo' is a link, or no regular file"),
    "offset -1": (outside("x", -1), H, "'a': its external offset is '-1', no natural number"),
    "offset of digits elsewhere": (
        outside("x", "\u0661"),
        H,
        "external offset is .*, no natural number",
    ),
    "offset of 5,000 digits": (outside("x", "1" * 5_000), H, "external offset is '111.*no natural"),
    "offset over the end": (outside("x", 93), T, "'a' ends at byte 101 of 'x', which has 100"),
    "offset 2^62": (outside("x", 2**62), T, "'a' ends at byte 4611686018427387912"),
    "length of another size": (outside("x", 0, 4), H, "takes 8 bytes, its external length is 4"),
    "key twice": (
        outside("x", 0, 8, message(13, message(1, "offset"), message(2, "1"))),
        H,
        "an entry without a key, one twice",
    ),
    "many keys": (
        outside("x", 0, 8, *(message(13, message(1, str(key))) for key in range(20))),
        H,
        "or over 16",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good") / "good.onnx", small())


@pytest.mark.parametrize(("octets", "error", "match"), HOSTILE.values(), ids=HOSTILE)
def test_refused(tmp_path, good, octets, error, match):
    write(tmp_path / "x", bytes(100))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    path = write(tmp_path / "bad.onnx", octets)
    refused(good, path, error, rf"^{path}: .*{match}")


def test_external_place_in_an_inner_graph(tmp_path, good):
    inner = message(5, tensor("a", (2,), FLOAT, None, external("/etc/passwd")))
    octets = model(node("If", "", "", attribute("then", message(6, inner)), name="if"))
    path = write(tmp_path / "bad.onnx", octets)
    refused(good, path, U, f"^{path}: .*{PLACE}")


def test_prefixes_of_many_tensors_are_counted(tmp_path, good):
    graph = b"".join(initializer(str(index), (), INT8, b"\0") for index in range(5_000))
    for _ in range(50):
        graph = node("If", "", "", attribute("b" * 60, message(6, graph)), name="n" * 60)
    refused(good, write(tmp_path / "bad.onnx", model(graph)), B, "header_bytes")


def test_graphs_of_60_levels(tmp_path, good):
    accepted(good, write(tmp_path / "x.onnx", nested(59)))


def test_numbers_that_take_eight_times_their_room(tmp_path, good):
    count = 20 << 20
    path = write(tmp_path / "x.onnx", one((count,), INT64, message(7, b"\1" * count)))
    refused(good, path, B, "bytes of tensors in .* bytes of file are over the budget")


def test_many_scales_of_the_same_codes(tmp_path, good):
    size = 16 << 20
    codes = initializer("q", (4_096, 4_096), INT8, bytes(size))
    scales = [initializer(f"s{i}", (), FLOAT, floats(i)) for i in range(200)]
    nodes = [node("DequantizeLinear", ("q", f"s{i}"), (f"w{i}",)) for i in range(200)]
    path = write(tmp_path / "x.onnx", model(codes, *scales, *nodes))
    refused(good, path, B, "bytes of tensors in .* bytes of file are over the budget")


def test_many_views_of_one_external_file(tmp_path, good):
    write(tmp_path / "x.data", bytes(4 << 20))
    views = [
        message(5, tensor(f"a{i}", (1 << 20,), FLOAT, None, external("x.data", 0, 4 << 20)))
        for i in range(100)
    ]
    path = write(tmp_path / "x.onnx", model(*views))
    refused(good, path, B, "bytes of tensors in .* bytes of file are over the budget")


OPEN = """
import sys, time
sys.path.insert(0, "tests")
import loaders
from harness import _peak
loaders.load(sys.argv[1])
before, start = _peak(), time.process_time()
found = loaders.load(sys.argv[2])
print(len(found), time.process_time() - start, _peak() - before)
"""
SCALE = initializer("s", (), FLOAT, floats(1))
HEAVIEST = {
    "scalars": (b"".join(initializer(str(i), (), INT8, b"\0") for i in range(100_000)), 100_000),
    "weights": (
        b"".join(
            node("Gemm", ("x", str(i))) + initializer(str(i), (1, 1), INT8, b"\0")
            for i in range(68_000)
        ),
        68_000,
    ),
    "constants": (
        b"".join(
            node("Constant", (), (str(i),), message(5, message(5, integer(2, 3), message(9, "\0"))))
            for i in range(74_000)
        ),
        74_000,
    ),
    "codes": (
        SCALE
        + b"".join(
            node("DequantizeLinear", (str(i), "s")) + initializer(str(i), (1, 1), INT8, b"\0")
            for i in range(60_000)
        ),
        60_001,
    ),
    "aliases": (
        SCALE + b"".join(node("Cast", "s", (str(i),)) for i in range(142_000)),
        1,
    ),
    "nodes": (message(1) * 370_000, 0),
    "graphs": (node("", (), (), message(5, message(6))) * 150_000, 0),
    "fields": (integer(9, 0) * 740_000, 0),
}


@pytest.mark.parametrize(("graph", "expected"), HEAVIEST.values(), ids=HEAVIEST)
def test_most_within_the_budget(tmp_path, good, graph, expected):
    path = write(tmp_path / "x.onnx", model(graph))
    count, seconds, growth = python("-c", OPEN, good, path).split()
    assert int(count) == expected
    assert float(seconds) < SECONDS
    assert int(growth) < MEMORY
