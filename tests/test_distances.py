"""Distances between two models: WeightWatcher's numbers, planted ones, laws, missing partners."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import seeded
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import InputError, OptionError, TensorHint
from wwfunc.checkpoint import as_handle
from wwfunc.comparison.matrixdistances import cka, frobenius, subspace_overlap
from wwfunc.comparison.spectraldistances import jensen_shannon, wasserstein
from wwfunc.lowrank import LowRank
from wwfunc.options import DISTANCES as METHODS

SIMILAR = ("cka", "centred_cka", "subspace")
ROUNDED_THERE = ["embeddings.word_embeddings", "classifier.trapped"]
"""Their product of float32 matrices is off by 2e-6 here."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def orthogonal(n, seed):
    return np.linalg.qr(normal(n, n, seed=seed))[0]


def table(method):
    path = REPOSITORY / "tests" / "reference" / f"seeded_distances_{method}.csv"
    return pd.read_csv(path).set_index("longname")


# WeightWatcher ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["raw", "euclidean", "cka"])
def test_the_reference(method):
    theirs = table(method)
    found = wwfunc.distances(seeded.tensors(), seeded.noisy(), method)
    ours = found.details.set_index("longname").loc[theirs.index]
    assert len(found) == len(theirs) == 12
    assert found.unmatched == ()
    worse = theirs.index.isin(ROUNDED_THERE) & (method == "cka")
    np.testing.assert_allclose(ours.delta_W[~worse], theirs.delta_W[~worse], rtol=1e-6)
    np.testing.assert_allclose(ours.delta_W[worse], theirs.delta_W[worse], rtol=2e-6)
    np.testing.assert_array_equal(ours.layer_id, theirs.layer_id)
    if method == "raw":  # elsewhere theirs is 0, and so is a missing bias
        assert ours.delta_b["features.6"] == pytest.approx(theirs.delta_b["features.6"], rel=1e-6)
        np.testing.assert_array_equal(np.isnan(ours.delta_b), theirs.delta_b == 0)
    else:  # where "raw" has the least and the greatest of the kernel's four sides
        np.testing.assert_array_equal(ours[["M", "N"]], theirs[["M", "N"]])


@pytest.mark.parametrize("name", ROUNDED_THERE)
def test_their_cka_is_that_of_products_in_single_precision(name):
    a, b = (model[f"{name}.weight"] for model in (seeded.tensors(), seeded.noisy()))
    numerator, one, other = (np.linalg.norm(P) for P in (a.T @ b, a.T @ a, b @ b.T))
    assert table("cka").delta_W[name] == pytest.approx(numerator / np.sqrt(one * other), rel=5e-7)


def test_a_base_model_that_weightwatcher_left_out():
    """Its table of the changes is that of the changed model itself; the norms tell them apart."""
    path = REPOSITORY / "tests" / "reference" / "seeded_base_model_delta.csv"
    theirs = pd.read_csv(path).set_index("longname")
    plain = wwfunc.analyze(seeded.noisy()).details.set_index("longname").loc[theirs.index]
    columns = ["alpha", "D", "xmin", "norm", "lambda_max", "stable_rank", "num_pl_spikes"]
    for column in columns:
        np.testing.assert_allclose(
            plain[column].astype(float), theirs[column], rtol=1e-6, err_msg=column
        )
    changed = wwfunc.analyze(seeded.noisy(), base_model=seeded.tensors())
    for record in changed:
        pooled = 0.5 if record.kind == "conv2d" else 1.0
        size = pooled * record.num_params * 0.01**2
        assert record.norm == pytest.approx(size, rel=0.2)
        assert record.norm < theirs.norm[record.longname]


# Planted truth ----------------------------------------------------------------------------------


def test_planted_values():
    A, B = np.zeros((5, 3)), np.zeros((5, 3))
    A[0, 0], A[1, 1] = 3.0, 1.0
    B[0, 0], B[2, 2] = 1.0, 2.0
    for method in ("raw", "euclidean"):
        found = wwfunc.distances({"x.weight": A}, {"x.weight": B}, method)
        assert found["x"].delta_W == pytest.approx(3.0)
    assert float(cka(A, B)) == pytest.approx(3 / math.sqrt(math.sqrt(82) * math.sqrt(17)))
    assert wasserstein(A, B) == pytest.approx((1 + 0 + 0) / 3)
    assert float(subspace_overlap(A, B, 1)) == 0.0
    assert float(subspace_overlap(A, B, 2)) == pytest.approx(0.5)
    p, q = np.array([0, 0.1, 0.9]), np.array([0, 0.2, 0.8])
    m = (p + q) / 2
    terms = [x * math.log(x / y) for x, y in zip([*p[1:], *q[1:]], [*m[1:], *m[1:]], strict=True)]
    assert jensen_shannon(A, B) == pytest.approx(math.sqrt(sum(terms) / 2), rel=1e-9)


def test_centring_takes_the_mean_of_each_column():
    A, B = normal(40, 8), normal(40, 8, seed=1)
    shifted = A + normal(8, seed=2), B - 3.0
    assert float(cka(*shifted, centred=True)) == pytest.approx(float(cka(A, B, centred=True)))
    assert float(cka(*shifted)) > 2 * float(cka(A, B, centred=True))
    H = np.eye(40) - 1 / 40
    K, L = H @ A @ A.T @ H, H @ B @ B.T @ H
    hsic = np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L))
    assert float(cka(A, B, centred=True)) == pytest.approx(hsic, rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_random_subspaces_share_what_chance_gives(k):
    n, m = 60, 40
    found = [
        float(subspace_overlap(normal(n, m, seed=s), normal(n, m, seed=s + 5000), k))
        for s in range(400)
    ]
    assert np.mean(found) == pytest.approx((k / n + k / m) / 2, rel=0.15)


def test_slices_are_averaged():
    a = {"c.weight": normal(6, 5, 2, 2)}
    b = {"c.weight": normal(6, 5, 2, 2, seed=1)}
    by_tap = [(a["c.weight"][:, :, i, j], b["c.weight"][:, :, i, j]) for i, j in np.ndindex(2, 2)]
    functions = {
        "euclidean": frobenius,
        "cka": cka,
        "centred_cka": lambda A, B: cka(A, B, centred=True),
        "subspace": lambda A, B: subspace_overlap(A, B, 2),
        "wasserstein": wasserstein,
        "jensen_shannon": jensen_shannon,
    }
    for method, function in functions.items():
        expected = np.mean([float(function(A, B)) for A, B in by_tap])
        found = wwfunc.distances(a, b, method, rank=2)["c"].delta_W
        assert found == pytest.approx(expected, rel=1e-12), method


# Laws -------------------------------------------------------------------------------------------

FUNCTIONS = {
    "frobenius": frobenius,
    "cka": cka,
    "centred": lambda A, B: cka(A, B, centred=True),
    "subspace": lambda A, B: subspace_overlap(A, B, 3),
    "wasserstein": wasserstein,
    "jensen_shannon": jensen_shannon,
}
SHAPES = st.tuples(st.integers(3, 12), st.integers(3, 12))


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6))
def test_symmetric_and_nothing_between_a_matrix_and_itself(name, shape, seed):
    A, B = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    there, back = (float(FUNCTIONS[name](*pair)) for pair in ((A, B), (B, A)))
    assert there == pytest.approx(back, rel=1e-9)
    same = float(FUNCTIONS[name](A, A))
    assert same == pytest.approx(1.0 if name in ("cka", "centred", "subspace") else 0.0, abs=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6), scale=st.sampled_from([1e-160, 1e-3, 1e3, 1e150]))
def test_scale(name, shape, seed, scale):
    A, B = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    if name == "wasserstein" and scale in (1e-160, 1e150):
        scale = 1e3  # the squares leave the range, as those of every spectrum do
    if name == "jensen_shannon":
        scale = min(max(scale, 1e-3), 1e3)
    factor = scale if name in ("frobenius", "wasserstein") else 1.0
    found = float(FUNCTIONS[name](scale * A, scale * B))
    assert found == pytest.approx(factor * float(FUNCTIONS[name](A, B)), rel=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6))
def test_rotations(name, shape, seed):
    """Of both at once: nothing. Of the inputs of one alone: nothing but the Frobenius norm and the
    right directions; of one's outputs as well, spectra stay."""
    A, B = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    P, Q = orthogonal(shape[0], seed), orthogonal(shape[1], seed + 1)
    before = float(FUNCTIONS[name](A, B))
    if name != "centred":  # whose mean over the rows a rotation of them moves
        assert float(FUNCTIONS[name](P @ A @ Q, P @ B @ Q)) == pytest.approx(before, abs=1e-7)
    if name in ("cka", "centred"):
        assert float(FUNCTIONS[name](A, B @ Q)) == pytest.approx(before, abs=1e-9)
    if name in ("wasserstein", "jensen_shannon"):
        assert float(FUNCTIONS[name](A, P @ B @ Q)) == pytest.approx(before, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6))
def test_bounds(shape, seed):
    """Mirsky: spectra are never farther apart than the matrices."""
    A, B = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    assert wasserstein(A, B) <= float(frobenius(A, B)) / math.sqrt(min(shape)) + 1e-12
    assert 0 <= jensen_shannon(A, B) <= math.sqrt(math.log(2))
    for name in ("cka", "centred", "subspace"):
        assert 0 <= float(FUNCTIONS[name](A, B)) <= 1 + 1e-12


@pytest.mark.parametrize("name", ["frobenius", "cka", "centred", "subspace"])
def test_jax_agrees_with_numpy(name):
    A, B = normal(30, 20), normal(30, 20, seed=1)
    expected = float(FUNCTIONS[name](A, B))
    with jax.enable_x64(True):
        traced = jax.jit(FUNCTIONS[name])(jnp.asarray(A), jnp.asarray(B))
    assert float(traced) == pytest.approx(expected, rel=1e-9)
    single = jax.jit(FUNCTIONS[name])(A.astype(np.float32), B.astype(np.float32))
    assert single.dtype == np.float32
    assert float(single) == pytest.approx(expected, rel=1e-4)


# What has no distance ---------------------------------------------------------------------------


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


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_subspaces_of_a_low_rank(rank):
    low = normal(40, rank) @ normal(rank, 30, seed=1)
    for W in (low, low.T, 1e-100 * low):
        assert float(subspace_overlap(W, W.copy(), 10)) == pytest.approx(1.0)
    assert math.isnan(float(subspace_overlap(np.zeros((5, 4)), np.eye(5, 4), 2)))
    steep = orthogonal(20, 1) @ np.diag(10.0 ** -np.arange(20)) @ orthogonal(20, 2)
    assert float(subspace_overlap(steep, steep.copy(), 10)) == pytest.approx(1.0, abs=1e-3)


def test_rounding_is_no_similarity():
    """Between orthogonal spaces it may be negative, of constant columns it is all there is."""
    for seed in range(50):
        Q = orthogonal(6, seed)
        one, other = (Q[:, i : i + 2] @ normal(2, 12, seed=seed + i) for i in (0, 2))
        assert 0 <= float(cka(one, other)) < 1e-7
    constant = np.tile([0.3, 0.1, 0.7, 0.9], (7, 1)), np.tile([0.1, 0.2, 0.3, 0.7], (7, 1))
    assert all(np.ptp(W - W.mean(axis=0)) > 0 for W in (W / W.max() for W in constant))
    assert math.isnan(float(cka(*constant, centred=True)))
    assert float(cka(*constant)) > 0.5


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_scales_whose_squares_leave_the_range(scale):
    A, B = scale * normal(6, 5), scale * normal(6, 5, seed=1)
    expected = scale * np.linalg.norm((A - B) / scale)
    for method in ("raw", "euclidean"):
        found = wwfunc.distances({"x.weight": A}, {"x.weight": B}, method)
        assert found["x"].delta_W == pytest.approx(expected)


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
