"""Level spacings: by hand, random matrices, independent levels, laws, and every way to fail."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import Status, host
from wwfunc.levels import POISSON_RATIO, RANDOM_RATIO, spacings


def test_by_hand():
    found = spacings(np.array([4.0, 1.0, 101.0, 2.0]))
    np.testing.assert_array_equal(found.gap, [np.nan, 1, 2, 97])
    np.testing.assert_allclose(found.log_gap, np.log10([np.nan, 1, 2, 97]), rtol=1e-14)
    np.testing.assert_allclose(found.ratio, [np.nan, 1 / 2, 2 / 97, np.nan], rtol=1e-14)
    assert float(found.mean_ratio) == pytest.approx((1 / 2 + 2 / 97) / 2, rel=1e-14)
    assert int(found.count) == 2
    assert Status(int(found.status)) is Status.SUCCESS


def test_the_log_gaps_are_weightwatchers_deltas():
    evals = np.sort(np.random.default_rng(0).standard_exponential(30))
    found = spacings(evals)
    np.testing.assert_allclose(found.log_gap[1:], np.log10(np.diff(evals)), rtol=1e-12)


def mean_and_error(evals):
    found = jax.vmap(spacings)(np.asarray(evals, np.float32))
    means = np.asarray(found.mean_ratio)
    return means.mean(), means.std() / np.sqrt(len(means))


def wishart(rng, n, m):
    """Of two sides, so that levels do not crowd at zero."""
    W = rng.standard_normal((n, m))
    return np.linalg.eigvalsh(W.T @ W)


def symmetric(rng, n, m):
    H = rng.standard_normal((n, m))[:m]
    return np.linalg.eigvalsh(H + H.T)


@pytest.mark.parametrize("draw", [wishart, symmetric], ids=["wishart", "goe"])
def test_levels_of_random_matrices_repel(draw):
    rng = np.random.default_rng(1)
    evals = np.stack([draw(rng, 300, 150) for _ in range(400)])
    mean, error = mean_and_error(evals - evals.min() + 1)
    assert abs(mean - RANDOM_RATIO) < 4 * error
    assert 4 * error < 0.01 * mean


def test_independent_levels_do_not():
    assert pytest.approx(2 * np.log(2) - 1, abs=1e-4) == POISSON_RATIO
    mean, error = mean_and_error(np.random.default_rng(2).uniform(1, 2, (1500, 150)))
    assert abs(mean - POISSON_RATIO) < 4 * error
    assert 4 * error < 0.01 * mean


def test_pooled_levels_of_several_matrices_do_not():
    rng = np.random.default_rng(3)
    pooled = [wwfunc.esd(rng.standard_normal((9, 60, 30))).evals for _ in range(20)]
    mean, error = mean_and_error(pooled)
    assert abs(mean - POISSON_RATIO) < 4 * error + 0.01
    assert mean < RANDOM_RATIO - 10 * error


def test_the_standard_error_that_the_docs_state():
    evals = np.random.default_rng(4).uniform(1, 2, (500, 150))
    means = np.asarray(jax.vmap(spacings)(evals.astype(np.float32)).mean_ratio)
    assert means.std() * np.sqrt(148) == pytest.approx(0.28, abs=0.06)


SIZE = 24


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.floats(0, 1e3))
def test_laws(seed, scale, shift):
    rng = np.random.default_rng(seed)
    evals = rng.standard_exponential(SIZE)
    base = spacings(evals)
    other = spacings(rng.permutation(scale * (evals + shift)))
    assert float(other.mean_ratio) == pytest.approx(float(base.mean_ratio), rel=1e-5)
    np.testing.assert_allclose(other.gap[1:], scale * base.gap[1:], rtol=1e-6, atol=1e-9 * scale)
    assert np.all((base.ratio[1:-1] >= 0) & (base.ratio[1:-1] <= 1))
    assert int(base.count) == SIZE - 2


def test_padding_and_lost_eigenvalues_are_no_levels():
    evals = np.r_[0.0, 1e-18, 1e-16, 1.0, 2.0, 4.0]
    found = spacings(host.as_esd(evals, n=6, floor=1e-15))
    np.testing.assert_array_equal(found.gap, [*[np.nan] * 4, 1, 2])
    assert (int(found.count), float(found.mean_ratio)) == (1, 0.5)
    assert Status(int(found.status)) is Status.RANK_DEFICIENT
    padded = spacings(host.padded(host.as_esd(evals[3:], n=3, floor=1e-15), 8))
    assert (int(padded.count), float(padded.mean_ratio)) == (1, 0.5)
    assert Status(int(padded.status)) is Status.SUCCESS


def test_equal_eigenvalues():
    found = spacings(np.array([1.0, 1.0, 1.0, 3.0, 4.0]))
    np.testing.assert_array_equal(found.gap[1:], [0, 0, 2, 1])
    np.testing.assert_array_equal(np.isnan(found.log_gap), [True, True, True, False, False])
    np.testing.assert_array_equal(found.ratio, [np.nan, np.nan, 0, 0.5, np.nan])
    assert (int(found.count), float(found.mean_ratio)) == (2, 0.25)


def test_equal_up_to_rounding():
    """What rounding leaves between equal eigenvalues has a ratio that no matrix has."""
    Q = np.linalg.qr(np.random.default_rng(6).standard_normal((40, 20)))[0]
    for found in (wwfunc.esd(Q), host.esd(Q[None]), wwfunc.esd(Q.astype(np.float32))):
        assert np.isnan(spacings(found).mean_ratio)
    evals = np.r_[1 + 2.0**-52 * np.arange(2), np.arange(2.0, 42) ** 1.5]
    assert int(spacings(host.as_esd(evals, n=42, floor=1e-11)).count) == 40
    clustered = np.r_[1 + 2.0**-52 * np.arange(9), np.arange(2.0, 42) ** 1.5]
    assert int(spacings(host.as_esd(clustered, n=49, floor=1e-11)).count) == 0


@pytest.mark.parametrize("mean", [0, 3, 5, 10, 20])
def test_a_large_mean_in_float32(mean):
    """It lifts one eigenvalue, and rounding with it: the ratio is right, or there is none."""
    rng = np.random.default_rng(mean)
    stack = mean + rng.standard_normal((12, 300, 150))
    exact, single = (
        np.array([spacings(wwfunc.esd(W.astype(dtype))).mean_ratio for W in stack])
        for dtype in (np.float64, np.float32)
    )
    assert np.isnan(single).all() == (mean >= 10)
    if mean < 10:
        assert single.mean() == pytest.approx(exact.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        (np.array([1.0, np.nan, 2.0]), Status.NOT_FINITE),
        (np.array([1.0, 2.0, np.inf]), Status.NOT_FINITE),
        (np.zeros(4), Status.ALL_ZERO),
        (np.zeros(0), Status.TAIL_TOO_SHORT),
        (np.array([2.0]), Status.TAIL_TOO_SHORT),
        (np.array([2.0, 3.0]), Status.TAIL_TOO_SHORT),
        (np.full(5, 2.0), Status.TAIL_TOO_SHORT),
    ],
    ids=["nan", "infinity", "zero", "none", "one", "two", "equal"],
)
def test_what_has_no_ratio(evals, status):
    found = spacings(evals)
    assert np.isnan(found.mean_ratio)
    assert np.isnan(found.ratio).all()
    assert int(found.count) == 0
    assert Status(int(found.status)) is status
    if len(evals):
        assert found.gap.shape == found.ratio.shape == evals.shape


def test_float32_and_the_derivative():
    evals = np.array([1.0, 2.0, 4.0, 9.0], np.float32)
    found = jax.jit(spacings)(evals)
    assert found.mean_ratio.dtype == found.gap.dtype == np.float32
    slope = jax.jit(jax.grad(lambda evals: spacings(evals).mean_ratio))(jnp.asarray(evals))
    np.testing.assert_allclose(slope, [-0.25, 0.275, 0.015, -0.04], rtol=1e-5)
