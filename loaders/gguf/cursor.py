"""Reading forward through the header of a GGUF file, within the file and the budget."""

from __future__ import annotations

import struct
from typing import Any

from ..budget import Budget
from ..errors import HeaderError, TruncatedError
from ..window import Window

DIMENSIONS = 4
_STEP = 1 << 16


class Cursor:
    """A place in the header, and what lies in front of it."""

    def __init__(self, window: Window, order: str, budget: Budget) -> None:
        self.path, self.size, self.budget = window.path, window.size, budget
        self.word = struct.Struct(f"{order}Q")
        self.two = struct.Struct(f"{order}2Q")
        self.half = struct.Struct(f"{order}I")
        self.ranked = [struct.Struct(f"{order}{rank}QIQ") for rank in range(DIMENSIONS + 1)]
        """The sides of a tensor, its type and its offset, by the number of sides."""
        self.order = order
        self._window = window
        self._buffer, self._base, self._at = b"", 8, 0
        self._passed = self._texts = 0

    @property
    def position(self) -> int:
        return self._base + self._at

    def take(self, length: int) -> bytes:
        """The next bytes."""
        end = self._at + length
        if end > len(self._buffer):
            self._refill(length)
            end = length
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def text(self, what: str) -> str:
        """A text with its length before it."""
        at = self.position
        try:
            return self.octets().decode("utf-8")
        except UnicodeDecodeError:
            raise HeaderError(f"{self.path}: {what} at byte {at} is not UTF-8") from None

    def octets(self) -> bytes:
        (length,) = self.unpack(self.word)
        return self.take(length)

    def skip(self, length: int, what: str) -> None:
        """Pass over bytes that do not count as header."""
        if length > self.size - self.position:
            raise TruncatedError(
                f"{self.path}: {what} at byte {self.position} needs {length:,} bytes, "
                f"the file ends at {self.size}"
            )
        self._passed += length
        self._base, self._buffer, self._at = self.position + length, b"", 0

    def skip_texts(self, count: int, what: str) -> None:
        """Pass over texts without holding them: a vocabulary has hundreds of thousands."""
        self._count_texts(8 * count)
        length_at, buffer, at = self.word.unpack_from, self._buffer, self._at
        for _ in range(count):
            if at + 8 > len(buffer):
                self._pass_texts(at - self._at, what)
                self._refill(8)
                buffer, at = self._buffer, 0
            at += 8 + length_at(buffer, at)[0]
        self._pass_texts(at - self._at, what)

    def _pass_texts(self, length: int, what: str) -> None:
        self.skip(length, what)
        self._texts += length
        self._count_texts(0)

    def _count_texts(self, more: int) -> None:
        self.budget.check("index_bytes", self._texts + more, self.path)

    def _refill(self, length: int) -> None:
        start = self.position
        self.budget.check("header_bytes", start + length - self._passed, self.path)
        if length > self.size - start:
            raise TruncatedError(
                f"{self.path}: ends at byte {self.size}, within its header: "
                f"{length:,} bytes at {start} were expected"
            )
        step = min(max(length, _STEP), self.size - start)
        self._buffer, self._base, self._at = self._window.read(start, step), start, 0

    def check(self) -> None:
        """The budget, once all is read: before, it is asked only where the buffer ends."""
        self.budget.check("header_bytes", self.position - self._passed, self.path)
