"""The null by shape: which alphas random matrices of a layer's size show.

Small shapes are drawn when they are asked for; larger ones come from a table of simulated
quantiles that validation/null_table.py makes, by a polynomial surface through it.
"""

from __future__ import annotations

import functools
import math
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from wwfunc.fits.powerlaw import SMALL_SAMPLE, PowerLawFit, fit_limited
from wwfunc.fits.tail import Limits
from wwfunc.options import Method
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD
from wwfunc.trust.randomspectra import random_evals

LEVELS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06),
    *(0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    *(0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999),
)
"""Shares of random matrices at whose alphas a null is kept."""

MOST_DRAWS = 1000
FEWEST_DRAWS = 64
"""A shape that cannot afford so many draws is not calibrated."""
WORK = 1 << 26
"""What a live null may cost, in steps of the eigensolver: about a second of one core."""

DEGREE = 3
"""Total degree of the surface through the table."""

_CHUNK = 32
"""Draws that are fitted by one call; fewer calls would save nothing."""


@record
class NullAlphas:
    """How alpha is distributed among Gaussian random matrices of one shape."""

    quantiles: Float[Array, "*batch levels"]
    """alpha at each of `LEVELS`, ascending; 0 where so few draws cannot tell."""
    draws: Int[Array, "*batch"]
    """Random matrices that this rests on."""
    failed: Int[Array, "*batch"]
    """Random matrices whose fit failed; they count for nothing else."""


def p_random(
    alpha: float,
    *,
    N: int,
    M: int,
    rf: int = 1,
    limits: Limits | None = None,
    method: Method | None = None,
) -> float:
    """Return the share of random matrices of this shape with an alpha at or below `alpha`.

    A small share says that chance does not explain so heavy a tail; a large one, that a random
    matrix would look like this layer.

    Parameters
    ----------
    alpha
        Of the layer.
    N, M
        Sides of the layer's matrices, in any order.
    rf
        Number of matrices whose eigenvalues are pooled: 1, or the receptive field of a
        convolution.
    limits, method
        How the layer was fitted; the defaults are those of `fit_pl`.

    Returns
    -------
    float
        From 1 / (1 + draws), or a little above, to 1. NaN where alpha is NaN and where the null
        is not calibrated: see `null_alphas`.

    Notes
    -----
    The null is a matrix of independent Gaussian entries. Alpha does not depend on their variance.

    Examples
    --------
    >>> from wwfunc.trust.null import p_random
    >>> p_random(3.0, N=64, M=64) > 0.1, p_random(3.0, N=768, M=768) < 0.01
    (True, True)
    """
    quantiles = null_quantiles(rf, N, M, limits, method)
    if quantiles is None:
        return math.nan
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return float(null_p(np.asarray(alpha, np.float64), quantiles))


def null_p(
    alpha: Float[Array, "*batch"], quantiles: Float[Array, " levels"]
) -> Float[Array, "*batch"]:
    """`p_random` under `jit`: alpha's place among the quantiles of a null.

    `null_quantiles` gives them wherever the shape is known, also while tracing. NaN goes in and
    comes out.
    """
    alpha = jnp.asarray(alpha)
    quantiles, levels = (jnp.asarray(values, alpha.dtype) for values in (quantiles, LEVELS))
    smallest = levels[jnp.argmax(quantiles > 0)]
    p = jnp.maximum(jnp.interp(alpha, quantiles, levels), smallest)
    return jnp.where(jnp.isnan(alpha), jnp.nan, p)


def null_quantiles(
    rf: int, N: int, M: int, limits: Limits | None = None, method: Method | None = None
) -> Float[np.ndarray, " levels"] | None:
    """The quantiles of `null_alphas`; None where the shape is not calibrated."""
    null = null_alphas(rf, N, M, limits, method)
    # A copy: JAX keeps what it made of an array by identity, in whatever precision that was.
    return None if null is None else np.array(null.quantiles)


def null_alphas(
    rf: int, N: int, M: int, limits: Limits | None = None, method: Method | None = None
) -> NullAlphas | None:
    """Return the distribution of alpha among random matrices of a shape.

    Parameters
    ----------
    rf, N, M
        See `p_random`.
    limits, method
        How to fit. The null is about shape alone: it has no absolute threshold.

    Returns
    -------
    NullAlphas or None
        NumPy arrays of the same sizes for every shape. None, not calibrated, for limits on the
        eigenvalues themselves, which random matrices have no scale to be compared with (a number
        of the largest to leave out is no such limit), for fits other than a power law, and for
        shapes that are neither in the table nor cheap enough to draw.

    Notes
    -----
    The table holds rf = 1, 64 <= M <= 4096 and rf = 9, 16 <= M <= 512, for N / M up to 256, as
    fitted by default. Anything else is drawn, up to 1,000 times, as long as 64 draws take no more
    than about a second: M up to 900 with rf = 1, up to 180 with rf = 9. Draws are the same in
    every call and kept in the process.

    References
    ----------
    Quantiles as a polynomial in functions of the shape: MacKinnon, J. Appl. Econometrics 11
    (1996), doi:10.1002/(SICI)1099-1255(199611)11:6<601::AID-JAE417>3.0.CO;2-T.
    """
    limits, method = limits or Limits(), method or Method()
    bounds = (limits.xmin, limits.xmin_min, limits.xmin_max, limits.xmax)
    if method.fit != "PL" or any(bound is not None for bound in bounds):
        return None
    clip = int(limits.clip)
    return _null(rf, max(N, M), min(N, M), clip, _canonical(method, rf * min(N, M) - clip))


def random_fits(
    draws: int,
    *,
    N: int,
    M: int,
    rf: int = 1,
    clip: int = 0,
    method: Method | None = None,
    seed: int = 0,
) -> PowerLawFit:
    """Fit power laws to the spectra of random matrices of one shape.

    Parameters
    ----------
    draws
        How many.
    N, M, rf
        Shape, as in `p_random`.
    clip
        So many of the largest eigenvalues are left out.
    method
        How to fit, the threshold excepted: it is "relative".
    seed
        One seed gives the same draws of a shape always; more draws begin with the same ones.

    Returns
    -------
    PowerLawFit
        Float64 NumPy arrays (draws,).

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.trust.null import random_fits
    >>> alpha = random_fits(200, N=64, M=64).alpha
    >>> bool(np.mean((alpha > 2) & (alpha < 6)) > 0.6)
    True
    """
    N, M = max(N, M), min(N, M)
    rng = np.random.default_rng([seed, rf, N, M])
    fit = functools.partial(
        _fit_many, clip=clip, method=(method or Method())._replace(threshold="relative")
    )
    # Inside somebody's trace this still computes now: shapes and seed are known.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        parts = [jax.device_get(fit(_spectra(rng, N, M, rf))) for _ in range(-(-draws // _CHUNK))]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:draws], *parts)


def _spectra(rng: np.random.Generator, N: int, M: int, rf: int) -> ESD:
    """As many spectra as one call fits, in one of a few padded sizes."""
    evals = random_evals(rng, N, M, _CHUNK, rf)
    size = 64
    while size < evals.shape[1]:
        size *= 4
    return ESD(
        evals=np.pad(evals, ((0, 0), (size - evals.shape[1], 0))),
        n=np.full(_CHUNK, rf * M, np.int32),
        floor=evals[:, -1] * np.finfo(np.float64).eps * N,
    )


@functools.partial(jax.jit, static_argnames="method")
def _fit_many(spectra: ESD, clip: int, method: Method) -> PowerLawFit:
    # Mapped one by one: under vmap every scan for xmin would take as long as the longest.
    return jax.lax.map(lambda esd: fit_limited(esd, Limits(clip=clip), method), spectra)


@functools.lru_cache(maxsize=4096)
def _null(rf: int, N: int, M: int, clip: int, method: Method) -> NullAlphas | None:
    """N >= M, and the method without what does not matter."""
    if not clip and method == _canonical(Method(), rf * M):
        tabulated = _from_table(rf, N, M)
        if tabulated is not None:
            return tabulated
    draws = min(MOST_DRAWS, WORK // _cost(rf, M, method))
    return _drawn(draws, rf, N, M, clip, method) if draws >= FEWEST_DRAWS else None


def _canonical(method: Method, evals: int) -> Method:
    """Forget the choices that make no difference here, so that equal nulls are one."""
    plain = Method()
    method = method._replace(threshold="relative", free_alpha=plain.free_alpha)
    if method.fix_fingers != "xmin_peak":
        method = method._replace(peak_range=plain.peak_range)
    if method.fix_fingers != "clip_xmax":
        method = method._replace(max_fingers=plain.max_fingers, finger_thresh=plain.finger_thresh)
        if evals >= SMALL_SAMPLE:
            method = method._replace(small_sample=plain.small_sample)
    return method


def _cost(rf: int, M: int, method: Method) -> int:
    """Steps of a draw: the eigenvalues, and fits that each cost a quarter of a step a pair."""
    fits = max(method.max_fingers, 1) + 1 if method.fix_fingers == "clip_xmax" else 1
    return rf * M**2 + fits * (rf * M) ** 2 // 4 + 1


def _drawn(draws: int, rf: int, N: int, M: int, clip: int, method: Method) -> NullAlphas | None:
    found = random_fits(draws, N=N, M=M, rf=rf, clip=clip, method=method).alpha
    alphas = found[~np.isnan(found)]
    if alphas.size < FEWEST_DRAWS:
        return None
    # The k-th smallest of B alphas stands at k / (B + 1).
    quantiles = np.quantile(alphas, LEVELS, method="weibull")
    return _resolved(quantiles, alphas.size, draws - alphas.size)


def _resolved(quantiles: Float[np.ndarray, " levels"], draws: int, failed: int) -> NullAlphas:
    told = np.where(np.array(LEVELS) * (draws + 1) >= 1, quantiles, 0.0)
    return NullAlphas(
        quantiles=np.maximum.accumulate(told),  # each level has a surface of its own
        draws=np.asarray(draws, np.int32),
        failed=np.asarray(failed, np.int32),
    )


def _from_table(rf: int, N: int, M: int) -> NullAlphas | None:
    """The surface through the table, within the table."""
    table = _table()
    sides, longest = table.get(f"M_{rf}"), table["Q"][-1]
    if sides is None or not (sides[0] <= M <= sides[-1] and longest >= N / M):
        return None
    draws = table[f"draws_{rf}"][np.searchsorted(sides, M)]  # of the larger side: they are fewer
    logs = terms(np.asarray(N), np.asarray(M)) @ table[f"coefficients_{rf}"]
    return _resolved(np.exp(logs), int(draws), 0)


def terms(N: Int[np.ndarray, "*s"], M: Int[np.ndarray, "*s"]) -> Float[np.ndarray, "*s terms"]:
    """What log(alpha) is a linear function of: monomials in log(M) and log(1 + sqrt(N / M)).

    The edge of a random spectrum lies at (1 + sqrt(N / M))^2 times M / N: in its logarithm the
    quantiles are nearly straight from square matrices to very long ones.
    """
    x, y = np.log(M), np.log1p(np.sqrt(N / M))
    powers = [(i, k) for i in range(DEGREE + 1) for k in range(DEGREE + 1 - i)]
    return np.stack([x**i * y**k for i, k in powers], axis=-1)


@functools.cache
def _table() -> dict[str, np.ndarray]:
    with (resources.files("wwfunc.trust") / "null.npz").open("rb") as file:
        return dict(np.load(file, allow_pickle=False))
