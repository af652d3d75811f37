"""Planted truncated power laws with xmin given: how often the estimates hold what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import jax
import mpmath
import numpy as np

from validation.finding import Finding, at_most, share
from wwfunc.fits.expintegral import log_expint
from wwfunc.fits.tail import asked
from wwfunc.fits.truncated import TruncatedPowerLawFit, fit_truncated
from wwfunc.spectrum import ESD
from wwfunc.status import Status

FULL = 600
"""50 samples of each of the 12 settings."""
ALPHAS = (1.5, 2.0, 2.5, 3.0)
CUT_OFFS = (0.1, 0.3, 0.5)
"""Lambda xmin."""
POINTS, SIZE = 2000, 2048
WITHIN = 3.0
"""Standard errors."""


def campaign(cases: int) -> Iterator[Finding]:
    """Planted samples in equal numbers for each setting, and the normaliser against mpmath."""
    settings = list(itertools.product(ALPHAS, CUT_OFFS))
    truth = np.repeat(settings, max(cases // len(settings), 1), axis=0)
    rng = np.random.default_rng(4)
    samples = np.stack([planted(rng, POINTS, alpha, z) for alpha, z in truth])
    fits = fit_all(samples)
    estimates = {
        "alpha": (fits.alpha, truth[:, 0], fits.sigma),
        "Lambda": (fits.Lambda, truth[:, 1], fits.sigma_Lambda),
    }
    for name, (found, planted_value, sigma) in estimates.items():
        # An estimate on a bound has no standard error: it counts as a miss.
        hits = int(np.sum(np.abs(found - planted_value) <= WITHIN * sigma))
        what = f"TPL, n = {POINTS:,}, xmin given: {name} within {WITHIN:g} standard errors"
        yield share(what, hits, len(truth), low=0.98, high=1.0, full=FULL)
    on_bound = int(np.sum(fits.status != Status.SUCCESS))
    yield Finding(
        what="TPL: estimates of these that stopped at a bound",
        asked="",
        measured=f"{on_bound} of {len(truth):,}",
    )
    largest = float(np.max(fits.gradient))
    yield at_most("TPL: largest projected gradient of these fits", largest, 1e-8)
    yield at_most("log E_alpha(z), alpha 1 to 10, z 1e-8 to 100: error", worst_normaliser(), 1e-11)


def planted(rng: np.random.Generator, n: int, alpha: float, z: float) -> np.ndarray:
    """Draw n points of p(t) ~ t^-alpha exp(-z t), t >= 1, by rejection from an exponential."""
    drawn = np.empty(0)
    while drawn.size < n:
        t = 1.0 + rng.exponential(1.0 / z, 4 * n)
        drawn = np.concatenate([drawn, t[rng.random(t.size) < t**-alpha]])
    return drawn[:n]


def fit_all(samples: np.ndarray) -> TruncatedPowerLawFit:
    """Fit each row from xmin = 1 on."""
    limits, method = asked(fit="TPL", xmin=np.array(1.0))
    padded = np.pad(np.sort(samples), ((0, 0), (SIZE - samples.shape[1], 0)))

    def fit(evals: jax.Array) -> TruncatedPowerLawFit:
        n, floor = np.int32(samples.shape[1]), np.float64(0.0)
        return fit_truncated(ESD(evals=evals, n=n, floor=floor), limits, method)

    with jax.enable_x64(True):
        return jax.device_get(jax.lax.map(fit, padded))


def worst_normaliser() -> float:
    """Largest error of log E over a grid; mpmath's expint is the truth."""
    alphas, zs = np.linspace(1.0, 10.0, 13), np.geomspace(1e-8, 100.0, 11)
    with jax.enable_x64(True):
        found = np.asarray(log_expint(alphas[:, None], zs))
    with mpmath.workdps(40):
        truth = [[float(mpmath.log(mpmath.expint(a, z))) for z in zs] for a in alphas]
    return float(np.max(np.abs(found - np.array(truth))))
