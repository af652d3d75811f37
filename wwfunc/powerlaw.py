"""The power-law (PL) fit of an ESD's tail, p(x) ~ x^-alpha for x >= xmin."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.options import Options, SmallSample, Threshold, make_options
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, in_range
from wwfunc.status import Status
from wwfunc.tail import Limits, Tail, cutoff, ks_distance, scan_ks, tail_of

SMALL_SAMPLE = 20
"""Under so many eigenvalues WeightWatcher corrects the bias of alpha ..."""
SMALL_SAMPLE_TAIL = 8
"""... and looks at no tail shorter than this."""
SHORTEST_TAIL = 2
HIDDEN_SHARE = 0.1
"""An absolute threshold that hides a larger share of the eigenvalues is worth a remark."""


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
    """One-sided Kolmogorov-Smirnov distance."""
    sigma: Float[Array, "*batch"]
    """Standard error of alpha, (alpha - 1) / sqrt(n), with xmin taken as known."""
    num_pl_spikes: Int[Array, "*batch"]
    """n, the number of eigenvalues in the tail; 0 where the fit failed."""
    status: Int[Array, "*batch"]


@verb
def fit_pl(
    evals: ESD | Float[ArrayLike, " n"],
    *,
    xmin: float | None = None,
    xmin_min: float | None = None,
    xmax: int | float | None = None,
    threshold: Threshold = "absolute",
    small_sample: SmallSample = "corrected",
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
    xmin_min
        Smallest xmin that the scan tries.
    xmax
        Eigenvalues above it are left out; a negative integer -k leaves out the k largest. The
        likelihood does not know of the cut, so alpha is biased upwards (as WeightWatcher's is).
    threshold
        "absolute" fits eigenvalues above 1e-5, as WeightWatcher does; "relative" all that
        rounding resolves, so that alpha is free of the scale of W.
    small_sample
        "corrected" takes n - 1 for n, over tails of at least 8, where fewer than 20 eigenvalues
        are fitted, as WeightWatcher does; "mle" never.

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
    limits: dict[str, Any] = {"xmin": xmin, "xmin_min": xmin_min, "xmax": xmax}
    traced = {name: value for name, value in limits.items() if isinstance(value, Array)}
    plain = {name: value for name, value in limits.items() if name not in traced}
    options = make_options(**plain, threshold=threshold, small_sample=small_sample)
    return fit_limited(
        _as_esd(evals),
        dataclasses.replace(limits_of(options), **traced),
        threshold=options.threshold,
        small_sample=options.small_sample,
    )


def limits_of(options: Options) -> Limits:
    """The limits among the options: a negative xmax is a count."""
    clip = -options.xmax if isinstance(options.xmax, int) else 0
    xmax = None if clip else options.xmax
    return Limits(xmin=options.xmin, xmin_min=options.xmin_min, xmax=xmax, clip=clip)


def _as_esd(evals: ESD | Float[ArrayLike, " n"]) -> ESD:
    if isinstance(evals, ESD):
        return evals
    ordered = jnp.sort(real_numbers(evals, "evals").ravel())
    zero = jnp.zeros((), ordered.dtype)
    n = jnp.asarray(ordered.size, jnp.int32)
    return ESD(evals=ordered if ordered.size else zero[None], n=n, floor=zero)


@functools.partial(jax.jit, static_argnames=("threshold", "small_sample"))
def fit_limited(
    esd: ESD, limits: Limits, *, threshold: Threshold, small_sample: SmallSample
) -> PowerLawFit:
    """`fit_pl` of an `ESD` within `Limits`."""
    tail = tail_of(esd, limits, threshold)
    chosen = _choose(tail, limits, small_sample == "corrected")
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
        status=_status(esd, tail, found, threshold),
    )
    return _without_numbers(fit, ~found)


class _Choice(NamedTuple):
    """The tail that is taken."""

    start: Int[Array, ""]
    log_xmin: Float[Array, ""]
    alpha: Float[Array, ""]
    D: Float[Array, ""]
    found: Bool[Array, ""]
    """Whether there is a tail at all."""


def _choose(tail: Tail, limits: Limits, corrected: bool) -> _Choice:
    small = corrected & (tail.candidates < SMALL_SAMPLE)
    if limits.xmin is not None:
        start = jnp.argmax(tail.fitted)
        log_xmin = jnp.log(jnp.full_like(tail.log_scale, limits.xmin)) - tail.log_scale
        alpha, valid = _maximum_likelihood(tail.count[start], tail.log_sum[start], log_xmin, small)
        (D,) = ks_distance(*jax.lax.stop_gradient((tail, start[None], log_xmin[None], alpha[None])))
        return _Choice(start, log_xmin, alpha, D, valid)
    alphas, valid = _maximum_likelihood(tail.count, tail.log_sum, tail.log_evals, small)
    valid &= tail.starts
    # Which xmin is best is a choice, and D a maximum: neither has a derivative here.
    distances = scan_ks(*jax.lax.stop_gradient((tail, alphas)))
    best = jnp.argmin(jnp.where(valid, distances, jnp.inf))
    return _Choice(best, tail.log_evals[best], alphas[best], distances[best], jnp.any(valid))


def _maximum_likelihood(
    count: Int[Array, "*c"], log_sum: Float[Array, "*c"], log_xmin: Array, small: Bool[Array, ""]
) -> tuple[Float[Array, "*c"], Bool[Array, "*c"]]:
    """alpha = 1 + n / sum(log(x / xmin)), and where that is defined; n - 1 in a small sample."""
    excess = log_sum - count * log_xmin
    rounding = 8 * jnp.finfo(excess.dtype).eps * count * (1.0 + jnp.abs(log_xmin))
    long_enough = count >= jnp.where(small, SMALL_SAMPLE_TAIL, SHORTEST_TAIL)
    valid = long_enough & (excess > rounding)
    return 1.0 + (count - small) / jnp.where(valid, excess, 1.0), valid


def _status(esd: ESD, tail: Tail, found: Bool[Array, ""], threshold: Threshold) -> Int[Array, ""]:
    resolved = jnp.sum(esd.evals > esd.floor)
    hidden = resolved - jnp.sum(esd.evals > cutoff(esd, threshold))
    many_hidden = hidden > HIDDEN_SHARE * esd.n
    equal = (jnp.max(tail.count) >= SHORTEST_TAIL) & (jnp.sum(tail.starts) == 1)
    outcomes = [
        (~in_range(esd), Status.NOT_FINITE),
        ((esd.evals[-1] == 0) & (esd.n > 0), Status.ALL_ZERO),
        (found & many_hidden, Status.THRESHOLD_HIDES),
        (found, Status.SUCCESS),
        (many_hidden, Status.THRESHOLD_LEAVES_NONE),
        (equal, Status.NO_TAIL),
    ]
    reasons = [reason for reason, _ in outcomes]
    codes = [jnp.int32(status) for _, status in outcomes]
    return jnp.select(reasons, codes, jnp.int32(Status.TAIL_TOO_SHORT))


def _without_numbers(fit: PowerLawFit, failed: Bool[Array, ""]) -> PowerLawFit:
    numbers = {
        name: jnp.where(failed, jnp.nan, getattr(fit, name))
        for name in ("alpha", "xmin", "xmax", "D", "sigma")
    }
    spikes = jnp.where(failed, 0, fit.num_pl_spikes)
    return dataclasses.replace(fit, num_pl_spikes=spikes, **numbers)
