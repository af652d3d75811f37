"""Sparse tensors of PyTorch: coordinates, or compressed rows or columns, of elements or blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Handle

from ..errors import LayoutError
from .handles import sealed

_LARGEST = (1 << 63) - 1
COO = "torch.sparse_coo"
_BY_ROWS = ("torch.sparse_csr", "torch.sparse_bsr")
_BLOCKED = ("torch.sparse_bsr", "torch.sparse_bsc")
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
        if self.layout == COO:
            self._fill(dense, self.indices[0].read(), self.values.read())
        else:
            self._fill_compressed(dense)
        return sealed(dense[rows])

    def _fill_compressed(self, dense: np.ndarray) -> None:
        compressed, plain = (part.read() for part in self.indices)
        values, batches = self.values.read(), compressed.ndim - 1
        for at in itertools.product(*map(range, dense.shape[:batches])):
            part = dense[at]
            places = self._places(compressed[at], plain[at])
            self._fill(self._blocks(part, values[at]), places, values[at])

    def _places(self, compressed: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """Coordinates, out of the ends of the compressed rows or columns."""
        counts = np.diff(compressed)
        if compressed[0] != 0 or compressed[-1] != len(plain) or (counts < 0).any():
            raise LayoutError(f"{self.where}: the compressed indices do not count its elements")
        lines = np.repeat(np.arange(len(counts)), counts)
        return np.stack([lines, plain] if self.layout in _BY_ROWS else [plain, lines])

    def _blocks(self, dense: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The matrix with its blocks as the last axes: a view, to be written to."""
        if self.layout not in _BLOCKED:
            return dense
        (rows, cols), (height, width) = dense.shape[:2], values.shape[1:3]
        split = dense.reshape(rows // height, height, cols // width, width, *dense.shape[2:])
        return np.moveaxis(split, 2, 1)

    def _fill(self, dense: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
        """Add `values` at the columns of `places`; those of one place sum up, as in PyTorch."""
        sides = np.array(dense.shape[: len(places)]).reshape(-1, 1)
        if ((places < 0) | (places >= sides)).any():
            raise LayoutError(f"{self.where}: an index lies outside the shape {[*self.shape]}")
        flat = np.ravel_multi_index(tuple(places), tuple(sides.ravel())) if len(places) else places
        if len(np.unique(flat)) == len(values):
            dense[tuple(places)] = values
        else:
            with np.errstate(all="ignore"):  # what is too large is infinite, as in PyTorch
                np.add.at(dense, tuple(places), values)


def sparse_tensor(
    layout: str, indices: tuple[Handle, ...], values: Handle, shape: tuple[int, ...], where: str
) -> SparseTensor:
    """A sparse tensor whose parts fit together; what the indices say is checked on reading."""
    if any(part.dtype.kind != "i" for part in indices):
        raise LayoutError(f"{where}: the indices of a sparse tensor are no integers")
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
