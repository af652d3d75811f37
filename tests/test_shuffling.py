"""Shuffled weights: the same elements, each slice by itself, alike in JAX and on the host."""

from __future__ import annotations

import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wwfunc import InputError, OptionError, esd
from wwfunc.randommatrix.permutation import folded, host_permute, permute, words
from wwfunc.randommatrix.shuffling import (
    host_shuffled,
    host_shuffles,
    random_esd,
    shuffled,
    shuffles,
)

KEY = jax.random.key(11)
WORDS = words(KEY)


def gaussian(*shape, dtype=np.float64):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


STACKS = {
    "matrix": gaussian(1, 40, 30),
    "float32": gaussian(2, 20, 10, dtype=np.float32),
    "bfloat16": gaussian(1, 30, 8).astype(ml_dtypes.bfloat16),
    "transposed": gaussian(3, 17, 40).swapaxes(1, 2),
    "kernel": gaussian(24, 16, 3, 3).transpose(2, 3, 0, 1).reshape(9, 24, 16),
    "kernel in place": gaussian(24, 16, 5).transpose(2, 0, 1),
    "every second": gaussian(1, 40, 30)[:, ::2, ::3],
    "column": gaussian(2, 9, 1),
    "single": gaussian(1, 1, 1),
    "large": gaussian(1, 2000, 33),
    "no rows": np.empty((2, 0, 0)),
    "no columns": np.empty((2, 5, 0)),
    "no slices": np.empty((0, 5, 3)),
}


@pytest.mark.parametrize("name", STACKS)
def test_host_and_jax_shuffle_alike(name):
    stack = STACKS[name]
    on_host = host_shuffled(WORDS, stack)
    assert on_host.dtype == stack.dtype
    by_jax = np.asarray(shuffled(KEY, stack))
    assert by_jax.shape == stack.shape
    np.testing.assert_array_equal(on_host.astype(by_jax.dtype), by_jax)


def test_each_slice_keeps_its_elements_and_its_own_order():
    stack = np.arange(5 * 12 * 7.0).reshape(5, 12, 7)
    result = shuffled(KEY, stack)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float64
    orders = []
    for index, (before, after) in enumerate(zip(stack, result, strict=True)):
        order = host_permute(folded(WORDS, index), before.size)
        np.testing.assert_array_equal(after.flat, before.flat[order])
        orders.append(order)
    assert max(np.sum(a == b) for a in orders for b in orders if a is not b) < 10
    np.testing.assert_array_equal(result[0], shuffled(KEY, stack[0]))
    np.testing.assert_array_equal(result[0].flat, stack[0].flat[np.asarray(permute(KEY, 84))])
    np.testing.assert_array_equal(host_shuffled(WORDS, stack, part=slice(2, 4)), result[2:4])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31 - 1), st.sampled_from([(6, 4), (3, 5, 5), (2, 9, 1)]))
def test_only_the_order_changes(seed, shape):
    W = gaussian(*shape)
    result = shuffled(jax.random.key(seed), W)
    slices = [np.sort(x.reshape(-1, shape[-2] * shape[-1]), axis=1) for x in (W, result)]
    np.testing.assert_array_equal(*slices)
    assert not np.array_equal(W, result)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("replicas", [1, 3])
def test_spectra_on_the_host_and_by_jax_and_by_svd(name, replicas):
    stack, scale = STACKS[name].astype(np.float64), np.sqrt(0.5)
    found = host_shuffles(WORDS, stack, scale, replicas).every
    by_jax = random_esd(KEY, stack, scale, replicas=replicas)
    count = replicas * len(stack) * min(stack.shape[1:])
    assert int(found.n) == int(by_jax.n) == found.evals.size == count
    copies = np.concatenate([host_shuffled(WORDS, stack, r) for r in range(replicas)])
    by_svd = np.sort(np.linalg.svd(copies, compute_uv=False).ravel()) ** 2 / 2 if count else []
    largest = max(by_svd, default=1.0)
    np.testing.assert_allclose(found.evals, by_svd, rtol=1e-12, atol=1e-12 * largest)
    in_jax = by_jax.evals[by_jax.evals.size - count :]
    np.testing.assert_allclose(found.evals, in_jax, rtol=1e-12, atol=1e-12 * largest)
    np.testing.assert_allclose(found.floor, by_jax.floor, rtol=1e-12)


def test_replicas_differ_and_the_first_one_does_not_depend_on_them():
    stack = STACKS["kernel"]
    drawn = host_shuffles(WORDS, stack, 1.0, 4)
    first, every = drawn.first, drawn.every
    np.testing.assert_array_equal(first.evals, host_shuffles(WORDS, stack).every.evals)
    assert np.isin(first.evals, every.evals).all()
    assert np.unique(every.evals).size == 4 * first.evals.size


def test_each_slice_is_at_hand_in_jax_and_on_the_host():
    stack, scale = STACKS["kernel"].astype(np.float64), np.sqrt(0.5)
    on_host = host_shuffles(WORDS, stack, scale, 3)
    with jax.enable_x64(True):
        by_jax = shuffles(KEY, jnp.asarray(stack), jnp.float64(scale), 3)
    for own, other in zip(jax.tree.leaves(on_host), jax.tree.leaves(by_jax), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-11, atol=1e-12)
    copies = np.concatenate([host_shuffled(WORDS, stack, replica) for replica in range(3)])
    sigma = np.linalg.svd(copies, compute_uv=False)[:, ::-1]
    np.testing.assert_allclose(on_host.each.evals, sigma**2 / 2, rtol=1e-10, atol=1e-12)
    floors = np.finfo(float).eps * max(stack.shape[1:]) * sigma[:, -1] ** 2 / 2
    np.testing.assert_allclose(on_host.each.floor, floors, rtol=1e-10)


def test_a_shuffle_keeps_the_norm_and_leaves_no_correlation():
    n, m, theta = 400, 200, 40.0
    rng = np.random.default_rng(3)
    signal = np.outer(rng.standard_normal(n), rng.standard_normal(m))
    W = rng.standard_normal((n, m)) + theta * signal / np.linalg.norm(signal)
    before, after = esd(W), random_esd(KEY, W)
    np.testing.assert_allclose(after.evals.sum(), before.evals.sum(), rtol=1e-12)
    edges = W.std() ** 2 * (np.sqrt(n) + np.array([-1, 1]) * np.sqrt(m)) ** 2
    assert before.evals[-1] > 1.5 * edges[1]
    np.testing.assert_allclose(after.evals[-1], edges[1], rtol=0.08)
    np.testing.assert_allclose(after.evals[0], edges[0], rtol=0.15)


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-3, 1e3))
def test_a_scale_is_squared(scale):
    W = STACKS["kernel"]
    plain, larger = random_esd(KEY, W), random_esd(KEY, W, scale)
    np.testing.assert_allclose(larger.evals, scale**2 * plain.evals, rtol=1e-12)
    np.testing.assert_allclose(random_esd(KEY, scale * W).evals, larger.evals, rtol=1e-9)
    host_scaled = host_shuffles(WORDS, W, scale).every
    np.testing.assert_allclose(host_scaled.evals, larger.evals, rtol=1e-11)


def test_under_jit_and_vmap_and_in_float32():
    W = gaussian(3, 12, 7, dtype=np.float32)
    keys = jax.random.split(KEY, 4)
    spectra = jax.jit(jax.vmap(lambda key: random_esd(key, W, replicas=2)))(keys)
    assert spectra.evals.dtype == jnp.float32
    assert spectra.evals.shape == (4, 42)
    for key, evals in zip(keys, spectra.evals, strict=True):
        on_host = host_shuffles(words(key), W, replicas=2).every.evals
        np.testing.assert_allclose(evals, on_host, rtol=1e-4, atol=1e-5)
    assert np.ptp(spectra.evals[:, -1]) > 0.01
    layers = jax.vmap(random_esd, (None, 0))(KEY, jnp.stack([W, 2 * W]))
    np.testing.assert_allclose(layers.evals[1], 4 * layers.evals[0], rtol=1e-5)


def test_the_gradient_comes_back_to_its_element():
    W = gaussian(9, 5)
    norm = jax.grad(lambda x: jnp.sum(random_esd(KEY, x).evals))
    weighed = jax.grad(lambda x: jnp.vdot(shuffled(KEY, x), np.arange(45.0).reshape(9, 5)))
    with jax.enable_x64(True):
        np.testing.assert_allclose(norm(jnp.asarray(W)), 2 * W, rtol=1e-10)
        np.testing.assert_array_equal(
            weighed(jnp.asarray(W)).ravel()[np.asarray(permute(KEY, 45))], np.arange(45)
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    W = gaussian(6, 4)
    W[2, 3] = bad
    assert np.isnan(random_esd(KEY, W).evals).all()
    assert np.isnan(host_shuffles(WORDS, W[None]).every.evals).all()
    moved = shuffled(KEY, W)
    assert np.sum(~np.isfinite(moved)) == 1
    assert not np.isfinite(moved.flat[_origin(2 * 4 + 3)])


def _origin(element):
    """Where an element of 24 has gone."""
    return int(np.flatnonzero(np.asarray(permute(KEY, 24)) == element)[0])


@pytest.mark.parametrize("turned", [False, True])
def test_one_copy_in_the_stored_type_is_made(turned):
    stack = gaussian(1, 1200, 1500, dtype=np.float32).astype(ml_dtypes.bfloat16)
    stack = stack.swapaxes(1, 2) if turned else stack
    tracemalloc.start()
    result = host_shuffled(WORDS, stack)
    assert tracemalloc.get_traced_memory()[1] < result.nbytes + 2**21
    tracemalloc.stop()


@pytest.mark.parametrize("function", [shuffled, random_esd])
def test_what_is_no_matrix_is_refused(function):
    for W in (np.zeros(3), np.zeros((1, 2, 3, 4)), np.zeros((2, 2), complex), "W", None):
        with pytest.raises(InputError, match="W "):
            function(KEY, W)
    with pytest.raises(InputError, match="key is one random key"):
        function(3, np.zeros((2, 2)))


@pytest.mark.parametrize("replicas", [0, 1.5, True, "2"])
def test_replicas_are_counted(replicas):
    with pytest.raises(OptionError, match="replicas is a whole number from 1"):
        random_esd(KEY, np.zeros((2, 2)), replicas=replicas)
