"""The steps through which chunks are shrunk and checked, and how each is undone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import HeaderError, LayoutError, UnsupportedError
from .source import Cursor

SUM = 4
_MODULUS = 65535
_RUN = 1 << 15
_WEIGHTS = np.arange(_RUN, 0, -1, dtype=np.uint64)
_STEP = 1 << 20
_KNOWN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
_MOST_FILTERS = 3
_FILTER = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class Filter:
    """A step that was applied when the chunk was written; `value` is its first parameter."""

    name: str
    value: int

    @property
    def copies(self) -> bool:
        """Whether undoing it takes the room of a chunk."""
        return self.name != "fletcher32"

    def undone(self, data: np.ndarray, most: int, itemsize: int, where: str) -> np.ndarray:
        """The bytes before this step, of which there may be no more than `most`."""
        if self.name == "gzip":
            return _inflated(data, most, where)
        if self.name == "shuffle":
            return _unshuffled(data, itemsize)
        if len(data) < SUM or not _sum_fits(data):
            raise LayoutError(f"{where}: its checksum is wrong")
        return data[:-SUM]


def read_filters(cursor: Cursor) -> tuple[Filter, ...]:
    """The steps that a filter message lists, in the order in which they were applied."""
    version, count = cursor.take(2)
    if version not in (1, 2) or count > _MOST_FILTERS:
        raise HeaderError(f"{cursor.where} has {count} filters in version {version}")
    cursor.take(6 * (version == 1))
    filters = tuple(_filter(cursor, version) for _ in range(count))
    if len({step.name for step in filters}) < len(filters):
        raise HeaderError(f"{cursor.where} is stored through one filter twice")
    return filters


def _filter(cursor: Cursor, version: int) -> Filter:
    code = cursor.number(2)
    if code not in _KNOWN_FILTERS:
        raise UnsupportedError(
            f"{cursor.where} is stored through the filter {code}; what is read is "
            f"{', '.join(_KNOWN_FILTERS.values())}"
        )
    length = cursor.number(2) if version == 1 else 0
    _, count = cursor.unpack(_FILTER)
    cursor.take(-(-length // 8) * 8)
    values = [cursor.number(4) for _ in range(count)]
    cursor.take(4 * (count % 2) * (version == 1))
    return Filter(_KNOWN_FILTERS[code], values[0] if values else 0)


def _inflated(data: np.ndarray, most: int, where: str) -> np.ndarray:
    """A little at a time: zlib would need twice the room to give all of it at once."""
    engine = zlib.decompressobj()
    found, length = np.empty(most, np.uint8), 0
    try:
        for piece in _pieces(engine, data):
            if length + len(piece) > most:
                break
            found[length : length + len(piece)] = np.frombuffer(piece, np.uint8)
            length += len(piece)
        else:
            if engine.eof:
                return found[:length]
    except zlib.error as cause:
        raise LayoutError(f"{where} is damaged: {cause}") from None
    raise LayoutError(f"{where} does not inflate to {most} bytes")


def _pieces(engine: zlib._Decompress, data: np.ndarray) -> Iterator[bytes]:
    for start in range(0, len(data), _STEP):
        rest: bytes | memoryview = data[start : start + _STEP].data
        full = True
        while (full or rest) and not engine.eof:
            piece = engine.decompress(rest, _STEP)
            yield piece
            rest, full = engine.unconsumed_tail, len(piece) == _STEP


def _unshuffled(data: np.ndarray, size: int) -> np.ndarray:
    """The first bytes of all elements stand together, then the second; a rest stays in place."""
    whole = len(data) // size * size
    found = np.empty_like(data)
    found[:whole].reshape(-1, size)[:] = data[:whole].reshape(size, -1).T
    found[whole:] = data[whole:]
    return found


def _sum_fits(data: np.ndarray) -> bool:
    """Whether the four bytes at the end are the Fletcher sums of those before, modulo 65535."""
    body = data[:-SUM]
    first = second = 0
    for start in range(0, len(body), 2 * _RUN):
        octets = body[start : start + 2 * _RUN]
        octets = np.append(octets, np.uint8(0)) if len(octets) % 2 else octets
        run = octets.view(">u2").astype(np.uint64)
        second = (second + len(run) * first + int(run @ _WEIGHTS[-len(run) :])) % _MODULUS
        first = (first + int(run.sum())) % _MODULUS
    stored = int.from_bytes(data[-SUM:].tobytes(), "little")
    return (stored & 0xFFFF) % _MODULUS == first and (stored >> 16) % _MODULUS == second
