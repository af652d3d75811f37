"""Object headers: the messages that make an object a group or a dataset."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import HeaderError, LayoutError
from .source import Cursor, Source

DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL_FILES = 0x01, 0x02, 0x03, 0x06, 0x07
LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION = 0x08, 0x0B, 0x0C, 0x10
SYMBOL_TABLE, ATTRIBUTE_INFO = 0x11, 0x15
_KEPT = {DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL_FILES, LAYOUT, FILTERS, ATTRIBUTE}
_KEPT |= {SYMBOL_TABLE, ATTRIBUTE_INFO}

_V1 = struct.Struct("<B3xII4x")  # version, references, size of the first block
_MESSAGE_V1 = struct.Struct("<HHB3x")
_MESSAGE_V2 = struct.Struct("<BHB")
_PLACE = struct.Struct("<QQ")
_SHARED = 0x02
_MOST_MESSAGES = 0xFFFF
_CHECKSUM = 4
_PER_MESSAGE = 16  # messages may be empty, but they take time and memory


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header."""

    kind: int
    shared: bool
    """Whether the data is only the address of where the message is."""
    data: bytes
    at: int
    """Where the data stands in the file."""


@dataclass(frozen=True, slots=True)
class _Block:
    at: int
    data: bytes


def read_messages(source: Source, address: int, where: str) -> list[Message]:
    """The messages of the object whose header is at `address`, those alone that are of use."""
    start = source.read(address, 16, f"the header of {where}")
    if start[:4] == b"OHDR":
        blocks, wide = _first_v2(source, address, where)
    elif start[0] == 1:
        _, _, size = _V1.unpack(start)
        first = address + _V1.size
        blocks = [_Block(first, source.read(first, size, f"the header of {where}"))]
        wide = None
    else:
        raise HeaderError(f"{source.path}: {where} has no object header at byte {address}")
    return _collect(source, blocks, wide, where)


def _first_v2(source: Source, address: int, where: str) -> tuple[list[_Block], int]:
    """The first block, and the size of what stands before each message."""
    what = f"the header of {where}"
    version, flags = source.read(address + 4, 2, what)
    if version != 2:
        raise HeaderError(f"{source.path}: {where}: object header version {version} is unknown")
    at = address + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    width = 1 << (flags & 3)
    size = int.from_bytes(source.read(at, width, what), "little")
    first = _Block(at + width, source.read(at + width, size, what))
    return [first], _MESSAGE_V2.size + 2 * bool(flags & 0x04)


def _collect(source: Source, blocks: list[_Block], wide: int | None, where: str) -> list[Message]:
    """Walk the blocks; a continuation adds one to their end."""
    kept: list[Message] = []
    seen = {blocks[0].at}
    count = 0
    for block in blocks:  # grows while it is walked
        for message in _messages(block, wide, f"{source.path}: the header of {where}"):
            count += 1
            if count > _MOST_MESSAGES:
                raise HeaderError(f"{source.path}: {where} has over {_MOST_MESSAGES} messages")
            if message.kind == CONTINUATION:
                more = _continued(source, message, wide, where)
                if more.at in seen:
                    raise LayoutError(f"{source.path}: the header of {where} goes in a circle")
                seen.add(more.at)
                blocks.append(more)
            elif message.kind in _KEPT:
                kept.append(message)
    source.spend(_PER_MESSAGE * (count + len(kept)))
    return kept


def _messages(block: _Block, wide: int | None, where: str) -> Iterator[Message]:
    cursor = Cursor(block.data, where)
    before = _MESSAGE_V1.size if wide is None else wide
    while cursor.at + before <= len(block.data):
        if wide is None:
            kind, size, flags = cursor.unpack(_MESSAGE_V1)
        else:
            kind, size, flags = cursor.unpack(_MESSAGE_V2)
            cursor.take(wide - _MESSAGE_V2.size)
        at = block.at + cursor.at
        yield Message(kind, bool(flags & _SHARED), cursor.take(size), at)


def _continued(source: Source, message: Message, wide: int | None, where: str) -> _Block:
    what = f"the continued header of {where}"
    at, size = Cursor(message.data, f"{source.path}: {what}").unpack(_PLACE)
    data = source.read(at, size, what)
    if wide is None:
        return _Block(at, data)
    if data[:4] != b"OCHK" or size < 4 + _CHECKSUM:
        raise HeaderError(f"{source.path}: {what} is not at byte {at}")
    return _Block(at + 4, data[4:-_CHECKSUM])
