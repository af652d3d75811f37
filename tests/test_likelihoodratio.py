"""The likelihood-ratio test against powerlaw 1.5's, and where that one loses its digits."""

from __future__ import annotations

import jax
import mpmath
import numpy as np
import powerlaw
import pytest

import wwfunc
from wwfunc.trust.likelihoodratio import loglikelihood_ratio

TOLERANCE = 1e-10


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shift", [-0.3, -0.01, 0.0, 0.02, 0.4])
@pytest.mark.parametrize("n", [2, 30, 500])
def test_equals_powerlaw(n, shift, nested):
    rng = np.random.default_rng(n)
    first = rng.normal(-2.0, 1.0, n)
    second = first + rng.normal(shift, 0.5, n)
    R, p = loglikelihood_ratio(first, second, nested=nested)
    expected = powerlaw.loglikelihood_ratio(first.copy(), second.copy(), nested=nested)
    np.testing.assert_allclose([R, p], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_equals_powerlaw_on_its_own_distributions():
    x = 1.0 + np.random.default_rng(1).exponential(1.0, 200)
    first = powerlaw.Power_Law(xmin=1.0, parameters=[2.5]).loglikelihoods(x)
    second = powerlaw.Exponential(xmin=1.0, parameters=[1.0]).loglikelihoods(x)
    found = loglikelihood_ratio(first, second)
    expected = powerlaw.loglikelihood_ratio(first, second)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


def test_tiny_p_keep_their_digits():
    """powerlaw's nested p is 1 - cdf: 0 here."""
    first, second = np.zeros(100), np.full(100, 1.3)
    R, p = loglikelihood_ratio(first, second, nested=True)
    assert powerlaw.loglikelihood_ratio(first.copy(), second.copy(), nested=True)[1] == 0
    np.testing.assert_allclose(R, -130.0)
    np.testing.assert_allclose(p, float(mpmath.erfc(mpmath.sqrt(130))), rtol=1e-12)
    spread = second + np.tile([-1.0, 1.0], 50)
    np.testing.assert_allclose(
        loglikelihood_ratio(first, spread)[1],
        float(mpmath.erfc(130 / mpmath.sqrt(200))),
        rtol=1e-12,
    )


@pytest.mark.parametrize("nested", [False, True])
def test_equal_likelihoods_are_no_evidence(nested):
    same = np.random.default_rng(2).normal(size=20)
    assert loglikelihood_ratio(same, same, nested=nested) == (0.0, 1.0)
    nothing = loglikelihood_ratio(np.zeros(0), np.zeros(0), nested=nested)
    assert nothing == (0.0, 1.0) == powerlaw.loglikelihood_ratio([], [], nested=nested)


def test_mask_leaves_points_out():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 40))
    mask = rng.random(40) < 0.5
    beside = np.where(mask, first, np.nan), np.where(mask, second, np.inf)
    np.testing.assert_allclose(
        loglikelihood_ratio(*beside, mask),
        loglikelihood_ratio(first[mask], second[mask]),
        rtol=1e-12,
    )
    assert np.isnan(loglikelihood_ratio(*beside)).all()


def test_exchanging_the_two_turns_the_sign():
    first, second = np.random.default_rng(4).normal(size=(2, 40))
    R, p = loglikelihood_ratio(first, second)
    np.testing.assert_allclose(loglikelihood_ratio(second, first), (-R, p), rtol=1e-12)


def test_float32_jit_and_vmap():
    pairs = np.random.default_rng(5).normal(size=(2, 6, 40))
    single = pairs.astype(np.float32)
    together = jax.jit(jax.vmap(loglikelihood_ratio))(*single)
    assert {array.dtype for array in together} == {np.dtype(np.float32)}
    alone = np.array([loglikelihood_ratio(*pair) for pair in pairs.swapaxes(0, 1)])
    np.testing.assert_allclose(np.transpose(together), alone, rtol=1e-4, atol=1e-5)


def test_text_is_refused():
    with pytest.raises(wwfunc.InputError, match="second must hold real numbers"):
        loglikelihood_ratio(np.zeros(3), np.array(["a", "b", "c"]))
