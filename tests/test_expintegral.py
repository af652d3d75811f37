"""The exponential integral against mpmath, and the moments against sums of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from wwfunc.fits.expintegral import log_expint, moments

ORDERS = [1.0, 1.001, 1.5, 2.0, 2.5, 3.0, 3.7, 5.0, 7.25, 10.0]
ARGUMENTS = [1e-8, 3e-6, 1e-4, 1e-2, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0]
BOUND = 1e-11
MOMENTS = jax.jit(lambda alpha, z: moments(jnp.asarray(alpha), jnp.asarray(z)))


def exact(alpha, z):
    with mpmath.workdps(40):
        return mpmath.log(mpmath.expint(mpmath.mpf(alpha), mpmath.mpf(z)))


def integral(function, alpha, z):
    """By mpmath's quadrature in u = log t, cut where it helps."""
    with mpmath.workdps(30):
        end = mpmath.log1p(400 / mpmath.mpf(z))
        cuts = [end * k / 24 for k in range(25)]

        def integrand(u):
            return function(u) * mpmath.exp((1 - alpha) * u - z * mpmath.expm1(u))

        return mpmath.quad(integrand, cuts)


def errors(alphas, zs):
    with jax.enable_x64(True):
        found = np.asarray(log_expint(np.array(alphas)[:, None], np.array(zs)))
    truth = [[float(exact(alpha, z)) for z in zs] for alpha in alphas]
    return np.abs(found - truth)


def test_against_mpmath():
    assert errors(ORDERS, ARGUMENTS).max() < BOUND


@pytest.mark.parametrize("alpha", [-5.0, -4.5, -2.0, -0.3, 0.0, 0.5, 0.999])
def test_orders_under_one(alpha):
    """There the integrand rises to a peak before it falls."""
    assert errors([alpha], ARGUMENTS).max() < BOUND


def test_large_orders():
    """Where mpmath's series still converge."""
    assert errors([15.0, 40.0], [1e-8, 0.1]).max() < BOUND
    # E_alpha(z) e^z -> 1 / (alpha + z), to first order: a steep start and nothing else.
    with jax.enable_x64(True):
        steep = log_expint(jnp.float64(3e7), jnp.float64(2e7)) + 2e7
    np.testing.assert_allclose(steep, -np.log(5e7), atol=1e-7)


def test_without_a_cut_off():
    with jax.enable_x64(True):
        alphas = np.array([1.001, 1.5, 2.0, 40.0])
        np.testing.assert_allclose(log_expint(alphas, 0.0), -np.log(alphas - 1), rtol=1e-13)


@pytest.mark.parametrize(("alpha", "z"), [(1.0, 0.0), (2.0, -1.0), (2.0, np.nan), (np.nan, 1.0)])
def test_outside_of_the_domain(alpha, z):
    assert np.isnan(log_expint(alpha, z))
    assert np.isnan(MOMENTS(alpha, z).mean_log)


def test_float32():
    found = log_expint(np.float32(2.5), np.float32(0.3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, float(exact(2.5, 0.3)), rtol=1e-5)


CASES = [(1.0, 1e-6), (1.7, 0.1), (-5.0, 0.7), (12.0, 40.0)]


@pytest.mark.parametrize(("alpha", "z"), CASES)
def test_moments_against_mpmath(alpha, z):
    total = integral(lambda u: 1, alpha, z)

    def mean(function):
        return integral(function, alpha, z) / total

    def q(u):
        return mpmath.expm1(u) - u

    u_bar, q_bar = mean(lambda u: u), mean(q)
    truth = {
        "log_expint": exact(alpha, z),
        "mean_log": u_bar,
        "mean_rest": q_bar,
        "mean_excess": u_bar + q_bar,
        "var_log": mean(lambda u: (u - u_bar) ** 2),
        "cov_rest": mean(lambda u: (u - u_bar) * (q(u) - q_bar)),
        "var_rest": mean(lambda u: (q(u) - q_bar) ** 2),
        "cov": mean(lambda u: (u - u_bar) * (q(u) + u - q_bar - u_bar)),
        "var_excess": mean(lambda u: (q(u) + u - q_bar - u_bar) ** 2),
    }
    with jax.enable_x64(True):
        found = MOMENTS(alpha, z)
        for name, value in truth.items():
            np.testing.assert_allclose(getattr(found, name), float(value), rtol=1e-10, err_msg=name)
        determinant = truth["var_log"] * truth["var_rest"] - truth["cov_rest"] ** 2
        np.testing.assert_allclose(found.determinant, float(determinant), rtol=1e-9)


def test_a_small_cut_off_far_away():
    """z down to eps^2 = 5e-32: E[t] = (1 - alpha + e^-z / E) / z, from mpmath."""
    for alpha, z in [(1.5, 1e-15), (1.9, 1e-22), (1.98, 5e-32), (1.2, 1e-30)]:
        with mpmath.workdps(80):
            E = mpmath.expint(mpmath.mpf(alpha), mpmath.mpf(z))
            mean = (1 - mpmath.mpf(alpha) + mpmath.exp(-mpmath.mpf(z)) / E) / mpmath.mpf(z)
        with jax.enable_x64(True):
            found = MOMENTS(alpha, z)
        np.testing.assert_allclose(found.mean_excess, float(mean - 1), rtol=1e-10)
        np.testing.assert_allclose(found.log_expint, float(mpmath.log(E)), rtol=1e-12)


def test_derivatives_are_the_moments():
    with jax.enable_x64(True):
        by_alpha, by_z = jax.jit(jax.grad(log_expint, (0, 1)))(1.7, 0.4)
        model = MOMENTS(1.7, 0.4)
        np.testing.assert_allclose([-by_alpha, -by_z - 1], [model.mean_log, model.mean_excess])
