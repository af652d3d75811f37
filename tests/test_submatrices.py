"""FARMS: windows as published, their eigenvalues against SVDs, two engines, laws, odd input."""

from __future__ import annotations

import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import Status, fit_pl, host
from wwfunc.fits.hillestimator import hill
from wwfunc.fits.submatrices import count_windows, farms, farms_of, window_esd, window_sides


def published_starts(side, window, windows):
    """Along one side, as the code beside the paper counts them (`fixed_sampling`)."""
    step = max(1, (side - window) // (windows - 1))
    number = min(windows, max(1, (side - window) // step + 1))
    return tuple(min(i * step, side - window) for i in range(number))


@given(side=st.integers(1, 300), window=st.integers(1, 300), windows=st.integers(2, 20))
def test_starts_are_the_published_ones(side, window, windows):
    window = min(side, window)
    starts = host.window_starts(side, window, windows)
    assert starts == published_starts(side, window, windows)
    assert len(set(starts)) == len(starts)
    assert host.window_starts(side, window, 1) == (0,)


@pytest.mark.parametrize(
    ("n", "m", "rows", "aspect", "sides"),
    [
        (4096, 4096, None, 1.0, (2000, 2000)),
        (1000, 300, None, 1.0, (150, 150)),
        (300, 1000, None, 2.0, (150, 300)),
        (300, 1000, 500, 1.0, (300, 300)),
        (100, 100, None, 4.0, (25, 100)),
        (100, 100, 40, 2.3, (40, 92)),
        (100, 100, 60, 2.3, (43, 98)),
        (7, 3, None, 100.0, (1, 7)),
        (1, 1, None, 1.0, (1, 1)),
        (0, 5, None, 1.0, (0, 0)),
    ],
)
def test_a_window_fits_with_its_aspect(n, m, rows, aspect, sides):
    assert window_sides(n, m, rows, aspect) == sides
    assert window_sides(m, n, rows, aspect) == sides


def spectra_by_svd(stack, rows, cols, windows):
    """One window after another, the shorter side along the smaller one or, if square, the rows."""
    spectra = []
    for W in stack:
        wide = W if W.shape[0] <= W.shape[1] else W.T
        for col in published_starts(wide.shape[1], cols, windows):
            for row in published_starts(wide.shape[0], rows, windows):
                window = wide[row : row + rows, col : col + cols]
                spectra.append(np.linalg.svd(window, compute_uv=False)[::-1] ** 2)
    return np.array(spectra)


WINDOWS = [
    ((1, 90, 60), 30, 30, 4),
    ((3, 60, 60), 20, 50, 3),
    ((2, 60, 20), 19, 38, 4),
    ((1, 40, 3), 2, 5, 7),
    ((1, 12, 12), 12, 12, 5),
    ((1, 5, 1), 1, 1, 2),
]


@pytest.mark.parametrize(("shape", "rows", "cols", "windows"), WINDOWS)
def test_eigenvalues_are_those_of_each_window(shape, rows, cols, windows):
    stack = np.random.default_rng(1).standard_t(3, shape)
    expected = spectra_by_svd(stack, rows, cols, windows)
    found = host.window_eigenvalues(stack, rows, cols, windows).reshape(-1, rows)
    assert len(found) == count_windows(shape, rows, cols, windows)
    largest = expected.max(axis=1, keepdims=True)
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("shape", "rows", "cols", "windows"), WINDOWS[:4])
def test_both_engines_pool_the_same(shape, rows, cols, windows):
    stack = np.random.default_rng(2).standard_t(3, shape)
    ours = host.window_esd(stack, rows, cols, windows, 0.5)
    with jax.enable_x64(True):
        theirs = jax.device_get(window_esd(stack, rows, cols, windows, 0.5))
        other_way = jax.device_get(window_esd(stack.swapaxes(1, 2), rows, cols, windows, 0.5))
    assert int(ours.n) == int(theirs.n) == ours.evals.size
    assert ours.floor == pytest.approx(float(theirs.floor), rel=1e-12)
    np.testing.assert_allclose(theirs.evals, ours.evals, rtol=0, atol=10 * ours.floor)
    pooled = np.sort(spectra_by_svd(stack, rows, cols, windows), axis=None) / 4
    np.testing.assert_allclose(ours.evals, pooled, rtol=0, atol=10 * ours.floor)
    if shape[1] != shape[2]:
        np.testing.assert_allclose(other_way.evals, ours.evals, rtol=0, atol=10 * ours.floor)


def test_few_windows_at_a_time_change_nothing(monkeypatch):
    stack = np.random.default_rng(3).standard_normal((2, 50, 40))
    whole = host.window_eigenvalues(stack, 15, 15, 6)
    monkeypatch.setattr(host, "_GRAM_ELEMENTS", 2 * 15 * 15)
    np.testing.assert_array_equal(host.window_eigenvalues(stack, 15, 15, 6), whole)
    with jax.enable_x64(True):
        mapped = window_esd(stack, 15, 15, 6)
    np.testing.assert_allclose(mapped.evals, np.sort(whole, axis=None), rtol=0, atol=1e-12)


def test_memory_is_one_product_and_one_window(monkeypatch):
    monkeypatch.setattr(host, "_GRAM_ELEMENTS", 1)
    monkeypatch.setattr(host, "_BLOCK_ELEMENTS", 1 << 12)
    monkeypatch.setattr(host, "_PANEL", 20)
    stack = np.ones((1, 800, 400), np.float16)
    tracemalloc.start()
    try:
        host.window_eigenvalues(stack, 200, 200, 5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    product, window = 8 * 400**2, 8 * 200**2
    assert peak < product + 2 * window, "the row windows of a product are five"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, "i1"])
def test_stored_dtypes_are_read_exactly(dtype):
    stack = (20 * np.random.default_rng(4).standard_normal((2, 50, 30))).astype(dtype)
    found = host.window_esd(stack, 10, 15, 4)
    exact = host.window_esd(stack.astype(np.float64), 10, 15, 4)
    np.testing.assert_array_equal(found.evals, exact.evals)


def test_alpha_is_hill_s_of_all_windows_and_W_is_left_alone():
    W = np.random.default_rng(5).standard_t(3, (80, 50))
    W.flags.writeable = False
    fit = farms(W, rows=20, aspect=1.5, windows=6)
    evals = np.sort(spectra_by_svd(W[None], 20, 30, 6), axis=None)
    tail = evals[evals > 1e-5]
    tail = tail[tail.size // 2 :]
    alpha = 1 + tail.size / np.log(tail / tail[0]).sum()
    model = 1 - (tail / tail[0]) ** (1 - alpha)
    D = np.abs(model - np.arange(tail.size) / tail.size).max()
    np.testing.assert_allclose([fit.alpha, fit.D, fit.xmin], [alpha, D, tail[0]], rtol=1e-9)
    assert int(fit.k) == tail.size
    assert int(fit.num_windows) == 36
    assert Status(int(fit.status)) is Status.SUCCESS


def test_the_defaults_are_ten_square_windows_of_half_a_side():
    W = np.random.default_rng(6).standard_normal((3, 60, 40))
    one, other = farms(W), farms(W, rows=20, aspect=1.0, windows=10, estimator="median")
    assert float(one.alpha) == float(other.alpha)
    assert int(one.num_windows) == 300


@pytest.mark.parametrize("estimator", ["median", "peak", "PL"])
def test_estimators(estimator):
    W = np.random.default_rng(7).standard_t(3, (60, 40))
    pooled = host.window_esd(W[None], 20, 20, 3)
    fit = farms(W, windows=3, estimator=estimator, ks="two-sided", threshold="relative")
    if estimator == "PL":
        alone = fit_pl(pooled, ks="two-sided", threshold="relative")
        k = alone.num_pl_spikes
    else:
        alone = hill(pooled, estimator, ks="two-sided", threshold="relative")
        k = alone.k
    np.testing.assert_allclose([fit.alpha, fit.D], [alone.alpha, alone.D], rtol=1e-9)
    assert int(fit.k) == int(k)
    padded = farms_of(host.padded(pooled, 1024), 9, estimator, "relative", "two-sided")
    np.testing.assert_allclose(padded.alpha, fit.alpha, rtol=1e-3)  # float32


def marchenko_pastur_alpha(ratio):
    """Hill's alpha at the median of the Marchenko-Pastur law, whose density is sin^2 / x."""
    angle = np.linspace(0, np.pi, 200_001)[1:-1]
    x = 1 + ratio - 2 * np.sqrt(ratio) * np.cos(angle)
    mass = np.sin(angle) ** 2 / x
    median = np.searchsorted(np.cumsum(mass), mass.sum() / 2)
    logs = np.log(x[median:] / x[median])
    return 1 + mass[median:].sum() / (mass[median:] * logs).sum()


@pytest.mark.parametrize("shape", [(256, 256), (512, 128), (1024, 64)])
def test_the_shape_of_a_gaussian_layer_sets_alpha_of_the_whole_alone(shape):
    W = np.random.default_rng(8).standard_normal((1, *shape))
    spectra = [host.window_esd(W, 64, 64, 4), host.window_esd(W, 32, 64, 4), host.esd(W)]
    found = [float(hill(spectrum, threshold="relative").alpha) for spectrum in spectra]
    expected = [marchenko_pastur_alpha(ratio) for ratio in (1, 0.5, shape[1] / shape[0])]
    np.testing.assert_allclose(found, expected, rtol=0.03)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-20, 20))
def test_scaling_and_transposing_leave_alpha(seed, power):
    W = np.random.default_rng(seed).standard_t(3, (30, 22))
    base, *same = (
        farms(M, windows=3, threshold="relative").alpha for M in (W, 2.0**power * W, W.T)
    )
    np.testing.assert_allclose(same, base, rtol=1e-9)


def test_in_a_square_the_window_lies_along_the_rows():
    W = np.random.default_rng(9).standard_normal((30, 30)) * np.arange(1, 31)
    evals = np.sort(spectra_by_svd(W[None], 10, 20, 3), axis=None)
    expected = hill(evals, threshold="relative").alpha
    along, across = (farms(M, rows=10, aspect=2, windows=3).alpha for M in (W, W.T))
    np.testing.assert_allclose(along, expected, rtol=1e-9)
    assert abs(float(across) / float(along) - 1) > 0.01


def test_vmap_and_jit_over_stacked_matrices():
    stacked = np.random.default_rng(10).standard_t(3, (3, 30, 22))
    with jax.enable_x64(True):
        together = jax.jit(jax.vmap(lambda W: farms(W, windows=3)))(stacked)
    assert together.num_windows.shape == (3,)
    for W, alpha in zip(stacked, together.alpha, strict=True):
        np.testing.assert_allclose(alpha, farms(W, windows=3).alpha, rtol=1e-9)


def test_float32_is_close():
    W = np.random.default_rng(11).standard_t(3, (60, 40))
    single = farms(W.astype(np.float32), aspect=2.0, windows=4)
    assert single.alpha.dtype == np.float32
    np.testing.assert_allclose(single.alpha, farms(W, aspect=2.0, windows=4).alpha, rtol=1e-4)


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        W = jnp.asarray(np.random.default_rng(12).standard_t(4, (24, 16)))
        step = jnp.asarray(np.random.default_rng(13).standard_normal((24, 16)))
        alpha = jax.jit(lambda W: farms(W, windows=3).alpha)
        slope = jnp.vdot(jax.jit(jax.grad(alpha))(W), step)
        h = 1e-7
        secant = (alpha(W + h * step) - alpha(W - h * step)) / (2 * h)
        slope, secant = float(slope), float(secant)
    assert slope == pytest.approx(secant, rel=1e-5)
    assert abs(slope) > 1e-3


def test_gradients_of_odd_input_are_finite():
    slope = jax.jit(jax.grad(lambda W: jnp.nan_to_num(farms(W, windows=2).alpha)))
    for W in (np.zeros((8, 6)), np.ones((8, 6)), np.eye(8, 6)):
        assert np.isfinite(slope(W.astype(np.float32))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(3, 4), (-1, -1)])
def test_a_weight_that_is_no_number_leaves_no_alpha(bad, place):
    """Also where no window reaches: the last rows of 21 with windows of 10, 4 apart."""
    W = np.random.default_rng(14).standard_normal((21, 21))
    W[place] = bad
    assert np.isnan(host.window_esd(W[None], 10, 10, 4).evals).all()
    fit = farms(W, windows=4)
    assert Status(int(fit.status)) is Status.NOT_FINITE
    assert np.isnan([fit.alpha, fit.D, fit.xmin]).all()


ODD = [
    (np.zeros((0, 5)), Status.TAIL_TOO_SHORT, 0),
    (np.zeros((0, 5, 4)), Status.TAIL_TOO_SHORT, 0),
    (np.full((1, 1), 3.0), Status.TAIL_TOO_SHORT, 1),
    (np.zeros((6, 5)), Status.ALL_ZERO, 4),
    (np.ones((6, 5)), Status.NO_TAIL, 4),
    (np.full((6, 5), 1e-170), Status.NOT_FINITE, 4),
    (np.full((6, 5), 1e160), Status.NOT_FINITE, 4),
]


@pytest.mark.parametrize(("W", "status", "number"), ODD)
def test_odd_input_has_a_status_and_no_number(W, status, number):
    fit = farms(W, windows=2)
    assert Status(int(fit.status)) is status
    assert int(fit.num_windows) == number
    assert np.isnan([fit.alpha, fit.D, fit.xmin]).all()
    assert int(fit.k) == 0
    stack = W if W.ndim == 3 else W[None]
    spectrum = host.window_esd(stack, *window_sides(*stack.shape[1:], None, 1.0), 2)
    assert int(farms_of(host.padded(spectrum, 256), 0).status) == status


BAD_OPTIONS = [
    {"rows": 0},
    {"rows": 2.5},
    {"aspect": 0.5},
    {"aspect": np.nan},
    {"aspect": "2"},
    {"windows": 0},
    {"windows": None},
    {"estimator": "mean"},
    {"threshold": 1e-5},
    {"ks": "both"},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_an_option_outside_its_range_is_refused(options):
    with pytest.raises(wwfunc.OptionError, match=f"^{next(iter(options))} is"):
        farms(np.ones((9, 9)), **options)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), ()])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(wwfunc.InputError, match="farms takes a matrix"):
        farms(np.zeros(shape))
