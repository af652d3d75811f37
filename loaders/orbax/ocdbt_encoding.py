"""How OCDBT writes a manifest or a node: a header, a body that may be compressed, a checksum."""

from __future__ import annotations

from typing import NoReturn

from ..compression import expand
from ..errors import ArchiveError, HeaderError
from .crc32c import crc32c

MANIFEST_MAGIC, NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
NOWHERE = (1 << 64) - 1


def read_body(data: bytes, magic: int, most: int, where: str) -> Cursor:
    """The body of a manifest or a node, of `most` bytes at most."""
    cursor = Cursor(data[:-4], where)
    found = int.from_bytes(cursor.take(4), "big")
    length = int.from_bytes(cursor.take(8), "little")
    if found != magic or length != len(data) or cursor.number():
        raise HeaderError(f"{where} is not what OCDBT writes: another start or length")
    if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ArchiveError(f"{where} is damaged: its CRC is wrong")
    compressed = cursor.number()
    if compressed > 1:
        cursor.refuse(f"the compression {compressed} is unknown")
    body = cursor.rest()
    return Cursor(expand(body, "zstd", most, where) if compressed else body, where)


class Cursor:
    """Fields of a manifest or a node, one after the other."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._at, self._where = data, 0, where

    def __len__(self) -> int:
        return len(self._data)

    def take(self, length: int) -> bytes:
        if length > len(self._data) - self._at:
            self.refuse("it is cut off")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self) -> int:
        return self.numbers(1)[0]

    def numbers(self, count: int) -> list[int]:
        """Seven bits a byte, the lowest first; the eighth says that another byte follows."""
        if count > len(self._data) - self._at:
            self.refuse("it is cut off")
        return [self._varint() for _ in range(count)]

    def _varint(self) -> int:
        data, at, shift, value = self._data, self._at, 0, 0
        for octet in data[at : at + 10]:
            at += 1
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                break
            shift += 7
        else:
            self.refuse("a number does not end")
        if value > NOWHERE:
            self.refuse("a number has more than 64 bits")
        self._at = at
        return value

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            self.refuse(f"{len(self._data) - self._at:,} bytes follow its last entry")

    def refuse(self, what: str) -> NoReturn:
        raise HeaderError(f"{self._where} is not what OCDBT writes: {what}")
