"""Hostile legacy files of PyTorch, alone and within pickles."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from harness import accepted
from pickles import call, code, name, pickled, text
from torch_attacks import CALLS, says
from torch_files import legacy_bytes, legacy_storage, tensor

import loaders
from loaders import errors
from wwfunc.errors import CheckpointError

P, X, U = errors.PickleError, errors.UnsafeGlobalError, errors.UnsupportedError
L, T = errors.LayoutError, errors.TruncatedError


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.pt"
    path.write_bytes(GOOD)
    return path


FLOATS = legacy_storage("FloatStorage", "0", 6)

TREE = {"w": tensor(FLOATS)}
STORED = [("0", 6, bytes(24))]
GOOD = legacy_bytes(TREE, STORED)


LEGACY = {
    "protocol 1002": (legacy_bytes(TREE, STORED, version=1002), U, "version 1002"),
    "a text as the protocol": (
        legacy_bytes(TREE, STORED, version="1001"),
        U,
        "version '1001'",
    ),
    "a list as the system": (legacy_bytes(TREE, STORED, info=[1]), P, "no dict"),
    "a storage in the list alone": (
        legacy_bytes(TREE, STORED, keys=["0", "1"]),
        L,
        "storage '1' stands either",
    ),
    "a storage in the object alone": (
        legacy_bytes(TREE, STORED, keys=[]),
        L,
        "storage '0' stands either",
    ),
    "a storage twice in the list": (legacy_bytes(TREE, STORED, keys=["0", "0"]), L, "twice"),
    "numbers in the list": (legacy_bytes(TREE, STORED, keys=[0]), P, "no list of texts"),
    "a list that is a dict": (legacy_bytes(TREE, STORED, keys={"0": 1}), P, "no list"),
    "another number of elements": (
        legacy_bytes(TREE, [("0", 5, bytes(24))]),
        L,
        "has 5 elements, in the object 6",
    ),
    "a negative number of elements": (
        legacy_bytes(TREE, [("0", -6, bytes(24))]),
        L,
        "has -6 elements",
    ),
    "a storage cut off": (GOOD[:-1], T, "storage '0' at byte .* of 24 bytes"),
    "no storages": (GOOD[:-32], T, "storage '0'"),
    "no list of storages": (GOOD[:-50], P, "list of storages|object"),
    "a byte too many": (GOOD + b"\0", L, "1 bytes follow the last storage"),
    "a storage of 2^60": (
        legacy_bytes(
            {"w": tensor(legacy_storage("FloatStorage", "0", 2**60))}, [("0", 2**60, b"")]
        ),
        T,
        "storage '0'",
    ),
    "one storage with two types": (
        legacy_bytes(
            {"w": tensor(FLOATS), "v": tensor(legacy_storage("IntStorage", "0", 6))}, STORED
        ),
        L,
        "'0' has 6 elements of IntStorage, before",
    ),
    "one storage with two sizes": (
        legacy_bytes(
            {"w": tensor(FLOATS), "v": tensor(legacy_storage("FloatStorage", "0", 5))},
            STORED,
        ),
        L,
        "'0' has 5 elements",
    ),
    "a view beyond its storage": (
        legacy_bytes({"w": tensor(legacy_storage("FloatStorage", "0", 6, ("v", 1, 6)))}, STORED),
        L,
        "view of 6 elements from 1",
    ),
    "a view before its storage": (
        legacy_bytes({"w": tensor(legacy_storage("FloatStorage", "0", 6, ("v", -1, 6)))}, STORED),
        L,
        "view|-1",
    ),
    "a tensor beyond its view": (
        legacy_bytes({"w": tensor(legacy_storage("FloatStorage", "0", 6, ("v", 1, 5)))}, STORED),
        L,
        "storage of 5",
    ),
}


@pytest.mark.parametrize("case", LEGACY)
def test_legacy_file(good, tmp_path, case):
    content, error, match = LEGACY[case]
    bad = tmp_path / "bad.pt"
    bad.write_bytes(content)
    says(good, bad, error, match)


def test_legacy_file_with_the_end_of_a_zip_in_its_data(good, tmp_path):
    """A tensor whose bytes are those of a zip archive does not make the file one."""
    octets = b"PK\x05\x06" + bytes(18)
    stored = legacy_storage("ByteStorage", "0", len(octets))
    path = tmp_path / "x.pt"
    path.write_bytes(legacy_bytes({"w": tensor(stored, (len(octets),))}, [("0", 22, octets)]))
    accepted(good, path)
    assert loaders.load(path)["w"].read().tobytes() == octets


def test_legacy_file_that_is_a_hole(good, tmp_path):
    nbytes = 2 << 30
    tree = {"w": tensor(legacy_storage("ByteStorage", "0", nbytes), (2048, nbytes // 2048))}
    path = tmp_path / "x.pt"
    path.write_bytes(legacy_bytes(tree, [("0", nbytes, b"")]))
    with open(path, "ab") as file:
        file.truncate(path.stat().st_size + nbytes)
    accepted(good, path)


def test_many_storages_far_apart(good, tmp_path):
    """Each has its number of elements somewhere in a gigabyte: none of it stays in memory."""
    count, nbytes = 8000, 1 << 17
    keys = [f"{number:04}" for number in range(count)]
    tree = {key: tensor(legacy_storage("ByteStorage", key, nbytes), (nbytes,)) for key in keys}
    head = legacy_bytes(tree, [(key, 0, b"") for key in keys])[: -8 * count]
    path = tmp_path / "x.pt"
    with open(path, "wb") as file:
        file.write(head)
        for _ in keys:
            file.write(nbytes.to_bytes(8, "little"))
            file.seek(nbytes, io.SEEK_CUR)
        file.truncate()
    accepted(good, path)


# Plain pickles, in which every storage is a legacy file.


def nested(depth):
    """A storage in a legacy file in a pickle, the file in the bytes of another, and so on."""
    payload = legacy_bytes(FLOATS, STORED)
    for _ in range(depth):
        payload = legacy_bytes(call("torch.storage._load_from_bytes", payload))
    return pickled({"w": tensor(call("torch.storage._load_from_bytes", payload))})


NESTED = {
    "another magic number": (legacy_bytes(TREE, STORED, magic=12345), P, r"at byte \d+"),
    "50 files within files": (nested(50), P, "within the pickle is no storage"),
    "a file within a file": (nested(1), P, "within the pickle is no storage"),
    "a nested file that calls": (
        pickled({"w": tensor(call("torch.storage._load_from_bytes", legacy_bytes(CALLS[2])))}),
        X,
        r"os\.system",
    ),
    "a nested file that is none": (
        pickled({"w": tensor(call("torch.storage._load_from_bytes", b"x" * 300))}),
        P,
        r"at byte \d+",
    ),
    "a nested file that is a text": (
        pickled({"w": tensor(call("torch.storage._load_from_bytes", "x"))}),
        P,
        "byte 0",
    ),
    "a nested file of nothing": (
        pickled({"w": tensor(call("torch.storage._load_from_bytes", b""))}),
        P,
        r"at byte \d+",
    ),
    "a persistent id in a plain pickle": (
        pickled({"w": tensor(FLOATS)}),
        L,
        "no storage '0'",
    ),
}


@pytest.mark.parametrize("case", NESTED)
def test_file_within_a_pickle(tmp_path, case):
    content, error, match = NESTED[case]
    good, bad = tmp_path / "good.pkl", tmp_path / "bad.pkl"
    good.write_bytes(nested(0))
    bad.write_bytes(content)
    says(good, bad, error, match)


def test_many_payloads_far_apart(tmp_path):
    """A file within the pickle every 64 KiB, all of it in the cache: little is looked at."""
    count, nbytes = 1600, 1 << 16
    stored = legacy_storage("ByteStorage", "0", nbytes)
    inner = legacy_bytes(stored, [("0", nbytes, b"")])
    size = (len(inner) + nbytes).to_bytes(4, "little")
    before, after = code(tensor(name("a", "b"), (nbytes,))).split(name("a", "b"))
    good, path = tmp_path / "good.pkl", tmp_path / "x.pkl"
    good.write_bytes(nested(0))
    with open(path, "wb") as file:
        file.write(b"\x80\x03}(")
        for number in range(count):
            load = name("torch.storage", "_load_from_bytes") + b"(B" + size + inner
            file.write(text(f"w{number}") + before + load)
            file.write(bytes(nbytes) + b"tR" + after)
        file.write(b"u.")
    accepted(good, path)


@pytest.mark.parametrize("whole", [GOOD, nested(0)], ids=["legacy", "pickle"])
def test_every_cut_and_every_bit(tmp_path, whole):
    path = tmp_path / "x.pt"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            loaders.load(path)
    for at in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        with suppress(CheckpointError):
            for handle in loaders.load(path).values():
                handle.read()
