"""Integers, or narrow floats, with the scale that makes numbers of them."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Handle


@dataclass(frozen=True, slots=True)
class DequantisedTensor:
    """What DequantizeLinear makes of codes: (codes - zero) * scale."""

    codes: Handle
    scale: Handle
    zero: Handle | None
    axis: int
    """Of the codes, which a scale with one axis runs along."""
    block: int
    """Codes along the axis that share a scale, where it has as many axes as they; else 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        return self.scale.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        zero = self.zero.key if self.zero else None
        return self.codes.key, self.scale.key, zero, self.axis, self.block

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        weights = self.codes.read(rows).astype(np.float32)
        with np.errstate(all="ignore"):  # a scale may be infinite
            if self.zero is not None:
                self._apply(np.subtract, weights, self.zero, rows)
            self._apply(np.multiply, weights, self.scale, rows)
            weights = weights.astype(self.dtype, copy=False)
        weights.flags.writeable = False
        return weights

    def _apply(
        self, operation: np.ufunc, weights: np.ndarray, parameter: Handle, rows: slice
    ) -> None:
        """Change the weights in place; the parameter is never spread to their size."""
        values = parameter.read().astype(np.float32)
        if values.size == 1:
            operation(weights, values.reshape(()), out=weights)
        elif not self.block:
            after = len(self.shape) - self.axis - 1
            values = values.reshape((1,) * self.axis + (-1,) + (1,) * after)
            operation(weights, values[rows] if len(values) > 1 else values, out=weights)
        elif self.axis == 0 and rows != slice(None):
            of_row = np.arange(self.shape[0])[rows] // self.block
            operation(weights, values[of_row], out=weights)
        else:
            self._apply_blocks(operation, weights, values if self.axis == 0 else values[rows])

    def _apply_blocks(self, operation: np.ufunc, weights: np.ndarray, values: np.ndarray) -> None:
        """Whole blocks get an axis of their own, along which a value is broadcast."""
        axis, block = self.axis, self.block
        whole = weights.shape[axis] // block
        before = (slice(None),) * axis
        if whole:
            head = weights[(*before, slice(whole * block))]
            head = head.reshape(*head.shape[:axis], whole, block, *head.shape[axis + 1 :])
            ones = np.expand_dims(values[(*before, slice(whole))], axis + 1)
            operation(head, ones, out=head)
        rest = weights[(*before, slice(whole * block, None))]
        operation(rest, values[(*before, slice(whole, None))], out=rest)


def dequantised(
    codes: Handle, scale: Handle, zero: Handle | None, axis: int, block: int
) -> DequantisedTensor | None:
    """The tensor that the codes stand for; None where the parts do not fit together."""
    rank = len(codes.shape)
    axis = axis + rank if axis < 0 else axis
    if scale.dtype.kind not in "fV" or (zero is not None and zero.shape != scale.shape):
        return None
    single = math.prod(scale.shape) == 1
    if single or (len(scale.shape) == 1 and 0 <= axis < rank and not block):
        fits = single or scale.shape[0] == codes.shape[axis]
        return DequantisedTensor(codes, scale, zero, axis, 0) if fits else None
    if not 0 <= axis < rank or block < 1:
        return None
    sides = list(codes.shape)
    sides[axis] = -(-sides[axis] // block)
    return (
        DequantisedTensor(codes, scale, zero, axis, block) if scale.shape == tuple(sides) else None
    )
