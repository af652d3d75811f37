"""Goodness of fit: how often a true power law lies as far from its own fit as the ESD does."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Int

from wwfunc.fits.powerlaw import PowerLawFit, fit_limited
from wwfunc.fits.tail import Limits, tail_of
from wwfunc.keys import check_key
from wwfunc.options import Method, Options
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd
from wwfunc.trust.resampling import (
    asked_to_resample,
    drawn,
    eigenvalues_at,
    uniform_ranks,
)


@record
class GoodnessOfFit:
    """Whether a power law is a plausible model of the tail; NaN where the fit failed."""

    p_value: Float[Array, "*batch"]
    """Small where the tail is no power law. Clauset, Shalizi and Newman rule it out up to 0.1."""
    failed_share: Float[Array, "*batch"]
    """Share of the replicates whose own fit failed: the p-value leaves them out."""
    status: Int[Array, "*batch"]
    """That of the fit."""


@verb
def goodness_of_fit(
    evals: ESD | Float[ArrayLike, " n"],
    key: Array,
    options: Options | None = None,
    **changes: Any,
) -> GoodnessOfFit:
    r"""Compute the p-value of the power law by the semi-parametric bootstrap.

    .. math:: p = \frac{1 + \#\{D^*_b \ge D\}}{1 + B}

    Each of B replicates draws as many points as there are fitted eigenvalues: with probability
    n_tail / n from the fitted power law, else from the eigenvalues under xmin. Its own xmin is
    looked for, and D* is its KS distance.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    key
        A random key, of `jax.random.key` or `jax.random.PRNGKey`. The same key gives the same p.
    options
        How to fit (see `fit_pl`), and `replicates`, B.
    **changes
        Options by name.

    Returns
    -------
    GoodnessOfFit
        With `status`, a `Status` code; NaN where the fit failed.

    Raises
    ------
    InputError
        If `key` is no random key.
    OptionError
        If an option is outside its range, or asks for a truncated power law.

    Notes
    -----
    With xmin given the test keeps its level. With xmin scanned it is conservative on a power law
    that has no body, and on one with a body it rejects slightly more often than its level says:
    docs/validation.md has the rates. A large p does not make a power law: short tails are rarely
    told from anything.

    The eigenvalues that are left after `xmax` and "clip_xmax" are the sample. Replicates are drawn
    from the whole fitted law and not cut again; the other limits hold in each of them.

    1 is added to both counts, as the eigenvalues themselves are a draw under the hypothesis: p is
    never 0. One replicate after another: O(n) memory.

    References
    ----------
    Clauset, Shalizi, Newman, SIAM Review 51 (2009), section 4.1, doi:10.1137/070710111.
    Phipson, Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010), doi:10.2202/1544-6115.1585.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc
    >>> evals = (1 - np.random.default_rng(0).random(300)) ** (-1 / 2)  # alpha = 3
    >>> found = wwfunc.goodness_of_fit(evals, jax.random.key(0), replicates=200)
    >>> bool(found.p_value > 0.1)
    True
    """
    limits, method, replicates = asked_to_resample(options, changes)
    spectrum, one_key = as_esd(evals), check_key(key)
    fit = fit_limited(spectrum, limits, method)
    return goodness_of(spectrum, fit, one_key, limits, method, replicates=replicates)


@functools.partial(jax.jit, static_argnames=("method", "replicates"))
def goodness_of(
    esd: ESD, fit: PowerLawFit, key: Array, limits: Limits, method: Method, *, replicates: int
) -> GoodnessOfFit:
    """`goodness_of_fit` of what `fit_limited` found with the same `limits` and `method`."""
    esd, fit, limits = jax.lax.stop_gradient((esd, fit, limits))
    sample = _sample_of(esd, fit, limits, method)
    uncut = dataclasses.replace(limits, xmax=None, clip=0)
    unclipped = method._replace(
        fix_fingers=None if method.fix_fingers == "clip_xmax" else method.fix_fingers
    )

    def distance(own_key: Array) -> Float[Array, ""]:
        return fit_limited(_replicate(sample, fit, own_key), uncut, unclipped).D

    distances = jax.lax.map(distance, jax.random.split(key, replicates))
    fitted = jnp.sum(~jnp.isnan(distances))
    as_far = jnp.sum(distances >= fit.D)
    p_value = ((1 + as_far) / (1 + fitted)).astype(fit.D.dtype)
    return GoodnessOfFit(
        p_value=jnp.where(jnp.isnan(fit.D) | (fitted == 0), jnp.nan, p_value),
        failed_share=jnp.mean(jnp.isnan(distances), dtype=distances.dtype),
        status=fit.status,
    )


def _sample_of(esd: ESD, fit: PowerLawFit, limits: Limits, method: Method) -> ESD:
    """The eigenvalues that a tail could be made of, alone, behind their padding."""
    clip = limits.clip + fit.num_fingers
    tail = tail_of(esd, Limits(xmax=limits.xmax, clip=clip), method.threshold)
    left_out = tail.fitted.size - jnp.argmax(tail.fitted) - tail.candidates
    return drawn(dataclasses.replace(esd, n=tail.candidates), jnp.roll(esd.evals, left_out))


def _replicate(sample: ESD, fit: PowerLawFit, key: Array) -> ESD:
    """A draw of the same size from the fitted power law above xmin and the sample below.

    Ranks from the top are uniform, and this is the quantile function of that mixture at them.
    """
    size, dtype, n_tail = sample.evals.size, sample.evals.dtype, fit.num_pl_spikes
    ranks = uniform_ranks(key, size, sample.n, dtype)
    in_tail = ranks < n_tail
    log_ratio = -jnp.log(jnp.where(in_tail, ranks, 1.0) / n_tail) / (fit.alpha - 1.0)
    # Where alpha is near 1, a draw past the range of the precision stays at its end.
    most = jnp.log(jnp.finfo(dtype).max) - jnp.log(fit.xmin) - jnp.log(size) - 1.0
    above = fit.xmin * jnp.exp(jnp.minimum(log_ratio, most))
    return drawn(sample, jnp.where(in_tail, above, eigenvalues_at(sample, ranks)))
