"""Tensors that are a view of stored bytes: an offset, strides, a byte order, a sign."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .errors import LayoutError

_LARGEST = (1 << 63) - 1
_DIMENSIONS = 32


class Stored(Protocol):
    """Bytes that can be read: `files.FileBytes`, `archive.Member`, `MemoryBytes`."""

    @property
    def nbytes(self) -> int: ...
    @property
    def key(self) -> Hashable: ...
    def read(self, what: str) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class MemoryBytes:
    """Bytes that came out of another structure, a pickle for one."""

    data: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data)

    @property
    def key(self) -> Hashable:
        return id(self.data)

    def read(self, what: str) -> np.ndarray:
        return np.frombuffer(self.data, np.uint8)


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A view of stored bytes: `offset` and `strides` count elements, as PyTorch counts them."""

    stored: Stored
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    """With the byte order of the file."""
    offset: int
    strides: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        view = (self.offset, self.shape, self.strides, self.dtype.str, self.dtype.name)
        return self.stored.key, *view, self.conjugated, self.negated

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        elements = self.stored.read(f"tensor {self.name!r}")
        size = self.dtype.itemsize
        empty = 0 in self.shape
        sides = zip(self.shape, self.strides, strict=True)
        steps = tuple(0 if empty or side == 1 else stride * size for side, stride in sides)
        start = 0 if empty else self.offset * size
        tensor = np.ndarray(self.shape, self.dtype, elements, start, steps)  # NumPy checks bounds
        part = tensor[rows] if self.shape else tensor
        part = np.asarray(np.conjugate(part)) if self.conjugated else part
        if self.negated:
            own = part if self.conjugated else None  # a copy already, large enough for one
            part = np.asarray(np.negative(part, out=own))
        part.flags.writeable = False
        return part


def check_view(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, elements: int, where: str
) -> None:
    """Raise `LayoutError` unless every element of the view lies among `elements` stored ones."""
    if len(shape) != len(strides) or len(shape) > _DIMENSIONS:
        raise LayoutError(f"{where}: {len(shape)} sides and {len(strides)} strides")
    numbers = (*shape, *strides, offset)
    if any(type(number) is not int or not 0 <= number <= _LARGEST for number in numbers):
        raise LayoutError(f"{where}: shape, strides and offset must be natural numbers")
    if math.prod(side for side in shape if side) > _LARGEST // 16:  # in bytes, NumPy must count it
        raise LayoutError(f"{where}: shape {[*shape]} overflows")
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= elements:
        raise LayoutError(f"{where} reaches element {last} of a storage of {elements}")
