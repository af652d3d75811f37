"""zarr arrays, read chunk by chunk when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ..errors import LayoutError, TruncatedError, UnsupportedError
from ..strict_json import brief
from ..strided import Stored
from .zarr_chunks import decode, grid
from .zarr_metadata import ZarrArray


@dataclass(frozen=True, slots=True)
class ZarrTensor:
    """A tensor in chunks; those that hold the rows asked for are decoded when it is read."""

    path: Path
    name: str
    array: ZarrArray
    chunks: tuple[Stored | None, ...]
    """In the order of their numbers; None stands for zeros."""
    whole: bool
    """Whether the checkpoint says that nothing is left out."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.chunk.dtype.newbyteorder("<")

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        return self.path, self.name

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        if not self.shape:
            block = np.zeros((), self.dtype)
            self._fill(block, 0, range(1))
            block.flags.writeable = False
            return block
        places = range(self.shape[0])[rows]
        first, end = (min(places), max(places) + 1) if places else (0, 0)
        step = self.array.chunk.shape[0]
        block = np.zeros((end - first, *self.shape[1:]), self.dtype)
        if block.size:
            self._fill(block, first, range(first // step, (end - 1) // step + 1))
        block.flags.writeable = False
        return block[:: places.step]  # a step backwards starts at the end of the block

    def _fill(self, block: np.ndarray, first: int, numbers: range) -> None:
        """Put the chunks with these numbers along the first axis into rows from `first`."""
        across = math.prod(grid(self.shape[1:], self.array.chunk.shape[1:]))
        for number in range(numbers.start * across, numbers.stop * across):
            stored = self.chunks[number]
            if stored is not None:
                chunk = self._chunk(stored, number)
                into, part = self._overlap(number, first, block.shape)
                block[into] = chunk[part]

    def _chunk(self, stored: Stored, number: int) -> np.ndarray:
        where = f"{self.path}: chunk {number} of tensor {brief(self.name)}"
        data = stored.read(f"chunk {number} of tensor {brief(self.name)}")
        return decode(data, self.array.chunk, self.whole, where)

    def _overlap(
        self, number: int, first: int, shape: tuple[int, ...]
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where a chunk goes in the block of rows, and which part of it."""
        counts = grid(self.shape, self.array.chunk.shape)
        numbers = np.unravel_index(number, counts) if counts else ()
        into, part = [], []
        for axis, step in enumerate(self.array.chunk.shape):
            start = int(numbers[axis]) * step - (first if axis == 0 else 0)
            low, high = max(0, start), min(shape[axis], start + step)
            into.append(slice(low, high))
            part.append(slice(low - start, high - start))
        return tuple(into), tuple(part)


def open_zarr(
    path: Path, name: str, array: ZarrArray, find: Callable[[str], Stored | None], whole: bool
) -> ZarrTensor:
    """The tensor whose chunks `find` knows by their names.

    Raises
    ------
    TruncatedError
        If a chunk is absent from a checkpoint that is `whole`.
    UnsupportedError
        If an absent chunk stands for another number than zero.
    LayoutError
        If a chunk that is not packed does not have the size of its shape.
    """
    where = f"{path}: tensor {brief(name)}"
    chunks = []
    for numbers in _numbers(array):
        chunk = find(array.chunk_name(numbers))
        if chunk is None and whole:
            raise TruncatedError(f"{where} lacks its chunk {array.chunk_name(numbers)}")
        if chunk is None and not array.zero_fill:
            raise UnsupportedError(f"{where} leaves out chunks that are not zero")
        plain = not array.chunk.packing and array.chunk.inner is None
        if chunk is not None and plain and chunk.nbytes != array.chunk.nbytes:
            raise LayoutError(
                f"{where}: a chunk of {array.chunk.nbytes:,} bytes has {chunk.nbytes:,}"
            )
        chunks.append(chunk)
    return ZarrTensor(path, name, array, tuple(chunks), whole)


def count_chunks(array: ZarrArray) -> int:
    """Chunks and chunks within them: so many must be looked at to read the array."""
    inner = array.chunk.inner
    parts = math.prod(grid(array.chunk.shape, inner.encoding.shape)) if inner else 1
    return math.prod(grid(array.shape, array.chunk.shape)) * parts


def decoded_bytes(array: ZarrArray) -> int:
    """Bytes of all chunks in memory, those included that reach over the edge of the array."""
    return math.prod(grid(array.shape, array.chunk.shape)) * array.chunk.nbytes


def _numbers(array: ZarrArray) -> Iterator[tuple[int, ...]]:
    return product(*map(range, grid(array.shape, array.chunk.shape)))
