"""The scale metrics of an ESD, one function a quantity. Logarithms in names are base 10."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Float, Int

from wwfunc.fits.powerlaw import PowerLawFit
from wwfunc.fits.truncated import TruncatedPowerLawFit
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, in_range
from wwfunc.status import Status

WEAK_RANK = 1e-6
"""Eigenvalues under this share of the largest count as weakly lost."""


@record
class ScaleMetrics:
    """Norms, ranks and entropy of one ESD; NaN where a quantity is not defined."""

    norm: Float[Array, "*batch"]
    log_norm: Float[Array, "*batch"]
    spectral_norm: Float[Array, "*batch"]
    log_spectral_norm: Float[Array, "*batch"]
    stable_rank: Float[Array, "*batch"]
    entropy: Float[Array, "*batch"]
    sv_max: Float[Array, "*batch"]
    sv_min: Float[Array, "*batch"]
    matrix_rank: Int[Array, "*batch"]
    rank_loss: Int[Array, "*batch"]
    weak_rank_loss: Int[Array, "*batch"]
    status: Int[Array, "*batch"]


@record
class AlphaMetrics:
    """What is made of alpha and the eigenvalues together; NaN where the fit failed."""

    alpha_weighted: Float[Array, "*batch"]
    log_alpha_norm: Float[Array, "*batch"]


def scale_metrics(esd: ESD) -> ScaleMetrics:
    """All scale metrics of one spectrum."""
    return ScaleMetrics(
        norm=frobenius_norm(esd),
        log_norm=log10(frobenius_norm(esd)),
        spectral_norm=spectral_norm(esd),
        log_spectral_norm=log10(spectral_norm(esd)),
        stable_rank=stable_rank(esd),
        entropy=entropy(esd),
        sv_max=largest_singular_value(esd),
        sv_min=smallest_singular_value(esd),
        matrix_rank=matrix_rank(esd),
        rank_loss=esd.n - matrix_rank(esd),
        weak_rank_loss=weak_rank_loss(esd),
        status=_status(esd),
    )


def of_the_matrix(inverse: ScaleMetrics, esd: ESD) -> ScaleMetrics:
    """Metrics of an inverted spectrum, but for what is asked about the weights themselves."""
    own = ("sv_max", "sv_min", "matrix_rank", "rank_loss", "weak_rank_loss", "status")
    metrics = scale_metrics(esd)
    return replace(inverse, **{name: getattr(metrics, name) for name in own})


def alpha_metrics(esd: ESD, fit: PowerLawFit | TruncatedPowerLawFit) -> AlphaMetrics:
    """The two metrics that weigh alpha with the scale of the layer."""
    failed = jnp.isnan(fit.alpha)
    # A stand-in where the fit failed keeps NaN out of the gradient, not only out of the value.
    alpha = jnp.where(failed, 1.0, fit.alpha)
    return AlphaMetrics(
        alpha_weighted=jnp.where(failed, jnp.nan, alpha * log10(spectral_norm(esd))),
        log_alpha_norm=jnp.where(failed, jnp.nan, log_alpha_norm(esd, alpha)),
    )


def frobenius_norm(esd: ESD) -> Float[Array, ""]:
    """sum_i lambda_i = ||W||_F^2, WeightWatcher's `norm`."""
    return jnp.sum(esd.evals)


def spectral_norm(esd: ESD) -> Float[Array, ""]:
    """lambda_max = ||W||_2^2."""
    return esd.evals[-1]


def stable_rank(esd: ESD) -> Float[Array, ""]:
    """||W||_F^2 / ||W||_2^2, between 1 and the rank."""
    largest = spectral_norm(esd)
    return jnp.where(
        largest > 0, frobenius_norm(esd) / jnp.where(largest > 0, largest, 1.0), jnp.nan
    )


def matrix_rank(esd: ESD) -> Int[Array, ""]:
    """Number of eigenvalues above the rounding floor."""
    return jnp.sum(esd.evals > esd.floor, dtype=jnp.int32)


def weak_rank_loss(esd: ESD) -> Int[Array, ""]:
    """Number of eigenvalues under 1e-6 of the largest."""
    return esd.n - jnp.sum(esd.evals > WEAK_RANK * esd.evals[-1], dtype=jnp.int32)


def largest_singular_value(esd: ESD) -> Float[Array, ""]:
    """sqrt(lambda_max)."""
    zero = esd.evals[-1] == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, esd.evals[-1])))


def smallest_singular_value(esd: ESD) -> Float[Array, ""]:
    """sqrt(lambda_min); 0 where lambda_min is under the rounding floor."""
    smallest = esd.evals[esd.evals.size - esd.n]
    resolved = smallest > esd.floor
    root = jnp.where(resolved, jnp.sqrt(jnp.where(resolved, smallest, 1.0)), 0.0)
    return jnp.where(jnp.isfinite(smallest), root, jnp.nan)


def entropy(esd: ESD) -> Float[Array, ""]:
    """-sum_i p_i ln p_i / ln(rank), with p_i = lambda_i / sum lambda: 1 for a flat spectrum."""
    norm = frobenius_norm(esd)
    share = esd.evals / jnp.where(norm > 0, norm, 1.0)
    positive = esd.evals > esd.floor
    terms = jnp.where(positive, share * jnp.log(jnp.where(positive, share, 1.0)), 0.0)
    rank = matrix_rank(esd)
    several = jnp.maximum(rank, 2).astype(esd.evals.dtype)  # an int32 would go to float32
    return jnp.where(rank > 1, -jnp.sum(terms) / jnp.log(several), jnp.nan)


def log_alpha_norm(esd: ESD, alpha: Float[Array, ""]) -> Float[Array, ""]:
    """log10 sum_i lambda_i^alpha, summed in log space so that no power overflows."""
    positive = esd.evals > 0
    powers = jnp.where(positive, alpha * jnp.log(jnp.where(positive, esd.evals, 1.0)), -jnp.inf)
    return logsumexp(powers) / jnp.log(10.0)


def log10(value: Float[Array, ""]) -> Float[Array, ""]:
    """log10, NaN (not minus infinity) at zero."""
    return jnp.where(value > 0, jnp.log10(jnp.where(value > 0, value, 1.0)), jnp.nan)


def _status(esd: ESD) -> Int[Array, ""]:
    deficient = jnp.where(matrix_rank(esd) < esd.n, int(Status.RANK_DEFICIENT), int(Status.SUCCESS))
    broken = [~in_range(esd), esd.evals[-1] == 0]
    codes = [int(Status.NOT_FINITE), int(Status.ALL_ZERO)]
    return jnp.select(broken, codes, deficient).astype(jnp.int32)
