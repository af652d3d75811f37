"""How large the noise in a matrix is, given its spectrum: spikes removed at Tracy-Widom quantiles.

A spike does not only stand above the bulk: it takes energy out of it. The strength of the signal
behind each spike says how much, so that sigma is that of the noise alone.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from wwfunc.pytrees import Array, record
from wwfunc.randommatrix.tracywidom import largest_eigenvalue
from wwfunc.spectrum import ESD
from wwfunc.trust.bisection import bisect

ROUNDS = 8
"""Of the equation for sigma, which knows itself: each one leaves a tenth of the error, or less."""


@record
class Noise:
    """Gaussian noise as large as explains what is left of a spectrum without its spikes."""

    sigma: Float[Array, "*batch"]
    """Standard deviation of the entries."""
    edge: Float[Array, "*batch"]
    """What the largest eigenvalue of the noise stays under with the probability asked for."""
    unresolved: Bool[Array, "*batch"]
    """Whether more eigenvalues are zero up to rounding than noise would have: the others do not
    say how large it is."""


@record
class Bulk:
    """A spectrum with its shape, in the numbers that the search for sigma reads."""

    evals: Float[Array, " size"]
    real: Int[Array, ""]
    """How many eigenvalues, from the largest on."""
    n: Float[Array, ""]
    m: Float[Array, ""]
    slices: Float[Array, ""]


@record
class Search:
    """One step of the search."""

    variance: Float[Array, ""]
    k: Int[Array, ""]
    """Eigenvalues that are taken for spikes."""
    direction: Int[Array, ""]
    """Of all changes of k; 0 before the first."""
    moved: Bool[Array, ""]


def fit_noise(
    esd: ESD,
    n: Float[Array, ""],
    m: Float[Array, ""],
    slices: Float[Array, ""],
    tw: Float[Array, ""],
) -> Noise:
    r"""Fit sigma to `slices` pooled matrices, n >= m; see `marchenkopastur.mp_fit`.

    The number of spikes k and sigma follow from each other,

    .. math:: k = \#\{\lambda_i > \sigma^2 \lambda_+(s)\}, \quad
        \sigma^2 = \sum_{i > k} \lambda_i \Big/
        \Big( (n - k)(m - k) \big(1 - \sum_{i \le k} \sigma^2 / \theta_i^2\big) \Big)

    with theta_i the singular value of the signal behind spike i, from

    .. math:: \lambda_i = (\theta_i^2 + n' \sigma^2)(\theta_i^2 + m' \sigma^2) / \theta_i^2,
        \quad n' = n - k, m' = m - k.

    More spikes leave a smaller sigma, under which at least as many are found: from the first
    change on k only grows or only falls, and one that would turn back ends the search.
    """
    largest = jnp.where(esd.evals[-1] > 0, esd.evals[-1], 1.0)
    bulk = Bulk(evals=esd.evals / largest, real=esd.n, n=n, m=m, slices=slices)
    edge = largest_eigenvalue(n, jnp.maximum(m, 1.0), tw)
    held = jax.lax.stop_gradient(bulk)
    found = _searched(held, edge)
    # Once more for the derivative, which the search has none of.
    variance = largest * _variance(bulk, found.variance, found.k)
    unresolved = _has_null_space(held, jax.lax.stop_gradient(esd.floor / largest))
    return Noise(sigma=root(variance), edge=variance * edge, unresolved=unresolved)


def _has_null_space(bulk: Bulk, floor: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether eigenvalues are zero up to rounding that noise of full rank would not have there.

    They may be zero, or anything that is small beside a huge one. One, or one in a hundred, does
    not matter: sigma is as good without.
    """
    resolved = jnp.sum(bulk.evals > floor, dtype=jnp.int32)
    variance = _start(dataclasses.replace(bulk, real=resolved))
    below = bulk.m - _count_above(floor / variance, bulk.n, bulk.m)
    expected = bulk.slices * jnp.maximum(below, 0.0)
    few = 1.0 + bulk.real / 100.0
    return bulk.real - resolved > few + 4.0 * (expected + jnp.sqrt(expected))


def _searched(bulk: Bulk, edge: Float[Array, ""]) -> Search:
    """Sigma and the number of spikes that belong together, from the median of the spectrum on."""

    def spikes(variance: Array) -> Array:
        above = jnp.sum(bulk.evals > variance * edge, dtype=jnp.int32)
        return jnp.minimum(above, jnp.maximum(bulk.real - 1, 0))

    def step(state: Search) -> Search:
        change = jnp.sign(spikes(state.variance) - state.k)
        moved = (change != 0) & (change * state.direction >= 0)
        k = jnp.where(moved, spikes(state.variance), state.k)
        direction = jnp.where(moved, change, state.direction)
        variance = jnp.where(moved, _variance(bulk, state.variance, k), state.variance)
        return Search(variance=variance, k=k, direction=direction, moved=moved)

    start = _start(bulk)
    k = spikes(start)
    first = Search(
        variance=_variance(bulk, start, k), k=k, direction=jnp.int32(0), moved=jnp.bool_(True)
    )
    return jax.lax.while_loop(lambda state: state.moved, step, first)


def _start(bulk: Bulk) -> Float[Array, ""]:
    """The variance that puts the law's quantile where the middle one of the eigenvalues is."""
    above = bulk.real // 2
    middle = bulk.evals[bulk.evals.size - 1 - above]
    share = (above + 0.5) / jnp.maximum(bulk.real, 1)
    return middle / _quantile(share.astype(middle.dtype), bulk.n, jnp.maximum(bulk.m, 1e-3))


def _variance(bulk: Bulk, variance: Float[Array, ""], k: Int[Array, ""]) -> Float[Array, ""]:
    """The variance given k spikes, and near enough a variance to say how strong they are."""
    spike = jnp.arange(bulk.evals.size) >= bulk.evals.size - k
    rest = jnp.sum(jnp.where(spike, 0.0, bulk.evals))
    n, m = bulk.n - k / bulk.slices, bulk.m - k / bulk.slices
    freedom = bulk.slices * n * m

    def improve(_: int, variance: Array) -> Array:
        strength = _strength(bulk.evals, spike, variance * n, variance * m)
        lost = jnp.sum(jnp.where(spike, variance * n * m / strength, 0.0))
        return rest / jnp.maximum(freedom - lost, 0.5 * freedom)

    return jax.lax.fori_loop(0, ROUNDS, improve, variance)


def _strength(
    evals: Float[Array, " size"],
    spike: Bool[Array, " size"],
    long: Float[Array, ""],
    short: Float[Array, ""],
) -> Float[Array, " size"]:
    """Squared singular values of the signal behind spikes, at least what is just visible."""
    visible = root(long * short)
    # What is left of the root's argument near the edge decides: no difference of squares.
    excess = jnp.maximum(evals - (long + short + 2.0 * visible), 0.0)
    inside = excess * (excess + 4.0 * visible)
    strength = visible + 0.5 * (excess + root(inside))
    return jnp.where(spike & (strength > 0), strength, 1.0)


def _quantile(
    share: Float[Array, ""], n: Float[Array, ""], m: Float[Array, ""]
) -> Float[Array, ""]:
    """The value that a share of the eigenvalues of standard Gaussian (n, m), n >= m, exceeds."""

    def missing(angle: Array) -> Array:
        return _count_at(angle, n, m) - share * m

    angle = bisect(missing, jnp.zeros_like(m), jnp.full_like(m, math.pi))
    return n + m + 2.0 * jnp.sqrt(n * m) * jnp.cos(angle)


def _count_above(x: Float[Array, ""], n: Float[Array, ""], m: Float[Array, ""]) -> Float[Array, ""]:
    """How many eigenvalues of standard Gaussian (n, m), n >= m, the law puts above x."""
    cosine = (x - n - m) / (2.0 * jnp.sqrt(n * m))
    return _count_at(jnp.arccos(jnp.clip(cosine, -1.0, 1.0)), n, m)


def _count_at(
    angle: Float[Array, ""], n: Float[Array, ""], m: Float[Array, ""]
) -> Float[Array, ""]:
    r"""The integral of the law above x = n + m + 2 sqrt(n m) cos(angle), in closed form.

    .. math:: \frac1{2\pi} \left( (n + m) \varphi - 2 \sqrt{n m} \sin\varphi - 2 (n - m)
        \arctan\left( \frac{\sqrt n - \sqrt m}{\sqrt n + \sqrt m} \tan\frac\varphi2 \right) \right)
    """
    ratio = (jnp.sqrt(n) - jnp.sqrt(m)) / (jnp.sqrt(n) + jnp.sqrt(m))
    inner = jnp.arctan2(ratio * jnp.sin(angle / 2), jnp.cos(angle / 2))
    bent = (n + m) * angle - 2.0 * jnp.sqrt(n * m) * jnp.sin(angle) - 2.0 * (n - m) * inner
    return bent / (2.0 * math.pi)


def root(square: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """The square root, whose derivative is 0 instead of infinite at 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)
