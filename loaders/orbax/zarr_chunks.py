"""The bytes of a chunk of a zarr array, and what they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..compression import expand
from ..errors import ArchiveError, LayoutError, TruncatedError
from .crc32c import crc32c

CHECKSUM = "crc32c"
_CHECKSUM_BYTES = 4
_ABSENT = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an array of `shape` becomes bytes: its axes are put in order, then its bytes packed."""

    shape: tuple[int, ...]
    dtype: np.dtype
    """With the byte order of the file."""
    axes: tuple[int, ...]
    packing: tuple[str, ...]
    """Compression and checksums, in the order in which they were applied."""
    inner: Shards | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Shards:
    """A chunk that is itself cut into chunks, and an index of where each of them stands."""

    encoding: Encoding
    index_packing: tuple[str, ...]
    index_first: bool


def decode(data: np.ndarray, encoding: Encoding, whole: bool, where: str) -> np.ndarray:
    """The array that `data` stands for.

    An inner chunk that is absent is an error if the file says that it is `whole`, else zeros.
    """
    if encoding.inner is not None:
        return _decode_shards(data, encoding, encoding.inner, whole, where)
    octets = _unpack(data, encoding.packing, encoding.nbytes, where)
    stored = np.frombuffer(octets, encoding.dtype)
    turned = stored.reshape([encoding.shape[axis] for axis in encoding.axes])
    return turned.transpose(np.argsort(encoding.axes))


def grid(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[int]:
    """The number of chunks along each axis."""
    return [-(-side // step) for side, step in zip(shape, chunk, strict=True)]


def places(counts: list[int], chunk: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Where each chunk of a grid stands, in the order of their numbers."""
    for numbers in product(*map(range, counts)):
        yield tuple(
            slice(number * step, (number + 1) * step)
            for number, step in zip(numbers, chunk, strict=True)
        )


def _unpack(
    data: bytes | np.ndarray, packing: tuple[str, ...], nbytes: int, where: str
) -> bytes | np.ndarray:
    """The `nbytes` bytes that were packed; LayoutError if there are more or fewer."""
    for place, method in reversed([*enumerate(packing)]):
        most = nbytes + _CHECKSUM_BYTES * packing[:place].count(CHECKSUM)
        data = _verified(data, where) if method == CHECKSUM else expand(data, method, most, where)
    if len(data) != nbytes:
        raise LayoutError(f"{where} has {len(data):,} bytes where {nbytes:,} are needed")
    return data


def _verified(data: bytes | np.ndarray, where: str) -> bytes | np.ndarray:
    """`data` without the checksum at its end."""
    if len(data) < _CHECKSUM_BYTES:
        raise TruncatedError(f"{where} is too short for its CRC")
    content, expected = data[:-_CHECKSUM_BYTES], bytes(data[-_CHECKSUM_BYTES:])
    if crc32c(content) != int.from_bytes(expected, "little"):
        raise ArchiveError(f"{where} is damaged: its CRC is wrong")
    return content


def _decode_shards(
    data: np.ndarray, outer: Encoding, shards: Shards, whole: bool, where: str
) -> np.ndarray:
    inner = shards.encoding
    counts = grid(outer.shape, inner.shape)
    index = _index(data, math.prod(counts), shards, where)
    array = np.zeros(outer.shape, outer.dtype)
    for place, (start, nbytes) in zip(places(counts, inner.shape), index, strict=True):
        if start == nbytes == _ABSENT:
            if whole:
                raise TruncatedError(f"{where} lacks a part of its shard")
        elif start + nbytes > len(data):
            raise TruncatedError(f"{where} has parts beyond its end")
        else:
            array[place] = decode(data[start : start + nbytes], inner, whole, where)
    return array


def _index(data: np.ndarray, count: int, shards: Shards, where: str) -> list[list[int]]:
    """Start and length of every inner chunk."""
    size = 16 * count + _CHECKSUM_BYTES * shards.index_packing.count(CHECKSUM)
    if size > len(data):
        raise TruncatedError(f"{where} is too short for the index of its shard")
    stored = data[:size] if shards.index_first else data[len(data) - size :]
    octets = _unpack(stored, shards.index_packing, 16 * count, where)
    return np.frombuffer(octets, "<u8").reshape(count, 2).tolist()
