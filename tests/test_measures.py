"""The scale metrics against their definitions, and `measure` under JAX's transformations."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import Status, measure

RELATIVE = 1e-10


def expected(W):
    """Every metric from the singular values, by its definition."""
    sv = np.linalg.svd(W, compute_uv=False)
    evals = sv**2
    share = evals / evals.sum()
    return {
        "norm": (W**2).sum(),
        "log_norm": np.log10((W**2).sum()),
        "spectral_norm": sv[0] ** 2,
        "log_spectral_norm": np.log10(sv[0] ** 2),
        "stable_rank": (W**2).sum() / sv[0] ** 2,
        "entropy": -(share * np.log(share)).sum() / np.log(evals.size),
        "sv_max": sv[0],
        "sv_min": sv[-1],
        "matrix_rank": evals.size,
        "rank_loss": 0,
        "weak_rank_loss": int((evals < 1e-6 * evals[0]).sum()),
    }


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (128, 128)])
def test_scale_metrics(shape):
    W = np.random.default_rng(1).standard_t(4, shape)
    found = measure(W)
    for name, value in expected(W).items():
        np.testing.assert_allclose(getattr(found.scale, name), value, rtol=1e-8, err_msg=name)
    evals, alpha = found.esd.evals, float(found.fit.alpha)
    np.testing.assert_allclose(
        found.shape.log_alpha_norm, np.log10((evals**alpha).sum()), rtol=RELATIVE
    )
    np.testing.assert_allclose(
        found.shape.alpha_weighted, alpha * np.log10(evals[-1]), rtol=RELATIVE
    )


def test_scale_multiplies_the_matrix():
    W = np.random.default_rng(2).standard_normal((50, 40))
    scaled, same = measure(W, scale=3.0), measure(3.0 * W)
    np.testing.assert_allclose(scaled.scale.norm, same.scale.norm, rtol=RELATIVE)
    np.testing.assert_allclose(scaled.fit.alpha, same.fit.alpha, rtol=1e-8)


def test_scale_multiplies_a_spectrum_too():
    W = np.random.default_rng(2).standard_normal((50, 40))
    of_matrix, of_esd = measure(W, scale=3.0), measure(wwfunc.esd(W), scale=3.0)
    np.testing.assert_allclose(of_esd.esd.evals, of_matrix.esd.evals, rtol=1e-14)
    np.testing.assert_allclose(of_esd.esd.floor, of_matrix.esd.floor, rtol=1e-14)
    np.testing.assert_allclose(of_esd.scale.norm, of_matrix.scale.norm, rtol=1e-14)


def test_log_alpha_norm_does_not_overflow():
    """Scaling W by 1e80 adds 160 alpha, though no power of an eigenvalue is a float any more."""
    W = np.random.default_rng(3).standard_normal((60, 40))
    one, scaled = measure(W), measure(W * 1e80)
    np.testing.assert_allclose(
        scaled.shape.log_alpha_norm, one.shape.log_alpha_norm + 160 * one.fit.alpha, rtol=1e-8
    )


def test_rank_one():
    found = measure(np.outer(np.arange(1.0, 31), np.arange(1.0, 21)))
    assert int(found.scale.matrix_rank) == 1
    assert int(found.scale.rank_loss) == 19
    assert float(found.scale.sv_min) == 0.0
    assert Status(int(found.scale.status)) is Status.RANK_DEFICIENT
    assert Status(int(found.fit.status)) is Status.TAIL_TOO_SHORT
    np.testing.assert_allclose(found.scale.stable_rank, 1.0)
    assert np.isnan(found.scale.entropy)


def test_all_zero_and_not_finite():
    zero = measure(np.zeros((30, 20)))
    assert float(zero.scale.norm) == 0.0
    assert np.isnan([zero.scale.log_norm, zero.scale.stable_rank, zero.fit.alpha]).all()
    assert Status(int(zero.scale.status)) is Status.ALL_ZERO
    broken = measure(np.full((30, 20), np.nan))
    assert np.isnan([broken.scale.norm, broken.scale.sv_max, broken.fit.alpha]).all()
    assert Status(int(broken.scale.status)) is Status.NOT_FINITE


def test_inside_a_training_step():
    """jit, vmap over equal layers, and a gradient that reaches the weights."""
    params = np.random.default_rng(4).standard_normal((3, 40, 30)).astype(np.float32)

    @jax.jit
    @jax.grad
    def step(stacked):
        found = jax.vmap(measure)(stacked)
        return found.fit.alpha.mean() + found.scale.stable_rank.mean() + found.scale.entropy.mean()

    gradient = step(params)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(axis=(1, 2)) > 0).all()


def test_vmap_gives_what_one_by_one_gives():
    stacked = np.random.default_rng(5).standard_t(3, (4, 60, 40))
    with jax.enable_x64(True):
        together = jax.device_get(jax.vmap(measure)(stacked))
    for i, W in enumerate(stacked):
        alone = measure(W)
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), one, alone)


def test_options_reach_the_fit():
    W = np.random.default_rng(6).standard_normal((60, 40))
    assert float(measure(W, wwfunc.Options(xmin=0.5)).fit.xmin) == 0.5
    assert float(measure(W, wwfunc.Options(xmax=-3)).fit.xmax) < float(measure(W).fit.xmax)


def test_an_esd_is_measured_as_its_matrix_is():
    W = np.random.default_rng(7).standard_normal((60, 40))
    np.testing.assert_array_equal(measure(wwfunc.esd(W)).fit.alpha, measure(W).fit.alpha)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-8, 8))
def test_laws_of_scale(seed, power):
    W = np.random.default_rng(seed).standard_normal((48, 32))
    one, other = measure(W).scale, measure(W * 2.0**power).scale
    np.testing.assert_allclose(other.norm, one.norm * 4.0**power, rtol=RELATIVE)
    for name in ("stable_rank", "entropy", "matrix_rank", "weak_rank_loss"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-8)
    np.testing.assert_allclose(measure(W.T).scale.entropy, one.entropy, rtol=1e-8)
