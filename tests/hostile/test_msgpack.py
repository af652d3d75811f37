"""Hostile msgpack files, each in a process of its own that is watched."""

from __future__ import annotations

import struct

import msgpack
import pytest
from files import write
from harness import accepted, refused
from jax_files import ext

from loaders import errors

H, T, B = errors.HeaderError, errors.TruncatedError, errors.BudgetError


def key(text):
    return msgpack.packb(text)


def dictionary(entries):
    """Of any number of entries that are already packed."""
    return b"\xdf" + struct.pack(">I", len(entries)) + b"".join(entries)


TINY = msgpack.packb(ext((), "int8", b"\1"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("msgpack") / "good.msgpack"
    return write(path, msgpack.packb({"a": ext((2,), "float32", bytes(8))}))


def tiny(count):
    return dictionary([key(str(number)) + TINY for number in range(count)])


def long_names():
    """Few bytes that join to many: long keys over many leaves."""
    inner = dictionary([key(str(number)) + TINY for number in range(1_000)])
    return dictionary([key(f"{number:02}" + "x" * 4_000) + inner for number in range(50)])


def nested_long_names():
    """Every level makes the names of all below it longer."""
    return b"".join(b"\x81" + key("x" * 40_000) for _ in range(199)) + b"\x80"


CASES = {
    "a million arrays": (tiny(1_000_000), B, "tensors are over the budget"),
    "maps in maps": (b"\x81\xa1a" * 2_700_000, B, "201 levels of nesting"),
    "lists in lists": (b"\x81\xa1a" + b"\x91" * 8_000_000, B, "201 levels of nesting"),
    "empty maps": (dictionary([key(str(n)) + b"\x80" for n in range(1_000_000)]), B, "100,001"),
    "a list of nothing": (b"\x81\xa1a\xdd\x00\x7a\x12\x00" + b"\xc0" * 8_000_000, B, "100,001"),
    "a key of 8 MB": (b"\x81" + key("x" * 8_000_000) + b"\1", H, "a name of 8,000,000 characters"),
    "a text of 9 MB": (b"\x81" + key("x") + key("y" * 9_000_000), B, "header bytes"),
    "long names": (long_names(), B, "index bytes"),
    "nested long names": (nested_long_names(), H, "a name of 40,000 characters"),
    "4 billion entries": (b"\xdf\xff\xff\xff\xff\xa1a\1", T, "4,294,967,295 entries"),
    "text of 4 GiB": (b"\x81\xdb\xff\xff\xff\xff", T, "4,294,967,295 bytes"),
    "extension of 4 GiB": (b"\x81\xa1a\xc9\xff\xff\xff\xff\1", T, "4,294,967,295 bytes"),
    "shape of a terabyte": (
        msgpack.packb({"a": ext((2**40,), "int8", b"")}),
        errors.LayoutError,
        "does not take 0 bytes",
    ),
    "same key a thousand times": (dictionary([key("a") + b"\1"] * 1_000), H, "stands twice"),
}


@pytest.mark.parametrize(("content", "error", "match"), CASES.values(), ids=CASES)
def test_refused(tmp_path, good, content, error, match):
    refused(good, write(tmp_path / "bad.msgpack", content), error, match)


def test_many_small_arrays_within_the_budget(tmp_path, good):
    accepted(good, write(tmp_path / "many.msgpack", tiny(5_000)))


def test_large_arrays_are_not_read_to_be_found(tmp_path, good):
    """The file is larger than the memory that may be spent on it."""
    large = ext((25_000_000,), "float32", bytes(100_000_000))
    accepted(good, write(tmp_path / "large.msgpack", msgpack.packb({"a": large})))


def test_as_many_numbers_as_are_allowed(tmp_path, good):
    numbers = {str(number): float(number) for number in range(99_000)}
    accepted(good, write(tmp_path / "numbers.msgpack", msgpack.packb(numbers)))


def test_as_many_names_that_join_to_one(tmp_path, good):
    def leaves():
        return dictionary([key(f"{number:0140}") + b"\1" for number in range(27_000)])

    long = "x" * 140
    inner = dictionary([key("q") + leaves()])
    bad = write(tmp_path / "x", dictionary([key(long + ".q") + leaves(), key(long) + inner]))
    accepted(good, bad)
