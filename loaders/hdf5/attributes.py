"""Attributes that are text, or lists of text: all that Keras says beside its weights."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from ..errors import HeaderError, LayoutError, UnsupportedError
from ..strict_json import brief
from .dense import ATTRIBUTES_BY_NAME, FractalHeap, records
from .headers import ATTRIBUTE, ATTRIBUTE_INFO, Message
from .heaps import LONGEST_NAME, GlobalHeaps
from .source import UNDEFINED, Cursor, Source, decoded
from .types import STRING, Datatype, read_datatype, read_shape

_HEAD = struct.Struct("<2B3H")
_PAIR = struct.Struct("<QQ")
_REFERENCE = struct.Struct("<IQI")
_SHARED_PARTS = 3
_ID = 8
_PAD_SPACE = 2
_PER_ATTRIBUTE = 64


class Attributes:
    """The attributes of one object by name; a value is decoded when it is asked for."""

    def __init__(
        self, source: Source, heaps: GlobalHeaps, messages: list[Message], where: str
    ) -> None:
        self._source, self._heaps, self._where = source, heaps, where
        self._at = f"{source.path}: {where}: an attribute"
        self._found: dict[str, Cursor] = {}
        self._layout: dict[str, tuple[int, int, int]] = {}
        for data in _all_attributes(source, messages, where):
            self._add(data)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def texts(self, name: str) -> list[str]:
        """The list of text under `name`; of an empty list the type is of no interest."""
        kind, shape, data = self._decode(name)
        where = self._what(name)
        if len(shape) > 1:
            raise HeaderError(f"{where} has {len(shape)} dimensions, a list of text was expected")
        count = math.prod(shape)
        return [decoded(text, where) for text in self._values(kind, count, data, where)]

    def text(self, name: str, limit: str = "header_bytes") -> str:
        """The text under `name`, its length within that limit of the budget."""
        kind, shape, data = self._decode(name)
        where = self._what(name)
        if math.prod(shape) != 1:
            raise HeaderError(f"{where} is no single text")
        (found,) = self._values(kind, 1, data, where, limit)
        return decoded(found, where)

    def _what(self, name: str) -> str:
        return f"{self._source.path}: {self._where}: attribute {brief(name)}"

    def _add(self, data: bytes) -> None:
        """Know the attribute by its name; its parts are padded in version 1."""
        self._source.spend(_PER_ATTRIBUTE)
        cursor = Cursor(data, self._at)
        version, shared, *sizes = cursor.unpack(_HEAD)
        if version not in (1, 2, 3):
            raise HeaderError(f"{cursor.where} has the unknown version {version}")
        if version > 1 and shared & _SHARED_PARTS:
            raise UnsupportedError(f"{cursor.where} has a type by reference, which is not read")
        cursor.take(version == 3)
        if sizes[0] > LONGEST_NAME:
            raise HeaderError(f"{cursor.where} has a name of {sizes[0]} bytes")
        start = cursor.at
        name = cursor.text(sizes[0])
        if name in self._found:
            raise LayoutError(f"{cursor.where} {brief(name)} stands twice")
        step = 8 if version == 1 else 1
        self._found[name] = cursor
        name_size, type_size, shape_size = (-(-size // step) * step for size in sizes)
        self._layout[name] = start + name_size, type_size, shape_size

    def _decode(self, name: str) -> tuple[Datatype, tuple[int, ...], Cursor]:
        cursor = self._found[name]
        cursor.at, type_size, shape_size = self._layout[name]
        where = self._what(name)
        kind = read_datatype(Cursor(cursor.take(type_size), where))
        shape = read_shape(Cursor(cursor.take(shape_size), where))
        return kind, shape, cursor

    def _values(
        self, kind: Datatype, count: int, data: Cursor, where: str, limit: str = "header_bytes"
    ) -> Iterator[bytes]:
        if not count:
            return
        if not kind.is_text:
            raise HeaderError(f"{where} is no text")
        size = kind.size if kind.kind == STRING else _REFERENCE.size
        if not size:
            raise HeaderError(f"{where} claims {count} texts of no bytes")
        self._source.spend(count * size)  # a value can be asked for again and again
        for _ in range(count):
            if kind.kind == STRING:
                yield _trimmed(data.take(size), kind)
            else:
                yield self._referred(data, limit)

    def _referred(self, data: Cursor, limit: str) -> bytes:
        """Text of variable length lies in a heap."""
        length, collection, index = data.unpack(_REFERENCE)
        if not length:
            return b""
        what = f"an attribute of {self._where}"
        at, room = self._heaps.place(collection, index, what)
        if length > room:
            raise LayoutError(f"{data.where}: text of {length} bytes in {room}")
        if limit != "header_bytes":
            self._source.budget.check(limit, length, self._source.path)
            return self._source.content(at, length, what).partition(b"\0")[0]
        return self._source.read(at, length, what).partition(b"\0")[0]


def _trimmed(text: bytes, kind: Datatype) -> bytes:
    text = text.partition(b"\0")[0]
    return text.rstrip(b" ") if kind.bits & 0xF == _PAD_SPACE else text


def _all_attributes(source: Source, messages: list[Message], where: str) -> Iterator[bytes]:
    for message in messages:
        if message.kind in (ATTRIBUTE, ATTRIBUTE_INFO) and message.shared:
            raise UnsupportedError(f"{source.path}: {where} shares attributes, which are not read")
        if message.kind == ATTRIBUTE:
            yield message.data
        elif message.kind == ATTRIBUTE_INFO:
            yield from _dense(source, message, where)


def _dense(source: Source, message: Message, where: str) -> Iterator[bytes]:
    cursor = Cursor(message.data, f"{source.path}: {where}: its attributes")
    _, flags = cursor.take(2)
    cursor.take(2 * (flags & 1))
    heap_at, index_at = cursor.unpack(_PAIR)
    if heap_at == UNDEFINED:
        return
    heap = FractalHeap(source, heap_at, where)
    for record in records(source, index_at, ATTRIBUTES_BY_NAME, where):
        if record[_ID] & 0x02:
            raise UnsupportedError(f"{cursor.where} are shared, which is not read")
        yield heap.get(record[:_ID])
