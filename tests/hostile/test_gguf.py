"""GGUF files from an attacker: each is refused for its own reason, at once."""

from __future__ import annotations

import struct

import pytest
from files import python, write
from gguf_files import ARRAY, BOOL, F32, I32, TEXT, U32, U64, File, small
from harness import MEMORY, SECONDS, accepted, refused

from loaders import errors

B, T, H = errors.BudgetError, errors.TruncatedError, errors.HeaderError
L, E, U = errors.LayoutError, errors.ElementTypeError, errors.UnsupportedError
HUGE = 2**60
MOST = 2**64 - 1


def aligned(kind, value):
    return small().key("general.alignment", kind, value)


def one(dims, kind=0, offset=0, data=bytes(64)):
    return File(data=data).tensor("a", dims, kind, offset)


def numbers(kind, length):
    return small().array("k", kind, b"", length)


HOSTILE = {
    "version 1": (File(version=1), U, "version 1 of GGUF; 2 and 3 are read"),
    "version 4 in the other order": (File(">", 4), U, "version 67108864 of GGUF"),
    "2^60 tensors": (File(n_tensors=HUGE), B, "1,152,921,504,606,846,976 tensors"),
    "2^60 keys": (File(n_keys=HUGE), H, "1,152,921,504,606,846,976 keys"),
    "a key too few": (File(n_keys=1), T, "within its header"),
    "a tensor too few": (File(n_tensors=1), T, "within its header"),
    "key of 2^63 bytes": (File(keys=[struct.pack("<Q", 2**63)]), B, "header_bytes"),
    "key over the end": (File(keys=[struct.pack("<Q", 999)]), T, "999 bytes at 32"),
    "key not UTF-8": (small().key(b"\xff", U32, 1), H, "a key at byte 24 is not UTF-8"),
    "key twice": (small().key("k", U32, 1).key("k", U32, 2), H, "the key 'k' stands twice"),
    "unknown value": (small().key("k", 13, b""), H, "key 'k' has a value of the unknown type 13"),
    "bool of 2": (small().key("k", BOOL, 2), H, "'k' is neither true nor false but 2"),
    "bools of 2": (small().array("k", BOOL, b"\0\2\1", 3), H, "neither true nor false but 2"),
    "2^50 texts": (numbers(TEXT, 2**50), B, "index_bytes"),
    "texts over the end": (numbers(TEXT, 1000), T, "key 'k' at byte 49 needs"),
    "text over the end": (small().array("k", TEXT, struct.pack("<Q", 2**62), 1), T, "needs 4,611"),
    "2^50 numbers": (
        numbers(F32, 2**50),
        T,
        "key 'k' at byte .* needs 4,503,599,627,370,496 bytes",
    ),
    "2^64 numbers": (numbers(U64, MOST), T, "key 'k' at byte .* needs"),
    "nested arrays": (numbers(ARRAY, 1), H, "key 'k' is an array of arrays"),
    "array of unknown": (numbers(77, 1000), H, "unknown type 77"),
    "alignment 0": (aligned(U32, 0), H, "general.alignment is 0, which is no power of two"),
    "alignment 3": (aligned(U32, 3), H, "general.alignment is 3"),
    "alignment -32": (aligned(I32, -32), H, "general.alignment is -32"),
    "alignment a text": (aligned(TEXT, "32"), H, "general.alignment is '32'"),
    "alignment true": (aligned(BOOL, 1), H, "general.alignment is True"),
    "alignment 2^31": (aligned(U32, 2**31), T, "'a' ends at byte 2147483664"),
    "offset over the end": (one((2,), offset=64), T, "'a' ends at byte 136, the file at 128"),
    "offset 2^64 - 32": (one((2,), offset=2**64 - 32), T, "'a' ends at byte 18446744073709551656"),
    "offset not aligned": (
        one((2,), offset=4),
        L,
        "'a' .* offset 4, which must be a multiple of 32",
    ),
    "dims 2^62": (one((2**62, 2**62)), L, "'a': shape .* overflows"),
    "dims 0 and 2^62": (one((0, 2**62, 2**62)), L, "'a': shape .* overflows"),
    "dims 2^64": (one((MOST,)), L, "'a' has the shape .18446744073709551615."),
    "5 dims": (one((1, 1, 1, 1, 1)), L, "'a' .* has 5 dimensions"),
    "2^32 dims": (File(infos=[struct.pack("<QBI", 1, 97, MOST >> 32)]), L, "4294967295 dimensions"),
    "unknown type": (one((2,), kind=99), E, "'a' has the element type 99: unknown"),
    "removed type": (
        one((32,), kind=4),
        E,
        "'a' has the element type 4: one that ggml has removed",
    ),
    "type of results": (one((256,), kind=15), E, "Q8_K, which holds results"),
    "Q4_K of 255": (one((255,), kind=12), L, "'a': rows of 255 elements are no whole Q4_K blocks"),
    "Q4_0 of rows of 16": (one((16, 2), kind=2), L, "'a': rows of 16 elements"),
    "Q4_0 without rows": (one((), kind=2), L, "'a': rows of 1 elements"),
    "Q8_0 over the end": (one((64,), kind=8), T, "'a' ends at byte 132, the file at 128"),
    "big-endian Q8_0": (File(">", data=bytes(64)).tensor("a", (32,), 8), U, "'a' is Q8_0 in a big"),
    "name twice": (small().tensor("a", (2,)), H, "two tensors are named 'a'"),
    "name not UTF-8": (File(data=bytes(4)).tensor(b"\xed\xa0\x80", (1,)), H, "name at byte 24 is"),
    "same place": (small().tensor("b", (1,)), L, "two tensors overlap at byte"),
    "overlap": (
        File(data=bytes(128)).tensor("a", (16,)).tensor("b", (4,), 0, 32),
        L,
        "two tensors overlap at byte 128",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good") / "good.gguf", small().encoded())


@pytest.mark.parametrize(("file", "error", "match"), HOSTILE.values(), ids=HOSTILE)
def test_refused(tmp_path, good, file, error, match):
    path = write(tmp_path / "bad.gguf", file.encoded())
    refused(good, path, error, rf"^{path}: .*{match}")


def sparse(path, start, size):
    """A file of `size` bytes that starts with `start` and is zero from there."""
    path.write_bytes(start)
    with open(path, "r+b") as file:
        file.truncate(size)
    return path


def test_texts_without_end_in_a_large_file(tmp_path, good):
    start = small().array("k", TEXT, b"", 2**40).encoded()
    refused(good, sparse(tmp_path / "bad.gguf", start, 2**41), B, "index_bytes")


def test_long_texts_in_a_large_file(tmp_path, good):
    file = small().array("k", TEXT, struct.pack("<Q", 2**35), 3)
    refused(good, sparse(tmp_path / "bad.gguf", file.encoded(), 2**40), B, "index_bytes")


def test_long_name_in_a_large_file(tmp_path, good):
    file = File(infos=[struct.pack("<Q", 2**35)])
    refused(good, sparse(tmp_path / "bad.gguf", file.encoded(), 2**40), B, "header_bytes")


def test_shrunk_file(tmp_path, good):
    path = write(tmp_path / "bad.gguf", small().encoded()[:-1])
    refused(good, path, T, "'a' ends at byte 112, the file at 111")


def test_names_are_only_names(tmp_path, good):
    file = File(data=bytes(32)).tensor("../../etc/passwd", (1,)).tensor("", (0,))
    accepted(good, write(tmp_path / "x.gguf", file.encoded()))


def test_most_texts_within_the_budget(tmp_path, good):
    count = (16 << 20) // 8
    accepted(
        good, write(tmp_path / "x", small().array("k", TEXT, bytes(8 * count), count).encoded())
    )


OPEN = """
import sys, time
sys.path.insert(0, "tests")
import loaders
from harness import _peak
loaders.load(sys.argv[1])
before, start = _peak(), time.perf_counter()
found = loaders.load(sys.argv[2])
print(len(found), time.perf_counter() - start, _peak() - before)
"""


def test_most_tensors_and_lists_within_the_budget(tmp_path, good):
    file = File().key("general.architecture", TEXT, "a")
    for index in range(2_047):
        row = struct.pack("<128i", *range(1000 + 128 * index, 1128 + 128 * index))
        file.array(f"a.{index}", I32, row, 128)
    for index in range(100_000):
        file.tensor(f"{index:025}", (1, 1 + index % 7), 0, 32 * index)
    file.data = bytes(32 * 100_000)
    path = write(tmp_path / "x", file.encoded())
    count, seconds, growth = python("-c", OPEN, good, path).split()
    assert count == "100000"
    assert float(seconds) < SECONDS
    assert int(growth) < MEMORY
