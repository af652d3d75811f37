"""The same spectrum as `wwfunc.spectrum.esd`, on NumPy's BLAS and LAPACK, for the CPU.

XLA's float64 product on the CPU takes two to three times as long as BLAS, and its `eigvalsh`
computes the vectors too. Everything here is float64, whatever the weights are stored as.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wwfunc.spectrum import ESD

_BLOCK_ELEMENTS = 1 << 21
_PANEL = 512
_GRAM_ELEMENTS = 1 << 22
"""Slices whose Gram matrices take up to 32 MiB are decomposed together, larger ones alone."""


def grams(stack: np.ndarray) -> np.ndarray:
    """Lower triangles of W^T W for each slice of a stack (k, n, m), n >= m, in float64.

    Rows are converted to float64 by blocks of 16 MiB and multiplied by panels of columns, so that
    nothing of the size of W is made beside the Gram matrix. What stands above the panels is zero:
    the eigensolver does not look there.
    """
    slices, rows, cols = stack.shape
    step = max(1, _BLOCK_ELEMENTS // max(cols, 1))
    result = np.zeros((slices, cols, cols))
    for index, matrix in enumerate(stack):
        for start in range(0, rows, step):
            with np.errstate(over="ignore", invalid="ignore"):  # not finite is a status
                block = np.ascontiguousarray(matrix[start : start + step], np.float64)
                for left in range(0, cols, _PANEL):
                    panel = block[:, left : left + _PANEL]
                    result[index, left:, left : left + _PANEL] += block[:, left:].T @ panel
        if not result[index].any() and matrix.any():
            result[index] = np.nan  # the squares underflow
    return result


def eigenvalues(gram_stack: np.ndarray) -> np.ndarray:
    """Eigenvalues (k, m) of lower triangles (k, m, m), ascending, negative rounding set to zero.

    A slice that is not finite has NaN eigenvalues; LAPACK never sees it.
    """
    evals = np.full(gram_stack.shape[:2], np.nan)
    finite = np.isfinite(gram_stack).all(axis=(1, 2))
    whole = gram_stack if finite.all() else gram_stack[finite]
    evals[finite] = np.maximum(np.linalg.eigvalsh(whole, UPLO="L"), 0.0)
    return evals


def low_rank(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Eigenvalues (min(n, m),) of W^T W for W = left @ right, ascending, without forming W.

    With left = Q1 R1 and right^T = Q2 R2 they are those of the r x r core R1 R2^T, and zeros.
    """
    cores = [np.asarray(np.linalg.qr(side, mode="r")) for side in (left, right.T)]
    core = cores[0] @ cores[1].T
    found = eigenvalues(grams(core[None] if core.shape[0] >= core.shape[1] else core.T[None]))[0]
    evals = np.zeros(min(left.shape[0], right.shape[1]))
    evals[len(evals) - len(found) :] = found
    return evals


def pooled(evals: np.ndarray, rows: int, scale: float = 1.0) -> ESD:
    """One ascending spectrum of all slices times scale^2, with its rounding floor."""
    spectrum = np.sort(evals, axis=None) * scale**2
    limits = np.finfo(np.float64)
    largest = spectrum[-1] if spectrum.size else 0.0
    if not np.isfinite(spectrum).all() or 0 < largest < limits.tiny / limits.eps:
        spectrum = np.full_like(spectrum, np.nan)
    floor = limits.eps * rows * largest
    return as_esd(spectrum, n=spectrum.size, floor=floor)


def batched(evals: np.ndarray, rows: int, scale: float = 1.0) -> ESD:
    """The spectrum of each slice times scale^2, with its own floor."""
    if not len(evals):
        return ESD(evals=evals, n=np.zeros(0, np.int32), floor=np.zeros(0))
    spectra = [pooled(own, rows, scale) for own in evals]
    return ESD(
        evals=np.stack([own.evals for own in spectra]),
        n=np.stack([own.n for own in spectra]),
        floor=np.stack([own.floor for own in spectra]),
    )


def esd(stack: np.ndarray, scale: float = 1.0) -> ESD:
    """The spectrum of a stack (k, n, m), n >= m: see `wwfunc.spectrum.esd`."""
    evals = [eigenvalues(grams(stack[part])) for part in portions(len(stack), stack.shape[2])]
    return pooled(np.concatenate(evals), stack.shape[1], scale)


def portions(slices: int, cols: int) -> list[slice]:
    """Which of the slices to decompose together: as many as have small Gram matrices, or one."""
    at_once = max(1, _GRAM_ELEMENTS // max(1, cols * cols))
    return [slice(start, start + at_once) for start in range(0, max(1, slices), at_once)]


def padded(spectrum: ESD, size: int) -> ESD:
    """The same spectrum behind zeros, `size` entries long."""
    evals = np.zeros(size)
    evals[size - spectrum.evals.size :] = spectrum.evals
    return as_esd(evals, n=int(spectrum.n), floor=float(spectrum.floor))


def unpadded(spectrum: ESD) -> ESD:
    """The same spectrum without the zeros in front."""
    return replace(spectrum, evals=spectrum.evals[spectrum.evals.size - int(spectrum.n) :])


def as_esd(evals: np.ndarray, *, n: int, floor: float) -> ESD:
    """An ESD of NumPy arrays."""
    return ESD(evals=evals, n=np.asarray(n, np.int32), floor=np.asarray(floor, np.float64))


def window_starts(side: int, window: int, windows: int) -> tuple[int, ...]:
    """Where `windows` windows of one length start along a side, evenly; fewer where they repeat."""
    room = side - window
    step = max(1, room // max(1, windows - 1))
    return tuple(range(0, room + 1, step))[:windows]


def window_eigenvalues(stack: np.ndarray, rows: int, cols: int, windows: int) -> np.ndarray:
    """Eigenvalues (k, windows, rows) of the Gram matrices of windows of a stack (k, n, m), n >= m.

    See `wwfunc.fits.submatrices`. Of one window of columns the product over all rows is formed, and
    each window of rows is a principal submatrix of it. That product, converted by blocks, and a
    copy of one window, or of some small ones, are all that is held.
    """
    tall = stack if stack.shape[1] > stack.shape[2] else stack.swapaxes(1, 2)
    slices, larger, smaller = tall.shape
    along_cols = window_starts(larger, cols, windows)
    along_rows = window_starts(smaller, rows, windows)
    evals = np.empty((slices, len(along_cols), len(along_rows), rows))
    for index, col in np.ndindex(evals.shape[:2]):
        part = tall[index : index + 1, along_cols[col] : along_cols[col] + cols]
        evals[index, col] = _principal_eigenvalues(grams(part)[0], along_rows, rows)
    return evals.reshape(slices, len(along_cols) * len(along_rows), rows)


def _principal_eigenvalues(gram: np.ndarray, starts: Sequence[int], rows: int) -> np.ndarray:
    """Eigenvalues of the principal submatrices, `rows` long, that begin at `starts`."""
    evals = np.empty((len(starts), rows))
    for part in portions(len(starts), rows):
        squares = [gram[start : start + rows, start : start + rows] for start in starts[part]]
        evals[part] = eigenvalues(np.stack(squares))
    return evals


def window_esd(stack: np.ndarray, rows: int, cols: int, windows: int, scale: float = 1.0) -> ESD:
    """The pooled spectrum of the windows of a stack: see `wwfunc.fits.submatrices.window_esd`."""
    evals = window_eigenvalues(stack, rows, cols, windows)
    if not np.isfinite(stack).all():
        evals[:] = np.nan  # also where it lies between or behind the windows
    return pooled(evals, cols, scale)
