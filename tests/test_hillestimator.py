"""The Hill family: the published formula, planted truth, laws, and every way to fail."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import pareto

import wwfunc
from wwfunc import Status, host
from wwfunc.fits.hillestimator import hill, hill_curve

N = 120
"""A program is compiled for each size: most tests share one."""


def by_hand(tail, ks="one-sided"):
    """The tail's alpha and D as the papers write them."""
    logs, n = np.log(np.sort(tail)), len(tail)
    alpha = 1 + n / (logs.sum() - n * logs[0])
    model, share = 1 - np.exp((1 - alpha) * (logs - logs[0])), np.arange(n) / n
    steps = [share] if ks == "one-sided" else [share, share + 1 / n]
    return alpha, max(np.abs(model - step).max() for step in steps)


@pytest.mark.parametrize(
    ("size", "ks"),
    [
        (3, "one-sided"),
        (64, "one-sided"),
        (65, "two-sided"),
        (512, "two-sided"),
        (513, "one-sided"),
    ],
)
def test_median_is_the_published_formula(size, ks):
    """Ascending, i = floor(N / 2): the tail is entries i and up. Sizes around the padding."""
    evals = pareto(np.random.default_rng(size), size, 2.7)
    tail = np.sort(evals)[size // 2 :]
    fit = hill(evals, ks=ks)
    np.testing.assert_allclose([fit.alpha, fit.D], by_hand(tail, ks), rtol=1e-11)
    assert float(fit.xmin) == tail[0]
    assert int(fit.k) == len(tail)
    assert Status(int(fit.status)) is Status.SUCCESS


@pytest.mark.parametrize("k", [2, 3, 17, N])
def test_the_k_largest(k):
    evals = pareto(np.random.default_rng(1), N, 2.2)
    fit = hill(evals, k)
    tail = np.sort(evals)[-k:]
    np.testing.assert_allclose([fit.alpha, fit.D], by_hand(tail), rtol=1e-11)
    assert (int(fit.k), float(fit.xmin)) == (k, tail[0])


def test_the_median_is_one_of_the_k():
    for size in (N, N + 1):
        evals = pareto(np.random.default_rng(2), size, 2.2)
        assert float(hill(evals).alpha) == float(hill(evals, size - size // 2).alpha)


def test_peak_takes_all_from_the_fullest_bin_on():
    rng = np.random.default_rng(3)
    evals = np.concatenate([pareto(rng, 400, 3.0, xmin=2.0), rng.uniform(0.1, 2.0, 150)])
    counts, edges = np.histogram(np.log10(evals), bins=100)
    tail = evals[evals >= 10 ** edges[np.argmax(counts)]]
    fit = hill(evals, "peak")
    assert int(fit.k) == len(tail)
    np.testing.assert_allclose([fit.alpha, fit.D], by_hand(tail), rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_peak_in_the_first_bin_keeps_the_smallest(dtype):
    """The bin's left edge is that eigenvalue, but for rounding."""
    for seed in range(20):
        evals = np.random.default_rng(seed).uniform(1, 1e6) * np.r_[np.ones(3), 1.5, 4.0, 50.0]
        assert int(hill(evals.astype(dtype), "peak").k) == 6


LARGEST = jax.jit(jax.vmap(lambda evals, k: hill(evals, k).alpha, (0, None)))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("k", [20, 100])
def test_mean_of_planted_draws(alpha, k):
    """Renyi: the sum of logs over the k-th largest is Gamma(k - 1) / (alpha - 1)."""
    rng = np.random.default_rng(int(10 * alpha) + k)
    draws = pareto(rng, (20_000, N), alpha)
    with jax.enable_x64(True):
        found = np.asarray(LARGEST(draws, k))
    expected = 1 + (alpha - 1) * k / (k - 2)
    standard_error = found.std(ddof=1) / np.sqrt(found.size)
    assert abs(found.mean() - expected) < 3.5 * standard_error
    assert 3.5 * standard_error < 0.006 * expected, "an error of one percent would show"


def test_the_curve_holds_every_k():
    evals = pareto(np.random.default_rng(4), N, 2.5)
    curve = hill_curve(evals)
    assert curve.alpha.shape == evals.shape
    np.testing.assert_array_equal(curve.k[:-1], np.arange(N, 1, -1))
    np.testing.assert_array_equal(curve.xmin[:-1], np.sort(evals)[:-1])
    assert np.isnan(curve.alpha[-1])
    assert curve.k[-1] == 0
    for k in (N, 77, 2):
        assert curve.alpha[-k] == pytest.approx(float(hill(evals, k).alpha), rel=1e-13)


def test_the_curve_has_no_entry_where_no_tail_starts():
    spectrum = wwfunc.ESD(
        evals=np.array([0.0, 0.0, 1e-7, 0.5, 1.0, 1.0, 2.0, 2.0]),
        n=np.int32(6),
        floor=np.float64(0.0),
    )
    curve = hill_curve(spectrum)
    np.testing.assert_array_equal(curve.k, [0, 0, 0, 5, 4, 0, 0, 0])
    np.testing.assert_array_equal(np.isnan(curve.alpha), curve.k == 0)
    np.testing.assert_array_equal(np.isnan(curve.xmin), curve.k == 0)
    np.testing.assert_allclose(curve.alpha[4], by_hand([1, 1, 2, 2])[0], rtol=1e-13)


def test_ties_stay_on_one_side_of_xmin():
    evals = np.r_[np.arange(1.0, 6.0), np.full(5, 6.0), np.arange(7.0, 11.0)]
    fit = hill(evals, 6)
    assert int(fit.k) == np.sum(evals >= 6.0) == 9
    np.testing.assert_allclose([fit.alpha, fit.D], by_hand(evals[evals >= 6]), rtol=1e-12)


def test_small_eigenvalues_count_or_not():
    """The published code keeps those under 1e-5 unless it is asked to filter."""
    evals = np.sort(pareto(np.random.default_rng(5), N, 2.0)) * np.r_[np.full(40, 1e-7), [1] * 80]
    absolute, relative = hill(evals), hill(evals, threshold="relative")
    np.testing.assert_allclose(absolute.alpha, by_hand(evals[40 + 40 :])[0], rtol=1e-11)
    np.testing.assert_allclose(relative.alpha, by_hand(evals[60:])[0], rtol=1e-11)
    assert Status(int(absolute.status)) is Status.THRESHOLD_HIDES
    assert Status(int(relative.status)) is Status.SUCCESS


def test_what_rounding_does_not_resolve_is_left_out():
    W = np.random.default_rng(6).standard_normal((40, 30))
    W[:, :10] = W[:, 10:20]
    found = wwfunc.esd(W)
    assert int(hill(found, threshold="relative").k) == 10
    assert int(hill(found, 20).k) == 20
    assert Status(int(hill(found, 21).status)) is Status.TAIL_TOO_SHORT


FAILURES = [
    (np.zeros(N), Status.ALL_ZERO),
    (np.full(N, np.nan), Status.NOT_FINITE),
    (np.r_[np.ones(N - 1), np.inf], Status.NOT_FINITE),
    (np.full(N, 2.0), Status.NO_TAIL),
    (np.r_[1.0, 2.0, np.full(N - 2, 5.0)], Status.NO_TAIL),
    (np.r_[np.zeros(N - 2), 1.0, 2.0], Status.TAIL_TOO_SHORT),
    (np.array([3.0]), Status.TAIL_TOO_SHORT),
    (np.array([]), Status.TAIL_TOO_SHORT),
    (np.full(N, 1e-7), Status.THRESHOLD_LEAVES_NONE),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("evals", "status"), FAILURES)
def test_failures_have_a_status_and_no_number(evals, status, dtype):
    fit = hill(evals.astype(dtype))
    assert Status(int(fit.status)) is status
    assert np.isnan([fit.alpha, fit.xmin, fit.D]).all()
    assert int(fit.k) == 0


def test_a_tail_longer_than_the_spectrum_fails():
    evals = np.arange(1.0, N + 1)
    assert int(hill(evals, N).k) == N
    for k in (N + 1, 2**31, 10**30):
        assert Status(int(hill(evals, k).status)) is Status.TAIL_TOO_SHORT


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_curve_where_a_number_is_missing(bad):
    curve = hill_curve(np.r_[np.arange(1.0, N), bad])
    assert np.isnan(curve.alpha).all()
    assert not curve.k.any()


def test_a_narrow_spectrum_keeps_its_digits_in_single_precision():
    """Sums of logarithms would leave none: the spread is a few thousand roundings."""
    evals = (1e3 * (1 + 1e-4 * np.random.default_rng(7).random(N))).astype(np.float32)
    single, double = hill(evals), hill(evals.astype(np.float64))
    np.testing.assert_allclose(single.alpha, double.alpha, rtol=1e-5)


def test_a_spectrum_wider_than_the_range_of_ratios():
    evals = np.r_[np.full(3, 1e-30), np.ones(N - 5), 1e20, 1e30].astype(np.float32)
    found = hill(evals, N, threshold="relative")
    np.testing.assert_allclose(found.alpha, by_hand(evals.astype(np.float64))[0], rtol=1e-5)


def test_padding_changes_nothing():
    spectrum = host.esd(np.random.default_rng(8).standard_t(3, (1, 90, 70)))
    padded = host.padded(spectrum, 1024)
    for k in ("median", 9):
        one, other = hill(spectrum, k), hill(padded, k)
        assert int(one.k) == int(other.k)
        np.testing.assert_allclose([one.alpha, one.D], [other.alpha, other.D], rtol=1e-12)


@pytest.mark.parametrize("k", ["median", "peak"])
def test_vmap_and_jit_over_stacked_spectra(k):
    rng = np.random.default_rng(9)
    stacked = np.stack([pareto(rng, N, alpha) for alpha in (1.8, 2.5, 4.0)])
    with jax.enable_x64(True):
        together = jax.device_get(jax.jit(jax.vmap(lambda x: hill(x, k)))(stacked))
    for i, row in enumerate(stacked):
        alone = hill(row, k)
        assert int(together.k[i]) == int(alone.k)
        np.testing.assert_allclose(together.alpha[i], alone.alpha, rtol=1e-12)


def test_k_may_be_traced():
    evals = pareto(np.random.default_rng(10), N, 2.5)
    with jax.enable_x64(True):
        many = jax.vmap(lambda k: hill(evals, k).alpha)(jnp.array([1, 2, 50, N, N + 1]))
    expected = [np.nan, *(hill(evals, k).alpha for k in (2, 50, N)), np.nan]
    np.testing.assert_allclose(many, expected, rtol=1e-12)


def test_float32_is_close():
    evals = pareto(np.random.default_rng(11), N, 2.5)
    single = hill(evals.astype(np.float32))
    assert single.alpha.dtype == np.float32
    np.testing.assert_allclose(single.alpha, hill(evals).alpha, rtol=1e-5)


@pytest.mark.parametrize("k", ["median", "peak"])
def test_gradient_against_finite_differences(k):
    with jax.enable_x64(True):
        evals = np.sort(pareto(np.random.default_rng(12), 60, 2.5))
        alpha = jax.jit(lambda x: hill(x, k).alpha)
        gradient = jax.grad(alpha)(evals)
        steps = 1e-7 * np.eye(evals.size) * evals[:, None]
        secant = [(alpha(evals + h) - alpha(evals - h)) / (2 * h.sum()) for h in steps]
    np.testing.assert_allclose(gradient, secant, rtol=1e-5, atol=1e-7)
    assert np.abs(gradient).max() > 1e-3


SLOPES = [
    jax.jit(jax.grad(lambda x: jnp.nan_to_num(hill(x).alpha))),
    jax.jit(jax.grad(lambda x: jnp.nan_to_num(hill(x, "peak").alpha))),
    jax.jit(jax.grad(lambda x: jnp.nansum(hill_curve(x).alpha))),
]


@pytest.mark.parametrize("slope", SLOPES)
def test_gradients_of_odd_input_are_finite(slope):
    for evals in (np.zeros(9), np.ones(9), np.r_[np.ones(8), 2.0], np.r_[np.zeros(8), 2.0]):
        assert np.isfinite(slope(evals.astype(np.float32))).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    factor=st.floats(1e-12, 1e12),
    k=st.sampled_from(["median", "peak", 30]),
)
def test_scaling_scales_xmin_and_leaves_alpha(seed, factor, k):
    evals = pareto(np.random.default_rng(seed), N, 2.5)
    one, other = (hill(x, k, threshold="relative") for x in (evals, evals * factor))
    np.testing.assert_allclose(other.alpha, one.alpha, rtol=1e-9)
    np.testing.assert_allclose(other.xmin, one.xmin * factor, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(0.5, 5.0))
def test_order_does_not_matter_and_shifting_does(seed, shift):
    rng = np.random.default_rng(seed)
    evals = pareto(rng, N, 2.5)
    assert float(hill(rng.permutation(evals)).alpha) == float(hill(evals).alpha)
    assert float(hill(evals + shift).alpha) > float(hill(evals).alpha)


BAD_OPTIONS = [
    ({"k": 0}, "k is"),
    ({"k": 1}, "k is"),
    ({"k": True}, "k is"),
    ({"k": 2.5}, "k is"),
    ({"k": "mid"}, "k is"),
    ({"k": None}, "k is"),
    ({"threshold": "none"}, "threshold is one of"),
    ({"ks": 2}, "ks is one of"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=str)
def test_an_option_outside_its_range_is_refused(options, message):
    with pytest.raises(wwfunc.OptionError, match=message):
        hill(np.arange(1.0, 50), **options)


def test_the_curve_refuses_an_unknown_threshold():
    with pytest.raises(wwfunc.OptionError, match="threshold is one of"):
        hill_curve(np.arange(1.0, 50), threshold="none")
