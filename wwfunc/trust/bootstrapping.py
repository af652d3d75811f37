"""Percentile intervals of alpha and xmin from resampled spectra."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Int

from wwfunc.errors import OptionError
from wwfunc.fits.powerlaw import fit_limited
from wwfunc.fits.tail import Limits
from wwfunc.keys import check_key
from wwfunc.options import Method, Options
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd
from wwfunc.status import FIRST_FAILURE
from wwfunc.trust.resampling import (
    asked_to_resample,
    drawn,
    eigenvalues_at,
    uniform_ranks,
)


@record
class Bootstrap:
    """Intervals that hold most refits of resampled eigenvalues; NaN where the fit failed."""

    alpha_low: Float[Array, "*batch"]
    alpha_high: Float[Array, "*batch"]
    xmin_low: Float[Array, "*batch"]
    xmin_high: Float[Array, "*batch"]
    failed_share: Float[Array, "*batch"]
    """Share of the replicates whose own fit failed: the intervals leave them out."""
    status: Int[Array, "*batch"]
    """That of the fit to the eigenvalues themselves."""


@verb
def bootstrap(
    evals: ESD | Float[ArrayLike, " n"],
    key: Array,
    options: Options | None = None,
    *,
    level: float = 0.95,
    **changes: Any,
) -> Bootstrap:
    r"""Compute percentile bootstrap intervals of the power law's alpha and xmin.

    .. math:: [\hat\alpha^*_{(1 - level) / 2}, \; \hat\alpha^*_{(1 + level) / 2}]

    are quantiles of alpha over replicates, each of which draws n of the n eigenvalues with
    replacement and looks for its own xmin.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    key
        A random key, of `jax.random.key` or `jax.random.PRNGKey`. The same key gives the same
        intervals.
    options
        How to fit (see `fit_pl`), and `replicates`.
    level
        Share of the replicates inside the interval, between 0 and 1.
    **changes
        Options by name.

    Returns
    -------
    Bootstrap
        With `status`, a `Status` code; NaN where the fit failed.

    Raises
    ------
    InputError
        If `key` is no random key.
    OptionError
        If an option is outside its range, or asks for a truncated power law.

    Notes
    -----
    Every replicate is fitted as the eigenvalues are: the limits and finger fixes hold in each.
    One replicate after another: O(n) memory. "clip_xmax" takes `max_fingers` times as long.

    Draws are independent and the eigenvalues of a matrix are not: they repel each other, and lie
    more evenly than draws do. For a spectrum the interval is indicative.

    References
    ----------
    Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc
    >>> evals = (1 - np.random.default_rng(0).random(300)) ** (-1 / 2)  # alpha = 3
    >>> found = wwfunc.bootstrap(evals, jax.random.key(0), replicates=200)
    >>> bool(found.alpha_low < 3 < found.alpha_high)
    True
    """
    limits, method, replicates = asked_to_resample(options, changes)
    if not isinstance(level, Array) and not 0 < level < 1:
        raise OptionError(f"level is a share between 0 and 1, not {level!r}")
    esd, one_key = as_esd(evals), check_key(key)
    return bootstrap_fit(esd, one_key, limits, method, replicates=replicates, level=level)


@functools.partial(jax.jit, static_argnames=("method", "replicates"))
def bootstrap_fit(
    esd: ESD,
    key: Array,
    limits: Limits,
    method: Method,
    *,
    replicates: int,
    level: Float[ArrayLike, ""] = 0.95,
) -> Bootstrap:
    """`bootstrap` of an `ESD` within `Limits`."""
    esd, limits = jax.lax.stop_gradient((esd, limits))

    def refit(own_key: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
        fit = fit_limited(_resampled(esd, own_key), limits, method)
        return fit.alpha, fit.xmin

    alphas, xmins = jax.lax.map(refit, jax.random.split(key, replicates))
    status = fit_limited(esd, limits, method).status
    ends = 0.5 + jnp.asarray([-0.5, 0.5], alphas.dtype) * level

    def interval(values: Float[Array, " replicates"]) -> Float[Array, " ends"]:
        return jnp.where(status < FIRST_FAILURE, jnp.nanquantile(values, ends), jnp.nan)

    (alpha_low, alpha_high), (xmin_low, xmin_high) = interval(alphas), interval(xmins)
    return Bootstrap(
        alpha_low=alpha_low,
        alpha_high=alpha_high,
        xmin_low=xmin_low,
        xmin_high=xmin_high,
        failed_share=jnp.mean(jnp.isnan(alphas), dtype=alphas.dtype),
        status=status,
    )


def _resampled(esd: ESD, key: Array) -> ESD:
    """As many draws from the eigenvalues, with replacement."""
    ranks = uniform_ranks(key, esd.evals.size, esd.n, esd.evals.dtype)
    return drawn(esd, eigenvalues_at(esd, ranks))
