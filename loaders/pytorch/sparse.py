"""Sparse tensors of PyTorch: coordinates, or compressed rows or columns, of elements or blocks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Handle

from ..errors import LayoutError
from .handles import sealed

_LARGEST = (1 << 63) - 1
COO = "torch.sparse_coo"
_BY_ROWS = ("torch.sparse_csr", "torch.sparse_bsr")
_BLOCKED = ("torch.sparse_bsr", "torch.sparse_bsc")
_BLOCK = 1 << 16  # elements that are placed at once
_INDEX = 4  # bytes: PyTorch has no narrower ones
_LARGE = 1 << 16  # bytes of one element, a block or a row, above which it is added by itself
LAYOUTS = (COO, *_BY_ROWS, "torch.sparse_csc", "torch.sparse_bsc")


@dataclass(frozen=True, slots=True)
class SparseTensor:
    """A sparse tensor, which is filled up with zeros when it is read."""

    layout: str
    indices: tuple[Handle, ...]
    values: Handle
    shape: tuple[int, ...]
    where: str

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        parts = tuple(part.key for part in (*self.indices, self.values))
        return self.layout, self.shape, *parts

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        dense = np.zeros(self.shape, self.dtype)
        values = self.values.read()
        if self.layout == COO:
            (indices,) = (part.read() for part in self.indices)
            self._add_coordinates(dense, indices, values)
        else:
            self._add_compressed(dense, values)
        return sealed(dense[rows])

    def _add_coordinates(self, dense: np.ndarray, indices: np.ndarray, values: np.ndarray) -> None:
        for at in _slices(values.shape[0]):
            self._add(dense, tuple(indices[:, at]), values[at])

    def _add_compressed(self, dense: np.ndarray, values: np.ndarray) -> None:
        """All batches alike: each has as many elements as any other."""
        compressed, plain = (part.read() for part in self.indices)
        batches, each = math.prod(plain.shape[:-1]), plain.shape[-1]
        lines = compressed.shape[-1] - 1
        self._check_ends(compressed, each)
        if not batches * each:
            return
        ends = compressed[..., 1:].reshape(batches, lines)
        plain = plain.reshape(batches, each)
        values = values.reshape(batches, each, *values.shape[compressed.ndim :])
        matrices = self._blocks(dense, compressed.ndim - 1, values)
        together = max(1, _BLOCK // max(each, lines))
        for first in range(0, batches, together):
            some = np.arange(first, min(first + together, batches))
            stops = (
                ends[first]
                if len(some) == 1
                else (ends[some] + each * (some - first)[:, None]).ravel()
            )
            for at in _slices(len(some) * each):
                which, place = np.divmod(np.arange(at.start, at.stop), each)
                line = np.searchsorted(stops, which * each + place, "right") - which * lines
                sides = line, plain[first + which, place]
                found = sides if self.layout in _BY_ROWS else sides[::-1]
                self._add(matrices, (first + which, *found), values[first + which, place])

    def _check_ends(self, compressed: np.ndarray, count: int) -> None:
        fits = (compressed[..., 0] == 0).all() and (compressed[..., -1] == count).all()
        if not fits or (compressed[..., 1:] < compressed[..., :-1]).any():
            raise LayoutError(f"{self.where}: the compressed indices do not count its elements")

    def _blocks(self, dense: np.ndarray, batches: int, values: np.ndarray) -> np.ndarray:
        """The matrices, with their blocks as the last axes: a view, to be written to."""
        rows, cols, *inner = dense.shape[batches:]
        if self.layout not in _BLOCKED:
            return dense.reshape(-1, rows, cols, *inner)
        height, width = values.shape[2:4]
        split = dense.reshape(-1, rows // height, height, cols // width, width, *inner)
        return np.moveaxis(split, 3, 2)

    def _add(self, dense: np.ndarray, places: tuple[np.ndarray, ...], values: np.ndarray) -> None:
        """Add `values` at `places`; those of one place sum up, as in PyTorch."""
        flat = np.zeros(len(values), np.int64)
        for place, side in zip(places, dense.shape, strict=False):
            if ((place < 0) | (place >= side)).any():
                raise LayoutError(f"{self.where}: an index lies outside the shape {[*self.shape]}")
            flat = flat * side + place
        with np.errstate(all="ignore"):  # what is too large is infinite, as in PyTorch
            if math.prod(values.shape[1:]) * values.itemsize > _LARGE:
                for at, value in zip(zip(*places, strict=True), values, strict=True):
                    np.add(dense[at], value, out=dense[at])
            elif _differ(flat):
                dense[places] += values
            else:
                np.add.at(dense, places, values)


def _slices(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _differ(numbers: np.ndarray) -> bool:
    """Whether no number stands twice; they are sorted already where PyTorch coalesced them."""
    if (numbers[1:] > numbers[:-1]).all():
        return True
    numbers = np.sort(numbers)
    return bool((numbers[1:] != numbers[:-1]).all())


def sparse_tensor(
    layout: str, indices: tuple[Handle, ...], values: Handle, shape: tuple[int, ...], where: str
) -> SparseTensor:
    """A sparse tensor whose parts fit together; what the indices say is checked on reading."""
    if any(part.dtype.kind != "i" or part.dtype.itemsize < _INDEX for part in indices):
        raise LayoutError(f"{where}: the indices of a sparse tensor are no int32 or int64")
    if math.prod(side for side in shape if side) * values.dtype.itemsize > _LARGEST:
        raise LayoutError(f"{where}: shape {[*shape]} overflows")
    shapes = (*(part.shape for part in indices), values.shape)
    fits = _coordinates_fit if layout == COO else _compressed_fit
    if not fits(shapes, shape, layout):
        raise LayoutError(f"{where}: parts of shapes {shapes} are no {layout} of shape {[*shape]}")
    return SparseTensor(layout, indices, values, shape, where)


def _coordinates_fit(shapes: tuple[tuple[int, ...], ...], shape: tuple[int, ...], _: str) -> bool:
    indices, values = shapes
    if len(indices) != 2 or not 0 < indices[0] <= len(shape) or not values:
        return False
    return indices[1] == values[0] and values[1:] == shape[indices[0] :]


def _compressed_fit(
    shapes: tuple[tuple[int, ...], ...], shape: tuple[int, ...], layout: str
) -> bool:
    compressed, plain, values = shapes
    batches = len(compressed) - 1
    if batches < 0 or len(plain) != batches + 1 or len(shape) < batches + 2:
        return False
    blocks = values[batches + 1 : batches + 3] if layout in _BLOCKED else (1, 1)
    sides = shape[batches : batches + 2]
    if len(blocks) < 2 or 0 in blocks or any(side % part for side, part in _pairs(sides, blocks)):
        return False
    lines = sides[0] // blocks[0] if layout in _BY_ROWS else sides[1] // blocks[1]
    inner = (*blocks,) if layout in _BLOCKED else ()
    same_batch = compressed[:-1] == plain[:-1] == values[:batches] == shape[:batches]
    expected = (plain[-1], *inner, *shape[batches + 2 :])
    return same_batch and compressed[-1] == lines + 1 and values[batches:] == expected


def _pairs(left: tuple[int, ...], right: tuple[int, ...]) -> zip[tuple[int, int]]:
    return zip(left, right, strict=True)
