"""The slices of a layer one by one: each has noise of its own size.

A trained convolution has larger weights in its centre than at its border. Pooled, the spectra of
such slices have a long tail, which no single Marchenko-Pastur law explains.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from wwfunc.pytrees import Array, record
from wwfunc.randommatrix.marchenkopastur import MPFit, fit_bulk
from wwfunc.randommatrix.noisefit import root
from wwfunc.spectrum import ESD, esd
from wwfunc.status import FIRST_FAILURE, Status


@record
class Slices:
    """Spectra of matrices of one shape, and how much of each is not rows and columns of zeros."""

    esd: ESD
    n: Int[Array, "*batch"]
    """The longer side of what is not zero."""
    m: Int[Array, "*batch"]
    """The shorter side; so many eigenvalues count."""


def slices_of(W: Float[Array, "*slices n m"], scale: Float[Array, ""]) -> Slices:
    """The slices of a stack, or one matrix, each by itself; also under `jit`."""
    stack = W.reshape(-1, *W.shape[-2:])
    return alive(stack, jax.vmap(esd, (0, None))(stack, scale))


def alive(stack: Float[Array, "k n m"], each: ESD) -> Slices:
    """The slices of a stack with what of them may hold noise, given their spectra."""
    rows, cols = (jnp.sum(jnp.any(stack != 0, axis=axis), axis=1) for axis in (2, 1))
    return _sided(each, jnp.maximum(rows, cols), jnp.minimum(rows, cols))


def host_alive(stack: np.ndarray, each: ESD) -> Slices:
    """The same on the host, where a stack may be as large as the memory."""
    rows, cols = (
        np.array([np.count_nonzero(matrix.any(axis=axis)) for matrix in stack]) for axis in (1, 0)
    )
    return _sided(each, np.maximum(rows, cols), np.minimum(rows, cols))


def whole(each: ESD, n: Int[Array, ""], m: Int[Array, ""]) -> Slices:
    """The same without looking at the matrices, of n by m."""
    full = np.ones(each.n.shape, np.int32)
    return _sided(each, n * full, m * full)


def _sided(each: ESD, n: Array, m: Array) -> Slices:
    """A slice of zeros keeps one element, so that nothing divides by its sides."""
    longer, shorter = (side.astype(np.int32).clip(1) for side in (n, m))
    esd = ESD(evals=each.evals, n=shorter, floor=each.floor)
    return Slices(esd=esd, n=longer, m=shorter)


def fit_slices(slices: Slices, pooled: ESD, tw: Float[Array, ""]) -> MPFit:
    """`fit_bulk` of each slice, and of the layer as a whole."""
    each = jax.vmap(fit_bulk, (0, 0, 0, None, None))(slices.esd, slices.n, slices.m, 1, tw)
    return together(each, slices.n, slices.m, pooled)


@jax.jit
def together(each: MPFit, n: Int[Array, " k"], m: Int[Array, " k"], pooled: ESD) -> MPFit:
    """One fit of the layer from those of its slices and their sides.

    Sigma is the root mean square, edges are the outermost ones, spikes those of all slices. Slices
    of zeros hold no noise; where another one failed, all do.
    """
    empty = each.status == Status.ALL_ZERO
    status = jnp.max(jnp.where(empty & ~jnp.all(empty), 0, each.status))
    # Stand-ins keep NaN out of the gradient, not only out of the value.
    fitted = ~empty & (each.status < FIRST_FAILURE)
    variance = jnp.where(fitted, each.sigma, 0.0) ** 2
    total = jnp.sum(pooled.evals)
    usable = (total > 0) & jnp.isfinite(total)
    scale = 1.0 / jnp.where(usable, total, 1.0)
    bulk_max = jnp.max(jnp.where(fitted, each.bulk_max, -jnp.inf))
    numbers = {
        "sigma": root(jnp.sum(variance) / jnp.maximum(jnp.sum(fitted), 1)),
        "sigma_mp": root(jnp.sum(variance * n * m) * scale),
        "bulk_min": jnp.min(jnp.where(fitted, each.bulk_min, jnp.inf)),
        "bulk_max": bulk_max,
        "edge": jnp.max(jnp.where(fitted, each.edge, -jnp.inf)),
        "mp_softrank": bulk_max / jnp.where(usable, pooled.evals[-1], 1.0),
    }
    found = status < FIRST_FAILURE
    return MPFit(
        **{name: jnp.where(found, number, jnp.nan) for name, number in numbers.items()},
        W_scale=jnp.where(usable, jnp.sqrt(pooled.n * scale), jnp.nan),
        num_spikes=jnp.where(found, jnp.sum(jnp.where(fitted, each.num_spikes, 0)), -1),
        status=status,
    )
