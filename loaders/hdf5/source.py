"""The bytes of an HDF5 file within bounds: each structure that is parsed passes through here.

Addresses in HDF5 are free: structures may overlap, repeat or form circles. What is read of them
is therefore counted, whether it is new or not, so that no circle can be walked for long.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..budget import Budget
from ..errors import HeaderError, NotReadableError, TruncatedError
from ..files import FileBytes
from ..inflated import Inflated

UNDEFINED = (1 << 64) - 1
"""The address of what was never written."""

_COST = 40
"""Each read counts as so many bytes more: a file of the smallest structures takes longest."""


class Source:
    """An HDF5 file in another file or in memory; positions count from its base address."""

    def __init__(
        self,
        path: Path,
        stored: FileBytes | Inflated,
        pread: Callable[[int, int], bytes],
        budget: Budget,
        spent: int,
    ) -> None:
        self.path, self.stored, self.budget = path, stored, budget
        self._pread = pread
        self.base = 0
        self.spent = spent
        self._expanded = self._packed = self._working = 0

    @property
    def size(self) -> int:
        """Bytes from the base address to the end of the file."""
        return self.stored.nbytes - self.base

    def spend(self, length: int) -> None:
        """Count `length` bytes of structure; BudgetError where they are too many."""
        self.spent += length
        self.budget.check("header_bytes", self.spent, self.path)

    def count_expansion(self, nbytes: int, stored: int, working: int) -> None:
        """Count a tensor that takes `nbytes` in memory and `stored` in the file.

        `working` bytes more are taken while it is read, after those of other tensors are free.
        """
        self._expanded += nbytes
        self._packed += stored
        self._working = max(self._working, working)
        self.budget.check_expansion(self._expanded + self._working, self._packed, self.path)

    def read(self, at: int, length: int, what: str) -> bytes:
        """`length` bytes of the structure at `at`, which `what` names."""
        self.spend(length + _COST)
        return self.content(at, length, what)

    def content(self, at: int, length: int, what: str) -> bytes:
        """The same of bytes that another limit of the budget bounds."""
        self.check_inside(at, length, what)
        data = self._pread(self.base + at, length)
        if len(data) != length:
            raise TruncatedError(f"{self.path}: {what} can no longer be read")
        return data

    def check_inside(self, at: int, length: int, what: str) -> None:
        """Raise `TruncatedError` where bytes are asked for that the file does not have."""
        if at + length > self.size:
            place = "undefined" if at == UNDEFINED else f"byte {at}"
            raise TruncatedError(
                f"{self.path}: {what} of {length} bytes at {place} is not within the "
                f"{self.size} bytes of the file"
            )


class Cursor:
    """Fields one after the other out of bytes that may end too soon."""

    __slots__ = ("at", "data", "where")

    def __init__(self, data: bytes, where: str, at: int = 0) -> None:
        self.data, self.where, self.at = data, where, at

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """The numbers of `layout`, little endian as all of HDF5's own are."""
        return layout.unpack(self.take(layout.size))

    def number(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self.at + length
        if end > len(self.data):
            raise HeaderError(f"{self.where} ends at byte {len(self.data)} of {end}")
        found = self.data[self.at : end]
        self.at = end
        return found

    def text(self, length: int) -> str:
        """A name in UTF-8, without the NUL at its end."""
        return decoded(self.take(length).partition(b"\0")[0], self.where)


def decoded(text: bytes, where: str) -> str:
    """`text` as UTF-8, or HeaderError."""
    try:
        return text.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise HeaderError(f"{where} holds text that is not UTF-8: {text[:40]!r}") from None


@contextmanager
def opened(
    path: Path, stored: FileBytes | Inflated, budget: Budget, spent: int
) -> Iterator[Source]:
    """The bytes in `stored`, a part of the file at `path` or what was inflated from it."""
    if isinstance(stored, Inflated):
        data = stored.array
        yield Source(path, stored, lambda at, size: data[at : at + size].tobytes(), budget, spent)
        return
    start = stored.offset
    try:
        file = os.open(stored.path, os.O_RDONLY)
    except OSError as cause:
        raise NotReadableError(f"{path}: cannot be read: {cause.strerror}") from None
    try:
        yield Source(path, stored, lambda at, size: os.pread(file, size, start + at), budget, spent)
    finally:
        os.close(file)
