"""WeightWatcher's fit of the Marchenko-Pastur law, for parity with its numbers.

A kernel density of the eigenvalues is compared with the law's density on 1,000 points. The sum of
squares over sigma has up to thirty local minima, so the answer belongs to the search as much as to
the data: a grid, then a Nelder-Mead simplex from its best point, as `scipy.optimize.brute` does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD

WIDTH = 0.1
"""From the middle of the kernel to its end, in units of the mean eigenvalue; at Q = 1 of the root
mean square of the singular values."""

POINTS = 1000
MARGIN = 0.5
"""The density is taken on so many points from 0 to the largest eigenvalue and so much beyond."""

THIN = 0.01
"""Points of a lower density are left out of the comparison."""

LEVEL = 1000
"""Densities that differ by so many roundings are equal."""

PENALTY = 1e9
"""The sum of squares of a bulk that does not overlap with the density."""

GRID = 195
"""Points of the grid 0.05, 0.06 .. 1.99 (times the sigma of a bulk that ends at the largest one).
NumPy's rounding sometimes adds 2.00, which is never the best: the bulk would end at four times the
largest eigenvalue."""

FIRST_STEP = 0.05
TOLERANCE = 1e-4
MOST_CALLS = 200
"""Nelder-Mead: relative size of the first simplex, the spread in sigma and in the sum of squares
at which it has converged, and the calls after which it ends."""


@record
class Density:
    """The smoothed spectrum, in units in which the mean eigenvalue is 1.

    At Q = 1 it is that of the singular values, to be compared with a quarter circle.
    """

    x: Float[Array, " points"]
    y: Float[Array, " points"]
    """The density; zero where it is not compared."""
    weight: Float[Array, " points"]
    """What stands before the root in the law, times sigma^2; zero where it is not compared."""
    mode: Float[Array, ""]
    """Where the density is highest."""
    last: Float[Array, ""]
    """The last point compared."""
    scale: Float[Array, ""]
    """Sigma of a bulk that ends at the largest eigenvalue."""
    Q: Float[Array, ""]


class Simplex(NamedTuple):
    """Two values of sigma with their sums of squares, and what the search has spent."""

    sigma: Float[Array, " 2"]
    """The better one first."""
    error: Float[Array, " 2"]
    calls: Int[Array, ""]


@jax.jit
def fit_kernel(
    esd: ESD, n: int | Int[Array, ""], m: int | Int[Array, ""]
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    r"""Fit sigma of the Marchenko-Pastur law to the smoothed spectrum of an (n, m) matrix.

    .. math:: \min_\sigma \sum_i \big( p_{\sigma, Q}(x_i) - \hat p(x_i) \big)^2, \quad
        \hat p(x) = \frac{1}{h N} \sum_j \max(0, 1 - |x - \lambda_j| / h)

    over the points :math:`x_i` where :math:`\hat p` exceeds 0.01, with h = 0.1, the eigenvalues
    scaled to mean 1, and

    .. math:: p_{\sigma, Q}(x) = \frac{Q \sqrt{(b - x)(x - a)}}{2 \pi \sigma^2 x}, \quad
        a, b = \sigma^2 (1 \mp Q^{-1/2})^2.

    Parameters
    ----------
    esd
        The spectrum, of slices of n by m where there are several.
    n, m
        Sides, in any order; Q is the longer over the shorter one.

    Returns
    -------
    sigma_mp, failed
        Sigma in the units in which the mean eigenvalue is 1, and whether it is missing (NaN):
        where nothing is left to compare, or the bulk overlaps with the density nowhere on the grid.

    Notes
    -----
    O(1,000 e) for e eigenvalues, and some 350 sums over 1,000 points. Works under `jit` and `vmap`;
    there is no derivative. At Q = 1 the singular values are compared with
    :math:`\sqrt{4 - x^2} / (\pi \sigma^2)`, whose radius does not depend on sigma: sigma is then
    no more than the height of the curve, 1.007 to 1.02 for a random matrix whatever its variance.
    """
    esd = jax.lax.stop_gradient(esd)
    dtype = esd.evals.dtype
    n, m = jnp.asarray(n, dtype), jnp.asarray(m, dtype)
    density = _density(esd, jnp.maximum(n, m) / jnp.minimum(n, m))
    grid = jnp.arange(GRID, dtype=dtype) * (0.01 * density.scale) + 0.05 * density.scale
    errors = _errors(grid, density)
    least = jnp.argmin(errors)
    # Written so that NaN fails too.
    failed = ~((errors[least] < PENALTY) & (density.last > 0))
    sigma = _polished(grid[least], errors[least], density)
    return jnp.where(failed, jnp.nan, sigma), failed


def _density(esd: ESD, Q: Float[Array, ""]) -> Density:
    real = jnp.arange(esd.evals.size) >= esd.evals.size - esd.n
    share = jnp.where(real, esd.evals / esd.evals[-1], 0.0)
    evals = share * (esd.n / jnp.sum(share))
    points = jnp.where(Q == 1.0, jnp.sqrt(evals), evals)
    x = jnp.arange(POINTS, dtype=points.dtype) * ((points[-1] + MARGIN) / (POINTS - 1))
    y = _smoothed(x, jnp.where(real, points, -jnp.inf)) / (esd.n * WIDTH)
    kept = y > THIN
    weight = jnp.where(Q == 1.0, 1.0 / math.pi, Q / (2.0 * math.pi * jnp.where(x > 0, x, jnp.inf)))
    return Density(
        x=x,
        y=jnp.where(kept, y, 0.0),
        weight=jnp.where(kept, weight, 0.0),
        # Between two eigenvalues the density is often level: rounding must not say where.
        mode=x[jnp.argmax(y >= jnp.max(y) * (1.0 - LEVEL * jnp.finfo(y.dtype).eps))],
        last=jnp.max(jnp.where(kept, x, 0.0)),
        scale=jnp.sqrt(evals[-1]) / (1.0 + jnp.sqrt(1.0 / Q)),
        Q=Q,
    )


def _smoothed(x: Float[Array, " points"], evals: Float[Array, " size"]) -> Float[Array, " points"]:
    """The sum of max(0, 1 - |x - p| / h) over p: prefix sums would cost more, in compiling."""
    heights = 1.0 - jnp.abs(x[:, None] - evals) * (1.0 / WIDTH)
    return jnp.sum(jnp.maximum(0.0, heights), axis=1)


def _errors(sigma: Float[Array, " k"], density: Density) -> Float[Array, " k"]:
    """The sum of squares, or the penalty, for each sigma."""
    ratio, square = jnp.sqrt(1.0 / density.Q), density.Q == 1.0
    lower = jnp.where(square, -2.0, (sigma * (1.0 - ratio)) ** 2)
    upper = jnp.where(square, 2.0, (sigma * (1.0 + ratio)) ** 2)
    product = (upper[:, None] - density.x) * (density.x - lower[:, None])
    law = jnp.sqrt(jnp.maximum(product, 0.0)) * density.weight / (sigma**2)[:, None]
    apart = (upper < density.mode) | (upper > density.last) | (lower > density.mode)
    squares = jnp.sum((law - density.y) ** 2, axis=1)
    return jnp.where(apart & ~square, PENALTY, squares)


def _polished(
    start: Float[Array, ""], error: Float[Array, ""], density: Density
) -> Float[Array, ""]:
    """The one-dimensional Nelder-Mead search of `scipy.optimize.fmin` from a start."""
    sigma = start * jnp.asarray([1.0, 1.0 + FIRST_STEP], start.dtype)
    simplex = _ordered(sigma, jnp.append(error, _errors(sigma[1:], density)), jnp.int32(2))
    return jax.lax.while_loop(_goes_on, lambda state: _step(state, density), simplex).sigma[0]


def _goes_on(state: Simplex) -> Bool[Array, ""]:
    near = jnp.abs(state.sigma[1] - state.sigma[0]) <= TOLERANCE
    level = jnp.abs(state.error[1] - state.error[0]) <= TOLERANCE
    return (state.calls < MOST_CALLS) & ~(near & level)


def _step(state: Simplex, density: Density) -> Simplex:
    """One iteration. All points that it may try are evaluated at once, and counted as tried.

    In one dimension the simplex shrinks to the point that was just refused as an inner
    contraction, so that the two differ by a call alone.
    """
    reflected, expanded, outer, inner = range(4)
    moves = jnp.asarray([[2.0, -1.0], [3.0, -2.0], [1.5, -0.5], [0.5, 0.5]], state.sigma.dtype)
    trials = moves[:, 0] * state.sigma[0] + moves[:, 1] * state.sigma[1]
    f, (best, worst) = _errors(trials, density), state.error
    ahead, outside = f[reflected] < best, f[reflected] < worst
    contracts = jnp.where(outside, f[outer] <= f[reflected], f[inner] < worst)
    moved = jnp.where(f[expanded] < f[reflected], expanded, reflected)
    chosen = jnp.where(ahead, moved, jnp.where(outside & contracts, outer, inner))
    calls = state.calls + jnp.where(ahead | contracts, 2, 3)
    changed = _ordered(
        jnp.stack([state.sigma[0], trials[chosen]]), jnp.stack([best, f[chosen]]), calls
    )
    # Where the calls run out in the middle of an iteration, it does not count.
    done = calls <= MOST_CALLS
    return Simplex(
        sigma=jnp.where(done, changed.sigma, state.sigma),
        error=jnp.where(done, changed.error, state.error),
        calls=calls,
    )


def _ordered(
    sigma: Float[Array, " 2"], error: Float[Array, " 2"], calls: Int[Array, ""]
) -> Simplex:
    swap = error[1] < error[0]
    return Simplex(
        sigma=jnp.where(swap, sigma[::-1], sigma),
        error=jnp.where(swap, error[::-1], error),
        calls=calls,
    )
