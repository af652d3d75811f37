"""How far the fit of one spectrum can be trusted: every statistic that a verdict reads."""

from __future__ import annotations

import dataclasses
import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from wwfunc.fits.powerlaw import PowerLawFit
from wwfunc.fits.tail import Limits
from wwfunc.fits.truncated import TruncatedPowerLawFit
from wwfunc.metrics import matrix_rank
from wwfunc.options import Method
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD
from wwfunc.trust.alternatives import Alternatives, alternatives_at
from wwfunc.trust.bootstrapping import Bootstrap, bootstrap_fit
from wwfunc.trust.goodness import GoodnessOfFit, goodness_of
from wwfunc.trust.null import null_p

FULL_RANK = 0.99
"""A layer that lacks more of its rank, such as an adapter, is no random matrix of its shape."""

T = TypeVar("T", Bootstrap, GoodnessOfFit)


@record
class Trust:
    """The statistics behind one fit; NaN where a statistic is of power laws and the fit is not."""

    bootstrap: Bootstrap
    """Intervals of alpha and xmin."""
    goodness: GoodnessOfFit
    """Whether the tail may be a power law at all."""
    alternatives: Alternatives
    """Whether something else describes the tail better."""
    p_random: Float[Array, "*batch"]
    """How often a random matrix of this shape has so low an alpha; NaN where that is not known."""


@functools.partial(jax.jit, static_argnames=("method", "replicates"))
def trust_of(
    esd: ESD,
    fit: PowerLawFit | TruncatedPowerLawFit,
    key: Array,
    limits: Limits,
    quantiles: Float[Array, " levels"] | None,
    method: Method,
    *,
    replicates: int,
) -> Trust:
    """All statistics of one fit; `quantiles` are those of alpha of random matrices, if known."""
    if isinstance(fit, TruncatedPowerLawFit):
        return Trust(
            bootstrap=_missing(Bootstrap, fit),
            goodness=_missing(GoodnessOfFit, fit),
            alternatives=alternatives_at(esd, limits, method, fit.xmin),
            p_random=jnp.full_like(fit.alpha, jnp.nan),
        )
    for_interval, for_p = jax.random.split(key)
    return Trust(
        bootstrap=bootstrap_fit(esd, for_interval, limits, method, replicates=replicates),
        goodness=goodness_of(esd, fit, for_p, limits, method, replicates=replicates),
        alternatives=alternatives_at(esd, limits, method, fit.xmin, fit.num_fingers),
        p_random=_p_random(esd, fit, quantiles),
    )


def _p_random(
    esd: ESD, fit: PowerLawFit, quantiles: Float[Array, " levels"] | None
) -> Float[Array, ""]:
    """NaN where the null, a matrix of full rank, is not the layer's."""
    if quantiles is None:
        return jnp.full_like(fit.alpha, jnp.nan)
    return jnp.where(matrix_rank(esd) < FULL_RANK * esd.n, jnp.nan, null_p(fit.alpha, quantiles))


def _missing(cls: type[T], fit: TruncatedPowerLawFit) -> T:
    names = {field.name for field in dataclasses.fields(cls)} - {"status"}
    return cls(**dict.fromkeys(names, jnp.full_like(fit.alpha, jnp.nan)), status=fit.status)
