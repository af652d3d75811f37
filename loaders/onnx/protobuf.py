"""Protocol Buffers on the wire: the fields of a message in a file, its payloads passed over.

No schema and no objects: a caller walks the fields that it knows, and large ones stay where they
are. Groups, which no format here uses, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from ..budget import Budget
from ..errors import HeaderError, LayoutError, TruncatedError
from ..window import Window

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_FIRST, _LAST = 8, (1 << 32) - 1
_STEP = 1 << 13
_PORTION = 1 << 18
_LONGEST = 10
_TALLEST = (1 << 64) - 1
_HEAD = 2 * _LONGEST

Field = tuple[int, int, int, int]
"""Number, wire type, then the value of a varint or the start of the payload, and its end."""


class Wire:
    """The fields of the messages in one file, within the budget."""

    def __init__(self, window: Window, budget: Budget) -> None:
        self.path, self.size, self.budget = window.path, window.size, budget
        self._window = window
        self._buffer, self._base, self._safe = b"", 0, -1
        self._count = self._bytes = 0
        self._most, self._longest = budget.fields, budget.header_bytes

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message that lies from `start` to `end`."""
        while start < end:
            here = start - self._base
            if not 0 <= here <= self._safe:
                here = self._fill(start)
            tag, value = self._buffer[here], self._buffer[here + 1]
            here += 2
            kind = tag & 7
            if tag > 0x7F or value > 0x7F or (kind not in (BYTES, VARINT)):
                tag, value, here = self._unusual(here - 2)
                kind = tag & 7
            begin = self._base + here
            if kind == BYTES:
                value, stop = begin, begin + value
            elif kind == VARINT:
                stop = begin
            else:
                value, stop = begin, begin + _FIXED[kind]
            if stop > end or tag < _FIRST:
                self._refuse(tag, start, stop, end)
            self._count += 1
            self._bytes += begin - start
            if self._count > self._most or self._bytes > self._longest:
                self.spend(0)
            yield tag >> 3, kind, value, stop
            start = stop

    def text(self, start: int, end: int) -> str:
        """A text."""
        try:
            return self.octets(start, end).decode("utf-8")
        except UnicodeDecodeError:
            raise HeaderError(f"{self.path}: a name at byte {start} is not UTF-8") from None

    def octets(self, start: int, end: int) -> bytes:
        """Bytes that count as header."""
        self.spend(end - start)
        here = start - self._base
        if here >= 0 and end - self._base <= len(self._buffer):
            return self._buffer[here : end - self._base]
        return self._window.read(start, end - start)

    def numbers(self, start: int, end: int) -> list[int]:
        """Packed varints."""
        octets = np.frombuffer(self.octets(start, end), np.uint8)
        where = f"{self.path}: the numbers at byte {start}"
        return [number for portion in varints(octets, where) for number in portion.tolist()]

    def spend(self, length: int) -> None:
        """Count bytes of header."""
        self._bytes += length
        if self._bytes > self._longest or self._count > self._most:
            self.budget.check("header_bytes", self._bytes, self.path)
            self.budget.check("fields", self._count, self.path)

    def _fill(self, start: int) -> int:
        data = self._window.upto(start, _STEP)
        # A field may start close to the end: what it lacks there shows when it ends too late.
        self._buffer, self._base = data + bytes(_HEAD), start
        self._safe = len(data) - (_HEAD if len(data) == _STEP else 1)
        return 0

    def _unusual(self, here: int) -> tuple[int, int, int]:
        """A tag, the number after it unless the field is of fixed width, and where they end."""
        tag, here = self._varint(here)
        if tag & 7 in _FIXED:
            return tag, 0, here
        if tag & 7 not in (BYTES, VARINT) or tag > _LAST:
            self._refuse(tag, self._base + here, 0, 0)
        return tag, *self._varint(here)

    def _varint(self, here: int) -> tuple[int, int]:
        """A number of seven bits a byte, and where in the buffer it ends."""
        value = octet = 0
        for shift in range(0, 7 * _LONGEST, 7):
            octet = self._buffer[here]
            here += 1
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                break
        if octet > 0x7F or value > _TALLEST:
            raise HeaderError(f"{self.path}: the number by byte {self._base + here} is too large")
        return value, here

    def _refuse(self, tag: int, start: int, stop: int, end: int) -> NoReturn:
        if stop <= end:
            raise HeaderError(f"{self.path}: no field has the tag {tag}, at byte {start}")
        error = TruncatedError if end == self.size else HeaderError
        raise error(f"{self.path}: the field at byte {start} ends at {stop}, its message at {end}")


def signed(value: int) -> int:
    """A varint as a number with a sign, in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def varints(packed: np.ndarray, where: str) -> Iterator[np.ndarray]:
    """The numbers in packed bytes, as uint64, by portions."""
    while len(packed):
        portion = packed[:_PORTION]
        ends = np.flatnonzero(portion < 0x80)
        if not len(ends):
            raise LayoutError(f"{where}: its numbers do not end")
        yield _decoded(portion, ends, where)
        packed = packed[ends[-1] + 1 :]


def _decoded(octets: np.ndarray, ends: np.ndarray, where: str) -> np.ndarray:
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise LayoutError(f"{where}: a number is over 64 bits")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        bits = (octets[starts[longer] + place] & 0x7F).astype(np.uint64)
        values[longer] |= bits << np.uint64(7 * place)
    return values
