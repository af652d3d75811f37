"""What a group holds: names, and the headers that they lead to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import HeaderError, LayoutError
from ..strict_json import brief
from .dense import LINKS_BY_NAME, FractalHeap, records
from .headers import LINK, LINK_INFO, SYMBOL_TABLE, Message
from .heaps import LONGEST_NAME, LocalHeap
from .source import UNDEFINED, Cursor, Source
from .trees import GROUP, leaves

HARD, SOFT, EXTERNAL = 0, 1, 64
_KINDS = {SOFT: "a soft link", EXTERNAL: "a link to another file"}
_PAIR = struct.Struct("<QQ")
_LEAF = struct.Struct("<4s2xH")
_SYMBOL = struct.Struct("<2QI20x")
_SYMBOL_SOFT = 2
_HASH = 4


@dataclass(frozen=True, slots=True)
class Link:
    """Where a name leads to: `address` is the header of an object where the link is hard."""

    kind: int
    address: int

    @property
    def words(self) -> str:
        return _KINDS.get(self.kind, f"a link of the user's own kind {self.kind}")


def read_links(source: Source, messages: list[Message], where: str) -> dict[str, Link]:
    """The links of a group by name, in the order of the file."""
    links: dict[str, Link] = {}
    for name, link in _all_links(source, messages, where):
        if not name or "/" in name or name == ".":
            raise HeaderError(f"{source.path}: {where} holds the impossible name {brief(name)}")
        if name in links:
            raise LayoutError(f"{source.path}: {where} holds {brief(name)} twice")
        links[name] = link
    return links


def _all_links(source: Source, messages: list[Message], where: str) -> Iterator[tuple[str, Link]]:
    for message in messages:
        cursor = Cursor(message.data, f"{source.path}: {where}: a link message")
        if message.kind == SYMBOL_TABLE:
            tree, heap = cursor.unpack(_PAIR)
            yield from _symbols(source, tree, LocalHeap(source, heap, where), where)
        elif message.kind == LINK:
            yield _link(cursor)
        elif message.kind == LINK_INFO:
            yield from _dense(source, cursor, where)


def _symbols(source: Source, tree: int, heap: LocalHeap, where: str) -> Iterator[tuple[str, Link]]:
    """The older form: a B-tree whose leaves are lists of names and addresses."""
    what = f"the links of {where}"
    seen: set[int] = set()
    for _, address in leaves(source, tree, GROUP, 8, where):
        if address in seen:
            raise LayoutError(f"{source.path}: {what} at byte {address} are met twice")
        seen.add(address)
        signature, count = _LEAF.unpack(source.read(address, _LEAF.size, what))
        if signature != b"SNOD":
            raise HeaderError(f"{source.path}: {what} are not at byte {address}")
        data = source.read(address + _LEAF.size, count * _SYMBOL.size, what)
        for name, target, kind in _SYMBOL.iter_unpack(data):
            link = Link(SOFT if kind == _SYMBOL_SOFT else HARD, target)
            yield heap.name(name), link


def _dense(source: Source, cursor: Cursor, where: str) -> Iterator[tuple[str, Link]]:
    _, flags = cursor.take(2)
    cursor.take(8 * (flags & 1))
    heap_at, index_at = cursor.unpack(_PAIR)
    if heap_at == UNDEFINED:  # the links stand in messages of their own
        return
    heap = FractalHeap(source, heap_at, where)
    for record in records(source, index_at, LINKS_BY_NAME, where):
        data = heap.get(record[_HASH:])
        yield _link(Cursor(data, f"{source.path}: {where}: a link message"))


def _link(cursor: Cursor) -> tuple[str, Link]:
    version, flags = cursor.take(2)
    if version != 1:
        raise HeaderError(f"{cursor.where} has the unknown version {version}")
    kind = cursor.number(1) if flags & 0x08 else HARD
    cursor.take(8 * bool(flags & 0x04) + bool(flags & 0x10))
    length = cursor.number(1 << (flags & 3))
    if length > LONGEST_NAME:
        raise HeaderError(f"{cursor.where} has a name of {length} bytes")
    name = cursor.text(length)
    return name, Link(kind, cursor.number(8) if kind == HARD else UNDEFINED)
