"""A tensor whose elements are cut into pieces, one after the other, that lie apart in a file."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from ..files import MappedTensor


@dataclass(frozen=True, slots=True)
class ChunkedTensor:
    """A tensor in C order in several flat pieces; what spans two of them is copied together."""

    pieces: tuple[MappedTensor, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    @property
    def key(self) -> Hashable:
        return self.shape, *(piece.key for piece in self.pieces)

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        if not self.shape:
            return self._elements(0, 1).reshape(())
        places = range(self.shape[0])[rows]
        first, end = (min(places), max(places) + 1) if places else (0, 0)
        row = math.prod(self.shape[1:])
        block = self._elements(first * row, end * row).reshape(end - first, *self.shape[1:])
        return block[:: places.step]  # a step backwards starts at the end of the block

    def _elements(self, start: int, end: int) -> np.ndarray:
        parts, position = [], 0
        for piece in self.pieces:
            length = piece.shape[0]
            if start < position + length and position < end:
                parts.append(piece.read(slice(max(0, start - position), end - position)))
            position += length
        if len(parts) == 1:
            return parts[0]
        joined = np.concatenate(parts) if parts else np.empty(0, self.dtype)
        joined.flags.writeable = False
        return joined
