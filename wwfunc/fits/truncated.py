"""The truncated power law (TPL) of an ESD's tail, p(x) ~ x^-alpha exp(-Lambda x), x >= xmin."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.fits.expintegral import moments
from wwfunc.fits.fingers import near_peak
from wwfunc.fits.tail import ROWS, SHORTEST_TAIL, Limits, Tail, asked, tail_of, tail_status
from wwfunc.fits.truncatedks import ks_distance_truncated
from wwfunc.fits.truncatedlikelihood import (
    LEAST_ALPHA,
    LEAST_FREE_ALPHA,
    least_log_z,
    maximise,
    optimum,
)
from wwfunc.options import KS, Method, PeakRange, Threshold
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd, in_range
from wwfunc.status import FIRST_FAILURE, Status


@record
class TruncatedPowerLawFit:
    """A truncated power law fitted to the tail of an ESD. After a failure, numbers are NaN."""

    alpha: Float[Array, "*batch"]
    """Exponent of the power law."""
    Lambda: Float[Array, "*batch"]
    """Rate of the exponential, per unit of eigenvalue."""
    xmin: Float[Array, "*batch"]
    """Where the tail starts."""
    xmax: Float[Array, "*batch"]
    """The largest eigenvalue that was fitted."""
    D: Float[Array, "*batch"]
    """Kolmogorov-Smirnov distance, one-sided or two-sided as it was asked for."""
    sigma: Float[Array, "*batch"]
    """Standard error of alpha with xmin taken as known; NaN where an estimate is on a bound."""
    sigma_Lambda: Float[Array, "*batch"]
    """Standard error of Lambda; NaN where an estimate is on a bound."""
    num_pl_spikes: Int[Array, "*batch"]
    """n, the number of eigenvalues in the tail; 0 where the fit failed."""
    gradient: Float[Array, "*batch"]
    """Norm of the projected gradient, in (alpha, Lambda xmin), of the negative log-likelihood per
    eigenvalue: how far the search is from the maximum."""
    status: Int[Array, "*batch"]


@verb
def fit_tpl(
    evals: ESD | Float[ArrayLike, " n"],
    *,
    xmin: float | None = None,
    xmin_min: float | None = None,
    xmin_max: float | None = None,
    xmax: int | float | None = None,
    fix_fingers: Literal["xmin_peak"] | None = None,
    peak_range: PeakRange = "intended",
    free_alpha: bool = False,
    threshold: Threshold = "absolute",
    ks: KS = "one-sided",
) -> TruncatedPowerLawFit:
    r"""Fit a truncated power law to the largest eigenvalues, by maximum likelihood.

    .. math:: p(x) = \frac{(x / x_{min})^{-\alpha} e^{-\Lambda x}}
        {x_{min} E_\alpha(\Lambda x_{min})}, \quad x \ge x_{min}

    Every eigenvalue is tried as xmin; the one whose fit has the smallest KS distance D is taken.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    xmin, xmin_min, xmin_max, xmax, peak_range, threshold, ks
        As in `fit_pl`.
    fix_fingers
        "xmin_peak" is WeightWatcher's E_TPL: it looks for xmin near the peak of the ESD alone.
    free_alpha
        Let alpha fall under 1, down to -5; otherwise it stops at 1, as WeightWatcher's does.

    Returns
    -------
    TruncatedPowerLawFit
        With `status`, a `Status` code, which says when an estimate stopped at its bound, or when
        the search did not converge; a failed fit is NaN, never a number.

    Raises
    ------
    OptionError
        If an option is outside its range. Limits may be arrays too, also traced ones; then they
        are not checked.

    Notes
    -----
    The likelihood of a tail needs its n and its means of x and ln x alone, and is concave: all
    xmin share one search on suffix sums. O(n^2) time for D, O(n) memory. The standard errors come
    from the information matrix. Works under `jit`, `vmap` and `grad` (xmin is held fixed by the
    derivative, and D, the standard errors and the gradient have none).

    References
    ----------
    Clauset, Shalizi, Newman, SIAM Review 51 (2009), table 2.1, doi:10.1137/070710111.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> evals = 1 + rng.exponential(size=20_000) / 0.5
    >>> evals = evals[rng.random(evals.size) < evals**-1.5]  # alpha = 1.5, Lambda = 0.5, xmin = 1
    >>> fit = fit_tpl(evals, xmin=1.0)
    >>> print(abs(fit.alpha - 1.5) < 3 * fit.sigma, abs(fit.Lambda - 0.5) < 3 * fit.sigma_Lambda)
    True True
    """
    limits, method = asked(
        fit="TPL",
        xmin=xmin,
        xmin_min=xmin_min,
        xmin_max=xmin_max,
        xmax=xmax,
        fix_fingers=fix_fingers,
        peak_range=peak_range,
        free_alpha=free_alpha,
        threshold=threshold,
        ks=ks,
    )
    return fit_truncated(as_esd(evals), limits, method)


@functools.partial(jax.jit, static_argnames="method")
def fit_truncated(esd: ESD, limits: Limits, method: Method) -> TruncatedPowerLawFit:
    """`fit_tpl` of an `ESD` within `Limits`."""
    if method.fix_fingers == "xmin_peak":
        limits = near_peak(esd, limits, method)
    tail = tail_of(esd, limits, method.threshold)
    sample = _sample(tail)
    # What is searched for has no derivative; that of the optimum is put in behind the search.
    fixed = jax.lax.stop_gradient((tail, sample))
    if limits.xmin is None:
        start, solution = _scan(*fixed, method)
        log_xmin, xmin = tail.log_evals[start], tail.evals[start]
    else:
        start = jnp.argmax(tail.fitted)
        xmin = jnp.full_like(tail.log_scale, limits.xmin)
        log_xmin = jnp.log(xmin) - tail.log_scale
        at = start[None], jax.lax.stop_gradient(log_xmin)[None]
        solution = _Solution(*(x[0] for x in _solve(*fixed, *at, method)))
    enough = (sample.n[start] >= SHORTEST_TAIL) & in_range(esd)
    solution = _Solution(*(jnp.where(enough, x, jnp.nan) for x in solution))
    mean_log, mean_ratio = _means(sample, start, log_xmin)
    found = ~jnp.isnan(solution.alpha)
    # Stand-ins where there is no fit keep NaN out of the gradient, not only out of the value.
    known = (solution.alpha, solution.z, mean_log, mean_ratio)
    alpha, z = optimum(*(jnp.where(found, x, 2.0) for x in known), _least(method))
    end = _end(solution, *jax.lax.stop_gradient((mean_log, mean_ratio)), _least(method))
    n = sample.n[start]
    root_n = jnp.sqrt(jnp.maximum(n, 1).astype(alpha.dtype))
    fit = TruncatedPowerLawFit(
        alpha=alpha,
        Lambda=z / xmin,
        xmin=xmin,
        xmax=jnp.max(jnp.where(tail.fitted, tail.evals, -jnp.inf)),
        D=solution.D,
        sigma=end.sigma_alpha / root_n,
        sigma_Lambda=end.sigma_z / root_n / jax.lax.stop_gradient(xmin),
        num_pl_spikes=n,
        gradient=end.gradient,
        status=_status(esd, tail, end, method),
    )
    return _without_numbers(fit)


class _Sample(NamedTuple):
    """What the likelihood of the tail from each entry on needs to know."""

    n: Int[Array, " size"]
    log_mean: Float[Array, " size"]
    """Mean of log(x / lambda_max)."""
    mean: Float[Array, " size"]
    """Mean of x / lambda_max."""
    starts: Bool[Array, " size"]


def _sample(tail: Tail) -> _Sample:
    largest = jnp.where(tail.evals[-1] > 0, tail.evals[-1], 1.0)
    total = jax.lax.cumsum(jnp.where(tail.fitted, tail.evals, 0.0) / largest, reverse=True)
    n = jnp.maximum(tail.count, 1).astype(total.dtype)
    starts = tail.starts & (tail.count >= SHORTEST_TAIL)
    return _Sample(tail.count, tail.log_sum / n, total / n, starts)


def _means(sample: _Sample, at: Array, log_xmin: Array) -> tuple[Array, Array]:
    """Means of ln t and of t = x / xmin over the tails at `at`."""
    return sample.log_mean[at] - log_xmin, sample.mean[at] * jnp.exp(-log_xmin)


class _Solution(NamedTuple):
    alpha: Float[Array, "*c"]
    z: Float[Array, "*c"]
    D: Float[Array, "*c"]


def _solve(tail: Tail, sample: _Sample, at: Array, log_xmin: Array, method: Method) -> _Solution:
    """The best fits of the tails at `at`, and their KS distances."""
    alpha, z = maximise(*_means(sample, at, log_xmin), free=method.free_alpha)
    return _Solution(alpha, z, ks_distance_truncated(tail, at, log_xmin, alpha, z, method.ks))


def _scan(tail: Tail, sample: _Sample, method: Method) -> tuple[Int[Array, ""], _Solution]:
    """The tail with the smallest KS distance: O(n^2) time, O(n) memory."""

    def block(index: Int[Array, ""], found: _Solution) -> _Solution:
        first = index * ROWS
        at = first + jnp.arange(ROWS)
        new = _solve(tail, sample, at, tail.log_evals[at], method)
        return _Solution(
            *(
                jax.lax.dynamic_update_slice(all_, part, (first,))
                for all_, part in zip(found, new, strict=True)
            )
        )

    # Blocks of padding are skipped, which is why the bounds of the loop are data.
    first = jnp.argmax(tail.fitted) // ROWS
    blank = _Solution(*[jnp.full_like(tail.log_evals, jnp.nan)] * 3)
    found = jax.lax.fori_loop(first, tail.evals.size // ROWS, block, blank)
    valid = sample.starts & ~jnp.isnan(found.alpha)
    best = jnp.argmin(jnp.where(valid, found.D, jnp.inf))
    return best, _Solution(*(jnp.where(valid[best], x[best], jnp.nan) for x in found))


class _End(NamedTuple):
    """How a search ended."""

    gradient: Float[Array, ""]
    converged: Bool[Array, ""]
    remark: Int[Array, ""]
    sigma_alpha: Float[Array, ""]
    """Standard error from one observation."""
    sigma_z: Float[Array, ""]


def _end(solution: _Solution, mean_log: Array, mean_ratio: Array, least: float) -> _End:
    alpha, z = solution.alpha, solution.z
    on_bound, plain = alpha <= least, z == 0
    model = moments(alpha, jnp.maximum(z, jnp.exp(least_log_z(z))))
    by_alpha = mean_log - jnp.where(plain, 1.0 / (alpha - 1.0), model.mean_log)
    by_z = mean_ratio - 1.0 - model.mean_excess
    # On a bound the likelihood may fall towards the inside, and does.
    by_alpha = jnp.where(on_bound, jnp.minimum(by_alpha, 0.0), by_alpha)
    by_z = jnp.where(plain, jnp.minimum(by_z, 0.0), by_z)
    small = jnp.sqrt(jnp.finfo(alpha.dtype).eps)
    met = (jnp.abs(by_alpha) <= small * mean_log) & (jnp.abs(by_z) <= small * (mean_ratio - 1.0))
    low = Status.ALPHA_AT_ONE if least == LEAST_ALPHA else Status.ALPHA_AT_LEAST
    remark = jnp.where(plain, Status.PLAIN_POWER_LAW, jnp.where(on_bound, low, Status.SUCCESS))
    determinant = jnp.where(on_bound | plain, jnp.nan, model.determinant)
    return _End(
        gradient=jnp.hypot(by_alpha, by_z),
        converged=met,
        remark=remark.astype(jnp.int32),
        sigma_alpha=jnp.sqrt(model.var_excess / determinant),
        sigma_z=jnp.sqrt(model.var_log / determinant),
    )


def _status(esd: ESD, tail: Tail, end: _End, method: Method) -> Int[Array, ""]:
    status = tail_status(esd, tail, ~jnp.isnan(end.gradient), method.threshold)
    status = jnp.where(status == Status.SUCCESS, end.remark, status)
    failed = ~end.converged & (status < FIRST_FAILURE)
    return jnp.where(failed, jnp.int32(Status.NOT_CONVERGED), status)


def _without_numbers(fit: TruncatedPowerLawFit) -> TruncatedPowerLawFit:
    """NaN for every number of a failed fit."""
    failed = fit.status >= FIRST_FAILURE
    changes: dict[str, Array] = {
        field.name: jnp.where(failed, jnp.nan, getattr(fit, field.name))
        for field in dataclasses.fields(fit)
        if field.name not in ("num_pl_spikes", "status")
    }
    spikes = jnp.where(failed, 0, fit.num_pl_spikes)
    return dataclasses.replace(fit, num_pl_spikes=spikes, **changes)


def _least(method: Method) -> float:
    return LEAST_FREE_ALPHA if method.free_alpha else LEAST_ALPHA
