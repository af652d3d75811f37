"""The change of a weight by a low-rank adapter: two factors and a scale, multiplied when read."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Handle
from wwfunc.errors import InputError

DORA = "without DoRA's magnitudes, which need the base model"
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change `scale * up @ down` of a weight, in the shape that the weight has.

    `down` is (r, in) or, for a convolution, (r, in, *kernel); `up` is (out, r). Sides of 1 may
    stand behind both. The change is (out, in) or (out, in, *kernel), and (in, out) where it is
    `transposed`: the tables of embeddings, and dense layers that store their input first.

    The product is never formed before it is read, and then only those of its rows that are asked
    for, in float64. `factors` gives what its singular values can be computed from without it.
    """

    up: Handle
    down: Handle
    scale: float
    shape: tuple[int, ...]
    transposed: bool = False
    alpha: float | None = None
    """The scale's numerator, where the adapter has one; the scale is alpha / r, or as it says."""
    magnitude: Handle | None = None
    """Lengths of the rows of the weight with the change added (DoRA), which the base is needed for.
    The change here is the one before its rows were brought to these lengths."""
    per_input: bool = False
    """Whether these are the lengths of what an input weighs, not an output."""

    def __post_init__(self) -> None:
        up, down = self.up.shape, self.down.shape
        sides = (*up[:1], math.prod(down[1:]))
        own = (*self.shape[:1], math.prod(self.shape[1:]))
        fit = (own[::-1] if self.transposed else own) == sides and (math.prod(up[1:]),) == down[:1]
        if not fit or len(self.shape) < 2 or (self.transposed and len(self.shape) > 2):
            raise InputError(f"factors of {up} and {down} give no change of {self.shape}")

    @property
    def rank(self) -> int:
        """Number of columns of `up` and of rows of `down`: the rank of the change is no higher."""
        return self.down.shape[0]

    @property
    def remark(self) -> str:
        """What a reader of numbers of this change must know."""
        return "" if self.magnitude is None else DORA

    @property
    def dtype(self) -> np.dtype:
        """Float64 if a factor is, else float32."""
        wide = np.float64 in (self.up.dtype, self.down.dtype)
        return np.dtype(np.float64 if wide else np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the two factors, which are what is stored."""
        return self.up.nbytes + self.down.nbytes

    @property
    def key(self) -> Hashable:
        magnitude = self.magnitude and self.magnitude.key
        return self.up.key, self.down.key, self.scale, self.shape, self.transposed, magnitude

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        left, right = self._sides(rows)
        change = np.empty((len(left), right.shape[1]), self.dtype)
        step = max(1, _BLOCK_BYTES // (8 * max(1, right.shape[1])))
        with np.errstate(over="ignore", invalid="ignore"):  # infinite weights stay infinite
            for start in range(0, len(left), step):
                change[start : start + step] = left[start : start + step] @ right
        change = change.reshape(len(left), *self.shape[1:])
        change.flags.writeable = False
        return change

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, A) in float64, the scale in B: B @ A is the change with its last axes as one.

        Its singular values are those of A and B's r x r core: of `Rb @ Ra.T` where B = Qb Rb and
        A.T = Qa Ra.
        """
        return self._sides(slice(None))

    def _sides(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the left factor, scaled, and the whole of the right one."""
        rank = self.rank
        if self.transposed:
            left = self.down.read().reshape(rank, -1).T[rows]
            right = self.up.read().reshape(-1, rank).T
        else:
            left = self.up.read(rows).reshape(-1, rank)
            right = self.down.read().reshape(rank, -1)
        with np.errstate(over="ignore", invalid="ignore"):
            return left.astype(np.float64) * self.scale, right.astype(np.float64)
