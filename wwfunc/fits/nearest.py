"""The tail that its own power law describes best, found without measuring every tail."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.fits.ksdistance import step_distance
from wwfunc.fits.tail import Tail
from wwfunc.options import KS
from wwfunc.pytrees import Array

BLOCK = 16
"""Tails are looked at by so many neighbours at once ..."""
WIDTH = 64
"""... and by so many eigenvalues; both divide the size of every `Tail`."""
PROBES = 64
"""Eigenvalues at which every tail is measured first."""


def nearest_tail(
    tail: Tail, alphas: Float[Array, " size"], valid: Bool[Array, " size"], ks: KS = "one-sided"
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Where the `valid` tail with the smallest KS distance D starts, and that D.

    The largest gap at a few probes is at most D, so blocks of tails are measured in full in the
    order of that bound, until it exceeds the best D found. Without a valid tail: 0 and infinity.

    O(n) memory and O(n) time for the bounds. What is measured in full is usually a small part of
    the n^2 gaps: all of them where every tail is as good as any other.
    """
    first, total = jnp.argmax(tail.fitted), jnp.max(tail.count)
    probes = first + jnp.arange(PROBES) * total // PROBES

    def bound(index: Int[Array, ""], bounds: Float[Array, " blocks"]) -> Float[Array, " blocks"]:
        gaps = _gaps(tail, alphas, index, probes, ks)
        least = jnp.min(jnp.where(_block(valid, index), gaps, jnp.inf))
        return _replaced(bounds, index, least)

    bounds = jnp.full(alphas.size // BLOCK, jnp.inf, alphas.dtype)
    bounds = jax.lax.fori_loop(first // BLOCK, bounds.size, bound, bounds)

    def measure_next(state: _Search) -> _Search:
        bounds, start, smallest = state
        index = jnp.argmin(bounds)
        D = jnp.where(_block(valid, index), _largest_gaps(tail, alphas, index, ks), jnp.inf)
        best = jnp.argmin(D)
        nearer = D[best] < smallest
        found = (index * BLOCK + best).astype(start.dtype)
        start, smallest = jnp.where(nearer, found, start), jnp.where(nearer, D[best], smallest)
        return _replaced(bounds, index, jnp.inf), start, smallest

    nothing = (bounds, jnp.int32(0), jnp.full_like(alphas[0], jnp.inf))
    _, start, smallest = jax.lax.while_loop(
        lambda state: jnp.min(state[0]) < state[2], measure_next, nothing
    )
    return start, smallest


_Search = tuple[Float[jax.Array, " blocks"], Int[jax.Array, ""], Float[jax.Array, ""]]
"""Bounds of the blocks not yet measured, the best start so far and its distance."""


def _largest_gaps(
    tail: Tail, alphas: Float[Array, " size"], index: Int[Array, ""], ks: KS
) -> Float[Array, " block"]:
    """D of each tail of a block, by tiles from where the first of them starts."""

    def tile(number: Int[Array, ""], worst: Float[Array, " block"]) -> Float[Array, " block"]:
        at = number * WIDTH + jnp.arange(WIDTH)
        return jnp.maximum(worst, _gaps(tail, alphas, index, at, ks))

    nothing = jnp.zeros(BLOCK, alphas.dtype)
    return jax.lax.fori_loop(index * BLOCK // WIDTH, alphas.size // WIDTH, tile, nothing)


def _gaps(
    tail: Tail, alphas: Float[Array, " size"], index: Int[Array, ""], at: Int[Array, " c"], ks: KS
) -> Float[Array, " block"]:
    """The largest gap between model and data over the entries `at`, for each tail of a block."""
    alpha, log_xmin, count = (
        _block(values, index)[:, None] for values in (alphas, tail.log_evals, tail.count)
    )
    n = jnp.maximum(count, 1).astype(alphas.dtype)
    rank = at - (index * BLOCK + jnp.arange(BLOCK))[:, None]
    model = -jnp.expm1((1.0 - alpha) * (tail.log_evals[at] - log_xmin))
    gap = step_distance(model, rank.astype(n.dtype) / n, n, ks)
    return jnp.max(jnp.where(tail.fitted[at] & (rank >= 0), gap, 0.0), axis=1)


def _block(values: Array, index: Int[Array, ""]) -> Array:
    return jax.lax.dynamic_slice(values, (index * BLOCK,), (BLOCK,))


def _replaced(
    bounds: Float[Array, " blocks"], index: Int[Array, ""], value: ArrayLike
) -> jax.Array:
    # A plain number would be float64 where that is on, whatever the bounds are.
    return jax.lax.dynamic_update_index_in_dim(bounds, jnp.asarray(value, bounds.dtype), index, 0)
