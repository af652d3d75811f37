"""The Marchenko-Pastur law, fitted to a spectrum: sigma, the edges of the bulk, and its spikes."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Int

from wwfunc.checks import count, one_of
from wwfunc.errors import InputError
from wwfunc.options import MP_METHODS, MPMethod
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.randommatrix.density import bulk_edges
from wwfunc.randommatrix.kernelfit import fit_kernel
from wwfunc.randommatrix.noisefit import Noise, fit_noise
from wwfunc.randommatrix.tracywidom import quantile as tracy_widom
from wwfunc.spectrum import ESD, as_esd, in_range
from wwfunc.status import FIRST_FAILURE, Status


@record
class MPFit:
    """The noise in one layer and what stands out of it. Where `status` is a failure, NaN."""

    sigma: Float[Array, "*batch"]
    """Standard deviation of the entries of the noise in W."""
    sigma_mp: Float[Array, "*batch"]
    """The same where W is scaled so that its mean eigenvalue is that of Gaussian entries of
    variance 1: sigma sqrt(N) W_scale. It is 1 for noise alone."""
    W_scale: Float[Array, "*batch"]
    """The factor on W that makes the mean eigenvalue 1; also where the fit failed."""
    bulk_min: Float[Array, "*batch"]
    """Lower edge of the law, an eigenvalue of W^T W; 0 for a square matrix."""
    bulk_max: Float[Array, "*batch"]
    """Upper edge of the law."""
    edge: Float[Array, "*batch"]
    """Eigenvalues above this are spikes."""
    num_spikes: Int[Array, "*batch"]
    """How many there are; -1 where the fit failed."""
    mp_softrank: Float[Array, "*batch"]
    """`bulk_max` over the largest eigenvalue: near 1 for noise, near 0 for strong spikes."""
    status: Int[Array, "*batch"]


@verb
def mp_fit(
    evals: ESD | Float[ArrayLike, " size"],
    n: int,
    m: int,
    *,
    slices: int = 1,
    method: MPMethod = "tracy-widom",
    quantile: float = 0.99,
) -> MPFit:
    r"""Fit the Marchenko-Pastur law: how much of a spectrum is noise, and what stands out.

    Parameters
    ----------
    evals
        An `ESD`, or the eigenvalues of W^T W in any order, all of them.
    n, m
        Sides of W, in any order; of one slice where several are pooled.
    slices
        How many matrices are pooled into the spectrum.
    method
        "tracy-widom" removes spikes until Gaussian noise of variance sigma^2 explains the rest;
        "kde" is WeightWatcher's fit of the density, for parity with its numbers.
    quantile
        For "tracy-widom": with this probability noise alone shows no spike.

    Returns
    -------
    MPFit
        With `status`, a `Status` code; a failed fit is NaN.

    Raises
    ------
    OptionError
        If an option is outside its range.
    InputError
        If there are not slices times min(n, m) eigenvalues.

    Notes
    -----
    "tracy-widom" starts with the median, takes eigenvalues above the quantile of the largest one
    of noise for spikes, and estimates

    .. math:: \sigma^2 = \sum_{i > k} \lambda_i \Big/ \Big( (N - k)(M - k)
        \big(1 - \sum_{i \le k} \sigma^2 / \theta_i^2\big) \Big)

    from the others until the number of spikes k stands; :math:`\theta_i` is the singular value
    of the signal behind spike i, by which the noise loses energy to it. The edge is that of N M
    entries of noise whatever k is: with many spikes it is cautious. Where more eigenvalues are
    zero up to rounding than noise would have, the fit fails: rows and columns of zeros hold no
    noise and have to be left out of W before (`analyze` and `measure` do so), and beside an
    eigenvalue that is larger by the inverse of the precision nothing is known of the others. A
    signal that fills more than half of the spectrum is taken for a bulk. Pooled matrices are taken
    to have one sigma.
    O(size) for each step of k, mostly fewer than ten. Works under `jit` and `vmap`, and under
    `grad`, which holds the choice of spikes fixed; "kde" has no derivative.

    References
    ----------
    Marchenko, Pastur, Math. USSR Sbornik 1 (1967), doi:10.1070/SM1967v001n04ABEH001994.
    Johnstone, Annals of Statistics 29 (2001), doi:10.1214/aos/1009210544.
    Kritchman, Nadler, IEEE Trans. Signal Process. 57 (2009), doi:10.1109/TSP.2009.2022897.
    Benaych-Georges, Nadakuditi, J. Multivariate Analysis 111 (2012),
    doi:10.1016/j.jmva.2012.04.019.

    Examples
    --------
    >>> import numpy as np, wwfunc.randommatrix.marchenkopastur as mp
    >>> W = 0.2 * np.random.default_rng(0).standard_normal((600, 300))
    >>> W[:, 0] += 1.0
    >>> fit = mp.mp_fit(np.linalg.eigvalsh(W.T @ W), 600, 300)
    >>> round(float(fit.sigma), 2), int(fit.num_spikes)
    (0.2, 1)
    """
    one_of(*MP_METHODS)("method", method)
    sides = count("n", n), count("m", m)
    spectrum = _with_floor(evals, max(sides))
    expected = count("slices", slices) * min(sides)
    if not isinstance(spectrum.n, jax.core.Tracer) and int(spectrum.n) != expected:
        raise InputError(
            f"slices={slices} of n={n} by m={m} have {expected} eigenvalues, not {spectrum.n}"
        )
    return fit_bulk(spectrum, *sides, slices, tracy_widom(quantile, slices), method)


@functools.partial(jax.jit, static_argnames="method")
def fit_bulk(
    esd: ESD,
    n: int | Int[Array, ""],
    m: int | Int[Array, ""],
    slices: int | Int[Array, ""],
    tw: float | Float[Array, ""],
    method: MPMethod = "tracy-widom",
) -> MPFit:
    """`mp_fit` of an `ESD`: one program for each padded size and method."""
    if method == "kde":
        esd = jax.lax.stop_gradient(esd)  # half of a derivative is none
    dtype = esd.evals.dtype
    sides = jnp.asarray(n, dtype), jnp.asarray(m, dtype)
    longer, shorter = jnp.maximum(*sides), jnp.minimum(*sides)
    total = jnp.sum(esd.evals)
    usable = (total > 0) & jnp.isfinite(total)
    # Stand-ins keep NaN out of the gradient, not only out of the value.
    W_scale = jnp.sqrt(jnp.where(usable, esd.n / jnp.where(usable, total, 1.0), 1.0))
    largest = jnp.where(usable, esd.evals[-1], 1.0)
    if method == "kde":
        noise = _by_kernel(esd, longer, shorter, W_scale)
    else:
        pooled, level = jnp.asarray(slices, dtype), jnp.asarray(tw, dtype)
        noise = fit_noise(esd, longer, shorter, pooled, level)
    status = _status(esd, noise)
    bulk_min, bulk_max = bulk_edges(noise.sigma, longer, shorter)
    numbers = {
        "sigma": noise.sigma,
        "sigma_mp": noise.sigma * jnp.sqrt(longer) * W_scale,
        "bulk_min": bulk_min,
        "bulk_max": bulk_max,
        "edge": noise.edge,
        "mp_softrank": bulk_max / largest,
    }
    found = status < FIRST_FAILURE
    return MPFit(
        **{name: jnp.where(found, number, jnp.nan) for name, number in numbers.items()},
        W_scale=jnp.where(usable, W_scale, jnp.nan),
        num_spikes=jnp.where(found, jnp.sum(esd.evals > noise.edge, dtype=jnp.int32), -1),
        status=status,
    )


def _by_kernel(
    esd: ESD, n: Float[Array, ""], m: Float[Array, ""], W_scale: Float[Array, ""]
) -> Noise:
    r"""WeightWatcher's sigma; a spike is beyond the edge by the root of a width.

    .. math:: \lambda_+ + \sqrt{\lambda_+^{2/3} M^{-2/3} Q^{-1/2}}

    in units in which the mean eigenvalue is 1. NaN where its search failed.
    """
    sigma_mp, _ = fit_kernel(esd, n, m)
    upper = (sigma_mp * (1.0 + jnp.sqrt(m / n))) ** 2
    edge = upper + jnp.sqrt(jnp.cbrt(upper / m) ** 2 * jnp.sqrt(m / n))
    sigma = sigma_mp / (jnp.sqrt(n) * W_scale)
    return Noise(sigma=sigma, edge=edge / W_scale**2, unresolved=jnp.bool_(False))


def _status(esd: ESD, noise: Noise) -> Int[Array, ""]:
    outcomes = [
        (~in_range(esd), Status.NOT_FINITE),
        (esd.n == 0, Status.TAIL_TOO_SHORT),
        (esd.evals[-1] == 0, Status.ALL_ZERO),
        (jnp.isnan(noise.sigma), Status.NO_BULK),
        (noise.unresolved, Status.NULL_SPACE),
    ]
    reasons = [reason for reason, _ in outcomes]
    codes = [jnp.int32(status) for _, status in outcomes]
    return jnp.select(reasons, codes, jnp.int32(Status.SUCCESS))


def _with_floor(evals: ESD | Float[ArrayLike, " size"], longer: int) -> ESD:
    """As an `ESD`; bare eigenvalues have the floor that those of a matrix of this size have."""
    spectrum = as_esd(evals)
    if isinstance(evals, ESD):
        return spectrum
    floor = spectrum.evals[-1] * (jnp.finfo(spectrum.evals.dtype).eps * longer)
    return dataclasses.replace(spectrum, floor=floor)
