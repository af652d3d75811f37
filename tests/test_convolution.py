"""Circular convolutions against the matrix that they are, and against WeightWatcher's transform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import InputError, OptionError, convolution
from wwfunc.convolution import conv_esd, host_conv_esd

BOTH = pytest.mark.parametrize("compute", [conv_esd, host_conv_esd], ids=["jax", "host"])


def operator(kernel, sides):
    """The map from (grid, in) to (grid, out), element by element."""
    *taps, n, m = kernel.shape
    A = np.zeros((*sides, n, *sides, m))
    for place in np.ndindex(*sides):
        for tap in np.ndindex(*taps):
            source = tuple((p + t) % side for p, t, side in zip(place, tap, sides, strict=True))
            A[(*place, slice(None), *source, slice(None))] += kernel[tap]
    return A.reshape(np.prod(sides) * n, -1)


def exact(kernel, sides):
    found = np.linalg.svd(operator(kernel, sides), compute_uv=False)
    return np.sort(found[: np.prod(sides) * min(kernel.shape[-2:])])


@BOTH
@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((3, 3, 4, 5), 6),
        ((3, 3, 5, 4), 6),
        ((3, 5, 5, 2), 6),
        ((6, 6, 3, 2), 6),
        ((3, 3, 2, 2), 7),
        ((2, 3, 3, 3), (5, 6)),
        ((1, 1, 3, 2), 1),
        ((4, 3, 2), 9),
        ((2, 1, 2, 3, 2), (3, 2, 4)),
    ],
    ids=str,
)
def test_singular_values_of_the_operator(shape, grid, compute):
    kernel = np.random.default_rng(1).standard_normal(shape)
    sides = grid if isinstance(grid, tuple) else (grid,) * (len(shape) - 2)
    found = compute(kernel, grid)
    assert int(found.n) == found.evals.size == np.prod(sides) * min(shape[-2:])
    assert found.evals.dtype == np.float64
    singular = exact(kernel, sides)
    np.testing.assert_allclose(np.sqrt(found.evals), singular, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.evals, singular**2, rtol=0, atol=1e-10)


def test_opposite_frequencies_are_computed_once():
    half = convolution.frequencies((3, 3), (32, 32))
    assert len(half.times) == (32 * 32 + 4) // 2
    assert half.times.sum() == 32 * 32
    assert convolution.frequencies((3, 3), (5, 5)).times.tolist().count(1) == 1


@BOTH
def test_parseval(compute):
    """Each frequency of the grid holds the kernel's squared norm on average."""
    kernel = np.random.default_rng(2).standard_normal((3, 3, 16, 8))
    found = compute(kernel)
    assert int(found.n) == 32 * 32 * 8
    assert found.evals.sum() == pytest.approx(32 * 32 * np.sum(kernel**2), rel=1e-12)


@BOTH
def test_one_tap_is_a_matrix(compute):
    W = np.random.default_rng(3).standard_normal((20, 12))
    found = compute(W[None, None], 3)
    assert found.evals == pytest.approx(np.repeat(wwfunc.esd(W).evals, 9), rel=1e-10)
    assert float(found.floor) == pytest.approx(float(wwfunc.esd(W).floor), rel=1e-9)


def test_weightwatcher_takes_the_real_part_of_each_channel_map():
    """Its lambda_max of `features.3` is 1200.896: 51 times what the operator has."""
    kernel = seeded.tensors()["features.3.weight"].astype(np.float64)
    maps = np.fft.fft2(kernel, (32, 32)).real
    theirs = 0.5 * np.linalg.norm(maps, 2, axis=(2, 3)) ** 2
    assert theirs.max() == pytest.approx(1200.896185, rel=1e-8)
    slices = kernel.transpose(2, 3, 0, 1)
    largest = float(host_conv_esd(slices).evals[-1])
    assert largest == pytest.approx(23.48820, rel=1e-6)
    assert largest <= np.linalg.norm(slices, 2, axis=(2, 3)).sum() ** 2, "no gain is larger"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_laws(seed, scale):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((3, 2, 4, 3))
    base = host_conv_esd(kernel, 5).evals
    others = [
        kernel.swapaxes(2, 3),
        kernel[::-1, ::-1],
        rng.permutation(kernel, axis=2),
        rng.permutation(kernel, axis=3),
    ]
    for other in others:
        np.testing.assert_allclose(host_conv_esd(other, 5).evals, base, atol=1e-11)
    np.testing.assert_allclose(host_conv_esd(scale * kernel, 5).evals / scale**2, base, atol=1e-11)
    np.testing.assert_allclose(host_conv_esd(kernel.swapaxes(0, 1), 5).evals, base, atol=1e-11)


def test_a_stack_of_slices_is_the_kernel():
    kernel = np.random.default_rng(5).standard_normal((3, 2, 4, 3))
    stack = kernel.reshape(6, 4, 3)
    np.testing.assert_array_equal(
        host_conv_esd(stack.reshape(3, 2, 4, 3), 6).evals, host_conv_esd(kernel, 6).evals
    )


def test_blocks_of_frequencies_change_nothing(monkeypatch):
    kernel = np.random.default_rng(6).standard_normal((3, 3, 6, 5))
    whole = host_conv_esd(kernel, 8).evals
    monkeypatch.setattr(convolution, "_BLOCK_ELEMENTS", 100)
    np.testing.assert_allclose(host_conv_esd(kernel, 8).evals, whole, rtol=1e-12, atol=1e-13)


def test_float32_jit_and_vmap():
    kernels = np.random.default_rng(7).standard_normal((2, 3, 3, 6, 5)).astype(np.float32)
    found = jax.jit(jax.vmap(lambda kernel: conv_esd(kernel, 6)))(kernels)
    assert found.evals.dtype == found.floor.dtype == np.float32
    for evals, kernel in zip(found.evals, kernels, strict=True):
        reference = host_conv_esd(kernel, 6).evals
        np.testing.assert_allclose(evals, reference, atol=1e-5 * reference[-1])


def test_the_derivative():
    rng = np.random.default_rng(8)
    kernel, direction = rng.standard_normal((2, 2, 2, 3, 2))
    with jax.enable_x64(True):
        total = jax.jit(lambda kernel: jnp.sum(conv_esd(kernel, 4).evals ** 2))
        slope = jnp.vdot(jax.jit(jax.grad(total))(jnp.asarray(kernel)), direction)
        step = 1e-6 * direction
        numeric = (total(kernel + step) - total(kernel - step)) / 2e-6
    assert abs(float(numeric)) > 1
    assert float(slope) == pytest.approx(float(numeric), rel=1e-6)


@BOTH
@pytest.mark.parametrize("grid", [2, (3, 2), (3, 3, 3), (3,), 0, 2.5, True, "3"], ids=str)
def test_grids_that_are_refused(grid, compute):
    with pytest.raises(OptionError, match="grid"):
        compute(np.ones((3, 3, 2, 2)), grid)


@BOTH
def test_what_is_no_kernel_is_refused(compute):
    with pytest.raises(InputError, match="taps"):
        compute(np.ones((3, 3)))


@BOTH
@pytest.mark.parametrize("shape", [(3, 3, 4, 0), (3, 3, 0, 2), (0, 3, 2, 2), (0, 0, 0)], ids=str)
def test_empty_kernels(shape, compute):
    found = compute(np.zeros(shape), 4)
    assert (found.evals.tolist(), int(found.n), float(found.floor)) == ([0.0], 0, 0.0)


@BOTH
def test_a_factor_on_the_kernel(compute):
    kernel = np.random.default_rng(10).standard_normal((3, 3, 4, 2))
    found, expected = compute(kernel, 5, 0.3), compute(0.3 * kernel, 5)
    np.testing.assert_allclose(found.evals, expected.evals, rtol=1e-9, atol=1e-12)
    assert float(found.floor) == pytest.approx(float(expected.floor), rel=1e-12)
    assert np.isnan(compute(kernel, 5, 1e-150).evals).all()


@BOTH
def test_nan_zeros_and_nothing(compute):
    kernel = np.random.default_rng(9).standard_normal((3, 3, 4, 2))
    kernel[1, 2, 3, 0] = np.nan
    assert np.isnan(compute(kernel, 4).evals).all()
    assert not compute(np.zeros((3, 3, 4, 2)), 4).evals.any()
    assert np.isnan(compute(np.full((3, 3, 4, 2), 1e-170), 4).evals).all()
    assert compute(np.ones((3, 1, 1)), 3).evals == pytest.approx([0, 0, 9], abs=1e-12)
