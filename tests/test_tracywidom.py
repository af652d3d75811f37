"""The Tracy-Widom law: published digits, the law of order 2, and simulated eigenvalues."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import airy

import wwfunc
from wwfunc.randommatrix import tracywidom
from wwfunc.randommatrix.tracywidom import distribution, largest_eigenvalue, quantile

PUBLISHED = [
    *[(0.05, -3.1804), (0.1, -2.7824), (0.5, -1.2686)],
    *[(0.9, 0.4501), (0.95, 0.9793), (0.99, 2.0234)],
]
"""To the four digits of the usual tables; Johnstone (2001) has two of them."""

MOMENTS = (-1.2065335745820, 1.607781034581, 0.29346452408, 0.1652429384)
"""Mean, variance, skewness and excess kurtosis: Bornemann (2010), table 4."""

F2_AT_MINUS_2 = 0.413224142505123
"""The law of order 2 at -2: Bornemann (2010), section 6."""


@pytest.mark.parametrize(("p", "s"), PUBLISHED)
def test_quantiles_are_the_published_ones(p, s):
    assert quantile(p) == pytest.approx(s, abs=6e-5)


def test_moments_are_the_published_ones():
    """From integrals of the distribution function by parts, with steps at zero."""
    below, above = _gauss(-10.0, 0.0), _gauss(0.0, 12.0)
    raw = []
    left, right = [np.array([distribution(s) for s in side[0]]) for side in (below, above)]
    for power in (1, 2, 3, 4):
        negative = np.sum(below[1] * below[0] ** (power - 1) * left)
        positive = np.sum(above[1] * above[0] ** (power - 1) * (1 - right))
        raw.append(power * (positive - negative))
    mean, second, third, fourth = raw
    variance = second - mean**2
    skewness = (third - 3 * mean * second + 2 * mean**3) / variance**1.5
    central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    found = mean, variance, skewness, central / variance**2 - 3
    np.testing.assert_allclose(found, MOMENTS, rtol=0, atol=1e-9)


def _gauss(low, high, nodes=40):
    x, w = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (x + 1) / 2, w * (high - low) / 2


def test_the_law_of_order_2_follows():
    """det(1 - K) is F1, and det(1 - K) det(1 + K) is F2."""
    x, w = _gauss(0.0, 40.0, 60)
    kernel = np.sqrt(w[:, None] * w) * airy((x[:, None] + x) / 2 - 2.0)[0] / 2
    other = np.linalg.det(np.eye(len(x)) + kernel)
    assert distribution(-2.0) * other == pytest.approx(F2_AT_MINUS_2, abs=1e-13)


@pytest.mark.parametrize("p", [0.9, 0.95, 0.99, 0.999, 0.99 ** (1 / 9), 0.999999])
def test_the_series_is_the_determinant(p):
    exact = tracywidom._root(-np.log(p))
    assert quantile(p) == pytest.approx(exact, abs=5e-11)
    assert distribution(quantile(p)) == pytest.approx(p, abs=1e-11)


@given(p=st.floats(1e-4, 1 - 1e-6))
@settings(max_examples=12, deadline=None)
def test_quantile_inverts_the_distribution(p):
    assert distribution(quantile(p)) == pytest.approx(p, abs=1e-12)


def test_far_out():
    """Its tail, exp(-2 s^(3/2) / 3) / (4 sqrt(pi) s^(3/2)) to leading order, and what is no bar."""
    s = quantile(1 - 1e-12)
    leading = np.exp(-2 / 3 * s**1.5) / (4 * np.sqrt(np.pi) * s**1.5)
    assert leading == pytest.approx(1e-12, rel=0.1)
    assert quantile(1e-9) < quantile(1e-6) < -6
    assert distribution(-12.0) == pytest.approx(0.0, abs=1e-15)
    assert distribution(20.0) == 1.0


@pytest.mark.parametrize(("p", "of"), [(0.99, 9), (0.5, 4), (0.999, 25)])
def test_the_largest_of_several(p, of):
    assert quantile(p, of) == pytest.approx(quantile(p ** (1 / of)), abs=1e-10)
    assert distribution(quantile(p, of)) ** of == pytest.approx(p, abs=1e-10)


@pytest.mark.parametrize("p", [0, 1, 1.5, -0.1, float("nan"), "0.99", None, True])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(wwfunc.OptionError, match="above 0 and under 1"):
        quantile(p)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (300, 100), (1000, 20)])
def test_simulated_largest_eigenvalues(n, m):
    """4,000 Gaussian matrices: the shares beyond four quantiles are what they should be."""
    count = 4000
    rng = np.random.default_rng([n, m])
    largest = np.array([_largest(rng, n, m) for _ in range(count)])
    for p in (0.5, 0.9, 0.95, 0.99):
        beyond = np.mean(largest > float(largest_eigenvalue(n, m, quantile(p))))
        error = np.sqrt(p * (1 - p) / count)
        assert abs(beyond - (1 - p)) < 3.5 * error + 0.004, p


def _largest(rng, n, m):
    diagonal = rng.chisquare(n - np.arange(m))
    above = rng.chisquare(np.arange(m - 1, 0, -1))
    beside = np.sqrt(diagonal[:-1] * above)
    diagonal[1:] += above
    return eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(m - 1, m - 1))[0]


def test_johnstones_centring():
    roots = np.sqrt(299.5), np.sqrt(99.5)
    scale = sum(roots) * (1 / roots[0] + 1 / roots[1]) ** (1 / 3)
    expected = sum(roots) ** 2 + 2.0 * scale
    assert float(largest_eigenvalue(300, 100, 2.0)) == pytest.approx(expected, rel=1e-6)
    assert float(largest_eigenvalue(100, 300, 2.0)) == pytest.approx(expected, rel=1e-6)


def test_the_precision_is_that_of_the_input():
    n, m = jnp.float32(300), jnp.float32(100)
    assert largest_eigenvalue(n, m, 2.0).dtype == jnp.float32
    with jax.enable_x64(True):
        assert largest_eigenvalue(n, m, 2.0).dtype == jnp.float32
        assert largest_eigenvalue(np.float64(300), m, 2.0).dtype == jnp.float64
    batch = jax.jit(jax.vmap(largest_eigenvalue, (0, None, None)))(jnp.arange(1.0, 9.0), 3.0, 1.0)
    assert np.all(np.diff(batch) > 0)


def test_usual_quantiles_need_no_scipy():
    code = """
import sys
from wwfunc.randommatrix.tracywidom import quantile
quantile(0.99), quantile(0.999), quantile(0.99, 9)
assert "scipy" not in sys.modules
quantile(0.5)
assert "scipy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
