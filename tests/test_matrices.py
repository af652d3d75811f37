"""Tensors as stacks of matrices and back; hints, which name the axes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wwfunc
from wwfunc import Checkpoint, OptionError, TensorHint
from wwfunc.layers.find import find
from wwfunc.matrices import fold, unfold

FLAX_CONV1D = TensorHint("conv1d", rows=(2,), cols=(1,))
FLAX_CONV2D = TensorHint("conv2d", rows=(3,), cols=(2,))
FLAX_CONV3D = TensorHint("conv3d", rows=(4,), cols=(3,))
QUERY = TensorHint("dense", rows=(0,), cols=(1, 2))
OUT = TensorHint("dense", rows=(0, 1), cols=(2,))

# Shape, hint, shape of the stack, and the slices taken by hand.
CASES = {
    "dense": ((12, 9), TensorHint("dense"), (1, 12, 9), lambda w: [w]),
    "wide dense": ((9, 12), TensorHint("dense"), (1, 12, 9), lambda w: [w]),
    "embedding": ((50, 8), TensorHint("embedding"), (1, 50, 8), lambda w: [w]),
    "conv1d": (
        (5, 4, 3),
        TensorHint("conv1d"),
        (3, 5, 4),
        lambda w: [w[:, :, i] for i in range(3)],
    ),
    "conv2d": (
        (4, 6, 3, 2),
        TensorHint("conv2d"),
        (6, 6, 4),
        lambda w: [w[:, :, i, j] for i in range(3) for j in range(2)],
    ),
    "conv3d": (
        (6, 4, 2, 1, 3),
        TensorHint("conv3d"),
        (6, 6, 4),
        lambda w: [w[:, :, i, 0, k] for i in range(2) for k in range(3)],
    ),
    "flax conv1d": ((3, 4, 5), FLAX_CONV1D, (3, 5, 4), list),
    "flax conv2d": (
        (3, 2, 4, 6),
        FLAX_CONV2D,
        (6, 6, 4),
        lambda w: [w[i, j] for i in range(3) for j in range(2)],
    ),
    "flax conv3d": (
        (2, 1, 3, 6, 4),
        FLAX_CONV3D,
        (6, 6, 4),
        lambda w: [w[i, 0, k] for i in range(2) for k in range(3)],
    ),
    "query": ((10, 2, 4), QUERY, (1, 10, 8), lambda w: [w.reshape(10, 8)]),
    "out": ((2, 4, 10), OUT, (1, 10, 8), lambda w: [w.reshape(8, 10)]),
    "experts": ((3, 5, 4), TensorHint("dense", (1,), (2,)), (3, 5, 4), list),
}


def weights(shape):
    return np.random.default_rng(7).standard_normal(shape)


@pytest.mark.parametrize("name", CASES)
def test_shape_of_the_stack(name):
    shape, hint, expected, _ = CASES[name]
    stack = unfold(weights(shape), hint)
    assert stack.shape == expected
    assert stack.shape[1] >= stack.shape[2]


@pytest.mark.parametrize("name", CASES)
def test_singular_values_are_those_of_the_slices(name):
    """Exactly the same numbers in, so the difference is the rounding of two SVDs."""
    shape, hint, _, by_hand = CASES[name]
    tensor = weights(shape)
    ours = np.linalg.svd(unfold(tensor, hint), compute_uv=False)
    theirs = [np.linalg.svd(matrix, compute_uv=False) for matrix in by_hand(tensor)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_analyze_pools_the_slices(name):
    """Scale and pooling included: the eigenvalues of the row are those of all slices."""
    shape, hint, _, by_hand = CASES[name]
    tensor = weights(shape)
    record = wwfunc.analyze({"w": tensor}, hints={"w": hint}, min_evals=1).records[0]
    factor = 0.5 if hint.kind == "conv2d" else 1.0
    squares = [factor * np.linalg.svd(m, compute_uv=False) ** 2 for m in by_hand(tensor)]
    np.testing.assert_allclose(record.evals, np.sort(np.ravel(squares)), rtol=1e-9)
    assert record.norm == pytest.approx(factor * np.square(tensor).sum(), rel=1e-12)


@pytest.mark.parametrize("name", ["dense", "wide dense", "embedding", "query", "out", "experts"])
def test_a_contiguous_dense_tensor_is_not_copied(name):
    shape, hint, _, _ = CASES[name]
    tensor = weights(shape)
    assert np.shares_memory(unfold(tensor, hint), tensor)


@st.composite
def hinted_shapes(draw):
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=5)))
    axes = draw(st.permutations(range(len(shape))))
    first = draw(st.integers(0, len(axes)))
    second = draw(st.integers(first, len(axes)))
    return shape, TensorHint("dense", rows=tuple(axes[:first]), cols=tuple(axes[first:second]))


@given(hinted_shapes(), st.sampled_from([np.float32, np.float64, np.int8, ml_dtypes.bfloat16]))
def test_fold_inverts_unfold_exactly(case, dtype):
    shape, hint = case
    tensor = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    before = tensor.copy()
    stack = unfold(tensor, hint)
    assert stack.ndim == 3
    assert stack.shape[1] >= stack.shape[2]
    again = fold(stack, shape, hint)
    assert again.dtype == tensor.dtype
    np.testing.assert_array_equal(again, before)
    np.testing.assert_array_equal(tensor, before)


def test_fold_puts_a_changed_stack_back_in_place():
    """Not merely by looking at the tensor that it came from."""
    tensor = weights((4, 6, 3, 2))
    hint = TensorHint("conv2d")
    changed = fold(unfold(tensor, hint) * np.arange(1.0, 7.0)[:, None, None], tensor.shape, hint)
    np.testing.assert_array_equal(changed, tensor * np.arange(1.0, 7.0).reshape(3, 2))


# Hints ----------------------------------------------------------------------------------------


def test_a_hint_comes_before_the_rules_and_the_last_pattern_decides():
    hints = {"*.kernel": FLAX_CONV1D, "b.*": QUERY}
    kernels = Checkpoint({"a.kernel": weights((3, 8, 12)), "b.kernel": weights((3, 8, 12))})
    assert [f.layer for f in find(kernels)] == [None, None]
    found = find(kernels.with_hints(hints))
    assert [(f.rule, f.layer.kind, f.layer.N, f.layer.M, f.layer.rf) for f in found] == [
        ("hint", "conv1d", 12, 8, 3),
        ("hint", "dense", 96, 3, 1),
    ]


def test_the_hints_of_a_call_come_before_those_of_the_checkpoint():
    kernel = Checkpoint({"a.kernel": weights((3, 8, 12))}, hints={"a.kernel": FLAX_CONV1D})
    assert wwfunc.describe(kernel)["a"].kind == "conv1d"
    assert wwfunc.describe(kernel, hints={"a.*": QUERY})["a"].kind == "dense"
    assert kernel.hints == {"a.kernel": FLAX_CONV1D}


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (TensorHint("dense", (0,), (2,)), r"'w' names rows \(0,\) and columns \(2,\)"),
        (TensorHint("dense", (0,), (0,)), r"no distinct axes of the shape \(8, 4\)"),
        (TensorHint("dense", (-1,), (0,)), "no distinct axes"),
        (TensorHint("conv9"), "a kind among dense, embedding"),
        ("dense", "'dense', not a TensorHint"),
    ],
)
def test_a_hint_that_makes_no_sense(hint, message):
    with pytest.raises(OptionError, match=message):
        wwfunc.analyze({"w": weights((8, 4))}, hints={"w": hint})
