"""The bytes of a tensor as a file stores them, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_BYTES = 1 << 24


def stored_blocks(tensor: np.ndarray, dtype: np.dtype) -> Iterator[memoryview]:
    """The elements in C order, in `dtype` (which may differ in byte order), without a whole copy.

    A tensor that lies as it is stored is given in one piece.
    """
    if tensor.dtype == dtype and tensor.flags.c_contiguous:
        yield _octets(tensor)
        return
    rows = np.atleast_1d(tensor)
    step = max(1, _BLOCK_BYTES * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        yield _octets(np.ascontiguousarray(rows[start : start + step], dtype))


def _octets(contiguous: np.ndarray) -> memoryview:
    """As plain bytes: the types of ml_dtypes have no buffers of their own."""
    if not contiguous.size:
        return memoryview(b"")
    return contiguous.reshape(-1).view(np.uint8).data
