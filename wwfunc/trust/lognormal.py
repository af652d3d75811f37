"""The lognormal distribution of a tail: y = log(x / xmin) is normal(m, s), truncated to y >= 0.

An exponential family in (y, y^2). As c = m / s goes to minus infinity it becomes the exponential
distribution of y, which is the power law of x; that is its maximum where mean(y^2) is twice the
squared mean of y, or more.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Float

from wwfunc.pytrees import Array
from wwfunc.trust.bisection import bisect

FAR = -4.0
"""Under this c the moments are a continued fraction: the closed forms cancel there."""
DEPTH = 40
"""Levels of the fraction: it is exact to 3e-15 at `FAR`, and better beyond."""
LOG_ROOT_2_PI = 0.5 * math.log(2.0 * math.pi)


def maximise(
    mean: Float[Array, ""], relative_variance: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Find c = m / s and s of largest likelihood, by the first two moments of y.

    .. math:: \frac{\overline{y^2}}{\bar y^2} = \frac{1 + c^2 + c h(c)}{(c + h(c))^2}, \quad
       h = \phi / \Phi, \quad s = \frac{\bar y}{c + h(c)}

    `relative_variance` is the left side less 1, with 0 (one value) and 1 (a power law) excluded.
    """
    # The model's is under 1 / c^2 where c > 0, and lacks less than 2 / c^2 to 1 where c < 0.
    low = -jnp.sqrt(2.0 / (1.0 - relative_variance))
    high = jnp.sqrt(1.0 / relative_variance)
    c = bisect(lambda c: _narrowness(c, relative_variance), low, high)
    return c, mean / _mean(c)


def log_density(
    y: Float[Array, " n"], c: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, " n"]:
    """Natural logarithm of the density of y >= 0."""
    v = y / s
    near = -0.5 * (v - c) ** 2 - LOG_ROOT_2_PI - log_ndtr(c)
    # The same with phi(c) / Phi(c) for 1 / Phi(c): both large terms are gone.
    far = jnp.log(_far_mean(c)[0] - c) + c * v - 0.5 * v**2
    return jnp.where(c < FAR, far, near) - jnp.log(s)


def _mean(c: Float[Array, ""]) -> Float[Array, ""]:
    """Mean of v = y / s, c + h(c)."""
    near = jnp.maximum(c, FAR)
    return jnp.where(c < FAR, _far_mean(c)[0], near + _hazard(near))


def _narrowness(c: Float[Array, ""], relative_variance: Float[Array, ""]) -> Float[Array, ""]:
    """By how much the model's relative variance is the smaller one: it grows with c."""
    near = jnp.maximum(c, FAR)
    hazard = _hazard(near)
    mean = near + hazard
    at_near = relative_variance - (1.0 - hazard * mean) / mean**2
    return jnp.where(c < FAR, _far_mean(c)[1] - (1.0 - relative_variance), at_near)


def _hazard(c: Float[Array, ""]) -> Float[Array, ""]:
    """h(c) = phi(c) / Phi(c)."""
    return jnp.exp(-0.5 * c**2 - LOG_ROOT_2_PI - log_ndtr(c))


def _far_mean(c: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean of v under `FAR`, and what its relative variance lacks to 1.

    Laplace's continued fraction is h(-a) = a + 1 / (a + 2 / (a + 3 / ...)).
    """
    a = -jnp.minimum(c, FAR)
    third = jnp.zeros_like(a)
    for level in range(DEPTH, 2, -1):
        third = level / (a + third)
    second = 2.0 / (a + third)
    return 1.0 / (a + second), 2.0 * (third - second) / (a + third)
