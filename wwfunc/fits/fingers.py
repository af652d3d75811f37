"""Where the peak of an ESD lies: looking for xmin around it keeps fingers from setting alpha.

A finger is a handful of the largest eigenvalues that stand apart and pull xmin into the far tail.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Float

from wwfunc.fits.tail import Limits, Tail, tail_of
from wwfunc.options import Method
from wwfunc.pytrees import Array
from wwfunc.spectrum import ESD

BINS = 100
BELOW_PEAK, ABOVE_PEAK = 0.95, 1.5
"""WeightWatcher's range of xmin around the peak."""


def near_peak(esd: ESD, limits: Limits, method: Method) -> Limits:
    """Limits whose xmin lies near the peak, where the caller's own do not say otherwise."""
    whole = dataclasses.replace(limits, xmin=None, xmin_min=None, xmin_max=None)
    peak = peak_of(tail_of(esd, whole, method.threshold))
    lower = BELOW_PEAK * peak
    if method.peak_range == "weightwatcher":
        lower = jnp.log10(lower)
    return dataclasses.replace(
        limits,
        xmin_min=lower if limits.xmin_min is None else limits.xmin_min,
        xmin_max=ABOVE_PEAK * peak if limits.xmin_max is None else limits.xmin_max,
    )


def peak_of(tail: Tail) -> Float[Array, ""]:
    """The left edge of the fullest of 100 equal bins of the logarithms of the eigenvalues."""
    highest = jnp.max(jnp.where(tail.fitted, tail.log_evals, -jnp.inf))
    lowest = jnp.min(jnp.where(tail.fitted, tail.log_evals, jnp.inf))
    edges = jnp.linspace(lowest, highest, BINS + 1)
    # The last bin holds its right edge too; what is not fitted counts as nothing.
    bins = jnp.clip(jnp.searchsorted(edges, tail.log_evals, side="right") - 1, 0, BINS - 1)
    counts = jnp.zeros(BINS, jnp.int32).at[bins].add(tail.fitted)
    return jnp.exp(edges[jnp.argmax(counts)] + tail.log_scale)
