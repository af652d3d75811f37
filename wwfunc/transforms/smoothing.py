"""Smoothing: a matrix without its small singular values, or without its largest ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from wwfunc import host
from wwfunc.checks import is_number
from wwfunc.errors import InputError, OptionError
from wwfunc.execution import bucket, fit_each
from wwfunc.extras import SPIKE_QUANTILE
from wwfunc.fits.powerlaw import fit_pl
from wwfunc.matrices import as_stack
from wwfunc.pytrees import Array
from wwfunc.randommatrix.slices import host_alive
from wwfunc.randommatrix.tracelog import erg
from wwfunc.randommatrix.tracywidom import quantile
from wwfunc.spectrum import ESD
from wwfunc.status import FIRST_FAILURE, Status, sentence

Rule = Literal["erg", "mp", "pl"]
RULES: tuple[Rule, ...] = get_args(Rule)
Keep = int | float | Rule
"""A count, a share, or the name of a rule."""

_BLOCK_ELEMENTS = 1 << 21
_SHARE_SLACK = 1e-9
"""0.29 of 100 values are 29, though the product is 28.999999999999996."""


@dataclass(frozen=True)
class Smoothed:
    """A stack of matrices smoothed, and how many singular values are left of how many."""

    stack: np.ndarray
    kept: int
    total: int


def smooth_matrix(W: Float[ArrayLike, "*slices n m"], keep: Keep) -> Array:
    r"""Keep the largest singular values of a matrix, or take them out.

    .. math:: W_k = \sum_{i \in K} \sigma_i u_i v_i^\top = W V_K V_K^\top

    With the k largest in K it is the matrix of rank k nearest to W (Eckart-Young), and
    :math:`\lVert W - W_k \rVert_F^2 = \sum_{i \notin K} \sigma_i^2`.

    Parameters
    ----------
    W
        A matrix (n, m), or a stack (k, n, m) whose slices are one layer, as those of a convolution
        are: the largest values of the pooled spectrum are kept, in whichever slices they stand.
    keep
        How many to keep: a count; a share between 0 and 1 of all; or a rule. "erg" keeps as many
        as `detX_num` counts, "mp" what is above the Marchenko-Pastur edge of its own slice, "pl"
        the tail of the power law. A negative count takes out so many of the largest and keeps the
        others.

    Returns
    -------
    Array
        In the shape and type of W, rounded to nearest; NumPy's for NumPy's, JAX's for JAX's.
        A slice that loses nothing is copied bit by bit, one that loses all is zero.

    Raises
    ------
    OptionError
        If `keep` is none of these.
    InputError
        If W is no matrix or stack of real floats, holds NaN or infinity, or if nothing would be
        left: no spike, no tail, a negative count of all values.

    Notes
    -----
    O(k n m^2 + k m^3) on the host in float64, m the smaller side, with float64 copies of W^T W and
    its vectors for one slice, or for several small ones, and of a block of rows, but not of W. Not
    under `jit`, `vmap` or `grad`. The vectors are those of W^T W: singular values under 1e-7 of the
    largest are not kept exactly.

    References
    ----------
    Eckart, Young, Psychometrika 1 (1936), doi:10.1007/BF02288367.
    Martin, Peng, Mahoney, Nature Communications 12 (2021), doi:10.1038/s41467-021-24025-8.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> wwfunc.smooth(np.diag([3.0, 1.0, 2.0]), 2).round(12) + 0.0
    array([[3., 0., 0.],
           [0., 0., 0.],
           [0., 0., 2.]])
    """
    keep = checked_keep(keep)
    stack = as_stack(W, "smooth")
    tall = stack.shape[1] >= stack.shape[2]
    result = smoothed(stack if tall else stack.swapaxes(1, 2), keep).stack
    result = (result if tall else result.swapaxes(1, 2)).reshape(np.shape(W))
    return jnp.asarray(result) if isinstance(W, jax.Array) else result


def checked_keep(keep: Any) -> Keep:
    """`keep` as a plain value, or OptionError."""
    if isinstance(keep, str) and keep in RULES:
        return keep
    if is_number(Integral, keep) and keep:
        return int(keep)
    if is_number(Real, keep) and not isinstance(keep, Integral) and 0 < keep < 1:
        return float(str(keep) if isinstance(keep, np.floating) else keep)  # float32's 0.29 is 0.29
    raise OptionError(
        f"keep is a count (negative: take out the largest), a share between 0 and 1, or one of "
        f"{', '.join(RULES)}, not {keep!r}"
    )


def smoothed(stack: np.ndarray, keep: Keep, scale: float = 1.0) -> Smoothed:
    """`smooth_matrix` for a stack (k, n, m), n >= m, of floats; `scale` is the layer's, for rules.

    Raises
    ------
    InputError
        If the stack is not finite, or nothing would be left of it.
    """
    evals, vectors = _spectra(stack)
    if not evals.size:
        return Smoothed(stack.copy(), 0, 0)
    spectrum = host.pooled(evals, stack.shape[1], scale)
    if not np.isfinite(spectrum.evals).all():
        raise InputError(Status.NOT_FINITE.sentence)
    by_slice = keep == "mp"
    chosen = _spikes(stack, evals, scale) if by_slice else _pooled_choice(keep, spectrum, evals)
    result = stack.copy()
    for index in np.flatnonzero(~chosen.all(axis=1)):
        one = slice(index, index + 1)
        own = _decomposed(stack[one])[1] if vectors is None else vectors[one]
        _project(stack[index], own[0], chosen[index], result[index])
    if not np.isfinite(result).all():
        raise InputError(f"the smoothed weights leave the range of {stack.dtype.name}")
    return Smoothed(result, int(chosen.sum()), evals.size)


def rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 `values` in `dtype`, rounded to nearest once.

    The types of ml_dtypes are cast through float32, and rounding twice can end one step off. So
    the first rounding goes to the odd neighbour, which is never a tie of the second.
    """
    with np.errstate(over="ignore"):
        if dtype.type.__module__ == "numpy":
            return values.astype(dtype)
        single = values.astype(np.float32)
    bits = single.view(np.uint32)
    bits -= np.abs(single) > np.abs(values)
    bits |= single != values
    return single.astype(dtype)


def _spectra(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Eigenvalues (k, m) of W^T W, and its vectors where those of all slices are few."""
    parts = host.portions(len(stack), stack.shape[2])
    if len(parts) == 1:
        return _decomposed(stack)
    return np.concatenate([host.eigenvalues(host.grams(stack[part])) for part in parts]), None


def _decomposed(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k, m) and vectors (k, m, m) of W^T W."""
    grams = host.grams(stack)
    if not np.isfinite(grams).all():
        raise InputError(Status.NOT_FINITE.sentence)
    evals, vectors = np.linalg.eigh(grams, UPLO="L")
    return np.maximum(evals, 0.0), vectors


def _takes_out(keep: Keep) -> bool:
    return isinstance(keep, int) and keep < 0


def _pooled_choice(keep: Keep, spectrum: ESD, evals: np.ndarray) -> np.ndarray:
    """Which values stay, whatever slices they stand in."""
    count = _count(keep, spectrum)
    largest = np.argsort(-evals, axis=None, kind="stable")
    chosen = np.zeros(evals.shape, bool)
    chosen.flat[largest[-count:] if _takes_out(keep) else largest[:count]] = True
    return chosen


def _count(keep: Keep, spectrum: ESD) -> int:
    """How many values stay, 1 or more."""
    total = spectrum.evals.size
    if isinstance(keep, str):
        return _ruled(keep, spectrum)
    if isinstance(keep, float):
        return max(1, math.floor(keep * total + _SHARE_SLACK))
    if keep <= -total:
        raise InputError(f"keep={keep} takes out all {total} singular values")
    return min(keep, total) if keep > 0 else total + keep


def _ruled(keep: str, spectrum: ESD) -> int:
    padded = host.padded(spectrum, bucket(spectrum.evals.size))  # few programs serve all sizes
    if keep == "erg":
        erg_found = erg(padded)
        count, status = erg_found.detX_num, erg_found.status
    else:
        fit = fit_pl(padded)
        count, status = fit.num_pl_spikes, fit.status
    _check_kept(keep, int(count), int(status), spectrum.evals.size)
    return min(int(count), spectrum.evals.size)


def _spikes(stack: np.ndarray, evals: np.ndarray, scale: float) -> np.ndarray:
    """What stands out of the noise of its own slice."""
    each = host.batched(evals, stack.shape[1], scale)
    with jax.enable_x64(True):
        fits = fit_each(host_alive(stack, each), quantile(SPIKE_QUANTILE, of=len(stack)))
    failed = fits.status[(fits.num_spikes < 0) & stack.any(axis=(1, 2))]
    counts = np.maximum(fits.num_spikes, 0)
    _check_kept("mp", int(counts.sum()), int(failed.max(initial=0)), evals.size)
    return np.arange(evals.shape[1]) >= evals.shape[1] - counts[:, None]


def _check_kept(keep: str, count: int, status: int, total: int) -> None:
    if status >= FIRST_FAILURE:
        raise InputError(f"keep={keep!r} finds nothing to keep: {sentence(status)}")
    if count < 1:
        raise InputError(f"keep={keep!r} would keep none of {total} singular values")


def _project(
    matrix: np.ndarray, vectors: np.ndarray, chosen: np.ndarray, result: np.ndarray
) -> None:
    """Write W V V^T into `result`, or W less that of the other vectors where those are fewer."""
    inner = 2 * chosen.sum() <= chosen.size
    basis = vectors[:, chosen if inner else ~chosen]
    step = max(1, _BLOCK_ELEMENTS // matrix.shape[1])
    for start in range(0, len(matrix), step):
        block = matrix[start : start + step].astype(np.float64)
        part = (block @ basis) @ basis.T
        result[start : start + step] = rounded(part if inner else block - part, matrix.dtype)
