"""What every tail fit shares: which eigenvalues are fitted, tail sums, and the KS distance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from wwfunc.options import Threshold
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD

ABSOLUTE_THRESHOLD = 1e-5
"""WeightWatcher's threshold: it fits no eigenvalue at or under this one."""

_ROWS = 64
_COLUMNS = 512
"""The KS scan works on tiles of so many candidate tails by so many eigenvalues: O(1) memory."""


@record
class Limits:
    """Bounds on what is fitted; None leaves a bound open."""

    xmin: Float[Array, ""] | float | None = None
    """The tail starts here: no scan."""
    xmin_min: Float[Array, ""] | float | None = None
    """The scan starts here."""
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
    """Where a tail may start: never inside a group of equal eigenvalues."""
    count: Int[Array, "*batch size"]
    """Number of fitted eigenvalues from here on."""
    log_sum: Float[Array, "*batch size"]
    """Sum of `log_evals` from here on."""
    candidates: Int[Array, "*batch"]
    """Eigenvalues that a tail could hold before `xmin` or `xmin_min` leaves any out."""


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
    tie = jnp.concatenate([jnp.zeros(1, bool), evals[1:] == evals[:-1]])
    return Tail(
        evals=evals,
        log_evals=log_evals,
        log_scale=log_scale,
        fitted=fitted,
        starts=fitted & ~tie,
        # The fitted entries are contiguous, so their number needs no cumulative sum.
        count=jnp.where(fitted, jnp.argmax(fitted) + jnp.sum(fitted) - position, 0).astype(
            jnp.int32
        ),
        log_sum=jax.lax.cumsum(log_evals, reverse=True),
        candidates=candidates,
    )


def ks_distance(
    tail: Tail,
    start: Int[Array, " c"],
    log_xmin: Float[Array, " c"],
    alpha: Float[Array, " c"],
) -> Float[Array, " c"]:
    r"""One-sided KS distance of a power law from each tail at `start`, WeightWatcher's.

    .. math:: D = \max_j |1 - (x_j / x_{min})^{1 - \alpha} - j / n|, \quad j = 0 \ldots n - 1
    """
    width = min(_COLUMNS, tail.log_evals.size)
    n = jnp.maximum(tail.count[start], 1).astype(alpha.dtype)

    def tile(index: Int[Array, ""], worst: Float[Array, " c"]) -> Float[Array, " c"]:
        first = index * width
        x = jax.lax.dynamic_slice(tail.log_evals, (first,), (width,))
        fitted = jax.lax.dynamic_slice(tail.fitted, (first,), (width,))
        rank = first + jnp.arange(width) - start[:, None]
        model = -jnp.expm1((1.0 - alpha[:, None]) * (x - log_xmin[:, None]))
        share = rank.astype(x.dtype) / n[:, None]
        gap = jnp.abs(model - share)
        return jnp.maximum(worst, jnp.max(jnp.where(fitted & (rank >= 0), gap, 0.0), axis=1))

    tiles = tail.log_evals.size // width
    return jax.lax.fori_loop(jnp.min(start) // width, tiles, tile, jnp.zeros_like(alpha))


def scan_ks(tail: Tail, alphas: Float[Array, " size"]) -> Float[Array, " size"]:
    """KS distance of the tail that starts at each entry: O(n^2) time, O(n) memory.

    Tiles of padding and tiles before the tail are skipped, which is why the bounds of the loops
    are data; entries in the padding keep infinity.
    """

    def block(index: Int[Array, ""], distances: Float[Array, " size"]) -> Float[Array, " size"]:
        first = index * _ROWS
        at = first + jnp.arange(_ROWS)
        found = ks_distance(tail, at, tail.log_evals[at], alphas[at])
        return jax.lax.dynamic_update_slice(distances, found, (first,))

    distances = jnp.full_like(alphas, jnp.inf)
    first = jnp.argmax(tail.fitted) // _ROWS
    return jax.lax.fori_loop(first, alphas.size // _ROWS, block, distances)


def _tile(size: int) -> int:
    return _ROWS if size <= _COLUMNS else _COLUMNS
