"""The newer form of large groups: a B-tree of hashes over a fractal heap of messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..errors import HeaderError, LayoutError, UnsupportedError
from .source import Cursor, Source

LINKS_BY_NAME, ATTRIBUTES_BY_NAME = 5, 8
_HEAP = struct.Struct("<4sB2HBI")  # signature, version, id length, filters, flags, largest object
_TABLE = struct.Struct("<H2Q2HQH")  # width, first size, largest, bits, rows at first, root, rows
_TABLE_AT = 110
_TREE = struct.Struct("<4s2BIHH2xQHQ")
_NODE = struct.Struct("<4s2B")
_CHECKSUM = 4
_INDIRECT_HEAD = 13
_MANAGED, _TINY = 0, 2
_DEEPEST = 16


class FractalHeap:
    """Objects by their ids; those of the kinds "managed" and "tiny" alone are read."""

    def __init__(self, source: Source, address: int, where: str) -> None:
        self._source, self._what = source, f"the heap of {where}"
        head = source.read(address, _TABLE_AT + _TABLE.size, self._what)
        signature, version, _, filters, _, largest = _HEAP.unpack_from(head)
        if signature != b"FRHP" or version != 0:
            raise HeaderError(f"{source.path}: {self._what} is not at byte {address}")
        if filters:
            raise UnsupportedError(f"{source.path}: {self._what} is compressed, which is not read")
        table = _TABLE.unpack_from(head, _TABLE_AT)
        self._width, self._first, self._direct, bits, _, self._root, self._rows = table
        sizes = (self._width, self._first, self._direct)
        if any(size & (size - 1) or not size for size in sizes) or not 0 < bits <= 64:
            raise HeaderError(f"{source.path}: {self._what} has a damaged table")
        self._offset_size = -(-bits // 8)
        bound = min(largest, self._direct) or 1
        self._length_size = (bound.bit_length() - 1) // 8 + 1

    def get(self, key: bytes) -> bytes:
        """The object with the id `key`."""
        cursor = Cursor(key, f"{self._source.path}: {self._what}: an id")
        first = cursor.number(1)
        kind = first >> 4 & 3
        if kind == _TINY:
            return cursor.take((first & 0xF) + 1)
        if kind != _MANAGED:
            raise UnsupportedError(
                f"{self._source.path}: {self._what} holds an object by itself, which is not read"
            )
        offset = cursor.number(self._offset_size)
        length = cursor.number(self._length_size)
        address, room = self._locate(offset)
        if length > room:
            raise LayoutError(f"{self._source.path}: {self._what}: an object leaves its block")
        return self._source.read(address, length, self._what)

    def _locate(self, offset: int) -> tuple[int, int]:
        """Address of the byte at `offset` in the heap, and the bytes from there in its block."""
        block, rows = self._root, self._rows
        for _ in range(_DEEPEST):
            if not rows:
                return block + offset, self._first - offset
            row, size, column, offset = self._cell(offset)
            if row >= rows:
                break
            entry = block + _INDIRECT_HEAD + self._offset_size + 8 * (row * self._width + column)
            block = int.from_bytes(self._source.read(entry, 8, self._what), "little")
            if size <= self._direct:
                return block + offset, size - offset
            rows = (size // (self._first * self._width)).bit_length()
        raise LayoutError(f"{self._source.path}: {self._what}: an object lies outside of it")

    def _cell(self, offset: int) -> tuple[int, int, int, int]:
        """Row, block size and column in a table whose rows double, and the offset in the block."""
        ratio = offset // (self._first * self._width)
        row = ratio.bit_length()
        size = self._first << max(0, row - 1)
        start = size * self._width if row else 0
        column, rest = divmod(offset - start, size)
        return row, size, column, rest


def records(source: Source, address: int, kind: int, where: str) -> Iterator[bytes]:
    """The records of a newer B-tree."""
    what = f"the index of {where}"
    fields = _TREE.unpack(source.read(address, _TREE.size, what))
    signature, version, found, node_size, record, depth, root, count, _ = fields
    if signature != b"BTHD" or version != 0 or found != kind or not record:
        raise HeaderError(f"{source.path}: {what} is not at byte {address}")
    if depth > _DEEPEST:
        raise LayoutError(f"{source.path}: {what} is {depth} levels deep")
    widths = _pointer_widths(node_size, record, depth, f"{source.path}: {what}")
    waiting = [(root, count, depth)] if count else []
    seen: set[int] = set()
    while waiting:
        at, count, level = waiting.pop()
        if at in seen:
            raise LayoutError(f"{source.path}: {what} meets byte {at} twice")
        seen.add(at)
        size = count * record + (count + 1) * widths[level] * bool(level)
        data = source.read(at, _NODE.size + size, what)
        expected = b"BTIN" if level else b"BTLF"
        if _NODE.unpack_from(data) != (expected, 0, kind):
            raise HeaderError(f"{source.path}: {what} has no node at byte {at}")
        cursor = Cursor(data, f"{source.path}: {what}", _NODE.size)
        yield from [cursor.take(record) for _ in range(count)]
        if level:
            waiting.extend(_children(cursor, count + 1, widths, level))


def _children(
    cursor: Cursor, count: int, widths: list[int], level: int
) -> Iterator[tuple[int, int, int]]:
    """Address, number of records and level of the nodes below; `widths[0]` is of their number."""
    for _ in range(count):
        address, number = cursor.number(8), cursor.number(widths[0])
        cursor.take(widths[level] - 8 - widths[0])
        yield address, number, level - 1


def _pointer_widths(node_size: int, record: int, depth: int, where: str) -> list[int]:
    """Bytes of a pointer at each level; at level 0, where there is none, of a node's count."""
    most = total = (node_size - _NODE.size - _CHECKSUM) // record
    if most < 1:
        raise HeaderError(f"{where} has nodes too small for a record")
    widths = [_bytes_for(most)]
    for level in range(1, depth + 1):
        pointer = 8 + widths[0] + (_bytes_for(total) if level > 1 else 0)
        widths.append(pointer)
        most = (node_size - _NODE.size - _CHECKSUM - pointer) // (record + pointer)
        if most < 1:
            raise HeaderError(f"{where} has nodes too small for a record")
        total = (most + 1) * total + most
    return widths


def _bytes_for(number: int) -> int:
    """Bytes that hold every number up to `number`."""
    return (number.bit_length() - 1) // 8 + 1
