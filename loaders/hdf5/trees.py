"""The older B-trees, in which groups keep their links and datasets their chunks."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..errors import HeaderError, LayoutError
from .source import Source

_NODE = struct.Struct("<4s2BH16x")
GROUP, CHUNKS = 0, 1


def leaves(
    source: Source, root: int, kind: int, key_size: int, where: str
) -> Iterator[tuple[bytes, int]]:
    """Key and address of all that the leaves of the tree point to, left to right.

    Raises
    ------
    HeaderError, LayoutError
        If a node is none, is met twice, or does not lie one level below its parent.
    """
    seen: set[int] = set()
    waiting: list[tuple[int, int | None]] = [(root, None)]
    while waiting:
        address, expected = waiting.pop()
        if address in seen:
            raise LayoutError(f"{source.path}: {where}: its B-tree meets byte {address} twice")
        seen.add(address)
        level, entries = _entries(source, address, kind, key_size, where)
        if expected is not None and level != expected:
            raise LayoutError(f"{source.path}: {where}: its B-tree has a wrong level at {address}")
        if level == 0:
            yield from entries
        else:
            waiting.extend((child, level - 1) for _, child in reversed(entries))


def _entries(
    source: Source, address: int, kind: int, key_size: int, where: str
) -> tuple[int, list[tuple[bytes, int]]]:
    what = f"a B-tree node of {where}"
    signature, found, level, count = _NODE.unpack(source.read(address, _NODE.size, what))
    if signature != b"TREE" or found != kind:
        raise HeaderError(f"{source.path}: {what} is not at byte {address}")
    entry = struct.Struct(f"<{key_size}sQ")
    data = source.read(address + _NODE.size, count * entry.size, what)
    return level, list(entry.iter_unpack(data)) if data else []
