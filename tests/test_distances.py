"""Distances between two models: WeightWatcher's numbers, planted ones, laws, missing partners."""

from __future__ import annotations

import math

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
from wwfunc.comparison.matrixdistances import cka, frobenius, subspace_overlap
from wwfunc.comparison.spectraldistances import jensen_shannon, wasserstein

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


FUNCTIONS = {
    "frobenius": frobenius,
    "cka": cka,
    "centred": lambda A, B: cka(A, B, centred=True),
    "subspace": lambda A, B: subspace_overlap(A, B, 3),
    "wasserstein": wasserstein,
    "jensen_shannon": jensen_shannon,
}
METHOD = {"frobenius": "euclidean", "centred": "centred_cka"}
"""What `distances` calls them, where it is another word."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slices_are_averaged(name):
    a = {"c.weight": normal(6, 5, 2, 2)}
    b = {"c.weight": normal(6, 5, 2, 2, seed=1)}
    taps = [(a["c.weight"][:, :, i, j], b["c.weight"][:, :, i, j]) for i, j in np.ndindex(2, 2)]
    expected = np.mean([float(FUNCTIONS[name](A, B)) for A, B in taps])
    found = wwfunc.distances(a, b, METHOD.get(name, name), rank=3)["c"].delta_W
    assert found == pytest.approx(expected, rel=1e-12)


# Laws -------------------------------------------------------------------------------------------

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
    assert float(FUNCTIONS["subspace"](A, A)) <= 1


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
