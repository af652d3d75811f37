"""Tensors in chunks, through the filters that shrink or check them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import LayoutError
from ..strided import Stored
from .filters import Filter


class Chunk(NamedTuple):
    """Where one chunk lies; bit i of `mask` says that it skipped filter i."""

    at: int
    size: int
    mask: int


def grid_of(shape: tuple[int, ...], chunk: tuple[int, ...]) -> tuple[int, ...]:
    """Number of chunks along each axis."""
    return tuple(-(-side // step) for side, step in zip(shape, chunk, strict=True))


@dataclass(frozen=True, slots=True)
class ChunkedTensor:
    """A tensor whose chunks are looked up, checked and unpacked when it is read."""

    stored: Stored
    """The whole file, from the address that chunks count from."""
    where: str
    """The file and the dataset in it, for messages."""
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    """In C order of their places; those at the far edges are padded."""
    filters: tuple[Filter, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        first = self.chunks[0].at if self.chunks else 0
        return self.stored.key, "chunks", first, self.shape, self.dtype.str, self.dtype.name

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        start, stop, step = rows.indices(self.shape[0])
        wanted = range(start, stop, step)
        low, high = (min(wanted), max(wanted) + 1) if wanted else (0, 0)
        tensor = np.empty((high - low, *self.shape[1:]), self.dtype)
        if tensor.size:
            self._fill(tensor, low)
        tensor.flags.writeable = False
        picked = slice(start - low, stop - low if stop >= low else None, step)
        return tensor[picked] if wanted else tensor[:0]

    def _fill(self, tensor: np.ndarray, low: int) -> None:
        """The chunks that reach into the rows from `low`, each cut to what is wanted of it."""
        stored = self.stored.read("a chunk")
        for corner, chunk in self._reaching(low, low + len(tensor)):
            starts = (corner[0] - low, *corner[1:])
            targets = tuple(
                slice(max(0, at), min(side, at + size))
                for at, size, side in zip(starts, self.chunk, tensor.shape, strict=True)
            )
            pieces = tuple(
                slice(target.start - at, target.stop - at)
                for target, at in zip(targets, starts, strict=True)
            )
            tensor[targets] = self._unpacked(stored, chunk)[pieces]  # and forgotten before the next

    def _reaching(self, low: int, high: int) -> Iterator[tuple[tuple[int, ...], Chunk]]:
        grid = grid_of(self.shape, self.chunk)
        layer = math.prod(grid[1:])
        for row in range(low // self.chunk[0], -(-high // self.chunk[0])):
            for number, place in enumerate(np.ndindex(*grid[1:])):
                steps = zip((row, *place), self.chunk, strict=True)
                yield tuple(i * step for i, step in steps), self.chunks[row * layer + number]

    def _unpacked(self, stored: np.ndarray, chunk: Chunk) -> np.ndarray:
        data = stored[chunk.at : chunk.at + chunk.size]
        nbytes = math.prod(self.chunk) * self.dtype.itemsize
        where = f"{self.where}: the chunk at byte {chunk.at}"
        kept = [step for i, step in enumerate(self.filters) if not chunk.mask >> i & 1]
        for step in reversed(kept):
            data = step.undone(data, nbytes + 4 * len(self.filters), self.dtype.itemsize, where)
        if len(data) != nbytes:
            raise LayoutError(f"{where} has {len(data)} bytes, {nbytes} were expected")
        return data.view(self.dtype).reshape(self.chunk)
