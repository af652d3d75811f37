"""The Kolmogorov-Smirnov distance between a truncated power law and a tail."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from wwfunc.fits.expintegral import exponent, log_expint, support
from wwfunc.fits.ksdistance import largest_gap
from wwfunc.fits.tail import Tail
from wwfunc.options import KS
from wwfunc.pytrees import Array

CELLS = 128
"""The distribution function is tabulated at the ends of so many cells of u = log(x / xmin) ..."""
NODES = 4
"""... each of which is integrated by so many Gauss-Legendre nodes."""


class Table(NamedTuple):
    """The distribution function of u at equidistant points."""

    alpha: Float[Array, " c"]
    z: Float[Array, " c"]
    log_integral: Float[Array, " c"]
    lower: Float[Array, " c"]
    width: Float[Array, " c"]
    cdf: Float[Array, "c points"]


def tabulate(alpha: Float[Array, " c"], z: Float[Array, " c"]) -> Table:
    """Tabulate the distribution functions of models over what there is of their densities."""
    lower, upper = support(alpha, z)
    width = (upper - lower) / CELLS
    table = Table(alpha, z, log_expint(alpha, z) + z, lower, width, lower[:, None])
    left = lower[:, None] + width[:, None] * jnp.arange(CELLS, dtype=width.dtype)
    cells = _mass(table, left, jnp.broadcast_to(width[:, None], left.shape))
    cdf = jnp.pad(jnp.cumsum(cells, axis=1), ((0, 0), (1, 0)))
    return table._replace(cdf=cdf)


def cdf(table: Table, u: Float[Array, "c k"]) -> Float[Array, "c k"]:
    """Evaluate the distribution functions: no error grows with the gaps between the u."""
    lower, width = table.lower[:, None], table.width[:, None]
    inside = jnp.clip(u, lower, lower + CELLS * width)
    nearest = jnp.round((inside - lower) / width)
    start = lower + nearest * width
    below = jnp.take_along_axis(table.cdf, nearest.astype(jnp.int32), axis=1)
    return below + _mass(table, start, inside - start)


def ks_distance_truncated(
    tail: Tail,
    start: Int[Array, " c"],
    log_xmin: Float[Array, " c"],
    alpha: Float[Array, " c"],
    z: Float[Array, " c"],
    ks: KS = "one-sided",
) -> Float[Array, " c"]:
    """KS distance of a truncated power law from each tail at `start`, see `ks_distance`."""
    table = tabulate(alpha, z)
    gap = largest_gap(tail, start, log_xmin, lambda u: cdf(table, u), ks)
    return jnp.where(jnp.isnan(alpha), jnp.nan, gap)  # XLA's maximum may lose a NaN


def _mass(table: Table, left: Float[Array, "c k"], length: Float[Array, "c k"]) -> Array:
    """Probability of u from `left` on, up to a cell of it; negative where the length is."""
    x, weight = np.polynomial.legendre.leggauss(NODES)
    nodes, weights = (
        jnp.asarray(rule, left.dtype)[:, None, None] for rule in ((x + 1.0) / 2.0, weight / 2.0)
    )
    alpha, z, log_integral = (x[:, None] for x in (table.alpha, table.z, table.log_integral))
    density = jnp.exp(exponent(alpha, z, left + nodes * length) - log_integral)
    return length * jnp.sum(weights * density, axis=0)
