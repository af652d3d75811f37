"""The power-law (PL) fit of an ESD's tail, p(x) ~ x^-alpha for x >= xmin."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.fits.fingers import near_peak
from wwfunc.fits.ksdistance import ks_distance
from wwfunc.fits.nearest import nearest_tail
from wwfunc.fits.tail import SHORTEST_TAIL, Limits, Tail, asked, tail_of, tail_status
from wwfunc.options import KS, FixFingers, Method, PeakRange, SmallSample, Threshold
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd, in_range

SMALL_SAMPLE = 20
"""Under so many eigenvalues WeightWatcher corrects the bias of alpha ..."""
SMALL_SAMPLE_TAIL = 8
"""... and looks at no tail shorter than this."""
FEWEST_FINGERS = 2
"""WeightWatcher leaves out two eigenvalues or more, never one."""
LEAST_ALPHA = 2.0
"""Clipping ends where alpha has fallen to this."""


@record
class PowerLawFit:
    """A power law fitted to the tail of an ESD. Where `status` is a failure, numbers are NaN."""

    alpha: Float[Array, "*batch"]
    """Exponent of the density."""
    xmin: Float[Array, "*batch"]
    """Where the tail starts."""
    xmax: Float[Array, "*batch"]
    """The largest eigenvalue that was fitted."""
    D: Float[Array, "*batch"]
    """Kolmogorov-Smirnov distance, one-sided or two-sided as it was asked for."""
    sigma: Float[Array, "*batch"]
    """Standard error of alpha, (alpha - 1) / sqrt(n), with xmin taken as known."""
    num_pl_spikes: Int[Array, "*batch"]
    """n, the number of eigenvalues in the tail; 0 where the fit failed."""
    num_fingers: Int[Array, "*batch"]
    """How many of the largest eigenvalues "clip_xmax" left out."""
    raw_alpha: Float[Array, "*batch"]
    """alpha before that."""
    status: Int[Array, "*batch"]


@verb
def fit_pl(
    evals: ESD | Float[ArrayLike, " n"],
    *,
    xmin: float | None = None,
    xmin_min: float | None = None,
    xmin_max: float | None = None,
    xmax: int | float | None = None,
    fix_fingers: FixFingers | None = None,
    peak_range: PeakRange = "intended",
    max_fingers: int = 9,
    finger_thresh: float = 1.0,
    threshold: Threshold = "absolute",
    small_sample: SmallSample = "corrected",
    ks: KS = "one-sided",
) -> PowerLawFit:
    r"""Fit a power law to the largest eigenvalues, by maximum likelihood at the best xmin.

    .. math:: \hat\alpha = 1 + n \Big/ \sum_{x_i \ge x_{min}} \ln (x_i / x_{min})

    Every eigenvalue is tried as xmin; the one whose fit has the smallest KS distance D is taken.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    xmin
        Where the tail starts, if that is known; None scans.
    xmin_min, xmin_max
        Smallest and largest xmin that the scan tries.
    xmax
        Eigenvalues above it are left out; a negative integer -k leaves out the k largest. The
        likelihood does not know of the cut, so alpha is biased upwards (as WeightWatcher's is).
    fix_fingers
        "xmin_peak" tries only xmin from 0.95 to 1.5 times the peak of the ESD, the left edge of
        the fullest of 100 logarithmic bins. "clip_xmax" leaves out 2, 3 ... of the largest
        eigenvalues until alpha has fallen by more than `finger_thresh`; where it reaches 2 first,
        or `max_fingers` are not enough, nothing is left out.
    peak_range
        "weightwatcher" starts the range of "xmin_peak" at log10 of 0.95 times the peak, as
        WeightWatcher does by mistake.
    max_fingers, finger_thresh
        See "clip_xmax". WeightWatcher's max_fingers of 10 stands for 9 and is ignored there.
    threshold
        "absolute" fits eigenvalues above 1e-5, as WeightWatcher does; "relative" all that
        rounding resolves, so that alpha is free of the scale of W.
    small_sample
        "corrected" takes n - 1 for n, over tails of at least 8, where fewer than 20 eigenvalues
        are fitted, as WeightWatcher does; "mle" never.
    ks
        D looks at each step of the empirical distribution from one side, as WeightWatcher's does,
        or is the "two-sided" supremum.

    Returns
    -------
    PowerLawFit
        With `status`, a `Status` code; a failed fit is NaN, never a number.

    Raises
    ------
    OptionError
        If an option is outside its range. Limits may be arrays too, also traced ones; then they
        are not checked.

    Notes
    -----
    O(n^2) time, O(n) memory. Works under `jit`, `vmap` and `grad` (xmin is held fixed by
    the derivative, and D has none). Ties stay on one side of xmin.

    References
    ----------
    Clauset, Shalizi, Newman, SIAM Review 51 (2009), eqs. 3.1 and 3.9, doi:10.1137/070710111.
    Martin, Peng, Mahoney, Nature Communications 12 (2021), doi:10.1038/s41467-021-24025-8.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> evals = (1 - np.random.default_rng(0).random(2000)) ** (-1 / 1.5)  # alpha = 2.5
    >>> fit = wwfunc.fit_pl(evals)
    >>> bool(abs(fit.alpha - 2.5) < 4 * fit.sigma)
    True
    """
    limits, method = asked(
        xmin=xmin,
        xmin_min=xmin_min,
        xmin_max=xmin_max,
        xmax=xmax,
        fix_fingers=fix_fingers,
        peak_range=peak_range,
        max_fingers=max_fingers,
        finger_thresh=finger_thresh,
        threshold=threshold,
        small_sample=small_sample,
        ks=ks,
    )
    return fit_limited(as_esd(evals), limits, method)


@functools.partial(jax.jit, static_argnames="method")
def fit_limited(esd: ESD, limits: Limits, method: Method) -> PowerLawFit:
    """`fit_pl` of an `ESD` within `Limits`."""
    if method.fix_fingers == "xmin_peak":
        limits = near_peak(esd, limits, method)
    if method.fix_fingers == "clip_xmax":
        return _fit_clipped(esd, limits, method)
    return _fit(esd, limits, method)


def _fit(esd: ESD, limits: Limits, method: Method) -> PowerLawFit:
    tail = tail_of(esd, limits, method.threshold)
    chosen = _choose(tail, limits, method)
    found = chosen.found & in_range(esd)
    count = tail.count[chosen.start]
    xmin = tail.evals[chosen.start]
    fit = PowerLawFit(
        alpha=chosen.alpha,
        xmin=xmin if limits.xmin is None else jnp.full_like(xmin, limits.xmin),
        xmax=jnp.max(jnp.where(tail.fitted, tail.evals, -jnp.inf)),
        D=chosen.D,
        sigma=(chosen.alpha - 1.0) / jnp.sqrt(jnp.maximum(count, 1).astype(chosen.alpha.dtype)),
        num_pl_spikes=count,
        num_fingers=jnp.zeros_like(count),
        raw_alpha=chosen.alpha,
        status=tail_status(esd, tail, found, method.threshold),
    )
    return _without_numbers(fit, ~found)


def _fit_clipped(esd: ESD, limits: Limits, method: Method) -> PowerLawFit:
    """The first fit without so many fingers whose alpha lies far enough under the raw one."""
    raw = _fit(esd, limits, method)
    fingers = jnp.arange(FEWEST_FINGERS, method.max_fingers + 1, dtype=jnp.int32)
    if not fingers.size:
        return raw

    def without(count: Int[Array, ""]) -> PowerLawFit:
        return _fit(esd, dataclasses.replace(limits, clip=limits.clip + count), method)

    # How many is a choice: it has no derivative, and the loop over all of them needs none.
    alphas = jax.lax.map(lambda count: jax.lax.stop_gradient(without(count).alpha), fingers)
    fallen = alphas + method.finger_thresh < jax.lax.stop_gradient(raw.alpha)
    ends = fallen | (alphas <= LEAST_ALPHA)
    first = jnp.argmax(ends)
    count = jnp.where(ends[first] & fallen[first], fingers[first], 0)
    return dataclasses.replace(without(count), num_fingers=count, raw_alpha=raw.alpha)


class _Choice(NamedTuple):
    """The tail that is taken."""

    start: Int[Array, ""]
    log_xmin: Float[Array, ""]
    alpha: Float[Array, ""]
    D: Float[Array, ""]
    found: Bool[Array, ""]
    """Whether there is a tail at all."""


def _choose(tail: Tail, limits: Limits, method: Method) -> _Choice:
    small = (method.small_sample == "corrected") & (tail.candidates < SMALL_SAMPLE)
    if limits.xmin is not None:
        start = jnp.argmax(tail.fitted)
        log_xmin = jnp.log(jnp.full_like(tail.log_scale, limits.xmin)) - tail.log_scale
        alpha, valid = _maximum_likelihood(tail.count[start], tail.log_sum[start], log_xmin, small)
        given = jax.lax.stop_gradient((tail, start[None], log_xmin[None], alpha[None]))
        (D,) = ks_distance(*given, method.ks)
        return _Choice(start, log_xmin, alpha, D, valid)
    alphas, valid = _maximum_likelihood(tail.count, tail.log_sum, tail.log_evals, small)
    valid &= tail.starts
    # Which xmin is best is a choice, and D a maximum: neither has a derivative here.
    best, D = nearest_tail(*jax.lax.stop_gradient((tail, alphas, valid)), method.ks)
    return _Choice(best, tail.log_evals[best], alphas[best], D, jnp.any(valid))


def _maximum_likelihood(
    count: Int[Array, "*c"], log_sum: Float[Array, "*c"], log_xmin: Array, small: Bool[Array, ""]
) -> tuple[Float[Array, "*c"], Bool[Array, "*c"]]:
    """alpha = 1 + n / sum(log(x / xmin)), and where that is defined; n - 1 in a small sample."""
    excess = log_sum - count * log_xmin
    rounding = 8 * jnp.finfo(excess.dtype).eps * count * (1.0 + jnp.abs(log_xmin))
    long_enough = count >= jnp.where(small, SMALL_SAMPLE_TAIL, SHORTEST_TAIL)
    valid = long_enough & (excess > rounding)
    return 1.0 + (count - small) / jnp.where(valid, excess, 1.0), valid


def _without_numbers(fit: PowerLawFit, failed: Bool[Array, ""]) -> PowerLawFit:
    numbers = {
        name: jnp.where(failed, jnp.nan, getattr(fit, name))
        for name in ("alpha", "xmin", "xmax", "D", "sigma", "raw_alpha")
    }
    spikes = jnp.where(failed, 0, fit.num_pl_spikes)
    return dataclasses.replace(fit, num_pl_spikes=spikes, **numbers)
