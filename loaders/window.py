"""A file seen through a small buffer, for headers whose length nobody tells beforehand."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from .errors import NotReadableError, TruncatedError
from .files import require_file


class Window:
    """An open file of a known size.

    Headers are read, not mapped: a mapped file that shrinks kills the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = require_file(path)

    def __enter__(self) -> Window:
        try:
            self._file = open(self.path, "rb", buffering=0)
        except OSError as cause:
            raise NotReadableError(f"{self.path}: cannot be read: {cause.strerror}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        data = self.upto(start, length) if start + length <= self.size else b""
        if len(data) != length:
            raise TruncatedError(
                f"{self.path}: ends at byte {self.size}, {length:,} bytes at {start} were expected"
            )
        return data

    def upto(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`."""
        try:
            self._file.seek(start)
            return self._file.read(length)
        except OSError as cause:
            raise NotReadableError(f"{self.path}: cannot be read: {cause.strerror}") from None
