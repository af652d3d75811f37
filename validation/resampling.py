"""Coverage of the percentile intervals, level and power of the goodness-of-fit p-value.

The samples are independent draws; eigenvalues are not, so that all of this is a best case. Where
xmin is looked for the test is conservative on pure power laws, which it rejects less often than
its level says; with an exponential body under xmin (their eq. 3.10) it rejects slightly more.
The lognormal and the exponential are those of figure 4.1 of Clauset, Shalizi and Newman (2009),
whose message is the same: small samples of either pass for power laws, and with n their average p
falls under 0.1. With xmin looked for, that takes more: the scan moves into the far tail, where
few points are left and any curve is straight enough.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from validation.finding import Finding, share
from wwfunc import host
from wwfunc.fits.powerlaw import fit_limited
from wwfunc.fits.tail import Limits
from wwfunc.options import Method
from wwfunc.spectrum import ESD
from wwfunc.trust.bootstrapping import Bootstrap, bootstrap_fit
from wwfunc.trust.goodness import goodness_of

FULL = 500
SHORT_SHARE = 10
"""In a short campaign what is only reported takes this part of the cases."""

ALPHAS = (3.0, 2.0, 5.0)
LEVEL = 0.05
RULE_OUT = 0.1
"""Clauset, Shalizi and Newman rule the power law out up to this p."""
SIZES = (200, 500, 1000)
CURVE = (50, 100, 200, 500, 1000)
START = 15.0
"""Where the lognormal and the exponential start."""

METHOD = Method(threshold="relative")
P_VALUE, INTERVAL = 1, 2
"""First numbers of the seeds."""

Draw = Callable[[np.random.Generator, int], np.ndarray]


def campaign(cases: int) -> Iterator[Finding]:
    """Yield the level of the p-value, its power, and the coverage of the intervals."""
    short = cases < FULL
    replicates = 99 if short else 199
    few = cases // SHORT_SHARE if short else cases
    some = few if short else 2 * cases // 5
    with jax.enable_x64(True):
        yield level_with_xmin_given(4 * cases, replicates)
        for n in SIZES[:2] if short else SIZES:
            yield level_with_xmin_scanned(n, cases, replicates)
        for n in SIZES:
            yield rate_with_body(n, few, replicates)
        for name, draw in (("lognormal", lognormal), ("exponential", exponential)):
            for n in CURVE:
                yield power(name, draw, n, some, replicates)
            for n in CURVE:
                yield power(name, draw, n, some, replicates, Limits(xmin=START))
        for n in (200, 500):
            for alpha in ALPHAS[:1] if short else ALPHAS:
                yield coverage(n, alpha, cases, 2 * replicates + 1)
        yield coverage_with_body(cases, 2 * replicates + 1)


# Goodness of fit ------------------------------------------------------------------------------


def level_with_xmin_given(cases: int, replicates: int) -> Finding:
    """Ask that the test keeps its level where only alpha is fitted."""
    draw = functools.partial(pareto, alpha=2.5)
    p = p_values(draw, 200, cases, replicates, Limits(xmin=1.0))
    what = f"power laws rejected at 5 %: n = 200, xmin given, {replicates} replicates"
    return share(what, int(np.sum(p <= LEVEL)), cases, low=0.035, high=0.065, full=4 * FULL)


def level_with_xmin_scanned(n: int, cases: int, replicates: int) -> Finding:
    """Ask that it rejects no more where xmin is looked for too: by then it is conservative."""
    p = p_values(functools.partial(pareto, alpha=2.5), n, cases, replicates)
    what = f"power laws rejected at 5 %: n = {n:,}, xmin scanned (conservative)"
    return share(what, int(np.sum(p <= LEVEL)), cases, low=0.01, high=0.06, full=FULL)


def rate_with_body(n: int, cases: int, replicates: int) -> Finding:
    """Report how often a power law is rejected that has a body."""
    p = p_values(functools.partial(with_body, alpha=2.5), n, cases, replicates)
    what = f"power laws with an exponential body rejected at 5 %: n = {n:,}, alpha 2.5"
    return reported(what, p, LEVEL)


def power(
    name: str, draw: Draw, n: int, cases: int, replicates: int, limits: Limits | None = None
) -> Finding:
    """Report how often what is no power law is ruled out."""
    p = p_values(draw, n, cases, replicates, limits)
    xmin = "scanned" if limits is None else "given"
    what = f"{name} samples ruled out at p of 0.1 or less: n = {n:,}, xmin {xmin}"
    return reported(what, p, RULE_OUT)


def reported(what: str, p: np.ndarray, bound: float) -> Finding:
    """Say which share of the p-values lies within the bound."""
    measured = f"{np.mean(p <= bound):.1%} of {p.size:,}; mean p {p.mean():.2f}"
    return Finding(what=what, asked="", measured=measured)


def p_values(
    draw: Draw, n: int, cases: int, replicates: int, limits: Limits | None = None
) -> np.ndarray:
    """One p-value for each sample; all sizes share one compiled program."""
    limits = limits or Limits()
    found = []
    for case in range(cases):
        sample = spectrum(draw(np.random.default_rng((P_VALUE, n, case)), n), 1024)
        fit = fit_limited(sample, limits, METHOD)
        key = jax.random.key(case)
        found.append(goodness_of(sample, fit, key, limits, METHOD, replicates=replicates).p_value)
    return np.array(jax.device_get(found))


# Intervals ------------------------------------------------------------------------------------


def coverage(n: int, alpha: float, cases: int, replicates: int) -> Finding:
    """Ask that the intervals cover alpha as often as they say."""
    hits = covered(functools.partial(pareto, alpha=alpha), n, alpha, cases, replicates)
    what = f"95 % intervals that cover alpha {alpha:g}: n = {n:,}, {replicates} replicates"
    return share(what, hits, cases, low=0.92, high=0.98, full=FULL)


def coverage_with_body(cases: int, replicates: int) -> Finding:
    """Ask nearly the same where most of the sample is no power law."""
    hits = covered(functools.partial(with_body, alpha=3.0), 300, 3.0, cases, replicates)
    what = "95 % intervals that cover alpha 3: n = 300 with an exponential body"
    return share(what, hits, cases, low=0.91, high=0.99, full=FULL)


def covered(draw: Draw, n: int, alpha: float, cases: int, replicates: int) -> int:
    """How many intervals hold alpha."""
    return sum(
        bool(found.alpha_low <= alpha <= found.alpha_high)
        for found in intervals(draw, n, (INTERVAL, n, int(10 * alpha)), cases, replicates)
    )


def intervals(
    draw: Draw, n: int, seed: tuple[int, ...], cases: int, replicates: int
) -> Iterator[Bootstrap]:
    """One bootstrap for each sample."""
    for case in range(cases):
        sample = spectrum(draw(np.random.default_rng((*seed, case)), n), 512)
        key = jax.random.key(case)
        yield bootstrap_fit(sample, key, Limits(), METHOD, replicates=replicates)


# Samples --------------------------------------------------------------------------------------


def spectrum(sample: np.ndarray, size: int) -> ESD:
    """A sample as a padded ESD without a rounding floor."""
    return host.padded(host.as_esd(np.sort(sample), n=sample.size, floor=0.0), size)


def pareto(rng: np.random.Generator, n: int, *, alpha: float) -> np.ndarray:
    """A power law from 1 on."""
    return (1.0 - rng.random(n)) ** (-1.0 / (alpha - 1.0))


def with_body(rng: np.random.Generator, n: int, *, alpha: float) -> np.ndarray:
    """Clauset, Shalizi and Newman's eq. 3.10: exponential below xmin = 1, with equal slopes."""
    above, below = 1.0 / (alpha - 1.0), np.expm1(alpha) / alpha
    n_tail = rng.binomial(n, above / (above + below))
    body = -np.log1p(rng.random(n - n_tail) * np.expm1(-alpha)) / alpha
    return np.concatenate([body, pareto(rng, n_tail, alpha=alpha)])


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Theirs of figure 4.1: mu 0.3, sigma 2, above 15."""
    found: list[float] = []
    while len(found) < n:
        draws = rng.lognormal(0.3, 2.0, 20 * n)
        found.extend(draws[draws >= START])
    return np.array(found[:n])


def exponential(rng: np.random.Generator, n: int) -> np.ndarray:
    """Theirs of figure 4.1: lambda 0.125, above 15."""
    return START + rng.exponential(8.0, n)
