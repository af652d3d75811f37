r"""The stretched exponential distribution of a tail, in y = log(x / xmin) >= 0.

.. math:: p(y) = \kappa e^{\beta y} \exp(-\kappa (e^{\beta y} - 1) / \beta), \quad
   \kappa = \beta (\lambda x_{min})^\beta

With beta = 1 this is the exponential distribution of x, with beta = 0 the power law.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float

from wwfunc.pytrees import Array
from wwfunc.trust.bisection import bisect

SMALL = 0.5
"""Under this exponent a series replaces a difference that cancels ..."""
TERMS = 14
"""... and so many terms of it are exact to 1e-16."""


def maximise(y: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, ""]:
    r"""Find the beta of largest likelihood; kappa follows from it.

    .. math:: \max_\kappa \bar\ell = -\log \overline{(e^{\beta y} - 1) / \beta} + \beta \bar y - 1

    is concave in beta: the mean is the Laplace transform of a measure, its logarithm convex. The
    slope at 0 is positive where mean(y^2) is less than twice the squared mean. `y` is 0 outside of
    `mask`, and not all equal inside.
    """
    n = jnp.sum(mask)
    mean = jnp.sum(y) / n
    # The mean of exp(beta y) is at least exp(beta max(y)) / n: from here on the slope is negative.
    high = (1.0 + jnp.log(n.astype(y.dtype))) / (jnp.max(y) - mean)
    return bisect(lambda beta: _tilted_mean(y, mask, beta) - mean, jnp.zeros_like(high), high)


def log_density(
    y: Float[Array, " n"], mask: Bool[Array, " n"], beta: Float[Array, "*c"]
) -> Float[Array, "*c n"]:
    """Natural logarithm of the density of y, kappa at its own maximum; any number beside `mask`."""
    z = beta[..., None] * y
    # Relative to the largest, so that no exponential overflows.
    relative = z - jnp.max(z, axis=-1, keepdims=True)
    integral = jnp.where(mask, y * _share(z) * jnp.exp(relative), 0.0)
    mean = jnp.sum(integral, axis=-1, keepdims=True) / jnp.sum(mask)
    return relative - jnp.log(mean) - integral / mean


def _tilted_mean(
    y: Float[Array, " n"], mask: Bool[Array, " n"], beta: Float[Array, ""]
) -> Float[Array, ""]:
    """d / d beta of log(mean((e^(beta y) - 1) / beta))."""
    z = beta * y
    weight = jnp.where(mask, y * jnp.exp(z - jnp.max(z)), 0.0)
    first = _share(z)
    return jnp.sum(weight * y * _second_share(z, first)) / jnp.sum(weight * first)


def _share(z: Array) -> Array:
    """The integral of exp(-z r) over r from 0 to 1, (1 - exp(-z)) / z."""
    safe = jnp.where(z > 0, z, 1.0)
    return jnp.where(z > 0, -jnp.expm1(-safe) / safe, 1.0)


def _second_share(z: Array, share: Array) -> Array:
    """The integral of (1 - r) exp(-z r), (1 - share) / z."""
    # 1 / 2 - z / 6 + z^2 / 24 - ..., from the last term on.
    series: Array = jnp.ones_like(z)
    for k in range(TERMS + 1, 2, -1):
        series = 1.0 - z * series / k
    return jnp.where(z < SMALL, 0.5 * series, (1.0 - share) / jnp.where(z < SMALL, 1.0, z))
