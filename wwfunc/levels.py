"""Level spacings: the gaps between neighbouring eigenvalues, which WeightWatcher calls deltas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd, in_range
from wwfunc.status import Status

RANDOM_RATIO = 0.5307
"""Mean ratio of large random matrices of real numbers, whose levels repel each other."""
POISSON_RATIO = 0.3863
"""Mean ratio of levels that do not know of each other, 2 ln 2 - 1."""
ROUNDINGS = 8
"""A gap of so many roundings of the largest eigenvalue, or fewer, may be rounding alone."""
RESOLVED = 0.95
"""Least share of the ratios with a larger gap: without many small gaps the others' mean is low."""


@record
class Spacings:
    """The gaps of one spectrum, aligned with its ascending eigenvalues; NaN where there is none."""

    gap: Float[Array, "*batch size"]
    """Entry i is lambda_i minus the one before; NaN at the smallest and in the padding."""
    log_gap: Float[Array, "*batch size"]
    """log10 of it; NaN where two eigenvalues are equal."""
    ratio: Float[Array, "*batch size"]
    """The smaller one over the larger one of the gaps on both sides of lambda_i."""
    mean_ratio: Float[Array, "*batch"]
    """0.5307 where levels repel each other as in a random matrix, 0.3863 where they do not."""
    count: Int[Array, "*batch"]
    """Number of ratios."""
    status: Int[Array, "*batch"]


@verb
def spacings(evals: ESD | Float[ArrayLike, " n"]) -> Spacings:
    r"""Measure the gaps between neighbouring eigenvalues and the ratios of consecutive gaps.

    .. math:: s_i = \lambda_i - \lambda_{i-1}, \quad
              r_i = \frac{\min(s_i, s_{i+1})}{\max(s_i, s_{i+1})}

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order, of one matrix: the levels of several matrices that
        are pooled, as of a convolution's slices, do not know of each other, whatever each does.

    Returns
    -------
    Spacings
        The gaps, their logarithms, the ratios and their mean. Fewer than three eigenvalues above
        the rounding floor, or gaps that rounding makes, have no ratio: NaN with a status.

    Notes
    -----
    O(n log n). Works under `jit`, `vmap` (over the spectra of slices, say) and `grad`. Ratios need
    no unfolding: the local density cancels. The standard error of the mean is about
    0.3 / sqrt(count). Where both gaps are 0, or rounding (8 eps lambda_max, in an `ESD` that has a
    floor), there is no ratio, and where this takes over 5 % of the ratios there is none at all: the
    others would have too low a mean. This meets eigenvalues that are all but equal, and float32
    matrices whose mean makes one eigenvalue far larger than the rest.

    References
    ----------
    Oganesyan, Huse, Physical Review B 75 (2007), arXiv:cond-mat/0610854.
    Atas, Bogomolny, Giraud, Roux, Physical Review Letters 110 (2013), arXiv:1212.5611.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.levels import spacings
    >>> found = spacings(np.array([1.0, 2.0, 4.0, 5.0]))
    >>> found.gap, found.ratio, float(found.mean_ratio)
    (array([nan,  1.,  2.,  1.]), array([nan, 0.5, 0.5, nan]), 0.5)
    """
    return spacings_of(as_esd(evals))


@jax.jit
def spacings_of(esd: ESD) -> Spacings:
    """`spacings` of an `ESD`: one program for each padded size."""
    level = (esd.evals > esd.floor) & in_range(esd)
    steps = esd.evals[1:] - esd.evals[:-1]
    between = level[1:] & level[:-1]
    ratio, defined = _ratios(steps, between, esd)
    count = jnp.sum(defined, dtype=jnp.int32)
    total = jnp.sum(jnp.where(defined, ratio, 0.0))
    mean = total / jnp.maximum(count, 1).astype(total.dtype)
    return Spacings(
        gap=_aligned(jnp.where(between, steps, jnp.nan), 1, 0),
        log_gap=_aligned(_log10(steps, between), 1, 0),
        ratio=_aligned(jnp.where(defined, ratio, jnp.nan), 1, 1)[: esd.evals.size],
        mean_ratio=jnp.where(count > 0, mean, jnp.nan),
        count=count,
        status=_status(esd, count),
    )


def _ratios(
    steps: Float[Array, " gaps"], between: Bool[Array, " gaps"], esd: ESD
) -> tuple[Float[Array, " inner"], Bool[Array, " inner"]]:
    """Of each pair of neighbouring gaps, and where both exist and rounding resolves the larger."""
    left, right = steps[:-1], steps[1:]
    larger = jnp.maximum(left, right)
    eps = jnp.finfo(steps.dtype).eps
    rounding = jnp.minimum(esd.floor, ROUNDINGS * eps * esd.evals[-1])  # exact levels have no floor
    pairs = between[:-1] & between[1:] & (larger > 0)
    defined = pairs & (larger > rounding)
    defined &= jnp.sum(defined) >= RESOLVED * jnp.sum(pairs)
    # Double `where`: neither branch may divide by zero.
    return jnp.minimum(left, right) / jnp.where(defined, larger, 1.0), defined


def _log10(steps: Float[Array, " gaps"], between: Bool[Array, " gaps"]) -> Float[Array, " gaps"]:
    positive = between & (steps > 0)
    return jnp.where(positive, jnp.log10(jnp.where(positive, steps, 1.0)), jnp.nan)


def _aligned(values: Float[Array, " some"], before: int, after: int) -> Float[Array, " size"]:
    return jnp.pad(values, (before, after), constant_values=jnp.nan)


def _status(esd: ESD, count: Int[Array, ""]) -> Int[Array, ""]:
    lost = jnp.sum(esd.evals > esd.floor) < esd.n
    outcomes = [
        (~in_range(esd), Status.NOT_FINITE),
        ((esd.evals[-1] == 0) & (esd.n > 0), Status.ALL_ZERO),
        (count == 0, Status.TAIL_TOO_SHORT),
        (lost, Status.RANK_DEFICIENT),
    ]
    codes = [jnp.int32(status) for _, status in outcomes]
    return jnp.select([reason for reason, _ in outcomes], codes, jnp.int32(Status.SUCCESS))
