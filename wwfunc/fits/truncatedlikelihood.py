"""The maximum of a truncated power law's likelihood: it has the means of the sample."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from wwfunc.fits.expintegral import Moments, moments
from wwfunc.pytrees import Array

LEAST_ALPHA, LEAST_FREE_ALPHA = 1.0, -5.0
"""Bounds on alpha: WeightWatcher's, and how far the free fit goes."""
TOLERANCE = 1024
"""The model's means are the sample's within so many eps, relative."""
STEPS = 100
"""More are not taken: where they did not suffice the status says so."""
PATIENCE = 16
"""After so many steps every third is a shorter one: it ends cycles."""
LONGEST_STEP = 2.0
"""Of log z, in one step."""


def maximise(
    mean_log: Float[Array, "*c"], mean_ratio: Float[Array, "*c"], *, free: bool
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    r"""Maximise the likelihood of p(t) = t^-alpha exp(-z t) / E_alpha(z), t = x / xmin >= 1.

    .. math:: \min \alpha \overline{\ln t} + z \bar t + \ln E_\alpha(z), \quad
        \alpha \ge 1 \text{ (free: -5)}, z = \Lambda x_{min} \ge 0

    Parameters
    ----------
    mean_log, mean_ratio
        The means of ln t and of t over each sample.
    free
        Whether alpha may fall under 1, down to -5.

    Returns
    -------
    tuple
        alpha and z, elementwise; NaN where the sample does not spread.

    Notes
    -----
    The problem is convex. Its edges are solved first, one variable each; only where the multipliers
    say that the solution lies inside, Newton's method looks for it, in (alpha, ln z) and between
    bounds that the solution is known to keep. z under eps^2 counts as 0. The derivative is that of
    the optimum.
    """
    a, b = jnp.broadcast_arrays(mean_log, mean_ratio)
    least = LEAST_FREE_ALPHA if free else LEAST_ALPHA
    alpha, z = _search(jax.lax.stop_gradient(a), jax.lax.stop_gradient(b), least)
    return optimum(alpha, z, a, b, least)


def _search(a: Array, b: Array, least: float) -> tuple[Array, Array]:
    spread = (a > 0) & (b > 1) & jnp.isfinite(a + b)
    # Where there is nothing to fit stands a sample whose solution is plain.
    a, excess = jnp.where(spread, a, 0.5), jnp.where(spread, b - 1.0, 10.0)
    plain = excess * (1.0 - a) >= a  # the power law's E[t - 1] = 1 / (alpha - 2) is no larger
    alpha, log_z = _match(a, excess, least, plain)
    plain |= (alpha > least) & (log_z <= least_log_z(a))
    alpha = jnp.where(plain, 1.0 + 1.0 / a, alpha)
    z = jnp.where(plain, 0.0, jnp.exp(log_z))
    return jnp.where(spread, alpha, jnp.nan), jnp.where(spread, z, jnp.nan)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def optimum(
    alpha: Array, z: Array, mean_log: Array, mean_ratio: Array, least: float
) -> tuple[Array, Array]:
    """alpha and z, which the search found for these means, with the derivative by the means."""
    del mean_log, mean_ratio, least
    return alpha, z


@optimum.defjvp
def optimum_jvp(
    least: float, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The means of the model follow those of the sample, along the edge if there is one."""
    alpha, z = optimum(*primals, least)
    _, _, da, db = tangents
    model = moments(alpha, z)
    on_bound, plain = alpha <= least, z == 0
    inner = ~on_bound & ~plain
    determinant = jnp.where(inner, model.determinant, 1.0)
    d_alpha = (model.cov * db - model.var_excess * da) / determinant
    d_z = (model.cov * da - model.var_log * db) / determinant
    at_bound = -db / jnp.where(on_bound, model.var_excess, 1.0)
    at_zero = -da * jnp.where(plain, alpha - 1.0, 0.0) ** 2
    d_alpha = jnp.where(inner, d_alpha, jnp.where(plain, at_zero, 0.0))
    d_z = jnp.where(inner, d_z, jnp.where(plain, 0.0, at_bound))
    return (alpha, z), (d_alpha, d_z)


class _Search(NamedTuple):
    steps: Int[Array, ""]
    alpha: Float[Array, "*c"]
    log_z: Float[Array, "*c"]
    pinned: Bool[Array, "*c"]
    """Whether alpha is held at its bound."""
    done: Bool[Array, "*c"]


def _match(
    mean_log: Float[Array, "*c"],
    excess: Float[Array, "*c"],
    least: float,
    known: Bool[Array, "*c"],
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """Solve E[u] = `mean_log` and E[s] = `excess` for alpha >= `least` and log z.

    First along the bound of alpha; only where the multiplier says that the solution lies inside,
    alpha is let go. Nothing is looked for where the solution is `known`.
    """
    target = _Target(mean_log, excess, excess - mean_log, 1.0 + 1.0 / mean_log, least)
    # At the bound z E[s] <= 1 where alpha >= 0, and <= 1 - alpha below.
    highest = jnp.log(max(1.0, 1.0 - least) / excess)
    start = _Search(
        steps=jnp.zeros((), jnp.int32),
        alpha=jnp.full_like(mean_log, least),
        log_z=jnp.maximum(highest, least_log_z(excess)),
        pinned=~known,
        done=known,
    )

    def unfinished(state: _Search) -> Bool[Array, ""]:
        return (state.steps < STEPS) & ~jnp.all(state.done)

    def step(state: _Search) -> _Search:
        return _step(state, target)

    found = jax.lax.while_loop(unfinished, step, start)
    return found.alpha, found.log_z


def least_log_z(like: Array) -> float:
    """Any smaller z counts as 0: the model is a power law as far as any sample reaches."""
    return 2.0 * float(np.log(jnp.finfo(like.dtype).eps))


class _Target(NamedTuple):
    mean_log: Array
    excess: Array
    rest: Array
    """excess - mean_log."""
    power: Array
    """alpha of the power law, above any solution."""
    least: float


def _step(state: _Search, target: _Target) -> _Search:
    model = moments(state.alpha, jnp.exp(state.log_z))
    tolerance = TOLERANCE * jnp.finfo(state.alpha.dtype).eps
    over, over_excess = model.mean_log - target.mean_log, model.mean_excess - target.excess
    met_excess = jnp.abs(over_excess) <= tolerance * target.excess
    met = met_excess & (jnp.abs(over) <= tolerance * target.mean_log)
    met |= (state.log_z <= least_log_z(over)) & (over_excess < 0)
    released = state.pinned & met_excess & (over > 0)
    done = state.done | jnp.where(state.pinned, met_excess & (over <= 0), met)
    inside = _inside(state, model, target)
    slope = jnp.exp(state.log_z) * model.var_excess / model.mean_excess
    along = state.log_z + jnp.log(model.mean_excess / target.excess) / slope
    alpha = jnp.where(state.pinned, (target.least + target.power) / 2, inside.alpha)
    log_z = jnp.where(
        state.pinned, jnp.where(released, state.log_z - math.log(2.0), along), inside.log_z
    )
    return _Search(
        steps=state.steps + 1,
        alpha=jnp.where(done | (state.pinned & ~released), state.alpha, alpha),
        log_z=jnp.where(done, state.log_z, log_z),
        pinned=state.pinned & ~released,
        done=done,
    )


class _Point(NamedTuple):
    alpha: Array
    log_z: Array


def _inside(state: _Search, model: Moments, target: _Target) -> _Point:
    """A step of Newton's method in (alpha, log z), kept between bounds that the solution keeps."""
    z = jnp.exp(state.log_z)
    over, over_rest = model.mean_log - target.mean_log, model.mean_rest - target.rest
    # In (alpha + z, z), whose sufficient statistics u and q differ in any tail.
    d_sum = (model.var_rest * over - model.cov_rest * over_rest) / model.determinant
    d_z = (model.var_log * over_rest - model.cov_rest * over) / model.determinant
    damping = jnp.where((state.steps > PATIENCE) & (state.steps % 3 == 0), 0.4, 1.0)
    alpha = state.alpha + damping * (d_sum - d_z)
    alpha = jnp.where(alpha > target.least, alpha, (state.alpha + 3.0 * target.least) / 4)
    alpha = jnp.where(alpha < target.power, alpha, (state.alpha + 3.0 * target.power) / 4)
    log_z = state.log_z + jnp.clip(damping * d_z / z, -LONGEST_STEP, LONGEST_STEP)
    # E[u] < 1 / (alpha - 1 + z), because the exponent falls by so much at least.
    eps = jnp.finfo(z.dtype).eps
    highest = jnp.log(jnp.maximum(target.power - alpha, eps * target.power))
    return _Point(alpha, jnp.maximum(jnp.minimum(log_z, highest), least_log_z(z)))
