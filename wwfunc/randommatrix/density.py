"""The Marchenko-Pastur law itself: between which eigenvalues noise lies, and how densely."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import ArrayLike, Float

from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array


@verb
def bulk_edges(
    sigma: Float[ArrayLike, "*batch"], n: Float[ArrayLike, "*batch"], m: Float[ArrayLike, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    r"""Compute between which eigenvalues of W^T W the Marchenko-Pastur law lies.

    .. math:: \lambda_\pm = \sigma^2 (\sqrt N \pm \sqrt M)^2

    Parameters
    ----------
    sigma
        Standard deviation of the entries of W.
    n, m
        Sides of W, in any order.

    Returns
    -------
    tuple
        The lower and the upper edge.

    Notes
    -----
    Works under `jit`, `vmap` and `grad`.

    References
    ----------
    Marchenko, Pastur, Math. USSR Sbornik 1 (1967), doi:10.1070/SM1967v001n04ABEH001994.

    Examples
    --------
    >>> import wwfunc
    >>> [round(float(edge), 2) for edge in wwfunc.bulk_edges(0.1, 400, 100)]
    [1.0, 9.0]
    """
    first, second = jnp.sqrt(jnp.asarray(n)), jnp.sqrt(jnp.asarray(m))
    width = jnp.asarray(sigma)
    return (width * (first - second)) ** 2, (width * (first + second)) ** 2


@verb
def mp_density(
    x: Float[ArrayLike, "*points"], sigma: float, n: float, m: float
) -> Float[Array, "*points"]:
    r"""Compute the density of the Marchenko-Pastur law for the eigenvalues of W^T W.

    .. math:: p(x) = \frac{\sqrt{(\lambda_+ - x)(x - \lambda_-)}}{2 \pi \sigma^2 M x},
        \quad \lambda_- < x < \lambda_+

    with M the smaller side: the law of the min(N, M) eigenvalues, which has no atom at zero.

    Parameters
    ----------
    x
        Where, in units of the eigenvalues of W^T W.
    sigma
        Standard deviation of the entries of W.
    n, m
        Sides of W, in any order.

    Returns
    -------
    Array
        The density at each `x`, 0 outside of the bulk. Its integral is 1.

    Notes
    -----
    Works under `jit`, `vmap` and `grad`.

    References
    ----------
    Marchenko, Pastur, Math. USSR Sbornik 1 (1967), doi:10.1070/SM1967v001n04ABEH001994.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> wwfunc.mp_density(np.array([50.0, 400.0, 1000.0]), 1.0, 400, 100).round(5)
    array([0.     , 0.00154, 0.     ])
    """
    points = real_numbers(x, "x")
    lower, upper = (edge.astype(points.dtype) for edge in bulk_edges(sigma, n, m))
    inside = (points > lower) & (points < upper)
    within = jnp.where(inside, points, 0.5 * (lower + upper))
    root = jnp.sqrt((upper - within) * (within - lower))
    smaller = jnp.minimum(jnp.asarray(n), jnp.asarray(m))
    variance = jnp.asarray(sigma, points.dtype) ** 2
    density = root / (2.0 * math.pi * smaller.astype(points.dtype) * variance * within)
    return jnp.where(inside, density, 0.0)
