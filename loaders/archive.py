"""Zip archives from strangers: every entry checked before one byte of it is used.

`zipfile` accepts junk before the archive, entries that overlap, and a directory that disagrees
with the entries themselves; readers that differ in this read different weights from one file.
"""

from __future__ import annotations

import codecs
import os
import struct
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from .budget import Budget
from .errors import ArchiveError
from .files import FileBytes, read_bytes, require_file
from .strict_json import brief

codecs.lookup("cp437")  # it is imported here, and not while a file is read

_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 0xFFFF
_OVERFLOWS = 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DESCRIBED = 0x8  # sizes and CRC stand behind the data
_WIDE = 0xFFFFFFFF
_RATIO = 1100  # deflate cannot do better than 1,032 to one
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive."""

    path: Path
    name: str
    offset: int
    """Where its data starts in the file."""
    stored: int
    """Bytes that it takes in the file."""
    nbytes: int
    """Bytes that it has."""
    crc: int
    deflated: bool

    @property
    def key(self) -> Hashable:
        return self.path, self.offset

    def read(self, what: str = "") -> np.ndarray:
        """The bytes of the entry, mapped where they are stored, inflated where they are not."""
        raw = FileBytes(self.path, self.offset, self.stored).read(what or brief(self.name))
        return np.frombuffer(self._inflated(raw), np.uint8) if self.deflated else raw

    def content(self, budget: Budget, limit: str) -> bytes:
        """All of a small entry, within a limit of the budget and checked against its CRC."""
        budget.check(limit, self.nbytes, self.path)
        data = self.read().tobytes()
        if zlib.crc32(data) != self.crc:
            raise ArchiveError(f"{self.path}: the CRC of {brief(self.name)} is wrong")
        return data

    def check_crc(self) -> None:
        """Read the whole entry and compare its CRC; ArchiveError where it differs."""
        crc, data = 0, self.read().data
        for start in range(0, len(data), _STEP):
            crc = zlib.crc32(data[start : start + _STEP], crc)
        if crc != self.crc:
            raise ArchiveError(f"{self.path}: the CRC of {brief(self.name)} is wrong")

    def _inflated(self, raw: np.ndarray) -> bytes:
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = engine.decompress(raw.data, self.nbytes + 1)
        except zlib.error as cause:
            raise ArchiveError(f"{self.path}: {brief(self.name)} is damaged: {cause}") from None
        if len(data) != self.nbytes or not engine.eof:
            raise ArchiveError(
                f"{self.path}: {brief(self.name)} does not inflate to {self.nbytes} bytes"
            )
        return data


def read_archive(path: Path, budget: Budget) -> Mapping[str, Member]:
    """The entries of the zip archive at `path` by name, in the order of the directory.

    Raises
    ------
    ArchiveError
        If the archive is damaged, encrypted, compressed by another method than deflate, if two
        entries share a name or bytes, or if the directory and an entry disagree.
    """
    end, entries = _listed(path, budget)
    members: dict[str, Member] = {}
    places: list[tuple[int, int]] = []
    with open(path, "rb", buffering=0) as file:
        for entry in entries:
            member = _located(entry, file.fileno(), end)
            if member.name in members:
                raise ArchiveError(f"{path}: two entries are named {brief(member.name)}")
            members[member.name] = member
            places.append((entry.header, member.offset + member.stored))
    _check_apart(sorted(places), path)
    return members


def entry_names(path: Path, budget: Budget) -> list[str]:
    """Names of the entries, as the directory has them: enough to tell what an archive is."""
    return [entry.name for entry in _listed(path, budget)[1]]


def _listed(path: Path, budget: Budget) -> tuple[int, Iterator[_Entry]]:
    """Where the entries end in the file, and what its directory says of each."""
    start, length, count = _directory(path, require_file(path))
    budget.check("archive_entries", count, path)
    budget.check("header_bytes", length, path)
    return start, _entries(read_bytes(path, length, start), count, path)


def _directory(path: Path, size: int) -> tuple[int, int, int]:
    """Start, length and number of entries of the central directory."""
    tail_start = max(0, size - _LONGEST_COMMENT - 22)
    tail = read_bytes(path, size - tail_start, tail_start)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise ArchiveError(f"{path}: the zip archive is cut off: it has no directory at its end")
    fields = struct.unpack("<4H2LH", tail[at + 4 : at + 22])
    disk, _, here, count, length, start, comment = fields
    end = tail_start + at
    if comment != len(tail) - at - 22:
        raise ArchiveError(f"{path}: bytes follow the end of the zip archive")
    narrow = here, count, length, start
    # PyTorch writes the record of 64 bits always, not only where the narrow fields overflow.
    if read_bytes(path, 4, max(0, end - 20)) == _LOCATOR or _overflow(narrow):
        end, *wide = _directory64(path, end)
        if any(n not in (w, m) for n, w, m in zip(narrow, wide, _OVERFLOWS, strict=True)):
            raise ArchiveError(f"{path}: the two ends of the zip archive disagree")
        here, count, length, start = wide
    if disk not in (0, 0xFFFF) or here != count or start + length != end:
        raise ArchiveError(f"{path}: the zip directory is not where the archive says")
    return start, length, count


def _overflow(narrow: Sequence[int]) -> bool:
    return any(number == most for number, most in zip(narrow, _OVERFLOWS, strict=True))


def _directory64(path: Path, end: int) -> tuple[int, int, int, int, int]:
    if end < 76:
        raise ArchiveError(f"{path}: the zip64 directory is missing")
    locator = read_bytes(path, 20, end - 20)
    signature, _, at, _ = struct.unpack("<4sLQL", locator)
    if signature != _LOCATOR or at != end - 76:
        raise ArchiveError(f"{path}: the zip64 directory is missing")
    record = struct.unpack("<4sQ2H2L4Q", read_bytes(path, 56, at))
    if record[0] != _END64:
        raise ArchiveError(f"{path}: the zip64 directory is damaged")
    return at, *record[6:]


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    stored: int
    nbytes: int
    header: int


def _entries(directory: bytes, count: int, path: Path) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory) or directory[at : at + 4] != b"PK\x01\x02":
            raise ArchiveError(f"{path}: the zip directory does not hold {count} entries")
        fields = _CENTRAL.unpack_from(directory, at)
        flags, method, crc, stored, nbytes = fields[3], fields[4], *fields[7:10]
        name_length, extra_length, comment_length = fields[10:13]
        at += _CENTRAL.size
        raw = directory[at : at + name_length]
        extra = directory[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        nbytes, stored, header = _wide(extra, [nbytes, stored, fields[16]], path)
        yield _Entry(path, raw, _name(raw, flags, path), flags, method, crc, stored, nbytes, header)
    if at != len(directory):
        raise ArchiveError(f"{path}: the zip directory holds more than {count} entries")


def _wide(extra: bytes, sizes: list[int], path: Path) -> list[int]:
    """Sizes of 64 bits stand in an extra field, those alone that the narrow fields leave out."""
    if 0xFFFFFFFF not in sizes:
        return sizes
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        missing = sizes.count(0xFFFFFFFF)
        if kind == 1 and length >= 8 * missing and at + 4 + length <= len(extra):
            wide = iter(struct.unpack_from(f"<{missing}Q", extra, at + 4))
            return [next(wide) if size == 0xFFFFFFFF else size for size in sizes]
        at += 4 + length
    raise ArchiveError(f"{path}: an entry lacks its 64-bit sizes")


def _name(raw: bytes, flags: int, path: Path) -> str:
    try:
        name = raw.decode("utf-8" if flags & 0x800 else "cp437")
    except UnicodeDecodeError:
        raise ArchiveError(f"{path}: an entry's name is not UTF-8: {brief(raw)}") from None
    parts = name.removesuffix("/").split("/")
    if not name or set(name) & set("\\\0") or not all(parts) or {".", ".."} & set(parts):
        raise ArchiveError(f"{path}: an entry has the name {brief(name)}, which is no plain path")
    return name


def _located(entry: _Entry, file: int, end: int) -> Member:
    """The entry with the place of its data, which its own header tells."""
    where = f"{entry.path}: {brief(entry.name)}"
    place = min(entry.header, end)  # a place over 2^63 is no argument for pread
    header = os.pread(file, _LOCAL.size + len(entry.raw_name), place)
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise ArchiveError(f"{where} is not where the zip directory says")
    fields = _LOCAL.unpack_from(header)
    if header[_LOCAL.size :] != entry.raw_name or fields[9] != len(entry.raw_name):
        raise ArchiveError(f"{where} has another name in its own header")
    if (entry.flags | fields[2]) & _ENCRYPTED:
        raise ArchiveError(f"{where} is encrypted")
    if entry.method not in (_STORED, _DEFLATED) or fields[3] != entry.method:
        raise ArchiveError(f"{where} is compressed by method {entry.method}, which is not read")
    sizes = zip(fields[6:9], (entry.crc, entry.stored, entry.nbytes), strict=True)
    if not fields[2] & _DESCRIBED and any(own not in (told, _WIDE) for own, told in sizes):
        raise ArchiveError(f"{where} has another CRC or size in its own header")
    deflated = entry.method == _DEFLATED
    offset = entry.header + _LOCAL.size + fields[9] + fields[10]
    if offset + entry.stored > end:
        raise ArchiveError(f"{where} reaches beyond the entries of the archive")
    if entry.nbytes > entry.stored * _RATIO or (entry.nbytes != entry.stored and not deflated):
        raise ArchiveError(f"{where} claims {entry.nbytes} bytes in {entry.stored} stored ones")
    return Member(entry.path, entry.name, offset, entry.stored, entry.nbytes, entry.crc, deflated)


def _check_apart(places: Sequence[tuple[int, int]], path: Path) -> None:
    """The first entry starts the file, and no two share bytes."""
    if places and places[0][0] != 0:
        raise ArchiveError(f"{path}: {places[0][0]} bytes stand before the zip archive")
    for (_, end), (start, _) in pairwise(places):
        if start < end:
            raise ArchiveError(f"{path}: two entries overlap at byte {start}")
