"""Tar archives from strangers: a list of regular files, found without reading or writing any.

Python's `tarfile` follows links between members, takes sizes from three dialects, and reads on
after damage; here a member is a name and a place, or the archive is refused.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

from .errors import ArchiveError
from .strict_json import brief

_BLOCK = 512
_REGULAR = b"0\0"
_PAX = b"x"
_LONGEST_PAX = 1 << 16
_MEMBERS = 64
_PADDING = 1 << 20

Place = tuple[int, int]
"""First byte and number of bytes."""


def read_tar(path: Path, data: mmap.mmap) -> Mapping[str, Place]:
    """The regular files of the tar archive `data` by name.

    Raises
    ------
    ArchiveError
        If the archive is damaged, holds anything but regular files, or two of one name.
    """
    members: dict[str, Place] = {}
    at, extended = 0, b""
    while True:
        header = _header(path, data, at)
        if header is None:
            break
        name, kind, size = header
        start, length = at + _BLOCK, _size(path, name, size, extended)
        at = start + -(-length // _BLOCK) * _BLOCK
        if at > len(data):
            raise ArchiveError(f"{path}: {brief(name)} ends at byte {at}, the file before")
        extended = b""
        if kind == _PAX:
            extended = _extended(path, data, start, length)
        else:
            _add(path, members, name, kind, (start, length))
    _check_end(path, data, at)
    return members


def _header(path: Path, data: mmap.mmap, at: int) -> tuple[str, bytes, int] | None:
    """Name, kind and size of the member at `at`; None at the end of the archive."""
    block = data[at : at + _BLOCK]
    if len(block) < _BLOCK:
        raise ArchiveError(f"{path}: the tar archive is cut off at byte {at}")
    if not block.strip(b"\0"):
        return None
    if block[257:262] != b"ustar":
        raise ArchiveError(f"{path}: no tar header at byte {at}")
    # The sum is over the header with blanks for the sum itself.
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if _octal(path, block[148:156], at) != total:
        raise ArchiveError(f"{path}: the tar header at byte {at} has a wrong checksum")
    name = block[:100].rstrip(b"\0").decode("utf-8", "backslashreplace")
    if block[345:500].strip(b"\0") and block[257:263] == b"ustar\0":
        raise ArchiveError(f"{path}: {brief(name)} lies in a folder")
    return name, block[156:157], _octal(path, block[124:136], at)


def _octal(path: Path, text: bytes, at: int) -> int:
    digits = text.strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        raise ArchiveError(f"{path}: the tar header at byte {at} has the number {brief(text)}")
    return int(digits, 8)


def _extended(path: Path, data: mmap.mmap, start: int, length: int) -> bytes:
    """The size that a pax header gives the next member, or nothing: 8 GiB need one."""
    if length > _LONGEST_PAX:
        raise ArchiveError(f"{path}: a pax header of {length} bytes at byte {start}")
    size, records = b"", data[start : start + length]
    while records:
        digits, _, rest = records.partition(b" ")
        count = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        record = records[len(digits) + 1 : count]
        if not rest or not record.endswith(b"\n"):
            raise ArchiveError(f"{path}: a damaged pax header at byte {start}")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"linkpath") or key.startswith(b"GNU.sparse"):
            raise ArchiveError(f"{path}: a pax header at byte {start} sets {brief(key)}")
        size = value if key == b"size" else size
        records = records[count:]
    return size


def _size(path: Path, name: str, size: int, extended: bytes) -> int:
    if not extended:
        return size
    if not extended.isdigit() or len(extended) > 18:
        raise ArchiveError(f"{path}: {brief(name)} has the size {brief(extended)}")
    return int(extended)


def _add(path: Path, members: dict[str, Place], name: str, kind: bytes, place: Place) -> None:
    if kind not in _REGULAR:
        raise ArchiveError(f"{path}: {brief(name)} is no regular file but of kind {brief(kind)}")
    if name in members:
        raise ArchiveError(f"{path}: two members are named {brief(name)}")
    if len(members) == _MEMBERS:
        raise ArchiveError(f"{path}: more than {_MEMBERS} members")
    members[name] = place


def _check_end(path: Path, data: mmap.mmap, at: int) -> None:
    """Nothing but the zeros that fill the last record follows."""
    rest = data[at : at + _PADDING]
    if len(data) - at > _PADDING or rest.strip(b"\0"):
        raise ArchiveError(f"{path}: bytes follow the end of the tar archive at byte {at}")
