"""Singular-vector metrics: WeightWatcher's table, planted vectors, random ones, laws, failures."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import seeded
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import InputError, OptionError, Status, host, localization
from wwfunc.randommatrix.randomvectors import random_vector
from wwfunc.vectors import bulk_and_tail, host_vector_metrics, padded, vector_metrics

REFERENCE = pd.read_csv(Path(__file__).parent / "reference" / "seeded_vectors.csv")
REFERENCE = REFERENCE.set_index("name")
LAYERS = sorted(REFERENCE.index)
COLUMNS = sorted(name for name in REFERENCE if name.startswith(("bulk_", "tail_")))
METRICS = ["vec_entropy", "loc_ratio", "part_ratio"]
AT_XMIN = {"features.3", "features.6"}
"""Where the table's cut is at xmin; elsewhere it is one eigenvalue above."""
NOISE = 1.5e-24
"""Variances of 1e-19 are rounding's: this is 1e-5 of them."""


def stack_of(name):
    tensor = seeded.tensors()[f"{name}.weight"]
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 0, 1).reshape(-1, *tensor.shape[:2])
    stack = tensor if tensor.ndim == 3 else tensor[None]
    return stack if stack.shape[1] >= stack.shape[2] else stack.swapaxes(1, 2)


def measured(name, engine="host"):
    scale = 0.5**0.5 if name.startswith("features") else 1.0
    if engine == "host":
        return host_vector_metrics(stack_of(name), scale)
    return vector_metrics(stack_of(name).astype(np.float64), scale)


SIZE = 1024
"""Every spectrum is padded to it, so that one program serves all."""


def cut(found, xmin, size=SIZE):
    with jax.enable_x64(True):
        return jax.device_get(bulk_and_tail(padded(found, size), xmin))


def values(record):
    return [float(getattr(record, name)) for name in COLUMNS]


def by_hand(vector):
    """The three numbers as the definitions say."""
    magnitudes = np.abs(vector)
    density = np.histogram(magnitudes - magnitudes.mean(), bins=100, density=True)[0] + 1e-10
    share = density / density.sum()
    norm = np.linalg.norm
    return [
        -np.sum(share * np.log(share)),
        norm(vector, 1) / norm(vector, np.inf),
        norm(vector, 2) / norm(vector, 4),
    ]


def numbers(found):
    return np.array([getattr(found, name) for name in METRICS])


def means(length):
    """What `random_vector` says, as a list."""
    return jax.tree.leaves(random_vector(length))


def orthogonal(seed, size):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


SQUARE = ["classifier.square", "features.3", "classifier.heavy3"]


@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, "host") for name in LAYERS] + [(name, "jax") for name in SQUARE],
)
def test_the_table_with_its_own_cut(name, engine):
    found = measured(name, engine)
    at_xmin = np.argmin(np.abs(found.esd.evals - REFERENCE.xmin[name]))
    first = at_xmin if name in AT_XMIN else at_xmin + 1
    ours = values(cut(found, found.esd.evals[first]))
    theirs = REFERENCE.loc[name, COLUMNS].astype(float)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=NOISE)


@pytest.mark.parametrize("name", LAYERS)
def test_the_vector_of_xmin_is_of_the_tail(name):
    """The xmin of another decomposition, as it stands in the table, with twelve digits."""
    found, xmin = measured(name), REFERENCE.xmin[name]
    fit = wwfunc.fit_pl(host.padded(found.esd, SIZE))
    assert float(fit.xmin) == pytest.approx(xmin, rel=1e-9)
    for value in (float(fit.xmin), float(fit.xmin) * (1 + 1e-15), float(fit.xmin) * (1 - 1e-15)):
        ours = cut(found, value)
        tail = found.loc_ratio[-int(REFERENCE.num_pl_spikes[name]) :]
        assert float(ours.tail_mean_loc_ratio) == pytest.approx(tail.mean(), rel=1e-12)
        assert float(ours.tail_var_loc_ratio) == pytest.approx(tail.var(), rel=1e-9)
    same = float(ours.tail_mean_loc_ratio) == pytest.approx(
        REFERENCE.tail_mean_loc_ratio[name], rel=1e-6
    )
    assert same == (name in AT_XMIN), "the table's tail has one vector less"


@pytest.mark.parametrize("length", [2, 7, 100, 333])
def test_each_number_of_planted_vectors(length):
    vectors = orthogonal(length, length)
    evals = np.arange(1.0, length + 1)
    W = orthogonal(length + 1, length + 5)[:, :length] * np.sqrt(evals) @ vectors.T
    found = vector_metrics(W)
    np.testing.assert_allclose(found.esd.evals, evals, rtol=1e-10)
    expected = np.transpose([by_hand(vector) for vector in vectors.T])
    np.testing.assert_allclose(numbers(found), expected, rtol=1e-7)


def test_the_vectors_of_a_square_matrix_are_the_left_ones():
    left, right = orthogonal(1, 40), orthogonal(2, 40)
    W = left * np.arange(1.0, 41.0) @ right.T
    expected = np.transpose([by_hand(vector) for vector in left.T])
    np.testing.assert_allclose(numbers(vector_metrics(W)), expected, rtol=1e-7)
    np.testing.assert_allclose(numbers(host_vector_metrics(W[None])), expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_extremes(dtype):
    """One element, and all elements equal up to rounding."""
    evals = np.arange(1.0, 17.0)[:, None]
    one = vector_metrics(np.vstack([np.diag(evals[:, 0]), np.zeros((3, 16))]).astype(dtype))
    np.testing.assert_allclose(numbers(one)[1:], 1.0, rtol=1e-5)
    hadamard = np.ones((1, 1))
    for _ in range(4):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]]) / np.sqrt(2)
    W = orthogonal(0, 20)[:, :16] @ (evals * hadamard)
    equal = vector_metrics(W.astype(dtype))
    np.testing.assert_allclose(equal.loc_ratio, 16.0, rtol=100 * np.finfo(dtype).eps)
    np.testing.assert_allclose(equal.part_ratio, 2.0, rtol=10 * np.finfo(dtype).eps)


def test_magnitudes_equal_up_to_rounding_have_no_entropy():
    rng = np.random.default_rng(3)
    vectors = rng.choice([-0.1, 0.1], (100, 5)) * (1 + 1e-15 * rng.standard_normal((100, 5)))
    assert np.all(localization.host_numbers(vectors)[0] < 1e-7)
    with jax.enable_x64(True):
        assert np.all(np.asarray(jax.jit(localization.numbers)(vectors.T)[0]) < 1e-7)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (33, 33), (9, 30, 20), (50, 1), (1, 50)])
def test_host_agrees_with_jax(shape):
    stack = np.random.default_rng(4).standard_normal((1, *shape)[-3:])
    tall = stack if stack.shape[1] >= stack.shape[2] else stack.swapaxes(1, 2)
    ours, theirs = host_vector_metrics(tall, 0.5), vector_metrics(stack, 0.5)
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.esd.evals, host.esd(tall, 0.5).evals, rtol=1e-9, atol=1e-13)
    assert float(theirs.esd.floor) == pytest.approx(float(ours.esd.floor), rel=1e-9)


def test_blocks_of_vectors_change_nothing(monkeypatch):
    stack = np.random.default_rng(5).standard_normal((1, 60, 50))
    whole = numbers(host_vector_metrics(stack))
    monkeypatch.setattr("wwfunc.localization._BLOCK_ELEMENTS", 350)
    np.testing.assert_array_equal(numbers(host_vector_metrics(stack)), whole)


def test_slices_are_pooled():
    stack = np.random.default_rng(6).standard_normal((3, 40, 20))
    each = [vector_metrics(matrix) for matrix in stack]
    order = np.argsort(np.concatenate([one.esd.evals for one in each]))
    expected = np.concatenate([numbers(one) for one in each], axis=1)[:, order]
    np.testing.assert_allclose(numbers(vector_metrics(stack)), expected, rtol=1e-7)


SHAPE = (24, 15)
"""A program is compiled for each shape: the laws share one."""


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_laws(seed, scale):
    rng = np.random.default_rng(seed)
    W = rng.standard_t(3, SHAPE)
    base = numbers(vector_metrics(W))
    other = rng.permutation(rng.permutation(scale * W, axis=0), axis=1)
    np.testing.assert_allclose(numbers(vector_metrics(other))[1:], base[1:], rtol=1e-6)
    np.testing.assert_allclose(numbers(vector_metrics(W.T)), base, rtol=1e-6)
    assert np.all((base[1] >= 1) & (base[1] <= SHAPE[1]))
    assert np.all((base[2] >= 1) & (base[2] <= SHAPE[1] ** 0.25))
    assert np.all((base[0] >= 0) & (base[0] <= np.log(SHAPE[1]) + 1e-6))


def test_float32_jit_and_vmap():
    stack = np.random.default_rng(7).standard_normal((4, 40, 20)).astype(np.float32)
    run = jax.jit(jax.vmap(lambda W: bulk_and_tail(vector_metrics(W), 40.0)))
    found = run(stack)
    for index, W in enumerate(stack):
        exact = cut(vector_metrics(W.astype(np.float64)), 40.0)
        for name in COLUMNS:
            ours = getattr(found, name)
            assert ours.dtype == np.float32
            if "vec_entropy" not in name:  # an element on the edge of a bin may go either way
                assert float(ours[index]) == pytest.approx(float(getattr(exact, name)), rel=2e-3)
    entropy, exact = found.bulk_mean_vec_entropy[-1], exact.bulk_mean_vec_entropy
    assert float(entropy) == pytest.approx(float(exact), rel=1e-2)


def test_the_derivative_of_a_ratio():
    rng = np.random.default_rng(8)
    W, direction = rng.standard_normal((12, 6)), rng.standard_normal((12, 6))
    with jax.enable_x64(True):
        mean = jax.jit(lambda W: jnp.mean(vector_metrics(W).part_ratio))
        slope = jnp.vdot(jax.jit(jax.grad(mean))(jnp.asarray(W)), direction)
        numeric = (mean(W + 1e-6 * direction) - mean(W - 1e-6 * direction)) / 2e-6
    assert abs(float(numeric)) > 1e-3
    assert float(slope) == pytest.approx(float(numeric), rel=1e-5)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (2, 30, 12)], ids=str)
def test_a_null_space_leaves_the_derivative_of_the_tail(shape):
    """Three columns of zeros: the vectors that coincide are not the tail's."""
    rng = np.random.default_rng(13)
    W, direction = rng.standard_normal((2, *shape))
    smaller = np.argmin(shape[-2:]) + len(shape) - 2
    alive = np.isin(np.arange(12), [2, 5, 9], invert=True)
    alive = alive[:, None] if smaller == len(shape) - 2 else alive
    W, direction = W * alive, direction * alive
    with jax.enable_x64(True):
        tail = jax.jit(lambda W: bulk_and_tail(vector_metrics(W), 30.0).tail_mean_loc_ratio)
        slope = jax.jit(jax.vmap(jax.grad(tail)))(jnp.stack([W, W + direction]))
        numeric = (tail(W + 1e-6 * direction) - tail(W - 1e-6 * direction)) / 2e-6
    assert np.isfinite(slope).all()
    assert abs(float(numeric)) > 1e-3
    assert float(np.vdot(slope[0], direction)) == pytest.approx(float(numeric), rel=1e-5)


def test_padding_changes_nothing():
    found = host_vector_metrics(np.random.default_rng(9).standard_normal((1, 50, 40)))
    xmin = found.esd.evals[25]
    np.testing.assert_allclose(
        values(cut(found, xmin)), values(cut(found, xmin, size=40)), rtol=1e-12
    )


def test_a_side_without_vectors_is_nan():
    found = host_vector_metrics(np.random.default_rng(10).standard_normal((1, 20, 10)))
    everything = cut(found, found.esd.evals[0])
    assert np.isnan(everything.bulk_mean_loc_ratio)
    assert float(everything.tail_mean_loc_ratio) == pytest.approx(found.loc_ratio.mean())
    assert Status(int(everything.status)) is Status.SUCCESS
    without = cut(found, np.nan)
    assert np.isnan(values(without)).all()
    assert Status(int(without.status)) is Status.TAIL_TOO_SHORT


@pytest.mark.parametrize(
    ("W", "status"),
    [
        (np.full((1, 5, 4), np.nan), Status.NOT_FINITE),
        (np.full((1, 5, 4), 1e-200), Status.NOT_FINITE),
        (np.zeros((2, 5, 4)), Status.ALL_ZERO),
        (np.zeros((1, 5, 0)), Status.ALL_ZERO),
        (np.ones((1, 5, 4)), Status.RANK_DEFICIENT),
    ],
    ids=["nan", "underflow", "zero", "empty", "rank"],
)
@pytest.mark.parametrize("engine", ["host", "jax"])
def test_what_has_no_vectors(W, status, engine):
    found = host_vector_metrics(W) if engine == "host" else vector_metrics(W)
    summary = cut(found, 1e-3)
    assert Status(int(summary.status)) is status
    assert np.isnan(values(summary)).all() == status.failed


def test_one_bad_slice_leaves_no_number():
    stack = np.random.default_rng(11).standard_normal((3, 6, 5))
    stack[1, 2, 3] = np.inf
    for found in (host_vector_metrics(stack), vector_metrics(stack)):
        assert np.isnan(numbers(found)).all()
        assert np.isnan(found.esd.evals).all()


@pytest.mark.parametrize("W", [np.ones(3), np.ones((2, 2, 2, 2))])
def test_what_is_no_matrix_is_refused(W):
    with pytest.raises(InputError, match="vector_metrics takes a matrix"):
        vector_metrics(W)


@pytest.mark.parametrize("length", [2, 3, 10, 64, 500])
def test_random_vectors_have_the_expected_means(length):
    draws = 20_000 if length < 100 else 4_000
    found = localization.host_numbers(
        np.random.default_rng(length).standard_normal((length, draws))
    )
    error = np.maximum(found.std(axis=1) / np.sqrt(draws), 1e-7)
    assert np.all(np.abs(found.mean(axis=1) - means(length)) < 4 * error)
    assert np.all(4 * error < 0.01 * found.mean(axis=1)), "an error of one percent would show"


def test_closed_forms_of_random_vectors():
    assert tuple(means(1)) == (0.0, 1.0, 1.0)
    t = (np.arange(20_000) + 0.5) / 20_000 * np.pi / 4
    two = np.log(2), 1 + 2 / np.pi * np.log(2), np.mean((np.cos(t) ** 4 + np.sin(t) ** 4) ** -0.25)
    np.testing.assert_allclose(means(2), two, rtol=1e-8)
    n = 1_000_000  # ||v||_4^4 goes to 3 / n
    assert random_vector(n).part_ratio == pytest.approx((n / 3) ** 0.25, rel=1e-4)
    for wrong in (0, 2.5, True):
        with pytest.raises(OptionError):
            random_vector(wrong)


def test_a_gaussian_layer_has_what_random_vectors_have_and_a_trapped_one_not():
    rng = np.random.default_rng(12)
    W = rng.standard_normal((400, 200))
    found = host_vector_metrics(W[None])
    np.testing.assert_allclose(numbers(found).mean(axis=1), means(200), rtol=0.02)
    W[17, 42] = 60.0
    trapped = host_vector_metrics(W[None])
    assert trapped.loc_ratio[-1] < 0.3 * random_vector(200).loc_ratio
    assert trapped.part_ratio[-1] < 0.5 * random_vector(200).part_ratio
