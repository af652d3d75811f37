"""The bytes of a pickle: taken in order, not beyond the end, and counted before they are taken."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..budget import Budget
from ..errors import PickleError
from .nodes import Blob
from .opcodes import NAMES
from .text import TextError

_UNIT = 24
_LONGEST_BYTES = 256
_LONGEST_LINE = 4096
_RELEASED = 16 << 20


class PickleReader:
    """Takes the arguments of opcodes from `data`.

    What a pickle costs is counted in units of 24 bytes of memory, under `Budget.opcodes`.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path, self.budget = path, budget
        self.spent = 0
        self._open(b"", 0, None, "")

    def _open(self, data: bytes | mmap.mmap, start: int, end: int | None, what: str) -> None:
        self._data, self._what = data, what
        self._end = len(data) if end is None else end
        self._start = self._at = self._opcode = self._released = start

    def _error(self, fault: str) -> PickleError:
        name = NAMES.get(self._data[self._opcode], "") if self._opcode < self._end else ""
        where = f"at byte {self._opcode} ({name.upper()})" if name else f"at byte {self._opcode}"
        return PickleError(f"{self.path}: {self._what} {fault}, {where}")

    def _take(self, count: int) -> bytes:
        """The next bytes."""
        start, self._at = self._at, self._at + count
        if self._at > self._end:
            raise self._error(f"needs {count} bytes that are not there")
        return self._data[start : self._at]

    def _natural(self, width: int) -> int:
        start, self._at = self._at, self._at + width  # not by _take: most opcodes come here
        if self._at > self._end:
            raise self._error(f"needs {width} bytes that are not there")
        return int.from_bytes(self._data[start : self._at], "little")

    def _line(self, longest: int = _LONGEST_LINE) -> bytes:
        stop = self._data.find(b"\n", self._at, min(self._end, self._at + longest))
        if stop < 0:
            raise self._error("has a line that does not end, or is too long")
        line = self._sized(stop - self._at)
        self._at += 1
        return line

    def _charge(self, nbytes: int) -> None:
        """Count memory beyond what the weight of the opcode stands for."""
        self.spent += nbytes // _UNIT

    def _text(self, count: int) -> str:
        raw = self._sized(count)
        try:
            text = raw.decode("utf-8", "surrogatepass")  # so does Python, for names of files
        except UnicodeDecodeError:
            raise self._error("has text that is not UTF-8") from None
        if not text.isascii():
            self._charge(sys.getsizeof(text) - count)  # one character can make all take four bytes
        return text

    def _sized(self, count: int) -> bytes:
        """Bytes whose number the file chose: counted before they are taken."""
        if count > self._end - self._at:
            raise self._error(f"needs {count} bytes that are not there")
        self._charge(count)
        self.budget.check("opcodes", self.spent, self.path)
        return self._take(count)

    def _octets(self, count: int) -> bytes | Blob:
        if count <= _LONGEST_BYTES:
            return self._sized(count)
        blob = Blob(self._at, count)
        self._at += count
        if self._at > self._end:
            raise self._error(f"needs {count} bytes that are not there")
        self._release()
        return blob

    def _release(self) -> None:
        """Let go of pages: between long byte strings, all of a mapped file would be looked at."""
        if type(self._data) is mmap.mmap and self._at - self._released > _RELEASED:
            self._released = self._at
            if hasattr(self._data, "madvise"):
                self._data.madvise(mmap.MADV_DONTNEED)

    def _parsed(self, parse: Callable[[bytes], Any], longest: int = _LONGEST_LINE) -> Any:
        """The argument of an opcode of protocol 0: a line of text."""
        try:
            return parse(self._line(longest))
        except TextError as cause:
            raise self._error(f"has {cause}") from None
