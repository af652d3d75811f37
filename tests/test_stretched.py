"""The stretched exponential: planted truth, scipy's density, large and small exponents."""

from __future__ import annotations

import jax
import mpmath
import numpy as np
import pytest
from scipy import optimize, stats

from wwfunc.trust import stretched

maximise, log_density = jax.jit(stretched.maximise), jax.jit(stretched.log_density)


def profile(beta, y):
    """The mean log-likelihood of log(x / xmin) with kappa at its maximum, exact."""
    with mpmath.workdps(60):
        mean = mpmath.fsum(mpmath.expm1(beta * mpmath.mpf(v)) / beta for v in y) / len(y)
        return -mpmath.log(mean) + beta * mpmath.fsum(y) / len(y) - 1


SAMPLES = {
    "wide": np.random.default_rng(0).exponential(3.0, 30) ** 0.6,
    "beside a power law": np.array([0.0, 0.2, 0.5, 1.0, 1.75]) ** 1.18,
    "narrow": 5.0 + 1e-3 * np.random.default_rng(1).random(30),
    "large": 300.0 * np.random.default_rng(2).random(30),
}


@jax.enable_x64(True)
@pytest.mark.parametrize("name", SAMPLES)
def test_the_maximum(name):
    y = SAMPLES[name]
    beta = float(maximise(y, np.ones(y.size, bool)))
    assert beta > 0
    with mpmath.workdps(60):
        around = [profile(mpmath.mpf(beta) * (1 + step), y) for step in (-1e-4, 0, 1e-4)]
        slope = (around[2] - around[0]) / 2
        curvature = around[0] - 2 * around[1] + around[2]
        # Newton's step from there goes nowhere and gains nothing.
        assert curvature < 0
        assert abs(slope / curvature) * 1e-4 < 1e-8
        assert abs(slope**2 / curvature) < 1e-15
    density = log_density(y, np.ones(y.size, bool), np.float64(beta))
    np.testing.assert_allclose(density.mean(), float(around[1]), rtol=1e-11, atol=1e-12)


@jax.enable_x64(True)
@pytest.mark.parametrize(("shape", "rate"), [(0.5, 3.0), (1.0, 1.0), (2.0, 0.7)])
def test_density_is_scipy_s(shape, rate):
    x = 1.0 + np.random.default_rng(3).exponential(1.0, 40)
    y = np.log(x)

    def by_scipy(scale):
        model = stats.weibull_min(shape, scale=scale)
        return model.logpdf(x) + y - model.logsf(1.0)

    # kappa is at its maximum here, so scipy's scale is put there too.
    best = optimize.minimize_scalar(
        lambda log_scale: -by_scipy(np.exp(log_scale)).sum(),
        bracket=(-np.log(rate) - 0.5, -np.log(rate) + 0.5),
        options={"xtol": 1e-12},
    )
    found = log_density(y, np.ones(y.size, bool), np.float64(shape))
    np.testing.assert_allclose(found, by_scipy(np.exp(best.x)), rtol=1e-6, atol=1e-6)


@jax.enable_x64(True)
def test_planted_exponents_come_back():
    """The median over 300 samples of 3,000 each, within three of its standard errors."""
    rng = np.random.default_rng(8)
    planted = [(0.4, 1.0), (1.0, 0.5), (2.5, 3.0)]
    draws = [
        np.log1p(beta * rng.exponential(1.0, (300, 3000)) / kappa) / beta for beta, kappa in planted
    ]
    one = jax.jit(lambda rows: jax.lax.map(lambda y: maximise(y, np.ones(y.size, bool)), rows))
    for (beta, _), y in zip(planted, draws, strict=True):
        found = one(y)
        error = 1.2533 * np.std(found) / np.sqrt(len(found))
        assert abs(np.median(found) - beta) < 3 * error
        assert error < 0.01 * beta, "an error of a few percent would show"


@jax.enable_x64(True)
def test_what_is_masked_counts_nothing():
    y = SAMPLES["wide"]
    padded, mask = np.r_[np.zeros(7), y], np.r_[np.zeros(7, bool), np.ones(y.size, bool)]
    beta = maximise(padded, mask)
    alone = maximise(y, np.ones(y.size, bool))
    np.testing.assert_allclose(beta, alone, rtol=1e-12)
    np.testing.assert_allclose(
        log_density(padded, mask, beta)[7:],
        log_density(y, np.ones(y.size, bool), alone),
        rtol=1e-12,
    )
