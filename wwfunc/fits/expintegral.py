"""The generalised exponential integral E_alpha(z) and the moments of the density it normalises."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from wwfunc.precision import real_numbers
from wwfunc.pytrees import Array

PANELS, NODES = 8, 16
"""Gauss-Legendre panels, and nodes in each."""
LONGEST_END = 10.0
"""Half of the panels cover this much of u = log t, or half of the whole."""
FALL = 40.0
"""The integral ends where t^2 times the integrand has fallen by exp(-FALL)."""


class Moments(NamedTuple):
    """Of p(t) = t^-alpha exp(-z t) / E_alpha(z), t >= 1, with u = log t and s = t - 1.

    For a short tail u and s are almost the same; q = s - u is what tells them apart, so the
    second moments are those of u and q.
    """

    log_expint: Float[Array, "*c"]
    mean_log: Float[Array, "*c"]
    """E[u]."""
    mean_rest: Float[Array, "*c"]
    """E[q]."""
    var_log: Float[Array, "*c"]
    """Var[u]."""
    cov_rest: Float[Array, "*c"]
    """Cov[u, q]."""
    var_rest: Float[Array, "*c"]
    """Var[q]."""

    @property
    def mean_excess(self) -> Float[Array, "*c"]:
        """E[s]."""
        return self.mean_log + self.mean_rest

    @property
    def cov(self) -> Float[Array, "*c"]:
        """Cov[u, s]."""
        return self.var_log + self.cov_rest

    @property
    def var_excess(self) -> Float[Array, "*c"]:
        """Var[s]."""
        return self.var_log + 2.0 * self.cov_rest + self.var_rest

    @property
    def determinant(self) -> Float[Array, "*c"]:
        """Of the covariance of u and s, which is that of u and q, without the cancellation."""
        return self.var_log * self.var_rest - self.cov_rest**2


def log_expint(alpha: Float[ArrayLike, "*c"], z: Float[ArrayLike, "*c"]) -> Float[Array, "*c"]:
    r"""Compute the logarithm of the generalised exponential integral.

    .. math:: E_\alpha(z) = \int_1^\infty t^{-\alpha} e^{-z t} dt

    Parameters
    ----------
    alpha
        Order, from -5 upwards; it need not be whole.
    z
        Argument, positive; 0 too where alpha > 1, with E = 1 / (alpha - 1).

    Returns
    -------
    Array
        The natural logarithm, elementwise; NaN outside of the domain.

    Notes
    -----
    128 nodes of a composite Gauss-Legendre rule in u = log t. In float64 the error is under 1e-12
    for z from 1e-8 upwards. Differentiable where z > 0.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 8.19.3, https://dlmf.nist.gov/8.19.

    Examples
    --------
    >>> print(f"{log_expint(3.0, 0.0):.4f}")  # 1 / 2
    -0.6931
    """
    alpha, z = _domain(real_numbers(alpha, "alpha"), real_numbers(z, "z"))
    _, log_weights = _nodes(alpha, jnp.where(z == 0, 1.0, z))
    pure = -jnp.log(jnp.where(z == 0, alpha - 1.0, 1.0))
    return jnp.where(z == 0, pure, jax.nn.logsumexp(log_weights, axis=0) - z)


def moments(alpha: Float[Array, "*c"], z: Float[Array, "*c"]) -> Moments:
    """Compute log E_alpha(z) and the moments of its density, NaN outside of the domain.

    At z = 0 the mean of s is infinite up to alpha = 2, and what else there is of s counts only as
    far as the nodes reach.
    """
    alpha, z = _domain(alpha, z)
    u, log_weights = _nodes(alpha, z)
    largest = jax.lax.stop_gradient(jnp.max(log_weights, axis=0))
    weights = jnp.exp(log_weights - largest)
    total = jnp.sum(weights, axis=0)
    share = weights / total
    q = _rest(u)
    mean_log = jnp.sum(share * u, axis=0)
    mean_rest = jnp.sum(share * q, axis=0)
    du, dq = u - mean_log, q - mean_rest
    return Moments(
        log_expint=largest + jnp.log(total) - z,
        mean_log=mean_log,
        mean_rest=jnp.where(z == 0, _power_law_rest(alpha), mean_rest),
        var_log=jnp.sum(share * du**2, axis=0),
        cov_rest=jnp.sum(share * du * dq, axis=0),
        var_rest=jnp.sum(share * dq**2, axis=0),
    )


def _power_law_rest(alpha: Array) -> Array:
    """E[q] of a power law, 1 / (alpha - 2) - 1 / (alpha - 1)."""
    finite = alpha > 2
    return jnp.where(finite, 1.0 / jnp.where(finite, (alpha - 1.0) * (alpha - 2.0), 1.0), jnp.inf)


def exponent(alpha: Array, z: Array, u: Array) -> Array:
    """Logarithm of the density of u = log t, but for its normaliser: it starts at 0."""
    return -(alpha - 1.0) * u - z * jnp.expm1(u)


def support(alpha: Float[Array, "*c"], z: Float[Array, "*c"]) -> tuple[Array, Array]:
    """The interval of u = log t outside of which the integrand and its t^2 moment are nothing."""
    order = alpha - 3.0  # of t^2 times the integrand
    growth = jnp.maximum(-order, 0.0)
    safe_z = jnp.where(z > 0, z, 1.0)
    # Near the root of (alpha - 3) u + z expm1(u) = FALL, and above it: two steps to a fixed point
    # where the first term is negative; where it is positive, the nearer of the terms' own roots
    # and one step of Newton's method, which stays above because the left side is convex.
    # No node lies so far out that t^2 would overflow.
    largest = 0.45 * float(np.log(jnp.finfo(z.dtype).max))
    upper = jnp.full_like(z, largest)
    for _ in range(2):
        upper = jnp.minimum(upper, jnp.log1p((FALL + growth * upper) / safe_z))
    power = jnp.where(order > 0, FALL / jnp.where(order > 0, order, 1.0), largest)
    upper = jnp.minimum(upper, power)
    left = order * upper + z * jnp.expm1(upper) - FALL
    slope = order + z * jnp.exp(upper)
    upper = jnp.where(order > 0, upper - left / jnp.where(order > 0, slope, 1.0), upper)
    # Without a cut-off there may be no t^2 moment; the integral itself ends here.
    plain = FALL / jnp.where(alpha > 1, alpha - 1.0, 1.0)
    upper = jnp.where(z > 0, upper, jnp.minimum(plain, power))
    return _lower_end(alpha, safe_z), upper


def _lower_end(alpha: Array, z: Array) -> Array:
    """For alpha < 1 the integrand rises to a peak at t = (1 - alpha) / z: start not far below."""
    rise = jnp.where(alpha < 1, 1.0 - alpha, 1.0)
    peak = jnp.log(jnp.maximum(rise / z, 1.0))
    height = rise * peak - z * jnp.expm1(peak)
    return jnp.where(alpha < 1, jnp.maximum((height - FALL) / rise, 0.0), 0.0)


def _nodes(alpha: Array, z: Array) -> tuple[Array, Array]:
    """Nodes u, and logarithms of quadrature weight times integrand exp(-(alpha - 1) u - z s)."""
    # Where the nodes lie changes nothing to the integral: no derivative.
    lower, upper = jax.lax.stop_gradient(support(alpha, z))
    x, log_w = (
        jnp.asarray(rule, alpha.dtype).reshape(-1, *[1] * alpha.ndim) for rule in _composite_rule()
    )
    # Half of the panels lie where a small z cuts off within a few units of u.
    end = jnp.minimum((upper - lower) / 2, LONGEST_END)
    split = upper - end
    # The nodes run along the first axis: XLA's sums over it are vectorised on a CPU.
    u = jnp.concatenate([lower + (split - lower) * x, split + end * x])
    log_weights = jnp.concatenate([log_w + jnp.log(split - lower), log_w + jnp.log(end)])
    return u, log_weights + exponent(alpha, z, u)


def _composite_rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and logarithms of weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    half = PANELS // 2
    nodes = (np.arange(half)[:, None] + (x + 1.0) / 2.0) / half
    return nodes.ravel(), np.log(np.tile(w / 2.0 / half, half))


def _rest(u: Array) -> Array:
    """Compute q = exp(u) - 1 - u, by its series where the difference would cancel."""
    series = u * u / 2 * (1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6 * (1 + u / 7)))))
    return jnp.where(u < 0.01, series, jnp.expm1(u) - u)


def _domain(alpha: Array, z: Array) -> tuple[Array, Array]:
    """Both arrays in one shape, NaN where the integral diverges."""
    alpha, z = jnp.broadcast_arrays(alpha, z)
    inside = (z > 0) | ((z == 0) & (alpha > 1))
    return jnp.where(inside, alpha, jnp.nan), jnp.where(inside, z, jnp.nan)
