"""How a dataset says where its elements are."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import UnsupportedError
from .source import Cursor

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = 0, 1, 2, 3
SINGLE, IMPLICIT = 1, 2
WRITE_AGAIN = 'write the file again with h5py.File(path, "w", libver="earliest")'
_PAIR = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Place:
    """What a layout message says; `at` and `size` are where the elements or their index are."""

    kind: int
    at: int
    size: int | None
    chunk: tuple[int, ...] = ()
    index: int = 0
    """How chunks are found; 0 is the older B-tree."""
    mask: int = 0


def read_place(cursor: Cursor, at: int) -> Place:
    """What a layout message says that starts at byte `at` of the file."""
    version = cursor.number(1)
    if version in (1, 2):
        return _old_layout(cursor, at)
    if version not in (3, 4, 5):
        raise UnsupportedError(
            f"{cursor.where}: layout version {version} is not read; {WRITE_AGAIN}"
        )
    kind = cursor.number(1)
    if kind == COMPACT:
        size = cursor.number(2)
        return Place(COMPACT, at + cursor.at, size)
    if kind == CONTIGUOUS:
        start, size = cursor.unpack(_PAIR)
        return Place(CONTIGUOUS, start, size)
    if kind == CHUNKED:
        return _chunk_layout(cursor) if version == 3 else _new_chunk_layout(cursor)
    words = "is a view of other datasets" if kind == VIRTUAL else f"has the layout class {kind}"
    raise UnsupportedError(f"{cursor.where} {words}, which is not read")


def _old_layout(cursor: Cursor, at: int) -> Place:
    rank, kind = cursor.take(2)
    cursor.take(5)
    if kind not in (COMPACT, CONTIGUOUS, CHUNKED):
        raise UnsupportedError(f"{cursor.where} has the layout class {kind}, which is not read")
    start = cursor.number(8) if kind != COMPACT else 0
    sides = tuple(cursor.number(4) for _ in range(rank))
    if kind == CHUNKED:
        return Place(CHUNKED, start, None, sides[:-1])
    if kind == CONTIGUOUS:
        return Place(CONTIGUOUS, start, None)
    size = cursor.number(4)
    return Place(COMPACT, at + cursor.at, size)


def _chunk_layout(cursor: Cursor) -> Place:
    rank = cursor.number(1)
    start = cursor.number(8)
    sides = tuple(cursor.number(4) for _ in range(rank))
    return Place(CHUNKED, start, None, sides[:-1])


def _new_chunk_layout(cursor: Cursor) -> Place:
    flags, rank, width = cursor.take(3)
    sides = tuple(cursor.number(width) for _ in range(rank))
    index = cursor.number(1)
    if index not in (SINGLE, IMPLICIT) or flags & 1:
        raise UnsupportedError(
            f"{cursor.where} finds its chunks by the index {index}, which is not read; "
            f"{WRITE_AGAIN}"
        )
    size, mask = (cursor.number(8), cursor.number(4)) if flags & 2 else (None, 0)
    return Place(CHUNKED, cursor.number(8), size, sides[:-1], index, mask)
