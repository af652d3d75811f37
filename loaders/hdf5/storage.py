"""Where the elements of a dataset are: in its header, in one run, or in chunks."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from ..errors import HeaderError, LayoutError, UnsupportedError
from ..files import FileBytes
from ..inflated import Inflated
from ..strict_json import brief
from ..strided import Stored, StridedTensor
from .chunked import Chunk, ChunkedTensor, grid_of
from .filters import Filter, read_filters
from .headers import DATASPACE, DATATYPE, EXTERNAL_FILES, FILTERS, LAYOUT, Message
from .layouts import CHUNKED, SINGLE, Place, read_place
from .source import UNDEFINED, Cursor, Source
from .trees import CHUNKS, leaves
from .types import checked_nbytes, element_type, read_datatype, read_shape

_KEY = struct.Struct("<II")
_PER_CHUNK = 64  # what a chunk takes in memory is more than in the file


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes in the midst of others."""

    stored: Stored
    offset: int
    nbytes: int

    @property
    def key(self) -> tuple[object, int]:
        return self.stored.key, self.offset

    def read(self, what: str) -> np.ndarray:
        return self.stored.read(what)[self.offset : self.offset + self.nbytes]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset whose messages were read and whose elements were not."""

    source: Source
    name: str
    """Its path in the file."""
    shape: tuple[int, ...]
    dtype: np.dtype
    """Opaque bytes are void."""
    place: Place
    filters: tuple[Filter, ...]

    @property
    def where(self) -> str:
        return f"{self.source.path}: {self.name}"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, name: str, dtype: np.dtype) -> StridedTensor | ChunkedTensor:
        """A handle to the elements as `dtype`, checked against the bytes that the file has."""
        if self.place.kind == CHUNKED:
            return self._chunked(dtype)
        return self._contiguous(name, dtype)

    def _contiguous(self, name: str, dtype: np.dtype) -> StridedTensor:
        at, size = self.place.at, self.place.size
        if self.filters:
            raise LayoutError(f"{self.where} has filters but no chunks")
        if not self.nbytes:
            at, size = 0, 0
        elif at == UNDEFINED:
            raise LayoutError(f"{self.where}: its {self.nbytes} bytes were never written")
        if size is not None and size != self.nbytes:
            raise LayoutError(
                f"{self.where}: {dtype.name} of shape {brief([*self.shape])} does not take "
                f"{size} bytes"
            )
        self.source.check_inside(at, self.nbytes, self.name)
        stored = _part(self.source, at, self.nbytes)
        return StridedTensor(stored, name, self.shape, dtype, 0, _strides(self.shape))

    def _chunked(self, dtype: np.dtype) -> ChunkedTensor:
        chunk = self.place.chunk
        nbytes = checked_nbytes(chunk, self.dtype.itemsize, self.where)
        if not chunk or len(chunk) != len(self.shape) or not nbytes:
            raise LayoutError(f"{self.where} has chunks of the shape {brief([*chunk])}")
        for step in self.filters:
            if step.name == "shuffle" and step.value != self.dtype.itemsize:
                raise LayoutError(f"{self.where}: shuffled by {step.value} bytes")
        whole = _part(self.source, 0, self.source.size)
        chunks = _chunks(self, nbytes)
        return ChunkedTensor(whole, self.where, self.shape, dtype, chunk, chunks, self.filters)


def read_dataset(source: Source, messages: list[Message], where: str) -> Dataset:
    """Shape, element type and layout of a dataset.

    Raises
    ------
    UnsupportedError
        If its elements are in other files, or stored by a filter that is not read.
    """
    path_where = f"{source.path}: {where}"
    if any(message.kind == EXTERNAL_FILES for message in messages):
        raise UnsupportedError(f"{path_where} keeps its elements in other files")
    dtype = element_type(read_datatype(_one(messages, DATATYPE, path_where)), path_where)
    shape = read_shape(_one(messages, DATASPACE, path_where))
    checked_nbytes(shape, dtype.itemsize, path_where)
    message = next(message for message in messages if message.kind == LAYOUT)
    place = read_place(_one(messages, LAYOUT, path_where), message.at)
    listed = any(message.kind == FILTERS for message in messages)
    filters = read_filters(_one(messages, FILTERS, path_where)) if listed else ()
    return Dataset(source, where, shape, dtype, place, filters)


def _one(messages: list[Message], kind: int, where: str) -> Cursor:
    found = [message for message in messages if message.kind == kind]
    if len(found) != 1:
        raise HeaderError(f"{where} has {len(found)} messages of kind {kind}, one was expected")
    if found[0].shared:
        raise UnsupportedError(f"{where} has a type by reference, which is not read")
    return Cursor(found[0].data, where)


def _chunks(dataset: Dataset, nbytes: int) -> tuple[Chunk, ...]:
    """All chunks in C order of their places, none missing and none twice."""
    place, where = dataset.place, dataset.where
    grid = grid_of(dataset.shape, place.chunk)
    wanted = math.prod(grid)
    if not wanted:
        return ()
    if place.at == UNDEFINED:
        raise LayoutError(f"{where}: its chunks were never written")
    listed = place.index == 0
    found = _listed(dataset, grid) if listed else _unlisted(dataset, wanted, nbytes)
    if len(found) != wanted:
        raise LayoutError(f"{where}: {wanted - len(found)} of {wanted} chunks were never written")
    for chunk in found.values():
        dataset.source.check_inside(chunk.at, chunk.size, f"a chunk of {dataset.name}")
        if not dataset.filters and chunk.size != nbytes:
            raise LayoutError(f"{where}: a chunk of {chunk.size} bytes, {nbytes} were expected")
    stored = sum({chunk.at: chunk.size for chunk in found.values()}.values())
    copies = sum(step.copies for step in dataset.filters)
    dataset.source.count_expansion(wanted * nbytes, stored, copies * nbytes)
    return tuple(found[place] for place in range(wanted))


def _unlisted(dataset: Dataset, wanted: int, nbytes: int) -> dict[int, Chunk]:
    """Newer files leave out the index where there is one chunk, or all follow each other."""
    at, size = dataset.place.at, dataset.place.size
    if dataset.place.index == SINGLE:
        return {0: Chunk(at, nbytes if size is None else size, dataset.place.mask)}
    if dataset.filters or wanted * nbytes > dataset.source.size:
        raise LayoutError(f"{dataset.where}: {wanted} chunks cannot follow each other")
    dataset.source.spend(_PER_CHUNK * wanted)
    return {i: Chunk(at + i * nbytes, nbytes, 0) for i in range(wanted)}


def _listed(dataset: Dataset, grid: tuple[int, ...]) -> dict[int, Chunk]:
    chunk, where = dataset.place.chunk, dataset.where
    corner_of = struct.Struct(f"<{len(grid)}Q")
    found: dict[int, Chunk] = {}
    key_size = _KEY.size + 8 * (len(grid) + 1)
    for key, at in leaves(dataset.source, dataset.place.at, CHUNKS, key_size, dataset.name):
        dataset.source.spend(_PER_CHUNK)
        size, mask = _KEY.unpack_from(key)
        corner = corner_of.unpack_from(key, _KEY.size)
        number = 0
        for start, side, cells in zip(corner, chunk, grid, strict=True):
            if start % side or start // side >= cells:
                raise LayoutError(f"{where}: a chunk at {corner} is not on the grid")
            number = number * cells + start // side
        if number in found:
            raise LayoutError(f"{where}: two chunks at {corner}")
        found[number] = Chunk(at, size, mask)
    return found


def _part(source: Source, at: int, nbytes: int) -> Stored:
    """Bytes of the file by themselves, so that their handle outlives the source."""
    if isinstance(source.stored, Inflated):
        return Part(source.stored, source.base + at, nbytes)
    start = source.stored.offset + source.base + at
    return FileBytes(source.stored.path, start, nbytes)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
