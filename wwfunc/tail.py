"""What every tail fit shares: which eigenvalues are fitted, tail sums, and the KS distance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wwfunc.options import Threshold
from wwfunc.pytrees import record
from wwfunc.spectrum import ESD

ABSOLUTE_THRESHOLD = 1e-5
"""WeightWatcher's threshold: it fits no eigenvalue at or under this one."""

_BLOCK = 64
"""Candidate tails whose KS distances are computed at once: memory is _BLOCK times the size."""


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

    log_evals: Float[Array, " size"]
    """log(lambda_i / lambda_max); 0 where not fitted."""
    log_scale: Float[Array, ""]
    """log(lambda_max)."""
    fitted: Bool[Array, " size"]
    starts: Bool[Array, " size"]
    """Where a tail may start: never inside a group of equal eigenvalues."""
    count: Int[Array, " size"]
    """Number of fitted eigenvalues from here on."""
    log_sum: Float[Array, " size"]
    """Sum of `log_evals` from here on."""


def cutoff(esd: ESD, threshold: Threshold) -> Float[Array, ""]:
    """The value above which eigenvalues are fitted."""
    if threshold == "relative":
        return esd.floor
    return jnp.maximum(esd.floor, ABSOLUTE_THRESHOLD)


def tail_of(esd: ESD, limits: Limits, threshold: Threshold) -> Tail:
    """Prepare the eigenvalues above the threshold and within `limits` for a fit."""
    evals = esd.evals
    position = jnp.arange(evals.size)
    fitted = (evals > cutoff(esd, threshold)) & (position < evals.size - limits.clip)
    if limits.xmax is not None:
        fitted &= evals <= limits.xmax
    lowest = limits.xmin_min if limits.xmin is None else limits.xmin
    if lowest is not None:
        fitted &= evals >= lowest
    # The double `where` keeps log(0) out of the gradient, not only out of the value.
    log_scale = jnp.log(jnp.where(evals[-1] > 0, evals[-1], 1.0))
    log_evals = jnp.where(fitted, jnp.log(jnp.where(fitted, evals, 1.0)) - log_scale, 0.0)
    tie = jnp.concatenate([jnp.zeros(1, bool), evals[1:] == evals[:-1]])
    return Tail(
        log_evals=log_evals,
        log_scale=log_scale,
        fitted=fitted,
        starts=fitted & ~tie,
        # The fitted entries are contiguous, so their number needs no cumulative sum.
        count=jnp.where(fitted, jnp.argmax(fitted) + jnp.sum(fitted) - position, 0),
        log_sum=jax.lax.cumsum(log_evals, reverse=True),
    )


def ks_distance(
    tail: Tail, start: Int[Array, ""], log_xmin: Float[Array, ""], alpha: Float[Array, ""]
) -> Float[Array, ""]:
    r"""One-sided KS distance of a power law from the tail at `start`, WeightWatcher's.

    .. math:: D = \max_j |1 - (x_j / x_{min})^{1 - \alpha} - j / n|, \quad j = 0 \ldots n - 1
    """
    rank = jnp.arange(tail.log_evals.size) - start
    model = -jnp.expm1((1.0 - alpha) * (tail.log_evals - log_xmin))
    gap = jnp.abs(model - rank / tail.count[start])
    return jnp.max(jnp.where(tail.fitted & (rank >= 0), gap, 0.0))


def scan_ks(tail: Tail, alphas: Float[Array, " size"]) -> Float[Array, " size"]:
    """KS distance of every tail that may start, infinity elsewhere: O(n^2) time, O(n) memory.

    Blocks of padding in front are skipped, which is why the bounds of the loop are data.
    """
    size = alphas.size
    blocks = -(-size // _BLOCK)
    starts = jnp.arange(blocks * _BLOCK)

    def block(index: Int[Array, ""], distances: Float[Array, " padded"]) -> Array:
        at = jax.lax.dynamic_slice(starts, (index * _BLOCK,), (_BLOCK,))
        at = jnp.minimum(at, size - 1)
        found = jax.vmap(lambda i: ks_distance(tail, i, tail.log_evals[i], alphas[i]))(at)
        return jax.lax.dynamic_update_slice(distances, found, (index * _BLOCK,))

    distances = jnp.full(blocks * _BLOCK, jnp.inf, alphas.dtype)
    first = jnp.argmax(tail.fitted) // _BLOCK
    return jax.lax.fori_loop(first, blocks, block, distances)[:size]
