"""The Marchenko-Pastur law: its density, edges and moments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from wwfunc.randommatrix import noisefit
from wwfunc.randommatrix.density import bulk_edges, mp_density


@pytest.mark.parametrize(("n", "m"), [(400, 100), (100, 400), (300, 299), (50, 50), (30522, 384)])
def test_density_has_the_moments_of_the_law(n, m):
    """Its integral is 1, its mean sigma^2 N, its variance sigma^4 N M (over min(N, M) values)."""
    sigma, longer, shorter = 0.3, max(n, m), min(n, m)
    low, high = (float(edge) for edge in bulk_edges(np.float64(sigma), n, m))
    middle, half = (low + high) / 2, (high - low) / 2

    def integrand(angle, power):
        x = middle + half * np.cos(angle)
        return float(mp_density(np.array([x]), sigma, n, m)[0]) * x**power * half * np.sin(angle)

    moments = [quad(integrand, 0, np.pi, power, epsabs=1e-9)[0] for power in (0, 1, 2)]
    mean = sigma**2 * longer
    expected = 1.0, mean, mean**2 + sigma**4 * longer * shorter
    np.testing.assert_allclose(moments, expected, rtol=2e-6)


def test_density_is_zero_outside():
    low, high = bulk_edges(1.0, 400, 100)
    assert (float(low), float(high)) == (pytest.approx(100.0), pytest.approx(900.0))
    x = np.array([-1.0, 0.0, 99.99, 100.01, 899.99, 900.01, np.inf])
    assert list(mp_density(x, 1.0, 400, 100) > 0) == [False] * 3 + [True] * 2 + [False] * 2
    assert float(mp_density(np.array([0.0]), 1.0, 9, 9)[0]) == 0.0
    slope = jax.grad(lambda x: mp_density(x[None], 1.0, 400, 100)[0])
    assert np.isfinite([slope(x) for x in (0.0, 100.0, 500.0, 900.0)]).all()


@pytest.mark.parametrize(("n", "m"), [(400, 100), (60, 60), (1000, 3)])
def test_the_closed_form_is_the_integral_of_the_density(n, m):
    low, high = (float(edge) for edge in bulk_edges(np.float64(1.0), n, m))
    for x in np.linspace(low, high, 5)[1:-1]:
        exact = quad(lambda x: float(mp_density(np.array([x]), 1.0, n, m)[0]), x, high)[0]
        with jax.enable_x64(True):
            found = noisefit._count_above(*map(jnp.float64, (x, n, m))) / m
            back = noisefit._quantile(found, jnp.float64(n), jnp.float64(m))
        assert float(found) == pytest.approx(exact, abs=1e-5)
        assert float(back) == pytest.approx(x, rel=1e-9)
