"""The null by shape is what random matrices show."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import formed
from scipy import stats

import wwfunc
from wwfunc import fit_pl
from wwfunc.fits.tail import Limits
from wwfunc.options import Method
from wwfunc.trust.null import (
    LEVELS,
    null_alphas,
    null_p,
    null_quantiles,
    p_random,
    random_fits,
    terms,
)
from wwfunc.trust.randomspectra import random_evals

TABLE = dict(np.load(REPOSITORY / "wwfunc" / "trust" / "null.npz", allow_pickle=False))


# Fits of random matrices ----------------------------------------------------------------------


def test_random_fits_are_those_of_the_public_fit():
    fits = random_fits(40, N=90, M=70, seed=5)
    evals = random_evals(np.random.default_rng([5, 1, 90, 70]), 90, 70, 32)
    for index in (0, 31):
        one = fit_pl(evals[index], threshold="relative")
        np.testing.assert_allclose(fits.alpha[index], one.alpha, rtol=1e-10)
        assert fits.num_pl_spikes[index] == one.num_pl_spikes
    assert fits.alpha.shape == (40,)
    assert fits.alpha.dtype == np.float64
    np.testing.assert_array_equal(random_fits(8, N=70, M=90, seed=5).alpha, fits.alpha[:8])
    assert not np.isin(random_fits(8, N=90, M=70, seed=6).alpha, fits.alpha).any()


def test_random_fits_inside_a_trace_are_numbers():
    outside = random_fits(5, N=40, M=30)
    inside = jax.jit(lambda x: x * random_fits(5, N=40, M=30).alpha.astype(np.float32))(1.0)
    np.testing.assert_allclose(inside, outside.alpha, rtol=1e-6)


WEIGHTWATCHER = [
    ((64, 64), 0.798, 1000),
    ((128, 128), 0.602, 600),
    ((256, 256), 0.380, 300),
    ((768, 256), 0.183, 300),
]
"""Share of alphas in [2, 6], and of how many: weightwatcher 0.7.7, `WW_powerlaw.WWFit(evals).alpha`
for `np.random.default_rng(1).standard_normal((N, M)) / sqrt(N)`."""


@pytest.mark.parametrize(("shape", "share", "matrices"), WEIGHTWATCHER)
def test_a_random_matrix_passes_for_well_trained_as_often_as_in_weightwatcher(
    shape, share, matrices
):
    alpha = random_fits(400, N=shape[0], M=shape[1]).alpha
    error = np.sqrt(share * (1 - share) * (1 / 400 + 1 / matrices))
    assert abs(np.mean((alpha >= 2) & (alpha <= 6)) - share) < 4 * error


# The null -------------------------------------------------------------------------------------

HALF = LEVELS.index(0.5)
LIVE = [(30, 24, 1), (20, 10, 9), (12, 3, 49)]
TABULATED = [(64, 64, 1), (150, 90, 1), (600, 300, 1), (20000, 80, 1), (70, 24, 9), (100, 100, 9)]


@pytest.mark.parametrize(("N", "M", "rf"), LIVE + TABULATED)
def test_p_is_uniform_for_random_matrices(N, M, rf):
    """Shares of p under a level within four standard errors, those of a live null included."""
    alphas = random_fits(600, N=N, M=M, rf=rf, seed=7).alpha
    null = null_alphas(rf, N, M)
    p = np.asarray(null_p(alphas, null.quantiles))
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        error = np.sqrt(level * (1 - level) * (1 / 600 + 1 / int(null.draws)))
        assert abs(np.mean(p <= level) - level) < 4 * error, level


def test_p_is_uniform_for_matrices_that_are_formed():
    evals = formed(np.random.default_rng(8), 90, 75, 400)
    p = [p_random(float(fit_pl(row).alpha), N=90, M=75) for row in evals]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    wrong = [p_random(float(fit_pl(row).alpha), N=90 * 9, M=75) for row in evals]
    assert stats.kstest(wrong, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("rf", [1, 9])
def test_the_surface_meets_the_table(rf):
    """Where the surface puts the simulated quantiles, in standard errors of their levels."""
    sides, quantiles = TABLE[f"M_{rf}"], TABLE[f"quantiles_{rf}"]
    chosen = [LEVELS.index(level) for level in (0.02, 0.05, 0.25, 0.5, 0.75, 0.95)]
    scores = []
    for i, M in enumerate(sides):
        for k, Q in enumerate(TABLE["Q"]):
            null = null_alphas(rf, round(Q * M), int(M))
            found = np.interp(quantiles[i, k, chosen], null.quantiles, LEVELS)
            level = np.array(LEVELS)[chosen]
            scores.append((found - level) / np.sqrt(level * (1 - level) / int(null.draws)))
    scores = np.array(scores)
    assert np.abs(scores).max() < 5
    assert (np.mean(scores**2, axis=0) < 1.6).all()
    assert (np.mean(scores**2, axis=0) > 0.5).all(), "the errors would be too large to tell"


def test_p_of_a_live_null_is_the_share_of_its_draws():
    drawn = random_fits(1000, N=40, M=30).alpha
    for alpha in (1.0, *np.quantile(drawn, [0.002, 0.03, 0.2, 0.7]), 1e3):
        exact = (1 + np.sum(drawn <= alpha)) / 1001
        found = p_random(alpha, N=40, M=30)
        assert abs(found - exact) <= 0.013, "a quarter of the distance between two levels"
        if exact < 0.1:
            assert abs(found - exact) <= 0.004
    assert p_random(0.5, N=40, M=30) == 0.001


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(LIVE + TABULATED),
    st.lists(st.floats(1.0, 200.0), min_size=2, max_size=5),
)
def test_p_rises_with_alpha(shape, alphas):
    N, M, rf = shape
    null = null_alphas(rf, N, M)
    p = [p_random(alpha, N=N, M=M, rf=rf) for alpha in sorted(alphas)]
    assert (np.diff(p) >= 0).all()
    assert min(p) >= 1 / (1 + int(null.draws))
    assert max(p) <= 1
    assert p == [p_random(alpha, N=M, M=N, rf=rf) for alpha in sorted(alphas)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_p_does_not_depend_on_the_scale_of_the_weights(seed, factor):
    W = np.random.default_rng(seed).standard_normal((50, 30))
    options = wwfunc.Options(threshold="relative")
    one, other = (float(wwfunc.measure(M, options).fit.alpha) for M in (W, W.T * factor))
    assert p_random(one, N=50, M=30) == pytest.approx(p_random(other, N=30, M=50), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(64, 2700), st.floats(1, 160), st.sampled_from([1, 9]), st.floats(1.01, 1.5))
def test_quantiles_are_ordered_and_rise_with_the_shape(M, Q, rf, factor):
    """The larger or the longer a random matrix, the steeper its tail."""
    M = M if rf == 1 else 16 + M % 325
    middle = slice(LEVELS.index(0.05), LEVELS.index(0.95) + 1)
    one = null_quantiles(rf, int(Q * M), M)
    assert (np.diff(one) >= 0).all()
    for N, larger in ((int(Q * M * factor), M), (int(Q * M * factor), int(M * factor))):
        other = null_quantiles(rf, N, larger)
        assert (other[middle] >= one[middle] * (1 - 5e-3)).all()


NOT_CALIBRATED = [
    {"limits": Limits(xmin=1.0)},
    {"limits": Limits(xmin_min=1.0)},
    {"limits": Limits(xmin_max=1.0)},
    {"limits": Limits(xmax=1.0)},
    {"method": Method(fit="TPL")},
    {"M": 5000, "N": 5000},
    {"M": 100, "N": 100 * 257, "rf": 25},
    {"M": 900, "rf": 9},
    {"M": 6, "N": 6},
    {"M": 2000, "N": 2000, "method": Method(ks="two-sided")},
]


@pytest.mark.parametrize("case", NOT_CALIBRATED, ids=str)
def test_not_calibrated(case):
    asked = {"rf": 1, "N": 1000, "M": 64} | case
    assert null_alphas(**asked) is None
    assert null_quantiles(**asked) is None
    assert np.isnan(p_random(3.0, **asked))


def test_fits_that_fail_are_counted_out():
    """Few eigenvalues are left and the tail has to start near their peak: some have none."""
    limits, method = Limits(clip=11), Method(fix_fingers="xmin_peak")
    null = null_alphas(1, 30, 20, limits, method)
    drawn = random_fits(1000, N=30, M=20, clip=11, method=method).alpha
    assert 0 < np.isnan(drawn).sum() == int(null.failed)
    assert int(null.draws) == 1000 - int(null.failed)
    found = drawn[~np.isnan(drawn)]
    np.testing.assert_allclose(null.quantiles[HALF], np.median(found), rtol=0.01)


def test_alpha_that_is_missing_has_no_p():
    assert np.isnan(p_random(float("nan"), N=64, M=64))
    p = null_p(jnp.array([3.0, jnp.nan]), null_quantiles(1, 64, 64))
    assert np.isnan(p).tolist() == [False, True]


def test_choices_that_make_no_difference_share_a_null():
    base = null_alphas(1, 100, 80)
    for method in (
        Method(threshold="relative"),
        Method(small_sample="mle"),
        Method(max_fingers=3, finger_thresh=2.0, peak_range="weightwatcher", free_alpha=True),
    ):
        assert null_alphas(1, 80, 100, Limits(clip=0), method) is base


def test_choices_that_make_a_difference_are_drawn_with_it():
    for choice in (
        {"ks": "two-sided"},
        {"fix_fingers": "xmin_peak"},
        {"fix_fingers": "clip_xmax", "max_fingers": 4},
    ):
        method = Method(**choice)
        null = null_alphas(1, 90, 70, method=method)
        drawn = random_fits(int(null.draws), N=90, M=70, method=method).alpha
        np.testing.assert_allclose(null.quantiles[HALF], np.median(drawn), rtol=0.01)
        assert not np.allclose(null.quantiles, null_quantiles(1, 90, 70), rtol=0.02)
    small = null_quantiles(1, 12, 12, method=Method(small_sample="mle"))
    assert not np.allclose(small, null_quantiles(1, 12, 12), rtol=0.05)


def test_the_largest_left_out_are_left_out_of_the_null():
    clipped = null_alphas(1, 90, 70, Limits(clip=3))
    evals = random_evals(np.random.default_rng([0, 1, 90, 70]), 90, 70, 32)
    fits = random_fits(32, N=90, M=70, clip=3)
    one = fit_pl(evals[0], xmax=-3, threshold="relative")
    np.testing.assert_allclose(fits.alpha[0], one.alpha, rtol=1e-10)
    assert int(clipped.draws) == 1000
    assert abs(clipped.quantiles[HALF] / null_quantiles(1, 90, 70)[HALF] - 1) > 0.05


def test_under_jit_and_stacked():
    shapes = [(64, 64), (300, 30), (4000, 4000)]
    stacked = np.stack([null_quantiles(1, *shape) for shape in shapes])
    alphas = np.array([3.0, 3.5, 15.0])
    with jax.enable_x64(True):
        found = jax.jit(jax.vmap(null_p))(alphas, stacked)
    expected = [p_random(a, N=N, M=M) for a, (N, M) in zip(alphas, shapes, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    narrow = null_p(jnp.float32(3.0), stacked[0])
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, expected[0], rtol=1e-4)
    traced = jax.jit(lambda alpha: null_p(alpha, null_quantiles(1, 31, 29)))(3.0)
    np.testing.assert_allclose(traced, p_random(3.0, N=31, M=29), rtol=1e-4)


def test_few_draws_tell_of_no_small_share():
    method = Method(ks="two-sided")
    draws = int(null_alphas(1, 880, 880, method=method).draws)
    assert 64 <= draws < 100
    smallest = p_random(1.5, N=880, M=880, method=method)
    assert 1 / (1 + draws) <= smallest <= 1.5 / (1 + draws)
    assert p_random(1.5, N=4096, M=4096) == 0.01, "a hundred draws stand behind this part"


def test_shapes_of_a_model_cost_next_to_nothing():
    """Layers of all-MiniLM-L6-v2, and of a large model: from the table, without a draw."""
    started = time.process_time()
    for N, M in ((384, 384), (1536, 384), (512, 384), (30522, 384), (4096, 4096), (14336, 4096)):
        assert 0 < p_random(4.0, N=N, M=M) < 0.1
    assert time.process_time() - started < 1.0


# The table ------------------------------------------------------------------------------------


def test_the_table_is_data_of_the_package_and_small():
    file = resources.files("wwfunc.trust") / "null.npz"
    assert file.is_file()
    assert len(file.read_bytes()) < 300_000
    np.testing.assert_array_equal(TABLE["levels"], LEVELS)


@pytest.mark.parametrize("rf", [1, 9])
def test_the_coefficients_are_those_of_the_quantiles(rf):
    from validation.null_table import surface

    quantiles = TABLE[f"quantiles_{rf}"].astype(float)
    found = surface(TABLE[f"M_{rf}"], TABLE[f"draws_{rf}"], quantiles)
    N = np.array([100, 700, 5000])
    M = np.array([100, 300, 64])
    np.testing.assert_allclose(
        terms(N, M) @ found, terms(N, M) @ TABLE[f"coefficients_{rf}"], rtol=1e-5
    )


def test_the_script_makes_what_is_shipped():
    from validation.null_table import _quantiles

    np.testing.assert_allclose(_quantiles(1, 2.0, 64), TABLE["quantiles_1"][0, 3], rtol=1e-3)


def test_the_example_prints_what_random_matrices_show():
    command = [sys.executable, "examples/random_alphas.py", "--draws", "20", "--seed", "3"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    rows = done.stdout.splitlines()
    assert len(rows) == 8
    alpha = random_fits(20, N=64, M=64, seed=3).alpha
    passing = np.mean((alpha >= 2) & (alpha <= 6))
    assert rows[2].startswith(f"| 64 x 64 | {passing:.1%} | {np.median(alpha):.1f} | ")
