"""Smoothing keeps what it should and nothing else: laws of the truncated decomposition."""

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
from wwfunc.randommatrix.marchenkopastur import mp_fit
from wwfunc.randommatrix.tracelog import erg
from wwfunc.transforms.smoothing import checked_keep, rounded, smooth_matrix, smoothed


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def singular(W):
    return np.linalg.svd(W, compute_uv=False)


def truncated(W, keep):
    """What it should be, by a singular value decomposition of each slice."""
    stack = W if W.ndim == 3 else W[None]
    u, s, vh = np.linalg.svd(stack, full_matrices=False)
    order = np.argsort(-s, axis=None)
    chosen = order[-keep:] if keep < 0 else order[:keep]
    kept = np.isin(np.arange(s.size), chosen).reshape(s.shape)
    return ((u * (s * kept)[:, None, :]) @ vh).reshape(W.shape)


SHAPES = [(40, 25), (25, 40), (30, 30), (7, 1), (1, 7), (5, 12, 9), (4, 9, 12), (1, 1)]


@given(shape=st.sampled_from(SHAPES), share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_it_is_the_truncated_decomposition(shape, share, seed):
    W = gaussian(*shape, seed=seed)
    total = min(shape[-2:]) * (shape[0] if len(shape) == 3 else 1)
    keep = 1 + int(share * (total - 1))
    before = W.copy()
    np.testing.assert_allclose(smooth_matrix(W, keep), truncated(W, keep), atol=1e-11)
    if keep < total:
        np.testing.assert_allclose(smooth_matrix(W, -keep), truncated(W, -keep), atol=1e-11)
    np.testing.assert_array_equal(W, before)


@given(keep=st.integers(1, 24), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_laws(keep, seed):
    W = gaussian(40, 25, seed=seed)
    result = smooth_matrix(W, keep)
    np.testing.assert_allclose(smooth_matrix(result, keep), result, atol=1e-12)
    np.testing.assert_allclose(smooth_matrix(W.T, keep).T, result, atol=1e-12)
    np.testing.assert_allclose(smooth_matrix(3 * W, keep), 3 * result, atol=1e-11)
    rows = np.random.default_rng(seed).permutation(40)
    np.testing.assert_allclose(smooth_matrix(W[rows], keep), result[rows], atol=1e-12)
    assert np.linalg.matrix_rank(result) == keep
    old, new = singular(W), singular(result)
    np.testing.assert_allclose(new[:keep], old[:keep], rtol=1e-10)
    assert new[keep:].max() < 1e-12 * old[0]
    # Eckart and Young: no matrix of this rank is nearer
    error = np.sum((W - result) ** 2)
    np.testing.assert_allclose(error, np.sum(old[keep:] ** 2), rtol=1e-10)
    np.testing.assert_allclose(smooth_matrix(W, -keep), W - result, atol=1e-12)


def test_what_is_kept_whole_keeps_every_bit():
    W = gaussian(3, 20, 10)
    for keep in (30, 31, 10_000):
        np.testing.assert_array_equal(smooth_matrix(W, keep), W)
    assert smooth_matrix(W, 30) is not W
    assert not np.shares_memory(smooth_matrix(W, 30), W)


def test_the_pooled_spectrum_decides_between_slices():
    """Not as many values in each slice, as in WeightWatcher, whose slices lose different shares."""
    W = gaussian(3, 20, 10) * np.array([100.0, 1.0, 0.01])[:, None, None]
    result = smooth_matrix(W, 12)
    np.testing.assert_array_equal(result[0], W[0])
    np.testing.assert_array_equal(np.linalg.matrix_rank(result), [10, 2, 0])
    np.testing.assert_array_equal(result[2], 0.0)
    np.testing.assert_array_equal(np.linalg.matrix_rank(smooth_matrix(W, -12)), [0, 8, 10])


@pytest.mark.parametrize(
    ("share", "kept"), [(0.29, 29), (0.3, 30), (0.005, 1), (0.999, 99), (np.float32(0.29), 29)]
)
def test_a_share_counts_down(share, kept):
    W = gaussian(120, 100)
    assert smoothed(W[None], checked_keep(share)).kept == kept
    assert np.linalg.matrix_rank(smooth_matrix(W, share)) == kept


def planted(spikes=(200.0, 150.0, 120.0), shape=(300, 200)):
    """Noise with a few strong directions."""
    u, _ = np.linalg.qr(gaussian(shape[0], len(spikes), seed=1))
    v, _ = np.linalg.qr(gaussian(shape[1], len(spikes), seed=2))
    return gaussian(*shape) + (u * spikes) @ v.T


def test_mp_keeps_the_planted_spikes():
    W = planted()
    result = smooth_matrix(W, "mp")
    np.testing.assert_allclose(result, truncated(W, 3), atol=1e-10)
    assert int(mp_fit(singular(W) ** 2, 300, 200).num_spikes) == 3


def test_erg_and_pl_keep_what_their_fits_count():
    t = np.random.default_rng(0).standard_t(3, (300, 200)) / 20
    evals = np.sort(singular(t) ** 2)
    tail = int(wwfunc.fit_pl(evals).num_pl_spikes)
    assert np.linalg.matrix_rank(smooth_matrix(t, "pl")) == tail
    assert 0 < tail < 200
    count = int(erg(evals).detX_num)
    assert np.linalg.matrix_rank(smooth_matrix(t, "erg")) == count
    assert 0 < count < 200


def test_rules_on_a_stack_look_at_all_slices_together():
    W = np.stack([planted((90.0, 80.0), (100, 60)), gaussian(100, 60, seed=7)])
    np.testing.assert_array_equal(np.linalg.matrix_rank(smooth_matrix(W, "mp")), [2, 0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", ">f4"])
def test_the_type_is_kept_and_rounded_to_nearest(dtype):
    W = gaussian(50, 30).astype(np.dtype(dtype) if dtype != "bfloat16" else ml_dtypes.bfloat16)
    exact = truncated(W.astype(np.float64), 7)
    result = smooth_matrix(W, 7)
    assert result.dtype == W.dtype
    step = np.spacing(np.abs(exact.astype(W.dtype)).astype(W.dtype.newbyteorder("=")))
    assert (np.abs(result.astype(np.float64) - exact) <= 0.5001 * step.astype(np.float64)).all()


def test_float32_is_computed_in_float64():
    W = gaussian(200, 100).astype(np.float32)
    exact = truncated(W.astype(np.float64), 50).astype(np.float32)
    assert np.mean(smooth_matrix(W, 50) == exact) > 0.999


def test_rounding_twice_is_rounding_once():
    values = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 2**-8 - 2**-40, -(1 + 2**-8 + 2**-40)])
    expected = [1 + 2**-7, 1.0, 1.0, -(1 + 2**-7)]
    np.testing.assert_array_equal(rounded(values, np.dtype(ml_dtypes.bfloat16)), expected)
    twice = values.astype(np.float32).astype(ml_dtypes.bfloat16)
    assert twice[0] == 1.0, "as the types cast themselves"
    assert rounded(np.array([1e300]), np.dtype(ml_dtypes.bfloat16))[0] == np.inf


def test_jax_in_jax_out():
    W = jnp.asarray(gaussian(30, 20), jnp.bfloat16)
    result = smooth_matrix(W, 3)
    assert isinstance(result, jax.Array)
    assert result.dtype == jnp.bfloat16
    with pytest.raises(wwfunc.InputError, match="under jit"):
        jax.jit(lambda w: smooth_matrix(w, 3))(W)


def test_long_matrices_go_by_blocks(monkeypatch):
    W = gaussian(101, 10)
    whole = smooth_matrix(W, 4)
    monkeypatch.setattr("wwfunc.transforms.smoothing._BLOCK_ELEMENTS", 70)
    np.testing.assert_allclose(smooth_matrix(W, 4), whole, atol=1e-13)


def test_many_slices_are_held_one_by_one(monkeypatch):
    """One portion of Gram matrices or many: the same result, without the vectors of all slices."""
    stack = gaussian(30, 60, 60)
    whole = smoothed(stack, 900).stack
    monkeypatch.setattr("wwfunc.host._GRAM_ELEMENTS", 7 * 60 * 60)
    tracemalloc.start()
    result = smoothed(stack, 900).stack
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(result, whole, atol=1e-12)
    assert peak < 1.9 * stack.nbytes, "the result and two portions"


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 3, 2)])
def test_nothing_is_smoothed_to_nothing(shape):
    assert smooth_matrix(np.empty(shape), 2).shape == shape


BAD_KEEP = [0, 0.0, 1.0, 1.5, -0.5, True, None, "MP", "", float("nan"), [3]]


@pytest.mark.parametrize("keep", BAD_KEEP, ids=repr)
def test_keep_is_checked(keep):
    with pytest.raises(wwfunc.OptionError, match="keep is a count"):
        smooth_matrix(np.eye(3), keep)


BAD_INPUT = {
    "nan": (np.array([[np.nan, 1.0], [0.0, 1.0]]), 1, "NaN or infinity"),
    "infinity": (np.array([[np.inf, 1.0], [0.0, 1.0]]), 1, "NaN or infinity"),
    "overflow": (np.full((2, 2), 1e200), 1, "NaN or infinity"),
    "underflow": (np.full((2, 2), 1e-200), 1, "NaN or infinity"),
    "whole": (np.eye(3, dtype=int), 1, "real floats"),
    "complex": (np.eye(3, dtype=complex), 1, "real floats"),
    "vector": (np.ones(3), 1, "a matrix"),
    "axes": (np.ones((1, 1, 2, 2)), 1, "a matrix"),
    "all": (np.eye(3), -3, "takes out all 3"),
    "no spike": (gaussian(64, 64), "mp", "would keep none of 64"),
    "no tail": (np.zeros((9, 9)), "pl", "keep='pl' finds nothing"),
    "no bulk": (np.ones((9, 9)), "mp", "keep='mp' finds nothing"),
    "no determinant": (np.zeros((9, 9)), "erg", "keep='erg'"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused(case):
    W, keep, words = BAD_INPUT[case]
    with pytest.raises(wwfunc.InputError, match=words):
        smooth_matrix(W, keep)


def test_what_leaves_the_range_of_the_type_is_refused():
    W = np.full((40, 40), 65504.0, np.float16)
    W[0, :20] *= -1
    W[:20, 0] *= -1
    with pytest.raises(wwfunc.InputError, match="leave the range of float16"):
        smooth_matrix(W, 1)
    assert np.isfinite(truncated(W.astype(np.float64), 1)).all()
