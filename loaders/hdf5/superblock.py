"""Where an HDF5 file starts, in what width it counts, and where its root group is."""

from __future__ import annotations

import struct

from ..errors import HeaderError, TruncatedError, UnsupportedError
from .source import UNDEFINED, Source

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_V0 = struct.Struct("<5x2B9xQ8x2Q")  # widths; base, end of file, driver
_ROOT_ENTRY = struct.Struct("<8xQ")
_V2 = struct.Struct("<x2Bx4Q")  # widths; base, extension, end of file, root
_FIRST_PLACE = 512


def places(size: int) -> list[int]:
    """Where the signature may stand: at 0, 512, 1024 and on, after a block of the user's own."""
    found = [0]
    place = _FIRST_PLACE
    while place + len(SIGNATURE) <= size:
        found.append(place)
        place *= 2
    return found


def find_root(source: Source) -> int:
    """Set the base address of `source`; the address of the root group's header."""
    source.base = _signature(source)
    version = source.read(8, 1, "the superblock")[0]
    if version in (0, 1):
        return _old_root(source, version)
    if version in (2, 3):
        return _new_root(source)
    raise UnsupportedError(f"{source.path}: HDF5 superblock version {version} is not read")


def _signature(source: Source) -> int:
    for place in places(source.size):
        length = min(len(SIGNATURE), source.size - place)
        if source.read(place, length, "the signature") == SIGNATURE:
            return place
    raise HeaderError(f"{source.path}: no HDF5 signature")


def _old_root(source: Source, version: int) -> int:
    fields = _V0.unpack(source.read(8, _V0.size, "the superblock"))
    offsets, lengths, base, end, driver = fields
    # Version 1 has four bytes more before the addresses.
    if version == 1:
        base, _, end, driver = struct.unpack("<4Q", source.read(28, 32, "the superblock"))
    _check(source, offsets, lengths, base, end)
    if driver != UNDEFINED:
        raise UnsupportedError(f"{source.path}: an HDF5 file in several parts is not read")
    entry = source.read(56 + 4 * version, _ROOT_ENTRY.size, "the root entry")
    (root,) = _ROOT_ENTRY.unpack(entry)
    return root


def _new_root(source: Source) -> int:
    fields = _V2.unpack(source.read(8, _V2.size, "the superblock"))
    offsets, lengths, base, _, end, root = fields
    _check(source, offsets, lengths, base, end)
    return root


def _check(source: Source, offsets: int, lengths: int, base: int, end: int) -> None:
    if (offsets, lengths) != (8, 8):
        raise UnsupportedError(
            f"{source.path}: HDF5 addresses of {offsets} and {lengths} bytes are not read"
        )
    if end - base > source.size:
        raise TruncatedError(
            f"{source.path}: the file ends {end - base - source.size} bytes before the end of "
            f"its HDF5 data"
        )
