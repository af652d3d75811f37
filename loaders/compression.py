"""Compressed bytes from strangers: never more of them than were asked for."""

from __future__ import annotations

import zlib

import numpy as np

from .errors import ArchiveError, LayoutError

METHODS = ("zstd", "gzip", "zlib")
_WINDOW = 1 << 27  # the largest that zstd itself writes without being asked to
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}


def expand(data: bytes | np.ndarray, method: str, most: int, where: str) -> bytes:
    """`data` as it was before compression; LayoutError if that is over `most` bytes."""
    expanded = _zstd(data, most, where) if method == "zstd" else _zlib(data, method, most, where)
    if len(expanded) > most:
        raise LayoutError(f"{where} expands to more than {most:,} bytes")
    return expanded


def _zstd(data: bytes | np.ndarray, most: int, where: str) -> bytes:
    import zstandard  # most checkpoints have no need of it

    engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with engine.stream_reader(_view(data)) as reader:
            return reader.read(most + 1)
    except zstandard.ZstdError as cause:
        raise ArchiveError(f"{where} is damaged: {cause}") from None


def _zlib(data: bytes | np.ndarray, method: str, most: int, where: str) -> bytes:
    engine = zlib.decompressobj(_WINDOW_BITS[method])
    try:
        return engine.decompress(_view(data), most + 1)
    except zlib.error as cause:
        raise ArchiveError(f"{where} is damaged: {cause}") from None


def _view(data: bytes | np.ndarray) -> memoryview:
    return memoryview(data) if isinstance(data, bytes) else data.data
