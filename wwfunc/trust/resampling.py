"""What resampled spectra are drawn from: sorted uniform numbers, and what was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from wwfunc.errors import OptionError
from wwfunc.fits.tail import Limits, asked
from wwfunc.options import Method, Options, make_options
from wwfunc.pytrees import Array
from wwfunc.spectrum import ESD


def uniform_ranks(
    key: Array, size: int, n: Int[Array, ""], dtype: jnp.dtype
) -> Float[Array, " size"]:
    """`n` uniform numbers from 0 to n, the smallest last, behind padding that holds n.

    Sums of n + 1 exponential gaps over their total are sorted uniform numbers: nothing is sorted,
    and small ranks, which become the largest eigenvalues, keep all their digits. The numbers do
    not depend on the padding.
    """
    # Uniform numbers lie on a grid that holds zero: half a step of it stands for zero.
    gaps = jnp.maximum(jax.random.exponential(key, (size + 1,), dtype), jnp.finfo(dtype).eps / 2)
    sums = jax.lax.cumsum(jnp.where(jnp.arange(size + 1) <= n, gaps, 0.0))
    return sums[-2::-1] / sums[-1] * n


def eigenvalues_at(esd: ESD, ranks: Float[Array, " size"]) -> Float[Array, " size"]:
    """The eigenvalues of these ranks from the top, fractions cut off."""
    places = jnp.clip(jnp.floor(ranks).astype(jnp.int32), 0, jnp.maximum(esd.n - 1, 0))
    return esd.evals[esd.evals.size - 1 - places]


def drawn(esd: ESD, draws: Float[Array, " size"]) -> ESD:
    """The spectrum of the last `n` of ascending `draws`, behind zeros."""
    size = esd.evals.size
    padding = jnp.arange(size) < size - esd.n
    return dataclasses.replace(esd, evals=jnp.where(padding, 0.0, draws))


def asked_to_resample(
    options: Options | None, changes: Mapping[str, Any]
) -> tuple[Limits, Method, int]:
    """What each refit is asked to do, and how many there are.

    Raises
    ------
    OptionError
        If an option is outside its range, or the fit is another than a power law's.
    """
    limits, method = asked(options, **changes)
    if method.fit != "PL":
        raise OptionError(f"only a power law's fit is resampled: fit is 'PL', not {method.fit!r}")
    named = {"replicates": changes["replicates"]} if "replicates" in changes else {}
    return limits, method, make_options(options, **named).replicates
