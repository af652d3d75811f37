"""Intruder dimensions: planted ones, the definition by two whole decompositions, laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc.checkpoint import as_handle
from wwfunc.comparison.intruders import intruder_dimensions, likeness
from wwfunc.lowrank import LowRank


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def by_definition(base, tuned, k):
    before, after = (np.linalg.svd(W, full_matrices=False)[0] for W in (base, tuned))
    return np.abs(before.T @ after[:, :k]).max(axis=0)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)])
def test_the_definition(shape):
    base = normal(*shape)
    tuned = base + 0.3 * normal(*shape, seed=1)
    np.testing.assert_allclose(likeness(base, tuned, 10), by_definition(base, tuned, 10), rtol=1e-8)


@pytest.mark.parametrize("shape", [(200, 120), (120, 200)])
@pytest.mark.parametrize("planted", [0, 1, 3])
def test_planted_directions_are_counted(shape, planted):
    """Each larger than all of the base's, and unlike any of them."""
    base = normal(*shape)
    tuned = base + 0.01 * normal(*shape, seed=9)
    for i in range(planted):
        u, v = normal(shape[0], seed=10 + i), normal(shape[1], seed=20 + i)
        tuned += (60.0 + 10 * i) * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    assert intruder_dimensions(base, tuned) == planted


def test_a_direction_that_grows_is_none():
    base = normal(90, 60)
    u, _, v = np.linalg.svd(base)
    assert intruder_dimensions(base, base + 50 * np.outer(u[:, 30], v[30])) == 0


@pytest.mark.parametrize("shape", [(30, 20), (25, 25), (20, 30)])
def test_what_the_base_is_zero_in_is_none_of_it(shape):
    base = normal(*shape)
    base[0] = 0.0
    change = np.zeros(shape)
    change[0] = 100 * normal(shape[1], seed=3)
    assert intruder_dimensions(base, base + change) == 1
    assert intruder_dimensions(np.zeros(shape), normal(*shape)) == 10


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_scales_whose_squares_leave_the_range(scale):
    base, tuned = normal(30, 20), normal(30, 20, seed=1)
    expected = intruder_dimensions(base, tuned)
    assert intruder_dimensions(scale * base, scale * tuned) == expected > 0


def test_what_the_base_lacks_is_an_intruder():
    """A base of rank 3 has three directions; a change in any other is unlike them."""
    u, v = (np.linalg.qr(normal(n, n, seed=n))[0] for n in (30, 20))
    base = u[:, :3] @ np.diag([3.0, 2.0, 1.0]) @ v[:, :3].T
    assert intruder_dimensions(base, base + 5.0 * np.outer(u[:, 7], v[:, 9])) == 1
    assert intruder_dimensions(base, base) == 0
    assert intruder_dimensions(np.zeros((30, 20)), base) == 3
    assert intruder_dimensions(base, np.zeros((30, 20))) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_laws(seed, scale):
    """Neither scale nor rotations of both matter; a threshold of 0 finds none, above 1 all."""
    base, tuned = normal(14, 9, seed=seed), normal(14, 9, seed=seed + 1)
    P, Q = (np.linalg.qr(normal(n, n, seed=seed))[0] for n in (14, 9))
    before = likeness(base, tuned, 5)
    np.testing.assert_allclose(likeness(scale * base, tuned, 5), before, rtol=1e-6)
    np.testing.assert_allclose(likeness(P @ base @ Q, P @ tuned @ Q, 5), before, rtol=1e-6)
    assert intruder_dimensions(base, tuned, leading=5, unlike=0.0) == 0
    assert intruder_dimensions(base, tuned, leading=5, unlike=1.1) == 5


def test_of_a_convolution_those_of_all_slices():
    base, tuned = normal(20, 16, 2, 2), normal(20, 16, 2, 2, seed=1)
    record = wwfunc.analyze(
        {"c.weight": tuned}, base_model={"c.weight": base}, intruders=True
    ).records[0]
    taps = [(base[:, :, i, j], tuned[:, :, i, j]) for i, j in np.ndindex(2, 2)]
    assert record.num_intruders == sum(intruder_dimensions(*tap) for tap in taps) > 0
    flax = np.transpose(base, (2, 3, 1, 0)), np.transpose(tuned, (2, 3, 1, 0))
    hint = {"c.kernel": wwfunc.TensorHint("conv2d", rows=(3,), cols=(2,))}
    models = [wwfunc.Checkpoint({"c.kernel": kernel}, hints=hint) for kernel in flax]
    turned = wwfunc.analyze(models[1], base_model=models[0], intruders=True).records[0]
    assert turned.num_intruders == record.num_intruders


def test_left_vectors_are_those_of_the_outputs():
    """In a square layer nothing but the hint says which side they are."""
    base, tuned = normal(30, 30), normal(30, 30, seed=1)
    turned = wwfunc.TensorHint("dense", rows=(1,), cols=(0,))
    found = []
    for hint in (wwfunc.TensorHint("dense"), turned):
        a, b = (wwfunc.Checkpoint({"x.w": W}, hints={"x.w": hint}) for W in (base, tuned))
        found.append(wwfunc.analyze(b, base_model=a, intruders=True).records[0].num_intruders)
    expected = [by_definition(base, tuned, 10), by_definition(base.T, tuned.T, 10)]
    assert found == [int(np.sum(likenesses < 0.5)) for likenesses in expected]
    assert found[0] != found[1]


def test_of_a_layer_with_more_inputs_than_outputs():
    """Of its few left vectors others are like them than of its many right ones."""
    base, tuned = normal(20, 60), normal(20, 60, seed=1)
    record = wwfunc.analyze(
        {"x.weight": tuned}, base_model={"x.weight": base}, intruders=True
    ).records[0]
    left, right = by_definition(base, tuned, 10), by_definition(base.T, tuned.T, 10)
    assert record.num_intruders == np.sum(left < 0.5) < np.sum(right < 0.5)


def test_of_an_adapter():
    base = normal(60, 40)
    up, down = normal(60, 2, seed=2), normal(2, 40, seed=3)
    change = LowRank(as_handle(up), as_handle(down), 4.0, (60, 40))
    record = wwfunc.analyze(
        wwfunc.Checkpoint({"x.weight": change}), base_model={"x.weight": base}, intruders=True
    ).records[0]
    assert record.num_intruders == intruder_dimensions(base, base + 4.0 * up @ down) == 2
    assert record.lora_rank == 2


def test_the_outputs_of_a_table_are_its_columns():
    base, tuned = normal(60, 30), normal(60, 30, seed=1)
    found = wwfunc.analyze({"emb.weight": tuned}, base_model={"emb.weight": base}, intruders=True)
    assert found.records[0].kind == "embedding"
    expected = intruder_dimensions(base.T, tuned.T)
    assert found.records[0].num_intruders == expected != intruder_dimensions(base, tuned)
