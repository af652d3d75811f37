"""Tensors whose stored elements are not yet their values: truth values, codes, packed pairs."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Handle

from ..strided import StridedTensor

_PIECE = 1 << 15  # elements that are decoded at once


def sealed(array: np.ndarray) -> np.ndarray:
    """`array`, no longer to be written to."""
    array.flags.writeable = False
    return array


def halves(packed: np.ndarray) -> np.ndarray:
    """The two halves of each byte, the low one first, as the last axis."""
    pairs = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.uint8)
    np.bitwise_and(packed, 0xF, out=pairs[..., 0::2])
    np.right_shift(packed, 4, out=pairs[..., 1::2])
    return pairs


@dataclass(frozen=True, slots=True)
class Truth:
    """Truth values: every byte but 0 is true, as PyTorch has it."""

    view: StridedTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.bool_)

    @property
    def nbytes(self) -> int:
        return self.view.nbytes

    @property
    def key(self) -> Hashable:
        return "bool", self.view.key

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        return sealed(np.asarray(self.view.read(rows) != 0))


@dataclass(frozen=True, slots=True)
class Recoded:
    """Elements in the byte order of another machine."""

    view: StridedTensor
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.shape

    @property
    def nbytes(self) -> int:
        return self.view.nbytes

    @property
    def key(self) -> Hashable:
        return self.dtype.name, self.view.key

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        stored = self.view.read(rows)
        native = stored.astype(stored.dtype.newbyteorder("<"), copy=False)
        return sealed(native.view(self.dtype))


@dataclass(frozen=True, slots=True)
class PackedPairs:
    """Bytes that each hold two 4-bit elements of the last axis, the first in the low half."""

    view: StridedTensor
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.view.shape[:-1], 2 * self.view.shape[-1]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        return self.dtype.name, self.view.key

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        if len(self.view.shape) == 1:  # the rows are halves of bytes
            return sealed(self._unpacked(self.view.read())[rows])
        return sealed(self._unpacked(self.view.read(rows)))

    def _unpacked(self, packed: np.ndarray) -> np.ndarray:
        return halves(packed).view(self.dtype)


@dataclass(frozen=True, slots=True)
class Nibbles:
    """4-bit codes in C order, two in each byte, the first in the low half."""

    view: StridedTensor
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    @property
    def key(self) -> Hashable:
        return self.shape, self.view.key

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        packed = self.view.read()
        tensor = halves(packed)[: math.prod(self.shape)].reshape(self.shape)
        return sealed(tensor[rows] if self.shape else tensor)


@dataclass(frozen=True, slots=True)
class Dequantised:
    """(code - zero point) * scale, with one scale or one for each place along `axis`."""

    codes: Handle
    scale: float | Handle
    zero: float | Handle
    axis: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * 4

    @property
    def key(self) -> Hashable:
        parts = (self.scale, self.zero)
        keys = (part if isinstance(part, (int, float)) else part.key for part in parts)
        return "dequantised", self.codes.key, self.axis, *keys

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        codes = self.codes.read(rows)
        exact = np.dtype(np.float64 if codes.dtype.itemsize > 1 else np.float32)
        values = np.empty(codes.shape, np.float32)
        pieces = np.nditer(
            [codes, self._along(self.zero, rows), self._along(self.scale, rows), values],
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=[["readonly"], ["readonly"], ["readonly"], ["writeonly"]],
            op_dtypes=[exact] * 3 + [values.dtype],
            casting="same_kind",
            buffersize=_PIECE,
        )
        with np.errstate(all="ignore"), pieces:  # what is too large is infinite, as in PyTorch
            for code, zero, scale, value in pieces:
                value[...] = (code - zero) * scale
        return sealed(values)

    def _along(self, part: float | Handle, rows: slice) -> np.ndarray:
        if isinstance(part, (int, float)):
            return np.asarray(part, np.float64)
        values = part.read(rows if self.axis == 0 else slice(None))
        sides = [-1 if axis == self.axis else 1 for axis in range(len(self.shape))]
        return values.reshape(sides)
