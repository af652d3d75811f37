"""Rows of distances between two models: partners, biases, coverage, and why there is no number."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import seeded
from test_distances import SIMILAR, normal

import wwfunc
from wwfunc import InputError, OptionError, TensorHint
from wwfunc.checkpoint import as_handle
from wwfunc.lowrank import LowRank
from wwfunc.options import DISTANCES as METHODS


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_number_says_why(method):
    good, bad = normal(6, 5), np.full((6, 5), np.nan)
    first = {"a": good, "b": good, "c": bad, "d": good, "z": good}
    second = {"a": good, "b": normal(5, 6), "c": good, "e": good, "z": np.zeros((6, 5))}
    a, b = (
        {f"{name}.weight": array.copy() for name, array in model.items()}
        for model in (first, second)
    )
    a["t.weight"], b["t.weight"] = a["a.weight"], good + 1
    found = wwfunc.distances(a, b, method)
    status = {row.layer.longname: row.status for row in found}
    assert status["a"] == "success"
    assert found["a"].delta_W == pytest.approx(1.0 if method in SIMILAR else 0.0, abs=1e-7)
    assert status["b"] == "skipped: the shapes differ: 6 x 5 and 5 x 6"
    assert status["c"] == "failed: NaN, infinity, or nothing but zeros"
    assert status["d"] == "skipped: no layer of this name in the other model"
    assert status["t"] == "skipped: no layer in the first model: the same tensor as 'a.weight'"
    assert status["e"] == "skipped: no layer of this name in the first model"
    zero = {"cka", "centred_cka", "jensen_shannon", "subspace"}
    assert status["z"] == (status["c"] if method in zero else "success")
    assert all(math.isnan(row.delta_W) for row in found.unmatched)
    expected = [found["a"].delta_W] + ([] if method in zero else [found["z"].delta_W])
    assert found.mean_W == pytest.approx(np.mean(expected))


def test_layouts_that_are_not_known_to_be_one_are_not_compared():
    K = normal(30, 20)
    hint = {"x.kernel": TensorHint("dense", rows=(1,), cols=(0,))}
    found = wwfunc.distances({"x.weight": K}, wwfunc.Checkpoint({"x.kernel": K.copy()}, hints=hint))
    assert found["x"].status == "skipped: the shapes differ: 30 x 20 and 20 x 30"
    assert found["x"].partner == "x"


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ({"x/kernel": (4, 3), "x/bias": [1.0, 2]}, {"x/kernel": (4, 3), "x/bias": [4.0, 6]}, 5.0),
        ({"weight": (4, 3), "bias": [1.0, 2]}, {"weight": (4, 3), "bias": [4.0, 6]}, 5.0),
        (
            {"in_proj_weight": (4, 3), "in_proj_bias": [1.0, 2]},
            {"in_proj_weight": (4, 3), "in_proj_bias": [4.0, 6]},
            5.0,
        ),
        (
            {"x.weight_ih_l0": (4, 3), "x.bias_ih_l0": [1.0, 2]},
            {"x.weight_ih_l0": (4, 3), "x.bias_ih_l0": [4.0, 6]},
            5.0,
        ),
        (
            {"x.weight": (4, 3), "x.bias": [1.0, 2]},
            {"x.weight": (4, 3), "x.bias": [[4.0], [6]]},
            5.0,
        ),
        ({"x.weight": (4, 3), "x.bias": [1.0]}, {"x.weight": (4, 3), "x.bias": [4.0, 6]}, None),
        ({"x.weight": (4, 3), "x.bias": ["a"]}, {"x.weight": (4, 3), "x.bias": ["b"]}, None),
        ({"x.weight": (4, 3), "x.bias": [1j]}, {"x.weight": (4, 3), "x.bias": [2j]}, None),
        ({"x.weight": (4, 3), "x.bias": [np.inf]}, {"x.weight": (4, 3), "x.bias": [1.0]}, None),
        ({"x.weight": (4, 3)}, {"x.weight": (4, 3), "x.bias": [1.0]}, None),
        (
            {"x.weight": (4, 3), "x.bias": [1.7e308] * 2},
            {"x.weight": (4, 3), "x.bias": [0.0, 0.0]},
            None,
        ),
    ],
)
def test_biases(first, second, distance):
    a, b = (
        {name: normal(*v) if isinstance(v, tuple) else np.array(v) for name, v in model.items()}
        for model in (first, second)
    )
    found = wwfunc.distances(a, b)
    assert [row.status for row in found] == ["success"]
    expected = math.nan if distance is None else distance
    assert found.rows[0].delta_b == pytest.approx(expected, nan_ok=True)
    assert found.mean_b == pytest.approx(expected, nan_ok=True)


def test_an_empty_layer_has_no_distance():
    a = {"x.weight": np.zeros((0, 5)), "y.weight": normal(3, 4)}
    found = wwfunc.distances(a, {name: array + 1 for name, array in a.items()})
    assert found["x"].status == "skipped: an empty tensor"
    assert found.mean_W == found["y"].delta_W == pytest.approx(math.sqrt(12))


def test_a_tensor_that_cannot_be_read_is_one_row():
    class Broken:
        shape, dtype, nbytes, key = (4, 3), np.dtype(np.float64), 96, "broken"

        def read(self, rows=slice(None)):
            raise RuntimeError("the disk is gone")

    a = {"x.weight": normal(4, 3), "y.weight": normal(4, 3)}
    found = wwfunc.distances(a, wwfunc.Checkpoint({**a, "y.weight": Broken()}))
    assert found["x"].delta_W == 0.0
    assert found["y"].status == "failed: RuntimeError: the disk is gone"


def low_rank(magnitude=None):
    up, down, lengths = normal(6, 2), normal(2, 5, seed=1), np.full(6, magnitude or 0.0)
    change = LowRank(as_handle(up), as_handle(down), 1.0, (6, 5))
    return replace(change, magnitude=as_handle(lengths)) if magnitude else change


def test_magnitudes_that_are_not_looked_at_are_told():
    first, second = ({"x.weight": low_rank(length)} for length in (1.0, 100.0))
    (row,) = wwfunc.distances(wwfunc.Checkpoint(first), wwfunc.Checkpoint(second))
    assert row.delta_W == 0.0
    assert row.status == "success; without DoRA's magnitudes, which need the base model"
    plain = wwfunc.Checkpoint({"x.weight": low_rank()})
    assert [row.status for row in wwfunc.distances(plain, plain)] == ["success"]


def test_an_adapter_is_not_at_a_distance_from_weights():
    adapter = wwfunc.Checkpoint({"x.weight": low_rank()})
    for pair in ((adapter, {"x.weight": normal(6, 5)}), ({"x.weight": normal(6, 5)}, adapter)):
        (row,) = wwfunc.distances(*pair)
        assert math.isnan(row.delta_W)
        assert row.status.startswith("skipped: one is what an adapter changes, the other a weight")


def test_every_tensor_of_either_model_is_accounted_for():
    a = {"x.weight": normal(6, 5), "x.bias": normal(6), "y.weight": normal(4, 3)}
    b = {"model.x.weight": normal(6, 5), "model.q.weight": np.ones((40, 9), np.int8)}
    found = wwfunc.distances(a, {**b, "model.z.weight": normal(8, 8)})
    first, second = ({row.tensor: row for row in one} for one in found.coverage)
    assert {name: row.status == "analysed" for name, row in first.items()} == {
        "x.weight": True,
        "x.bias": False,
        "y.weight": False,
    }
    assert first["x.bias"].reason == "a bias"
    assert first["y.weight"].reason == found["y"].status
    assert second["model.x.weight"].longname == "x"
    assert "int8" in second["model.q.weight"].reason
    assert second["model.z.weight"].reason == found["model.z"].status
    assert [one.share for one in found.coverage] == pytest.approx([30 / 48, 30 / 454])
    chosen = wwfunc.distances(a, a, layers="x")
    assert chosen.coverage[0][2].reason == "not selected by layers="
    assert chosen.coverage[0].share == chosen.coverage[1].share == 30 / 48


def test_large_distances_have_a_mean():
    a = {f"x{i}.weight": np.full((3, 3), 5e307) for i in range(4)}
    found = wwfunc.distances(a, {name: 0 * array for name, array in a.items()})
    assert found.mean_W == pytest.approx(1.5e308)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        b = wwfunc.distances(
            {"x.weight": np.full((3, 3), 1.7e308)}, {"x.weight": -np.full((3, 3), 1.7e308)}
        )
    assert b.rows[0].status.startswith("failed")


def test_inputs_are_not_changed():
    a, b = seeded.tensors(), seeded.noisy()
    before = [tensor.tobytes() for tensor in (*a.values(), *b.values())]
    for method in METHODS:
        wwfunc.distances(a, b, method, layers="classifier.n*")
    assert before == [tensor.tobytes() for tensor in (*a.values(), *b.values())]


def test_selected_layers_alone():
    found = wwfunc.distances(seeded.tensors(), seeded.noisy(), layers=["conv2d", -12])
    assert [row.layer.longname for row in found] == ["features.0", "features.6"]


def test_formats_with_other_layouts():
    """A Flax kernel has its outputs last, a PyTorch weight first."""
    dense, conv = normal(7, 5), normal(6, 4, 3, 3)
    torch = {"d.weight": dense, "c.weight": conv}
    flax = {"d": {"kernel": dense.T}, "c": {"kernel": conv.transpose(2, 3, 1, 0)}}
    hints = {
        "d.kernel": TensorHint("dense", rows=(1,), cols=(0,)),
        "c.kernel": TensorHint("conv2d", rows=(3,), cols=(2,)),
    }
    tree = wwfunc.Checkpoint(
        {"d.kernel": flax["d"]["kernel"], "c.kernel": flax["c"]["kernel"]}, hints=hints
    )
    for method in METHODS:
        for one, other in ((torch, tree), (tree, torch)):
            found = wwfunc.distances(one, other, method)
            expected = 1.0 if method in SIMILAR else 0.0
            assert [row.status for row in found] == ["success"] * 2
            assert [row.delta_W for row in found] == pytest.approx([expected] * 2, abs=1e-7)


def test_options_are_checked():
    a = {"x.weight": normal(4, 3)}
    with pytest.raises(OptionError, match="method"):
        wwfunc.distances(a, a, "cosine")
    with pytest.raises(OptionError, match="rank"):
        wwfunc.distances(a, a, "subspace", rank=0)
    with pytest.raises(wwfunc.SelectionError):
        wwfunc.distances(a, a, layers="y")
    for hints in (5, {5: 5}, {"y*": TensorHint("dense")}):
        with pytest.raises(OptionError, match="hints="):
            wwfunc.distances(a, a, hints=hints)
    with pytest.raises(OptionError, match="progress="):
        wwfunc.distances(a, a, progress=5)
    with pytest.raises(InputError, match="no layer of the first model is one of the second: 'x'"):
        wwfunc.distances(a, {"y.weight": normal(4, 3)})
    assert len(wwfunc.distances(a, a, progress=lambda *done: None)) == 1
