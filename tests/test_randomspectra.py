"""Random spectra have the law of Wishart's matrices, drawn without the matrices."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from planted import formed
from scipy import stats

import wwfunc
from wwfunc.trust.randomspectra import gaussian_esd, random_evals


def close_to_traces(evals, N, M, rf=1):
    """E tr S = M and E tr S^2 = M (N + M + 1) / N, for S = W^T W with entries of variance 1 / N.

    Means within four of their standard errors, which are small enough to show 1 %.
    """
    for power, expected in ((1, M), (2, M * (N + M + 1) / N)):
        sums = (evals**power).sum(axis=1) / rf
        error = sums.std(ddof=1) / np.sqrt(len(sums))
        assert 4 * error < 0.01 * expected, "too few draws to tell"
        assert abs(sums.mean() - expected) < 4 * error


SHAPES = [(40, 40, 1), (60, 20, 1), (12, 4, 9), (200, 1, 3)]


@pytest.mark.parametrize(("N", "M", "rf"), SHAPES)
def test_traces_are_exact(N, M, rf):
    draws = 4_000_000 // (N * M * rf)
    evals = random_evals(np.random.default_rng(N), N, M, draws, rf)
    assert evals.shape == (draws, rf * M)
    assert (np.diff(evals, axis=1) >= 0).all()
    assert (evals >= 0).all()
    close_to_traces(evals, N, M, rf)


def same_law(one, other):
    """Two samples of spectra by their smallest, middle and largest eigenvalues."""
    for index in (0, one.shape[1] // 2, -1):
        assert stats.ks_2samp(one[:, index], other[:, index]).pvalue > 1e-3


@pytest.mark.parametrize(("N", "M", "rf"), [(30, 30, 1), (60, 20, 1), (12, 4, 9)])
def test_the_law_is_that_of_matrices_that_are_formed(N, M, rf):
    drawn = random_evals(np.random.default_rng(1), N, M, 3000, rf)
    same_law(drawn, formed(np.random.default_rng(2), N, M, 3000, rf))


def test_the_test_of_laws_can_fail():
    rng = np.random.default_rng(3)
    with pytest.raises(AssertionError):
        same_law(random_evals(rng, 30, 30, 3000), formed(rng, 33, 30, 3000))


def test_jax_draws_have_the_same_law():
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda key: gaussian_esd(key, 20, 60)))(keys)
    assert drawn.evals.shape == (4000, 20)
    assert drawn.evals.dtype == np.float32
    evals = np.asarray(drawn.evals, np.float64)
    same_law(evals, formed(np.random.default_rng(4), 60, 20, 4000))
    close_to_traces(evals, 60, 20)
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(drawn.floor, evals[:, -1] * eps * 60, rtol=1e-5)
    assert (np.asarray(drawn.n) == 20).all()


def test_jax_draws_are_narrow_or_wide():
    key = jax.random.key(0)
    narrow = gaussian_esd(key, 1, 1)
    assert narrow.evals.shape == (1,)
    assert narrow.evals.dtype == np.float32
    with jax.enable_x64(True):
        wide = gaussian_esd(key, 50, 7)
        assert wide.evals.dtype == np.float64
        np.testing.assert_allclose(wide.floor, wide.evals[-1] * np.finfo(float).eps * 50)
        np.testing.assert_array_equal(gaussian_esd(key, 7, 50).evals, wide.evals)


@pytest.mark.parametrize("sides", [(0, 4), (4, -1), (4, 2.0), (True, 4), (4, None)])
def test_sides_are_whole_numbers(sides):
    with pytest.raises(wwfunc.InputError, match="whole number from 1"):
        gaussian_esd(jax.random.key(0), *sides)
