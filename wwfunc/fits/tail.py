"""What every tail fit shares: which eigenvalues are fitted, tail sums, limits and statuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from wwfunc.options import Method, Options, Threshold, make_options
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, in_range
from wwfunc.status import Status

ABSOLUTE_THRESHOLD = 1e-5
"""WeightWatcher's threshold: it fits no eigenvalue at or under this one."""

SHORTEST_TAIL = 2
HIDDEN_SHARE = 0.1
"""An absolute threshold that hides a larger share of the eigenvalues is worth a remark."""

ROWS = 64
COLUMNS = 512
"""The KS scan works on tiles of so many candidate tails by so many eigenvalues: O(1) memory."""


@record
class Limits:
    """Bounds on what is fitted; None leaves a bound open."""

    xmin: Float[Array, ""] | float | None = None
    """The tail starts here: no scan."""
    xmin_min: Float[Array, ""] | float | None = None
    """The scan starts here."""
    xmin_max: Float[Array, ""] | float | None = None
    """The scan ends here."""
    xmax: Float[Array, ""] | float | None = None
    """Eigenvalues above are left out."""
    clip: Int[Array, ""] | int = 0
    """So many of the largest eigenvalues are left out."""


@record
class Tail:
    """The eigenvalues to fit and, for each entry, the tail that starts there.

    Logarithms are natural and relative to the largest eigenvalue, so that the sums keep their
    digits whatever the scale of the weights.
    """

    evals: Float[Array, "*batch size"]
    """Padded in front to whole tiles."""
    log_evals: Float[Array, "*batch size"]
    """log(lambda_i / lambda_max); 0 where not fitted."""
    log_scale: Float[Array, "*batch"]
    """log(lambda_max)."""
    fitted: Bool[Array, "*batch size"]
    starts: Bool[Array, "*batch size"]
    """Where a tail may start: never inside a group of equal eigenvalues, nor among those that are
    the largest up to rounding, nor above `xmin_max`."""
    count: Int[Array, "*batch size"]
    """Number of fitted eigenvalues from here on."""
    log_sum: Float[Array, "*batch size"]
    """Sum of `log_evals` from here on."""
    candidates: Int[Array, "*batch"]
    """Eigenvalues that a tail could hold before `xmin` or `xmin_min` leaves any out."""


def limits_of(options: Options) -> Limits:
    """The limits among the options: a negative xmax is a count."""
    clip = -options.xmax if isinstance(options.xmax, int) else 0
    return Limits(
        xmin=options.xmin,
        xmin_min=options.xmin_min,
        xmin_max=options.xmin_max,
        xmax=None if clip else options.xmax,
        clip=clip,
    )


def asked(options: Options | None = None, **changes: Any) -> tuple[Limits, Method]:
    """What a fit is asked to do. Limits may be arrays too, also traced ones: not checked."""
    names = {field.name for field in dataclasses.fields(Limits)}
    arrays = {k: v for k, v in changes.items() if k in names and isinstance(v, Array)}
    plain = {k: v for k, v in changes.items() if k not in arrays}
    chosen = make_options(options, **plain)
    return dataclasses.replace(limits_of(chosen), **arrays), chosen.method


def cutoff(esd: ESD, threshold: Threshold) -> Float[Array, ""]:
    """The value above which eigenvalues are fitted."""
    if threshold == "relative":
        return esd.floor
    return jnp.maximum(esd.floor, ABSOLUTE_THRESHOLD)


def tail_of(esd: ESD, limits: Limits, threshold: Threshold) -> Tail:
    """Prepare the eigenvalues above the threshold and within `limits` for a fit."""
    evals = jnp.pad(esd.evals, (-esd.evals.size % _tile(esd.evals.size), 0))
    position = jnp.arange(evals.size, dtype=jnp.int32)
    fitted = (evals > cutoff(esd, threshold)) & (position < evals.size - limits.clip)
    if limits.xmax is not None:
        fitted &= evals <= limits.xmax
    candidates = jnp.sum(fitted, dtype=jnp.int32)
    lowest = limits.xmin_min if limits.xmin is None else limits.xmin
    if lowest is not None:
        fitted &= evals >= lowest
    # The double `where` keeps log(0) out of the gradient, not only out of the value.
    log_scale = jnp.log(jnp.where(evals[-1] > 0, evals[-1], 1.0))
    log_evals = jnp.where(fitted, jnp.log(jnp.where(fitted, evals, 1.0)) - log_scale, 0.0)
    starts = fitted & ~jnp.concatenate([jnp.zeros(1, bool), evals[1:] == evals[:-1]])
    below = jnp.max(jnp.where(fitted, evals, 0.0)) - evals
    starts &= (below == 0) | (below > esd.floor)
    if limits.xmin_max is not None:
        starts &= evals <= limits.xmin_max
    return Tail(
        evals=evals,
        log_evals=log_evals,
        log_scale=log_scale,
        fitted=fitted,
        starts=starts,
        # The fitted entries are contiguous, so their number needs no cumulative sum.
        count=jnp.where(fitted, jnp.argmax(fitted) + jnp.sum(fitted) - position, 0).astype(
            jnp.int32
        ),
        log_sum=jax.lax.cumsum(log_evals, reverse=True),
        candidates=candidates,
    )


def tail_status(
    esd: ESD, tail: Tail, found: Bool[Array, ""], threshold: Threshold
) -> Int[Array, ""]:
    """How the fit of a tail ended, given whether one was `found`."""
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
        (jnp.any(tail.fitted) & ~jnp.any(tail.starts), Status.NO_START),
        (equal, Status.NO_TAIL),
    ]
    reasons = [reason for reason, _ in outcomes]
    codes = [jnp.int32(status) for _, status in outcomes]
    return jnp.select(reasons, codes, jnp.int32(Status.TAIL_TOO_SHORT))


def _tile(size: int) -> int:
    return ROWS if size <= COLUMNS else COLUMNS
