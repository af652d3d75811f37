"""Zip archives that lie, seen through PyTorch files: each is refused, and cheaply."""

from __future__ import annotations

import bz2
import lzma
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from harness import accepted
from pickles import pickled
from torch_attacks import says
from torch_files import storage, tensor, torch_entries, torch_zip
from zips import Entry, deflate, write_zip, zipped

import loaders
from loaders import errors
from wwfunc.errors import CheckpointError

TREE = {"w": tensor(storage("FloatStorage", "0", 6))}
PAYLOAD = struct.pack("<6f", *range(6))
PICKLE = pickled(TREE)
A, B = errors.ArchiveError, errors.BudgetError
H, U = errors.HeaderError, errors.UnknownFormatError


@pytest.fixture
def good(tmp_path):
    return torch_zip(tmp_path / "good.pt", TREE, {"0": PAYLOAD})


def entries(**changes):
    """The entries of the good file, those named by their last part changed."""
    made = torch_entries(PICKLE, {"0": PAYLOAD})
    return [replace(entry, **changes.get(entry.name.split("/")[-1], {})) for entry in made]


def changed(last, **change):
    return entries(**{last: change})


def pickle_entry(**change):
    return changed("data.pkl", **change)


def storage_entry(**change):
    return changed("0", **change)


def with_extra(*extra):
    return torch_entries(PICKLE, {"0": PAYLOAD}, extra=extra)


def wide(nbytes, stored, header):
    """The directory's extra field of 64-bit sizes, and the narrow ones that point to it."""
    extra = struct.pack("<2H3Q", 1, 24, nbytes, stored, header)
    return {**dict.fromkeys(("nbytes", "stored", "header"), 0xFFFFFFFF), "extra": extra}


def inside(entry):
    """An entry whose data is another entry, with its own header."""
    hidden = zipped([entry])
    return hidden[: hidden.index(b"PK\x01\x02")]


def overlapping():
    """`version` lies within the bytes of the storage."""
    made = storage_entry(data=inside(Entry("archive/version", b"3\n")))
    at = zipped(made).index(b"PK\x03\x04", zipped(made).index(made[2].data) - 1)
    made[-1] = replace(made[-1], central={"header": at})
    return made


def named(name):
    return with_extra(Entry(name, b""))


BOMB = bytes(40 << 20)
ENTRIES = {
    "encrypted in the directory": (pickle_entry(central={"flags": 0x809}), A, "is encrypted"),
    "encrypted in its own header": (pickle_entry(local={"flags": 0x809}), A, "is encrypted"),
    "encrypted storage": (storage_entry(local={"flags": 0x809}), A, "data/0' is encrypted"),
    "strongly encrypted": (pickle_entry(central={"flags": 0x848}), A, "is encrypted"),
    "masked headers": (pickle_entry(central={"flags": 0x2808}), A, "is encrypted"),
    "another name in its own header": (
        pickle_entry(local={"name": b"archive/data.pkX"}),
        A,
        "data.pkl' has another name",
    ),
    "a shorter name in its own header": (
        pickle_entry(local={"name": b"archive/data"}),
        A,
        "data.pkl' has another name",
    ),
    "a longer name in its own header": (
        pickle_entry(local={"name": b"archive/data.pkl2"}),
        A,
        "data.pkl' has another name",
    ),
    "two data.pkl": (with_extra(Entry("archive/data.pkl", PICKLE)), A, "two entries are named"),
    "two storages of one name": (
        with_extra(Entry("archive/data/0", PAYLOAD)),
        A,
        "two entries are named 'archive/data/0'",
    ),
    "names that differ by case": (
        with_extra(Entry("archive/DATA.PKL", PICKLE)),
        A,
        "differ in case",
    ),
    "storages that differ by case": (
        with_extra(Entry("archive/Data/0", PAYLOAD)),
        A,
        "differ in case",
    ),
    "two roots": (with_extra(Entry("other/version", b"3\n")), A, "stand beside"),
    "two roots with a pickle": (
        with_extra(Entry("other/data.pkl", PICKLE)),
        A,
        "stand beside",
    ),
    "an entry outside the root": (with_extra(Entry("data.pkl", PICKLE)), A, "stand beside"),
    "bzip2": (pickle_entry(method=12, packed=bz2.compress(PICKLE)), A, "method 12"),
    "lzma": (pickle_entry(method=14, packed=lzma.compress(PICKLE)), A, "method 14"),
    "no method that exists": (storage_entry(method=99), A, "data/0' is compressed by method 99"),
    "two methods": (pickle_entry(method=8, local={"method": 0}), A, "compressed by method"),
    "two methods, the other way": (pickle_entry(local={"method": 8}), A, "compressed by method"),
    "no deflate stream": (pickle_entry(method=8, packed=b"\xff" * 9), A, "data.pkl' is damaged"),
    "deflated, cut": (
        pickle_entry(method=8, packed=deflate(PICKLE)[:-4]),
        A,
        "data.pkl' does not inflate",
    ),
    "deflated to more than it claims": (
        pickle_entry(data=bytes(99), method=8, packed=deflate(PICKLE)),
        A,
        "does not inflate to 99 bytes",
    ),
    "a bomb that claims little": (
        pickle_entry(data=bytes(99), method=8, packed=deflate(BOMB)),
        A,
        "does not inflate to 99 bytes",
    ),
    "a bomb as the pickle": (pickle_entry(data=BOMB, method=8), B, "pickle bytes"),
    "a bomb as the byte order": (
        changed("byteorder", data=BOMB, method=8),
        H,
        "bytes of .*byteorder",
    ),
    "a ratio that no deflate has": (
        pickle_entry(data=2 << 20, method=8, packed=deflate(PICKLE)),
        A,
        "claims 2097152 bytes in",
    ),
    "stored, of two sizes": (storage_entry(central={"nbytes": 23}), A, "claims 23 bytes in 24"),
    "sizes of 2^63": (
        storage_entry(central=wide(2**63, 2**63, 0)),
        A,
        "data/0'",
    ),
    "a place at 2^64": (
        storage_entry(central=wide(24, 24, 2**64 - 1)),
        A,
        "data/0' is not where",
    ),
    "no sizes of 64 bits": (
        storage_entry(central={"stored": 0xFFFFFFFF}),
        A,
        "lacks its 64-bit sizes",
    ),
    "another size in its own header": (
        storage_entry(flags=0x800, local={"stored": 20, "nbytes": 20}),
        A,
        "data/0' has another CRC or size",
    ),
    "another CRC in its own header": (
        storage_entry(flags=0x800, local={"crc": 1}),
        A,
        "data/0' has another CRC or size",
    ),
    "entries that overlap": (overlapping(), A, "two entries overlap"),
    "the same bytes for two": (
        with_extra(Entry("archive/data/1", b"", central={"header": 0})),
        A,
        "another name",
    ),
    "data over the directory": (storage_entry(central={"stored": 999, "nbytes": 999}), A, "beyond"),
    "CRC of the pickle": (
        pickle_entry(central={"crc": 1}),
        A,
        "CRC of 'archive/data.pkl' is wrong",
    ),
    "a name with ..": (named("archive/../x"), A, "no plain path"),
    "a name from the root": (named("/archive/x"), A, "no plain path"),
    "a name with a backslash": (named("archive\\x"), A, "no plain path"),
    "a name with a drive": (named("C:/archive/x"), A, "stand beside the folder"),
    "a name with NUL": (named("archive/x\0y"), A, "no plain path"),
    "an empty name": (named(""), A, "no plain path"),
    "an empty part": (named("archive//x"), A, "no plain path"),
    "no text": (
        with_extra(Entry("archive/x", b"", local={"name": b"\xff"}, central={"name": b"\xff"})),
        A,
        "not UTF-8",
    ),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_entry_that_lies(good, tmp_path, case):
    made, error, match = ENTRIES[case]
    says(good, write_zip(tmp_path / "bad.pt", made), error, match)


ENDS = {
    "junk before": ({"prefix": b"MZjunk"}, U, "no format"),
    "an entry before": ({"prefix": b"PK\x03\x04" + bytes(60)}, A, "not where|stand before"),
    "one byte after": ({"suffix": b"\0"}, A, "bytes follow the end"),
    "a second archive after": ({"suffix": zipped(entries())}, A, "not where"),
    "a comment that is too long": ({"comment_size": 9}, A, "bytes follow the end"),
    "a comment with an archive": ({"comment": zipped(entries())}, A, "not where|follow the end"),
    "more entries than there are": ({"count": 5}, A, "does not hold 5 entries"),
    "fewer entries": ({"count": 3}, A, "more than 3 entries"),
    "no entries": ({"count": 0}, A, "more than 0 entries"),
    "two counts": ({"here": 3}, A, "not where"),
    "a directory elsewhere": ({"start": 0}, A, "not where"),
    "a directory behind the file": ({"start": 0xFFFFFF00}, A, "not where"),
    "a directory of no length": ({"length": 0}, A, "not where"),
    "bytes behind the directory": ({"gap": b"gap"}, A, "not where"),
    "2^63 entries": ({"count": 2**63, "zip64": True}, B, "archive entries"),
    "a directory of 2^63": ({"length": 2**63, "zip64": True}, A, "not where"),
    "a directory at 2^63": ({"start": 2**63, "zip64": True}, A, "not where"),
    "no record of 64 bits": ({"at": 0, "zip64": True}, A, "zip64 directory is missing"),
    "ends that disagree": ({"count": 3, "narrow_count": 4, "zip64": "end"}, A, "disagree"),
}


@pytest.mark.parametrize("case", ENDS)
def test_archive_that_lies(good, tmp_path, case):
    options, error, match = ENDS[case]
    says(good, write_zip(tmp_path / "bad.pt", entries(), **options), error, match)


def test_no_entry_at_all(good, tmp_path):
    says(good, write_zip(tmp_path / "bad.pt", []), U, "zip")


def test_more_entries_than_the_budget(good, tmp_path):
    many = [Entry(f"archive/{number}", b"") for number in range(200)]
    bad = write_zip(tmp_path / "bad.pt", with_extra(*many))
    with pytest.raises(B, match="archive_entries"):
        loaders.load(bad, budget=loaders.Budget(archive_entries=199))


HOLE = 2 << 30


@pytest.mark.parametrize("nbytes", [HOLE, 5 << 30])
def test_a_file_that_is_a_hole(good, tmp_path, nbytes):
    """Gigabytes that are nowhere on the disk: opening such a file reads none of them."""
    tree = {"w": tensor(storage("FloatStorage", "0", nbytes // 4), (nbytes // 4096, 1024))}
    made = torch_entries(pickled(tree), {"0": nbytes})
    path = write_zip(tmp_path / "hole.pt", made, zip64=nbytes > 2**32 or "end")
    accepted(good, path)
    handle = loaders.load(path)["w"]
    assert (handle.nbytes, handle.read(slice(0, 1)).sum()) == (nbytes, 0)


def test_sizes_in_the_headers_alone(good, tmp_path):
    made = [replace(entry, flags=0x800) for entry in entries()]
    accepted(good, write_zip(tmp_path / "x.pt", made))
    accepted(good, write_zip(tmp_path / "x.pt", made, zip64=True))


def test_crc_of_a_storage_on_request(good, tmp_path):
    bad = write_zip(tmp_path / "bad.pt", storage_entry(central={"crc": 1}))
    accepted(good, bad)
    says(good, bad, A, "CRC of 'archive/data/0' is wrong", check_crc=True)
    accepted(good, good, check_crc=True)


def test_a_deflated_bomb_as_a_storage(good, tmp_path):
    numel = (200 << 20) // 4
    tree = {"w": tensor(storage("FloatStorage", "0", numel), (numel,))}
    made = torch_entries(pickled(tree))
    bomb = Entry("archive/data/0", 4 * numel, method=8, packed=deflate(bytes(4 * numel)))
    says(good, write_zip(tmp_path / "bad.pt", [*made, bomb]), B, "bytes of tensors")


WHOLE = zipped(entries(), zip64="end")


def _reads_or_refuses(path, content):
    path.write_bytes(content)
    with suppress(CheckpointError):
        for handle in loaders.load(path).values():
            handle.read()


@pytest.mark.parametrize("whole", [WHOLE, zipped(entries())], ids=["zip64", "zip"])
def test_every_cut(tmp_path, whole):
    path = tmp_path / "cut.pt"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            loaders.load(path)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(tmp_path, mask):
    for at in range(len(WHOLE)):
        flipped = bytearray(WHOLE)
        flipped[at] ^= mask
        _reads_or_refuses(tmp_path / "flipped.pt", flipped)
