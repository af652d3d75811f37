"""The truncated lognormal against mpmath, from far below its mean to far above."""

from __future__ import annotations

import jax
import mpmath
import numpy as np
import pytest
from scipy import stats

from wwfunc.trust import lognormal

maximise, log_density = jax.jit(lognormal.maximise), jax.jit(lognormal.log_density)

C = [-9000.0, -300.0, -40.0, -6.0, -4.001, -3.999, -2.0, -0.5, 0.0, 0.7, 3.0, 12.0, 4e3, 1e6]


def moments(c):
    """Mean of a unit normal of mean c truncated to v >= 0, and its relative variance, exact."""
    with mpmath.workdps(80):
        c = mpmath.mpf(c)
        h = mpmath.npdf(c) / mpmath.ncdf(c)
        mean = c + h
        return mean, (1 - h * mean) / mean**2


@jax.enable_x64(True)
@pytest.mark.parametrize("c", C)
def test_the_maximum_has_the_moments_of_the_sample(c):
    """Given exact moments, c and s come back; s = 2.5 here."""
    mean, relative_variance = moments(c)
    if c < 0:  # what counts there is the difference to 1
        assert 0 < 1 - relative_variance < 2 / c**2
    else:
        assert relative_variance * mpmath.mpf(c) ** 2 <= 1
    found, s = maximise(float(2.5 * mean), float(relative_variance))
    # The closed forms cancel down to FAR; beyond it only the given moments are rounded.
    lost = np.finfo(float).eps / float(1 - relative_variance)
    np.testing.assert_allclose(found, c, rtol=3e-11 + lost, atol=1e-12)
    np.testing.assert_allclose(s, 2.5, rtol=3e-11 + lost)


@jax.enable_x64(True)
@pytest.mark.parametrize("c", C)
def test_density(c):
    s = 2.5
    v = np.array([0.0, 0.1, 1.0, 3.0]) * float(moments(c)[0])
    found = log_density(v * s, np.float64(c), np.float64(s))
    with mpmath.workdps(80):
        exact = [float(mpmath.log(mpmath.npdf(mpmath.mpf(x), c) / mpmath.ncdf(c) / s)) for x in v]
    # Where c is large the points are a millionth of themselves apart.
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12 * max(1.0, c))


@jax.enable_x64(True)
@pytest.mark.parametrize(("m", "s"), [(0.8, 0.6), (0.0, 1.0), (-1.0, 1.2)])
def test_planted_parameters_come_back(m, s):
    """The median over 400 samples of 4,000, within three of its standard errors."""
    rng = np.random.default_rng(7)
    drawn = stats.truncnorm.rvs(-m / s, np.inf, m, s, size=(400, 4000), random_state=rng)
    mean = drawn.mean(axis=1)
    found_c, found_s = jax.vmap(maximise)(mean, drawn.var(axis=1) / mean**2)
    for found, truth in ((found_c, m / s), (found_s, s)):
        error = 1.2533 * np.std(found) / np.sqrt(len(found))
        assert abs(np.median(found) - truth) < 3 * error
        assert error < 0.01 * max(1.0, abs(truth)), "an error of a few percent would show"
