"""The ESD: planted spectra, host against JAX, precision, derivatives, laws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import host


def planted(rng, n, m, evals):
    """A matrix (n, m) whose W^T W has exactly these eigenvalues."""
    left = np.linalg.qr(rng.standard_normal((n, len(evals))))[0]
    right = np.linalg.qr(rng.standard_normal((m, len(evals))))[0]
    return (left * np.sqrt(evals)) @ right.T


SHAPES = [(40, 30), (30, 40), (64, 64), (200, 3), (1, 7), (7, 1), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_planted_spectrum(shape):
    rng = np.random.default_rng(1)
    evals = np.sort(rng.uniform(0.5, 4.0, min(shape)))
    found = wwfunc.esd(planted(rng, *shape, evals))
    assert found.evals.dtype == np.float64
    assert int(found.n) == min(shape)
    np.testing.assert_allclose(found.evals, evals, atol=10 * float(found.floor))


@pytest.mark.parametrize("shape", [(3, *shape) for shape in SHAPES])
def test_host_agrees_with_jax(shape):
    stack = np.random.default_rng(2).standard_normal(shape)
    oriented = stack if shape[1] >= shape[2] else stack.swapaxes(1, 2)
    ours, theirs = host.esd(oriented, 0.5), wwfunc.esd(stack, 0.5)
    assert ours.floor == pytest.approx(float(theirs.floor), rel=1e-12)
    np.testing.assert_allclose(ours.evals, theirs.evals, rtol=0, atol=10 * ours.floor)


def test_host_agrees_with_jax_in_alpha():
    for seed in range(10):
        W = np.random.default_rng(seed).standard_t(3, (150, 90))
        ours, theirs = wwfunc.fit_pl(host.esd(W[None])), wwfunc.fit_pl(wwfunc.esd(W))
        np.testing.assert_allclose(ours.alpha, theirs.alpha, rtol=1e-8)


def test_float32_is_right_every_time():
    """jaxlib 0.8.0 and 0.8.1 lose three of four such products to a race between threads."""
    for seed in range(20):
        W = np.random.default_rng(seed).standard_normal((300, 150)).astype(np.float32)
        exact = np.linalg.svd(W.astype(float), compute_uv=False)[::-1] ** 2
        np.testing.assert_allclose(wwfunc.esd(W).evals, exact, atol=1e-6 * exact[-1])


def test_row_blocks_do_not_change_the_gram_matrix(monkeypatch):
    stack = np.random.default_rng(3).standard_normal((2, 500, 20))
    whole = np.tril(stack.swapaxes(1, 2) @ stack)
    for elements, panel in ((64, 512), (1 << 21, 7), (64, 7)):
        monkeypatch.setattr(host, "_BLOCK_ELEMENTS", elements)
        monkeypatch.setattr(host, "_PANEL", panel)
        np.testing.assert_allclose(np.tril(host.grams(stack)), whole, rtol=1e-12, atol=1e-11)
        np.testing.assert_allclose(
            host.esd(stack).evals, np.sort(np.linalg.eigvalsh(whole).ravel()), rtol=1e-10
        )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_narrow_weights_are_read_exactly(dtype):
    W = np.random.default_rng(4).standard_normal((50, 20)).astype(dtype)
    exact = np.linalg.svd(W.astype(np.float64), compute_uv=False)[::-1] ** 2
    np.testing.assert_allclose(host.esd(W[None]).evals, exact, rtol=1e-12)
    single = wwfunc.esd(W)
    assert single.evals.dtype == np.float32
    np.testing.assert_allclose(single.evals, exact, atol=10 * float(single.floor))


def test_precision_is_that_of_the_input():
    W = np.random.default_rng(5).standard_normal((30, 20))
    assert wwfunc.esd(W).evals.dtype == np.float64
    assert wwfunc.esd(W.astype(np.float32)).evals.dtype == np.float32
    assert jnp.zeros(1).dtype == np.float32, "no global switch was touched"


def test_inside_a_trace_without_x64_it_is_float32_within_its_floor():
    W = np.random.default_rng(6).standard_normal((30, 20))
    exact = wwfunc.esd(W)
    traced = jax.jit(wwfunc.esd)(W)
    closed_over = jax.jit(lambda: wwfunc.esd(W))()
    for found in (traced, closed_over):
        assert found.evals.dtype == np.float32
        np.testing.assert_allclose(found.evals, exact.evals, atol=10 * float(found.floor))


def test_vmap_over_equal_matrices():
    stack = np.random.default_rng(7).standard_normal((5, 30, 20)).astype(np.float32)
    together = jax.vmap(wwfunc.esd)(stack)
    for W, evals in zip(stack, together.evals, strict=True):
        np.testing.assert_allclose(evals, wwfunc.esd(W).evals, rtol=1e-4)


@pytest.mark.parametrize("W", [np.eye(6), np.diag([1.0, 1.0, 2.0, 3.0]), np.ones((5, 4))])
def test_gradient_of_the_sum_is_that_of_the_norm_also_with_ties(W):
    gradient = jax.grad(lambda w: wwfunc.esd(w).evals.sum())(W.astype(np.float32))
    np.testing.assert_allclose(gradient, 2 * W, atol=1e-5)


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        W = jnp.asarray(np.random.default_rng(8).standard_normal((12, 8)))
        step = jnp.asarray(np.random.default_rng(9).standard_normal((12, 8)))
        largest = jax.jit(lambda w: wwfunc.esd(w).evals[-1])
        slope = jnp.vdot(jax.grad(largest)(W), step)
        h = 1e-6
        secant = (largest(W + h * step) - largest(W - h * step)) / (2 * h)
        np.testing.assert_allclose(slope, secant, rtol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_weights_give_nan_everywhere(bad):
    W = np.random.default_rng(10).standard_normal((20, 10))
    W[3, 4] = bad
    assert np.isnan(wwfunc.esd(W).evals).all()
    assert np.isnan(host.esd(W[None]).evals).all()


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), ()])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(wwfunc.InputError, match="takes a matrix"):
        wwfunc.esd(np.zeros(shape))


def test_empty_matrix_has_no_eigenvalues():
    found = wwfunc.esd(np.zeros((5, 0)))
    assert int(found.n) == 0
    assert not found.evals.any(), "padding alone"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-20, 20))
def test_laws(seed, power):
    """Scaling scales eigenvalues; transposing, permuting and rotating leave them alone."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((24, 16))
    rotation = np.linalg.qr(rng.standard_normal((24, 24)))[0]
    base = host.esd(W[None])
    tolerance = 20 * base.floor
    np.testing.assert_allclose(host.esd(W[None] * 2.0**power).evals, base.evals * 4.0**power)
    for same in (W[rng.permutation(24)], W[:, rng.permutation(16)], rotation @ W):
        np.testing.assert_allclose(host.esd(same[None]).evals, base.evals, rtol=0, atol=tolerance)
    np.testing.assert_allclose(wwfunc.esd(W.T).evals, base.evals, rtol=0, atol=tolerance)
