"""The Kolmogorov-Smirnov distance between tails and what is fitted to them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from wwfunc.fits.tail import COLUMNS, Tail
from wwfunc.options import KS
from wwfunc.pytrees import Array


def ks_distance(
    tail: Tail,
    start: Int[Array, " c"],
    log_xmin: Float[Array, " c"],
    alpha: Float[Array, " c"],
    ks: KS = "one-sided",
) -> Float[Array, " c"]:
    r"""KS distance of a power law from each tail at `start`.

    .. math:: D = \max_j |1 - (x_j / x_{min})^{1 - \alpha} - j / n|, \quad j = 0 \ldots n - 1

    is WeightWatcher's, which looks at the empirical distribution from one side of each step;
    "two-sided" takes (j + 1) / n as well, the supremum.
    """

    def model(u: Float[Array, "c k"]) -> Float[Array, "c k"]:
        return -jnp.expm1((1.0 - alpha[:, None]) * u)

    return largest_gap(tail, start, log_xmin, model, ks)


def largest_gap(
    tail: Tail,
    start: Int[Array, " c"],
    log_xmin: Float[Array, " c"],
    model: Callable[[Float[Array, "c k"]], Float[Array, "c k"]],
    ks: KS,
) -> Float[Array, " c"]:
    """KS distance between the tail at each `start` and its `model`'s cdf of u = log(x / xmin)."""
    width = min(COLUMNS, tail.log_evals.size)
    n = jnp.maximum(tail.count[start], 1).astype(log_xmin.dtype)

    def tile(index: Int[Array, ""], worst: Float[Array, " c"]) -> Float[Array, " c"]:
        first = index * width
        x = jax.lax.dynamic_slice(tail.log_evals, (first,), (width,))
        fitted = jax.lax.dynamic_slice(tail.fitted, (first,), (width,))
        rank = first + jnp.arange(width) - start[:, None]
        share = rank.astype(x.dtype) / n[:, None]
        gap = step_distance(model(x - log_xmin[:, None]), share, n[:, None], ks)
        return jnp.maximum(worst, jnp.max(jnp.where(fitted & (rank >= 0), gap, 0.0), axis=1))

    tiles = tail.log_evals.size // width
    return jax.lax.fori_loop(jnp.min(start) // width, tiles, tile, jnp.zeros_like(log_xmin))


def step_distance(model: Array, share: Array, n: Array, ks: KS) -> Array:
    """Distance of a model from an empirical distribution that steps up by 1 / n from `share`."""
    gap = jnp.abs(model - share)
    return gap if ks == "one-sided" else jnp.maximum(gap, jnp.abs(model - share - 1.0 / n))
