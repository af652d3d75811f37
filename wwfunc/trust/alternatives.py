"""Whether another distribution than a power law fits a tail as well: likelihood ratios."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.fits import truncatedlikelihood
from wwfunc.fits.expintegral import log_expint
from wwfunc.fits.powerlaw import fit_limited
from wwfunc.fits.tail import SHORTEST_TAIL, Limits, Tail, asked, tail_of
from wwfunc.options import KS, FixFingers, Method, PeakRange, SmallSample, Threshold
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd, in_range
from wwfunc.trust import lognormal, stretched
from wwfunc.trust.likelihoodratio import ratio_of

EXPONENTIAL = 1.0
"""The beta that makes a stretched exponential an exponential."""


@record
class LikelihoodRatio:
    """A power law against one alternative, each at its own maximum."""

    R: Float[Array, "*batch"]
    """Natural logarithm of the ratio of the likelihoods: positive favours the power law."""
    p: Float[Array, "*batch"]
    """How often chance alone would favour either so much: above 0.05 or so they cannot be told
    apart."""
    loglikelihood: Float[Array, "*batch"]
    """The alternative's: sum of log p(x) over the tail, in nats."""
    limit: Bool[Array, "*batch"]
    """Whether the alternative is most likely where it is the power law itself: R is 0, p is 1."""


@record
class Alternatives:
    """A power law against each alternative."""

    exponential: LikelihoodRatio
    lognormal: LikelihoodRatio
    stretched_exponential: LikelihoodRatio
    truncated: LikelihoodRatio
    """Nested: Lambda = 0 is the power law."""


@verb
def compare_alternatives(
    evals: ESD | Float[ArrayLike, " n"],
    *,
    xmin: float | None = None,
    xmin_min: float | None = None,
    xmin_max: float | None = None,
    xmax: int | float | None = None,
    fix_fingers: FixFingers | None = None,
    peak_range: PeakRange = "intended",
    max_fingers: int = 9,
    finger_thresh: float = 1.0,
    threshold: Threshold = "absolute",
    small_sample: SmallSample = "corrected",
    ks: KS = "one-sided",
    free_alpha: bool = False,
) -> Alternatives:
    r"""Compare a power law with other distributions of the same tail, x >= xmin.

    .. math:: R = \sum_i \ln \frac{p(x_i)}{q(x_i)}, \quad
       p = \operatorname{erfc} \frac{|R|}{\sqrt{2 n}\, \sigma}, \quad
       \sigma^2 = \frac1n \sum_i \Bigl( \ln \frac{p(x_i)}{q(x_i)} - \frac R n \Bigr)^2

    ================  ===============================================================
    exponential       q ~ exp(-lambda x)
    lognormal         q ~ exp(-(log x - mu)^2 / (2 sigma^2)) / x
    stretched         q ~ x^(beta - 1) exp(-(lambda x)^beta), beta > 0
    truncated         q ~ x^-alpha exp(-Lambda x); p is that of chi^2 = 2 \|R\|
    ================  ===============================================================

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    xmin, xmin_min, xmin_max, xmax
        As for `fit_pl`, which chooses the tail; what it leaves out is left out here too.
    fix_fingers, peak_range, max_fingers, finger_thresh, threshold, small_sample, ks
        As for `fit_pl`.
    free_alpha
        Let the truncated power law's alpha fall under 1, down to -5.

    Returns
    -------
    Alternatives
        With a `LikelihoodRatio` for each; NaN where no power law could be fitted.

    Raises
    ------
    OptionError
        If an option is outside its range. Limits may be arrays too, also traced ones; then they
        are not checked.

    Notes
    -----
    O(n) a distribution, after `fit_pl`. Every likelihood is at its maximum, the power law's too:
    a small sample's correction of alpha is not in it. The lognormal and the stretched exponential
    approach the power law as sigma grows and as beta falls to 0; where mean(y^2) is at least
    2 mean(y)^2, y = log(x / xmin), they are most likely in that limit and cannot be told from it.
    So they are taken to be where it is less by a relative sqrt(eps): the likelihood that this
    costs, about n eps / 8, is rounding. Where all x are equal and above xmin both have no maximum
    and are NaN.

    Vuong's p supposes that the points are independent, xmin was known and neither family holds the
    other. Lognormal and stretched exponential hold the power law in their limit, so their p is too
    large: under 0.05 for 0.1 % of true power laws, n = 200. The chi^2 of the nested one supposes
    that Lambda could be negative, so its p is up to twice too large: under 0.05 for 3 to 5 %.

    References
    ----------
    Vuong, Econometrica 57 (1989), doi:10.2307/1912557.
    Clauset, Shalizi, Newman, SIAM Review 51 (2009), section 5, doi:10.1137/070710111.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> evals = np.random.default_rng(0).lognormal(0.0, 0.5, 2000)
    >>> found = wwfunc.compare_alternatives(evals, xmin=1.0)
    >>> bool(found.lognormal.R < 0), bool(found.lognormal.p < 0.001)
    (True, True)
    """
    limits, method = asked(
        xmin=xmin,
        xmin_min=xmin_min,
        xmin_max=xmin_max,
        xmax=xmax,
        fix_fingers=fix_fingers,
        peak_range=peak_range,
        max_fingers=max_fingers,
        finger_thresh=finger_thresh,
        threshold=threshold,
        small_sample=small_sample,
        ks=ks,
        free_alpha=free_alpha,
    )
    esd = as_esd(evals)
    fit = fit_limited(esd, limits, method)
    return alternatives_at(esd, limits, method, fit.xmin, fit.num_fingers)


def alternatives_at(
    esd: ESD,
    limits: Limits,
    method: Method,
    xmin: Float[Array, ""],
    num_fingers: Int[Array, ""] | int = 0,
) -> Alternatives:
    """`compare_alternatives` at the xmin of a fit that is at hand; NaN where that failed."""
    # Where xmin was looked for, and how, is past: one program serves all those choices.
    within = Limits(xmin=xmin, xmax=limits.xmax, clip=limits.clip + num_fingers)
    return _alternatives_within(esd, within, xmin, method.threshold, method.free_alpha)


@functools.partial(jax.jit, static_argnames=("threshold", "free_alpha"))
def _alternatives_within(
    esd: ESD, limits: Limits, xmin: Float[Array, ""], threshold: Threshold, free_alpha: bool
) -> Alternatives:
    tail = tail_of(esd, limits, threshold)
    log_xmin = jnp.log(xmin) - tail.log_scale
    start = jnp.argmax(tail.fitted)
    found = in_range(esd) & tail.fitted[start]
    return alternatives_of(tail, start, log_xmin, found, free_alpha=free_alpha)


def alternatives_of(
    tail: Tail,
    start: Int[Array, ""],
    log_xmin: Float[Array, ""],
    found: Bool[Array, ""],
    *,
    free_alpha: bool = False,
) -> Alternatives:
    """Compare over the tail from entry `start` on; `log_xmin` is relative to the tail's scale."""
    sample = _sample(*jax.lax.stop_gradient((tail, start, log_xmin, found)))
    y, mask = sample.y, sample.mask
    # Where there is no inner maximum there is nothing to solve: any number that harms nothing.
    c, s = lognormal.maximise(sample.mean, jnp.where(sample.inner, sample.relative_variance, 0.5))
    beta = jnp.where(sample.inner, stretched.maximise(y, mask), EXPONENTIAL)
    exponential, stretched_exponential = stretched.log_density(
        y, mask, jnp.stack([jnp.full_like(beta, EXPONENTIAL), beta])
    )
    return Alternatives(
        exponential=_against(sample, exponential, sample.found, sample.found),
        lognormal=_against(sample, lognormal.log_density(y, c, s), sample.inner, sample.spread),
        stretched_exponential=_against(sample, stretched_exponential, sample.inner, sample.spread),
        truncated=_truncated(sample, free_alpha),
    )


class _Sample(NamedTuple):
    """A tail in logarithms."""

    y: Float[Array, " n"]
    """log(x / xmin); 0 beside `mask`."""
    mask: Bool[Array, " n"]
    log_x: Float[Array, " n"]
    """0 beside `mask`."""
    power_law: Float[Array, " n"]
    """Logarithm of the power law's density of y."""
    mean: Float[Array, ""]
    """Of y."""
    relative_variance: Float[Array, ""]
    """mean(y^2) / mean(y)^2 - 1, a power law's being 1."""
    found: Bool[Array, ""]
    """Whether there is a tail, and a power law."""
    spread: Bool[Array, ""]
    """Whether y differ by more than rounding: else most densities have no largest value."""
    inner: Bool[Array, ""]
    """Whether lognormal and stretched exponential are most likely off their power-law limit."""


def _sample(
    tail: Tail, start: Int[Array, ""], log_xmin: Float[Array, ""], found: Bool[Array, ""]
) -> _Sample:
    mask = tail.fitted & (jnp.arange(tail.fitted.size) >= start) & found
    n = jnp.maximum(jnp.sum(mask), 1)
    y = jnp.where(mask, jnp.maximum(tail.log_evals - log_xmin, 0.0), 0.0)
    mean = jnp.sum(y) / n
    variance = jnp.sum(jnp.where(mask, (y - mean) ** 2, 0.0)) / n
    eps = jnp.finfo(y.dtype).eps
    rounding = 8 * eps * (1.0 + jnp.abs(log_xmin))
    found &= (n >= SHORTEST_TAIL) & (mean > rounding)
    spread = found & (jnp.sqrt(variance) > rounding)
    relative_variance = variance / jnp.where(found, mean, 1.0) ** 2
    return _Sample(
        y=y,
        mask=mask,
        log_x=jnp.where(mask, tail.log_evals + tail.log_scale, 0.0),
        power_law=-jnp.log(mean) - y / mean,
        mean=mean,
        relative_variance=relative_variance,
        found=found,
        spread=spread,
        inner=spread & (1.0 - relative_variance > jnp.sqrt(eps)),
    )


def _truncated(sample: _Sample, free: bool) -> LikelihoodRatio:
    """The power law itself where Lambda is 0, or gains nothing but rounding."""
    t = jnp.exp(sample.y)
    mean_ratio = jnp.sum(jnp.where(sample.mask, t, 0.0)) / jnp.sum(sample.mask)
    alpha, z = truncatedlikelihood.maximise(sample.mean, mean_ratio, free=free)
    log_density = (1.0 - alpha) * sample.y - z * t - log_expint(alpha, z)
    gain = jnp.where(sample.mask, log_density - sample.power_law, 0.0)
    limit = (z == 0) | (jnp.sum(gain) <= 0)
    return _against(sample, log_density, ~limit, sample.found, nested=True)


def _against(
    sample: _Sample,
    log_density: Float[Array, " n"],
    inner: Bool[Array, ""],
    valid: Bool[Array, ""],
    *,
    nested: bool = False,
) -> LikelihoodRatio:
    """The power law against an alternative, which is the power law itself where not `inner`."""
    log_density = jnp.where(inner, log_density, sample.power_law)
    R, p = ratio_of(sample.power_law, log_density, sample.mask, nested)
    # p(x) dx = p(y) dy
    total = jnp.sum(jnp.where(sample.mask, log_density - sample.log_x, 0.0))
    R, p, total = (jnp.where(valid, number, jnp.nan) for number in (R, p, total))
    return LikelihoodRatio(R=R, p=p, loglikelihood=total, limit=valid & ~inner)
