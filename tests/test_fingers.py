"""Finger fixes: xmin near the peak, clipping, and the limits of the scan, against plain loops."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_powerlaw import by_hand, pareto

import wwfunc
from wwfunc import Status, fit_pl


def random_square(seed):
    """Eigenvalues of a square Gaussian matrix: the edge of their bulk looks like fingers."""
    W = np.random.default_rng(seed).standard_normal((200, 200))
    return np.sort(np.linalg.svd(W, compute_uv=False) ** 2 / 200)


def peak_by_hand(evals):
    counts, edges = np.histogram(np.log10(evals), bins=100)
    return 10 ** edges[np.argmax(counts)]


def between(evals, low, high):
    """The scan over the candidates from `low` to `high`, each with the whole tail above it."""
    x = np.sort(evals)
    fits = []
    for i in np.flatnonzero((x >= low) & (x <= high)):
        tail = x[i:]
        if tail.size > 1 and tail[-1] > tail[0]:
            alpha = 1 + tail.size / np.log(tail / tail[0]).sum()
            steps = np.arange(tail.size) / tail.size
            fits.append((np.abs(1 - (tail / tail[0]) ** (1 - alpha) - steps).max(), alpha, x[i]))
    return min(fits)


def two_sided(evals):
    x = np.sort(evals)
    fits = []
    for i in range(x.size - 1):
        tail = x[i:]
        n = tail.size
        alpha = 1 + n / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - alpha)
        steps = np.arange(n) / n
        fits.append((max(abs(model - steps).max(), abs(model - steps - 1 / n).max()), alpha, x[i]))
    return min(fits)


def log_normal(rng, n=400):
    return np.exp(rng.normal(0.0, 1.0, n))


@pytest.mark.parametrize("seed", range(5))
def test_xmin_peak_searches_around_the_peak(seed):
    evals = log_normal(np.random.default_rng(seed))
    peak = peak_by_hand(evals)
    fit = fit_pl(evals, fix_fingers="xmin_peak")
    D, alpha, xmin = between(evals, 0.95 * peak, 1.5 * peak)
    np.testing.assert_allclose([fit.D, fit.alpha, fit.xmin], [D, alpha, xmin], rtol=1e-10)
    wider = fit_pl(evals, fix_fingers="xmin_peak", peak_range="weightwatcher")
    D, alpha, xmin = between(evals, np.log10(0.95 * peak), 1.5 * peak)
    np.testing.assert_allclose([wider.D, wider.alpha, wider.xmin], [D, alpha, xmin], rtol=1e-10)


def test_the_mistaken_range_is_wider():
    """Its lower end is a logarithm: under a peak at 10 it reaches down to 1."""
    evals = 10 * log_normal(np.random.default_rng(11))
    right = fit_pl(evals, fix_fingers="xmin_peak")
    wrong = fit_pl(evals, fix_fingers="xmin_peak", peak_range="weightwatcher", xmin_max=3.0)
    assert float(right.xmin) >= 0.95 * peak_by_hand(evals) > 3.0 >= float(wrong.xmin)


def test_given_ends_of_the_range_rule():
    evals = log_normal(np.random.default_rng(3))
    peak = peak_by_hand(evals)
    fit = fit_pl(evals, fix_fingers="xmin_peak", xmin_max=3 * peak)
    D, alpha, _ = between(evals, 0.95 * peak, 3 * peak)
    np.testing.assert_allclose([fit.D, fit.alpha], [D, alpha], rtol=1e-10)


SEVEN = 1
"""Seed of a matrix whose alpha of 7.27 falls under 6 once seven eigenvalues are left out."""


def test_clipping_takes_the_first_alpha_far_enough_below():
    evals = random_square(SEVEN)
    raw = fit_pl(evals)
    alphas = {k: by_hand(evals[:-k])[0] for k in range(2, 10)}
    assert next(k for k, alpha in alphas.items() if alpha + 1 < raw.alpha) == 7
    fit = fit_pl(evals, fix_fingers="clip_xmax")
    assert int(fit.num_fingers) == 7
    np.testing.assert_allclose(fit.alpha, alphas[7], rtol=1e-10)
    np.testing.assert_allclose(fit.raw_alpha, raw.alpha, rtol=1e-12)
    assert float(fit.xmax) == evals[-8]
    assert int(fit.num_pl_spikes) == np.sum(evals[:-7] >= float(fit.xmin))


def test_max_fingers_works():
    counts = {
        most: int(
            fit_pl(random_square(SEVEN), fix_fingers="clip_xmax", max_fingers=most).num_fingers
        )
        for most in (1, 6, 7, 12)
    }
    assert counts == {1: 0, 6: 0, 7: 7, 12: 7}


def test_finger_thresh_works():
    evals = random_square(20)
    raw = by_hand(evals)[0]
    drops = {k: raw - by_hand(evals[:-k])[0] for k in range(2, 10)}
    assert 17 < drops[2] < 17.5 < drops[7]
    for thresh, expected in ((1.0, 2), (17.5, 7), (1e3, 0)):
        fit = fit_pl(evals, fix_fingers="clip_xmax", finger_thresh=thresh)
        assert int(fit.num_fingers) == expected
        np.testing.assert_allclose(fit.alpha, raw - drops.get(expected, 0.0), rtol=1e-10)


def test_clipping_ends_where_alpha_reaches_2():
    """Without four it comes under 2, not far enough; without nine it would have."""
    evals = np.sort(np.exp(np.random.default_rng(82).uniform(0, 5, 40)))
    raw = by_hand(evals)[0]
    alphas = {k: by_hand(evals[:-k])[0] for k in range(2, 10)}
    assert next(k for k, alpha in alphas.items() if alpha <= 2.0) == 4
    assert raw - alphas[4] < 0.8 < raw - alphas[9]
    for thresh, expected in ((0.8, 0), (0.6, 4)):
        fit = fit_pl(evals, fix_fingers="clip_xmax", finger_thresh=thresh)
        assert int(fit.num_fingers) == expected


def test_clipping_counts_beside_xmax():
    evals = np.r_[random_square(SEVEN), 1e6]
    fit = fit_pl(evals, fix_fingers="clip_xmax", xmax=-1)
    inner = fit_pl(evals[:-1], fix_fingers="clip_xmax")
    assert int(fit.num_fingers) == int(inner.num_fingers) == 7
    np.testing.assert_allclose(fit.alpha, inner.alpha, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_two_sided_distance_is_the_supremum(seed):
    evals = pareto(np.random.default_rng(seed), 150, 2.5)
    fit = fit_pl(evals, ks="two-sided")
    np.testing.assert_allclose([fit.D, fit.alpha, fit.xmin], two_sided(evals), rtol=1e-10)
    assert float(fit.D) >= float(fit_pl(evals).D)
    given_xmin = fit_pl(evals, ks="two-sided", xmin=1.5)
    tail = np.sort(evals[evals >= 1.5])
    model = 1 - (tail / 1.5) ** (1 - float(given_xmin.alpha))
    steps = np.arange(tail.size) / tail.size
    sup = max(abs(model - steps).max(), abs(model - steps - 1 / tail.size).max())
    np.testing.assert_allclose(given_xmin.D, sup, rtol=1e-10)


def test_xmin_max_ends_the_scan():
    evals = log_normal(np.random.default_rng(7))
    low, high = np.quantile(evals, [0.3, 0.5])
    fit = fit_pl(evals, xmin_min=low, xmin_max=high)
    D, alpha, xmin = between(evals, low, high)
    np.testing.assert_allclose([fit.D, fit.alpha, fit.xmin], [D, alpha, xmin], rtol=1e-10)


def test_no_eigenvalue_in_the_range_is_a_status():
    fit = fit_pl(np.arange(1.0, 50.0), xmin_max=0.5)
    assert Status(int(fit.status)) is Status.NO_START
    assert np.isnan(float(fit.alpha))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 1e6))
def test_scaling_leaves_the_fixes(seed, factor):
    evals = random_square(seed)
    for fix in ("xmin_peak", "clip_xmax"):
        options = {"fix_fingers": fix, "threshold": "relative"}
        one, other = fit_pl(evals, **options), fit_pl(evals * factor, **options)
        np.testing.assert_allclose(other.alpha, one.alpha, rtol=1e-9)
        np.testing.assert_allclose(other.xmin, one.xmin * factor, rtol=1e-12)


def test_under_vmap_jit_and_grad():
    stacked = np.stack([random_square(seed) for seed in (1, 2, 20)])
    for fix in ("xmin_peak", "clip_xmax"):
        with jax.enable_x64(True):
            many = jax.jit(jax.vmap(lambda x, fix=fix: fit_pl(x, fix_fingers=fix).alpha))(stacked)
            slope = jax.grad(lambda x, fix=fix: fit_pl(x, fix_fingers=fix).alpha)(stacked[0])
        single = [float(fit_pl(row, fix_fingers=fix).alpha) for row in stacked]
        np.testing.assert_allclose(many, single, rtol=1e-12)
        assert np.isfinite(slope).all()
        assert np.abs(slope).max() > 0


BAD = [
    ({"fix_fingers": "clip"}, "fix_fingers"),
    ({"max_fingers": 0}, "max_fingers"),
    ({"finger_thresh": -1.0}, "finger_thresh"),
    ({"ks": "both"}, "ks"),
    ({"peak_range": "wide"}, "peak_range"),
    ({"xmin": 1.0, "fix_fingers": "xmin_peak"}, "looks for xmin itself"),
    ({"xmin_min": 2.0, "xmin_max": 1.0}, "xmin_min=2.0 is above xmin_max=1.0"),
    ({"xmin_min": 2.0, "xmax": 1.0}, "xmin_min=2.0 is above xmax=1.0"),
    ({"xmin": 2.0, "xmax": 1.0}, "xmin=2.0 is above xmax=1.0"),
    ({"xmin": 2.0, "xmin_max": 1.0}, "xmin=2.0 is above xmin_max=1.0"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=str)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(wwfunc.OptionError, match=words):
        fit_pl(np.arange(1.0, 50), **options)


def test_clipping_is_for_power_laws():
    with pytest.raises(wwfunc.OptionError, match="clip_xmax"):
        wwfunc.Options(fit="TPL", fix_fingers="clip_xmax")
