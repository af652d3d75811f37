"""Opening what a path names: a regular file, mapped and never written."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import NotReadableError, TruncatedError


def require_file(path: Path) -> int:
    """The size of the regular file at `path`; a pipe or a device is refused, not opened."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise NotReadableError(f"{path}: cannot be read: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        raise NotReadableError(f"{path}: not a regular file")
    return found.st_size


def read_bytes(path: Path, size: int, start: int = 0) -> bytes:
    """Exactly `size` bytes of a file from `start`."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as cause:
        raise NotReadableError(f"{path}: cannot be read: {cause.strerror}") from None
    if len(data) != size:
        raise TruncatedError(
            f"{path}: ends at byte {start + len(data)}, {start + size} were expected"
        )
    return data


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes that lie as they are in a file; they are mapped into memory when they are read."""

    path: Path
    offset: int
    nbytes: int

    @property
    def key(self) -> Hashable:
        return self.path, self.offset

    def read(self, what: str) -> np.ndarray:
        """The bytes; `what` names them in messages."""
        if not self.nbytes:
            return np.frombuffer(b"", np.uint8)
        try:
            return np.asarray(np.memmap(self.path, np.uint8, "r", self.offset, (self.nbytes,)))
        except OSError as cause:
            raise NotReadableError(
                f"{self.path}: {what} cannot be mapped: {cause.strerror}"
            ) from None
        except ValueError as cause:
            raise TruncatedError(f"{self.path}: {what} can no longer be mapped: {cause}") from None


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor in C order that lies uncompressed in a file; it is mapped when it is read.

    `name` is for messages. Elements narrower than a byte are unpacked when read.
    """

    path: Path
    name: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    stored_nbytes: int

    @property
    def nbytes(self) -> int:
        return self.stored_nbytes

    @property
    def key(self) -> Hashable:
        return self.path, self.offset, self.shape, self.dtype.name

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        stored = FileBytes(self.path, self.offset, self.stored_nbytes)
        packed = stored.read(f"tensor {self.name!r}")
        if self.stored_nbytes * 2 == math.prod(self.shape) * self.dtype.itemsize:
            packed = _unpack_nibbles(packed)
        tensor = packed.view(self.dtype).reshape(self.shape)
        tensor.flags.writeable = False
        return tensor[rows] if self.shape else tensor


def _unpack_nibbles(packed: np.ndarray) -> np.ndarray:
    """Two 4-bit elements a byte, the first in the low half."""
    return np.stack([packed & 0xF, packed >> 4], axis=-1).ravel()
