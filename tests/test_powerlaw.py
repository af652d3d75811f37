"""The power-law fit: planted truth, an independent loop, laws, and every way to fail."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import pareto

import wwfunc
from wwfunc import Status, fit_pl


def by_hand(evals, corrected=False):
    """Clauset's scan as the paper writes it, one candidate at a time."""
    x = np.sort(np.asarray(evals, np.float64))
    fits = []
    for i in range(x.size - 1):
        tail = x[i:]
        n = tail.size
        if (i and x[i] == x[i - 1]) or tail[-1] == tail[0] or (corrected and n < 8):
            continue
        alpha = 1 + (n - corrected) / np.log(tail / tail[0]).sum()
        D = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(n) / n).max()
        fits.append((D, i, alpha, tail[0], n))
    D, _, alpha, xmin, n = min(fits)
    return alpha, xmin, D, n


@pytest.mark.parametrize("size", [25, 64, 65, 300, 511, 512, 513, 1300])
def test_scan_equals_the_loop(size):
    """Sizes around the tiles of the scan."""
    rng = np.random.default_rng(size)
    evals = np.concatenate([rng.uniform(0.01, 1, size // 3), pareto(rng, size - size // 3, 2.7)])
    fit = fit_pl(rng.permutation(evals))
    alpha, xmin, D, n = by_hand(evals)
    np.testing.assert_allclose([fit.alpha, fit.xmin, fit.D], [alpha, xmin, D], rtol=1e-10)
    assert int(fit.num_pl_spikes) == n == np.sum(evals >= float(fit.xmin))
    assert float(fit.xmax) == evals.max()
    np.testing.assert_allclose(fit.sigma, (alpha - 1) / np.sqrt(n), rtol=1e-10)


@pytest.mark.parametrize("size", [8, 12, 19])
def test_small_sample_is_corrected_or_not(size):
    evals = pareto(np.random.default_rng(size), size, 2.5)
    for mode, corrected in (("corrected", True), ("mle", False)):
        fit = fit_pl(evals, small_sample=mode)
        alpha, xmin, D, n = by_hand(evals, corrected)
        np.testing.assert_allclose([fit.alpha, fit.xmin, fit.D], [alpha, xmin, D], rtol=1e-10)
        assert int(fit.num_pl_spikes) == n


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("n", [20, 200])
def test_mean_of_400_draws_with_xmin_given(alpha, n):
    """E alpha = 1 + (alpha - 1) n / (n - 1): the sum of logs is Gamma(n) at a true threshold."""
    rng = np.random.default_rng(int(100 * alpha) + n)
    draws = np.stack([pareto(rng, n, alpha) for _ in range(400)])
    found = np.array([float(fit_pl(draw, xmin=1.0).alpha) for draw in draws])
    expected = 1 + (alpha - 1) * n / (n - 1)
    standard_error = found.std(ddof=1) / np.sqrt(found.size)
    assert abs(found.mean() - expected) < 3 * standard_error
    assert standard_error < 0.02 * expected, "a bias of a few percent would show"


@pytest.mark.parametrize("alpha", [2.0, 3.0, 5.0])
def test_median_of_scanned_draws(alpha, record_property, capsys):
    rng = np.random.default_rng(int(10 * alpha))
    found = [float(fit_pl(pareto(rng, 500, alpha)).alpha) for _ in range(400)]
    bias = np.median(found) / alpha - 1
    with capsys.disabled():
        print(
            f"\n  xmin scanned, alpha {alpha}: median is off by {bias:+.2%}, mean "
            f"{np.mean(found) / alpha - 1:+.2%}"
        )
    assert abs(bias) < 0.05


def test_ties_stay_on_one_side_of_xmin():
    evals = np.repeat(pareto(np.random.default_rng(1), 40, 2.2), 3)
    fit = fit_pl(evals)
    assert int(fit.num_pl_spikes) == np.sum(evals >= float(fit.xmin))
    assert int(fit.num_pl_spikes) % 3 == 0


def test_limits():
    rng = np.random.default_rng(2)
    evals = np.sort(pareto(rng, 300, 2.5))
    assert float(fit_pl(evals, xmin_min=1.7).xmin) >= 1.7
    cut = fit_pl(evals, xmax=5.0)
    inside = by_hand(evals[evals <= 5.0])
    np.testing.assert_allclose([cut.alpha, cut.xmin, cut.D], inside[:3], rtol=1e-10)
    assert float(cut.xmax) == evals[evals <= 5.0].max()
    clipped = fit_pl(evals, xmax=-7)
    np.testing.assert_allclose(clipped.alpha, by_hand(evals[:-7])[0], rtol=1e-10)
    given_xmin = fit_pl(evals, xmin=2.0)
    tail = evals[evals >= 2.0]
    np.testing.assert_allclose(
        given_xmin.alpha, 1 + tail.size / np.log(tail / 2.0).sum(), rtol=1e-12
    )
    gap = 1 - (tail / 2.0) ** (1 - float(given_xmin.alpha)) - np.arange(tail.size) / tail.size
    np.testing.assert_allclose(given_xmin.D, np.abs(gap).max(), rtol=1e-10)


def test_threshold():
    evals = pareto(np.random.default_rng(3), 200, 3.0)
    tiny = evals * 5e-6
    assert Status(int(fit_pl(tiny).status)) is Status.THRESHOLD_HIDES
    np.testing.assert_allclose(
        fit_pl(tiny, threshold="relative").alpha, fit_pl(evals).alpha, rtol=1e-9
    )
    assert Status(int(fit_pl(tiny * 1e-9).status)).failed


FAILURES = [
    (np.zeros(30), Status.ALL_ZERO),
    (np.full(30, np.nan), Status.NOT_FINITE),
    (np.r_[np.ones(29), np.inf], Status.NOT_FINITE),
    (np.full(30, 2.0), Status.NO_TAIL),
    (np.arange(1.0, 8.0), Status.TAIL_TOO_SHORT),
    (np.array([3.0]), Status.TAIL_TOO_SHORT),
    (np.array([]), Status.TAIL_TOO_SHORT),
    (np.full(30, 1e-7), Status.THRESHOLD_LEAVES_NONE),
]


@pytest.mark.parametrize(("evals", "status"), FAILURES)
def test_failures_have_a_status_and_no_number(evals, status):
    fit = fit_pl(evals)
    assert Status(int(fit.status)) is status
    numbers = [fit.alpha, fit.xmin, fit.xmax, fit.D, fit.sigma]
    assert np.isnan(numbers).all()
    assert int(fit.num_pl_spikes) == 0


def test_xmin_above_all_eigenvalues_fails():
    fit = fit_pl(np.arange(1.0, 50.0), xmin=100.0)
    assert Status(int(fit.status)) is Status.TAIL_TOO_SHORT
    assert np.isnan(float(fit.xmin))


def test_vmap_and_jit_over_stacked_spectra():
    rng = np.random.default_rng(4)
    stacked = np.stack([pareto(rng, 200, alpha) for alpha in (1.8, 2.5, 4.0)])
    with jax.enable_x64(True):
        together = jax.jit(jax.vmap(fit_pl))(stacked)
    for row, alpha in zip(stacked, together.alpha, strict=True):
        np.testing.assert_allclose(alpha, fit_pl(row).alpha, rtol=1e-12)


def test_float32_is_close():
    evals = pareto(np.random.default_rng(5), 400, 2.5)
    single = fit_pl(evals.astype(np.float32))
    assert single.alpha.dtype == np.float32
    np.testing.assert_allclose(single.alpha, fit_pl(evals).alpha, rtol=1e-4)


def test_gradient_against_finite_differences():
    """With the choice of xmin held fixed alpha is smooth."""
    with jax.enable_x64(True):
        evals = np.sort(pareto(np.random.default_rng(6), 60, 2.5))
        alpha = jax.jit(lambda x: fit_pl(x, xmin=1.0).alpha)
        gradient = jax.grad(alpha)(evals)
        secant = [(alpha(evals + h) - alpha(evals - h)) / 2e-6 for h in 1e-6 * np.eye(evals.size)]
        np.testing.assert_allclose(gradient, secant, rtol=1e-5, atol=1e-8)
        scanned = jax.grad(lambda x: fit_pl(x).alpha)(evals)
        assert np.isfinite(scanned).all()
        assert np.abs(scanned).max() > 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 1e6))
def test_scaling_scales_xmin_and_leaves_alpha(seed, factor):
    evals = pareto(np.random.default_rng(seed), 120, 2.5)
    one, other = fit_pl(evals), fit_pl(evals * factor)
    np.testing.assert_allclose(other.alpha, one.alpha, rtol=1e-9)
    np.testing.assert_allclose(other.xmin, one.xmin * factor, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(0.5, 5.0))
def test_shifting_changes_alpha(seed, shift):
    evals = pareto(np.random.default_rng(seed), 120, 2.5)
    assert float(fit_pl(evals + shift, xmin=1.0 + shift).alpha) > float(
        fit_pl(evals, xmin=1.0).alpha
    )


def test_rotating_a_matrix_leaves_alpha():
    rng = np.random.default_rng(7)
    W = rng.standard_t(3, (80, 50))
    rotation = np.linalg.qr(rng.standard_normal((80, 80)))[0]
    alphas = [float(wwfunc.measure(M).fit.alpha) for M in (W, W.T, W[::-1], rotation @ W)]
    np.testing.assert_allclose(alphas, alphas[0], rtol=1e-8)


BAD_OPTIONS = [
    {"xmin": 0.0},
    {"xmin": -1},
    {"xmin_min": np.nan},
    {"xmax": 0},
    {"xmax": -2.5},
    {"xmax": True},
    {"threshold": "none"},
    {"small_sample": 3},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_an_option_outside_its_range_is_refused(options):
    with pytest.raises(wwfunc.OptionError, match=next(iter(options))):
        fit_pl(np.arange(1.0, 50), **options)


def test_a_limit_may_be_traced():
    evals = pareto(np.random.default_rng(8), 100, 2.5)
    with jax.enable_x64(True):
        many = jax.vmap(lambda xmin: fit_pl(evals, xmin=xmin).alpha)(np.array([1.0, 1.5, 2.0]))
    for xmin, alpha in zip((1.0, 1.5, 2.0), many, strict=True):
        np.testing.assert_allclose(alpha, fit_pl(evals, xmin=xmin).alpha, rtol=1e-12)


@pytest.mark.parametrize(("spread", "tails"), [(0.99, 0), (1.01, 1)])
def test_a_tail_starts_further_from_the_largest_than_rounding(spread, tails):
    floor = 1e-6
    evals = 1.0 - floor * np.array([spread, 0.6, 0.3, 0.0])
    esd = wwfunc.ESD(evals=evals, n=np.int32(4), floor=np.float64(floor))
    found = fit_pl(esd, small_sample="mle")
    assert int(found.num_pl_spikes) == 4 * tails
    assert int(found.status) == (Status.SUCCESS if tails else Status.NO_TAIL)


def test_limits_may_be_equal():
    found = fit_pl(np.arange(1.0, 40), xmin_min=3.0, xmin_max=3.0)
    assert (float(found.xmin), int(found.num_pl_spikes)) == (3.0, 37)
