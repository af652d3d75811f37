"""Correlation traps: planted elements are found where they are, and nothing else is a trap."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest
import seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from wwfunc import Status, TensorHint
from wwfunc.errors import InputError, OptionError
from wwfunc.matrices import unfold
from wwfunc.randommatrix import spikes, tracywidom
from wwfunc.randommatrix.marchenkopastur import mp_fit
from wwfunc.randommatrix.shuffling import random_esd, shuffled
from wwfunc.randommatrix.traps import analyze_traps

KEY = jax.random.key(0)
SHAPES = [(200, 200), (300, 120), (120, 300), (640, 64)]


def threshold(W):
    """theta_c of standard Gaussian noise."""
    return (W.shape[-2] * W.shape[-1]) ** 0.25


def planted(shape, strengths, seed=0):
    """Gaussian noise, and elements of so many theta_c at places that are returned."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal(shape)
    places = rng.choice(W.size, len(strengths), replace=False)
    W.flat[places] = threshold(W) * np.asarray(strengths)
    return W, [tuple(map(int, np.unravel_index(place, shape))) for place in places]


def place(element):
    return element.row, element.column


# What is found --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [2.0, -3.0, 8.0])
def test_an_element_is_found_where_it_was_planted(shape, strength):
    W, [where] = planted(shape, [strength])
    found = analyze_traps(KEY, W)
    assert (found.num_traps, found.num_spikes) == (1, 1)
    [trap] = found.traps
    [element] = trap.elements
    assert place(element) == where
    assert element.value == W[where]
    assert element.strength == pytest.approx(abs(strength), rel=0.01)
    np.testing.assert_allclose(found.sigma, 1.0, rtol=0.01)
    np.testing.assert_allclose(found.theta_c, found.sigma * threshold(W), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_eigenvalue_and_share_are_those_of_theory(shape):
    """Benaych-Georges and Nadakuditi: (theta^2 + n)(theta^2 + m) / theta^2, and the overlaps."""
    n, m = shape
    W, _ = planted(shape, [4.0])
    theta2 = 16.0 * np.sqrt(n * m)
    [trap] = analyze_traps(KEY, W).traps
    assert trap.eigenvalue == pytest.approx((theta2 + n) * (theta2 + m) / theta2, rel=0.04)
    critical = n * m / theta2**2
    overlap = (1 - critical) ** 2 / ((1 + n / theta2) * (1 + m / theta2))
    share = np.sqrt(overlap * theta2 / trap.eigenvalue)
    assert trap.elements[0].share == pytest.approx(share, rel=0.03)


def test_vectors_are_those_of_the_shuffled_matrix():
    for shape in SHAPES:
        W, _ = planted(shape, [5.0, 3.0, 2.5])
        P = shuffled(KEY, W)
        found = analyze_traps(KEY, W)
        assert found.num_traps == 3
        singular = np.linalg.svd(P, compute_uv=False)
        for trap, s in zip(found.traps, singular, strict=False):
            assert trap.eigenvalue == pytest.approx(s**2, rel=1e-10)
            np.testing.assert_allclose(P @ trap.right, s * trap.left, atol=1e-9 * s)
            np.testing.assert_allclose(P.T @ trap.left, s * trap.right, atol=1e-9 * s)
            assert np.linalg.norm(trap.left) == pytest.approx(1, rel=1e-9)


def test_shares_follow_the_elements_back_to_their_rows_and_columns():
    W, [where] = planted((90, 60), [4.0])
    [trap] = analyze_traps(KEY, W).traps
    parts = np.outer(trap.left, trap.right) * shuffled(KEY, W) / np.sqrt(trap.eigenvalue)
    # All elements differ, so that their order tells where each of them was.
    back = np.empty(W.size)
    back[np.argsort(W, axis=None)] = parts.ravel()[np.argsort(shuffled(KEY, W), axis=None)]
    np.testing.assert_allclose(trap.row_shares, back.reshape(W.shape).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(trap.column_shares, back.reshape(W.shape).sum(axis=0), atol=1e-12)
    assert trap.row_shares.sum() == pytest.approx(1, rel=1e-9)
    assert (trap.row_shares.argmax(), trap.column_shares.argmax()) == where
    assert trap.elements[0].share == pytest.approx(back.reshape(W.shape)[where], rel=1e-9)


def test_elements_of_one_size_are_all_named():
    W, places = planted((200, 150), [4.0, 4.0, -4.0])
    found = analyze_traps(KEY, W)
    assert found.num_traps == 3
    assert {place(e) for trap in found.traps for e in trap.elements} == set(places)
    assert all(len(trap.elements) > 1 for trap in found.traps[:1])


@pytest.mark.parametrize("method", ["tracy-widom", "kde"])
def test_spikes_are_those_that_the_fit_of_the_random_spectrum_counts(method):
    for strengths in ([], [4.0], [2.5, 5.0, 3.0]):
        W, _ = planted((200, 120), strengths)
        fit = mp_fit(random_esd(KEY, W), 200, 120, method=method, quantile=0.999)
        found = analyze_traps(KEY, W, method=method)
        assert found.num_spikes == int(fit.num_spikes) == len(strengths)
        np.testing.assert_allclose(found.sigma, fit.sigma, rtol=1e-9)
        np.testing.assert_allclose(found.edge, fit.edge, rtol=1e-9)


def test_the_trap_of_the_reference_layer():
    W = seeded.tensors()["classifier.trapped.weight"]
    for method in ("tracy-widom", "kde"):
        [trap] = analyze_traps(KEY, W, method=method).traps
        assert [place(element) for element in trap.elements] == [(17, 42)]
        assert trap.elements[0].value == 8.0
        assert trap.eigenvalue == pytest.approx(65.5, rel=0.005)  # max_rand_eval, whatever the seed
    assert analyze_traps(KEY, seeded.tensors()["classifier.spiked.weight"]).num_spikes == 0


# What is none ---------------------------------------------------------------------------------


def test_gaussian_matrices_have_none():
    rng = np.random.default_rng(1)
    found = [analyze_traps(KEY, rng.standard_normal((64, 64))) for _ in range(300)]
    assert sum(one.num_traps for one in found) == 0
    assert sum(one.num_spikes for one in found) <= 3


def test_weak_elements_make_none_and_correlations_neither():
    spikes = 0
    for seed in range(20):
        W, _ = planted((128, 128), [0.8] * 3, seed)
        n = np.random.default_rng(seed).standard_normal((2, 128))
        found = analyze_traps(KEY, W + 4 * threshold(W) * np.outer(*n) / 128)
        assert found.num_traps == 0
        spikes += found.num_spikes
    assert spikes <= 1


def test_every_trap_of_a_heavy_tail_has_its_element():
    rng = np.random.default_rng(2)
    traps = others = 0
    for _ in range(20):
        W = rng.standard_t(3, (128, 64))
        found = analyze_traps(KEY, W)
        for trap in found.traps:
            element = trap.elements[0]
            assert abs(element.value) == abs(W[place(element)]) >= found.theta_c[0]
        traps, others = traps + len(found.traps), others + len(found.others)
    assert traps >= 20
    assert others < 0.1 * traps


def test_a_mean_is_a_spike_and_no_trap():
    W, _ = planted((100, 80), [])
    found = analyze_traps(KEY, W + 1.0)
    assert (found.num_traps, found.num_spikes) == (0, 1)
    assert found.others[0].elements == ()
    assert np.std(found.others[0].row_shares) < 0.01  # of 1 in all


# Stacks, types, laws --------------------------------------------------------------------------


def test_each_slice_is_looked_at_by_itself():
    W, [where] = planted((90, 60), [5.0])
    noise, _ = planted((90, 60), [], seed=3)
    found = analyze_traps(KEY, np.stack([1000 * W, noise, W]))
    assert [trap.slice for trap in found.traps] == [0, 2]
    assert [place(trap.elements[0]) for trap in found.traps] == [where, where]
    assert found.traps[0].elements[0].strength == pytest.approx(5.0, rel=0.02)
    np.testing.assert_allclose(found.sigma, [1000, 1, 1], rtol=0.02)
    assert "slice 2: " in repr(found)


def test_a_convolution_is_its_slices():
    hint = TensorHint("conv2d")
    W = np.random.default_rng(4).standard_normal((96, 64, 3, 3)).astype(np.float32)
    W[5, 6, 1, 2] = 60
    [trap] = analyze_traps(KEY, unfold(W, hint)).traps
    assert (trap.slice, *place(trap.elements[0])) == (5, 5, 6)


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, ml_dtypes.float8_e4m3]
)
def test_any_floating_point_type(dtype):
    W, [where] = planted((128, 96), [4.0])
    narrow = W.astype(dtype)
    before = narrow.copy()
    [trap] = analyze_traps(KEY, narrow).traps
    assert place(trap.elements[0]) == where
    assert trap.elements[0].value == float(narrow[where])
    np.testing.assert_array_equal(narrow, before)
    [other] = analyze_traps(KEY, jax.numpy.asarray(narrow)).traps
    assert other.eigenvalue == trap.eigenvalue


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    factor=st.floats(1e-6, 1e6),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 1000),
)
def test_scale_sign_and_key_change_no_trap(shape, factor, sign, seed):
    W, places = planted(shape, [3.0, 6.0])
    base = analyze_traps(KEY, W)
    scaled = analyze_traps(KEY, sign * factor * W)
    for one, other in zip(base.traps, scaled.traps, strict=True):
        assert one.elements[0].strength == pytest.approx(other.elements[0].strength, rel=1e-9)
        assert other.eigenvalue == pytest.approx(factor**2 * one.eigenvalue, rel=1e-9)
    elsewhere = analyze_traps(jax.random.key(seed), W)
    # A shuffle may bring both into one row: one spike of two elements.
    assert {place(e) for trap in elsewhere.traps for e in trap.elements} == set(places)


def test_the_key_decides_and_nothing_else():
    W, _ = planted((80, 60), [4.0])
    one, same, other = (analyze_traps(jax.random.key(seed), W).traps[0] for seed in (1, 1, 2))
    assert one.eigenvalue == same.eigenvalue != other.eigenvalue
    np.testing.assert_array_equal(one.left, same.left)


# Odd input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tracy-widom", "kde"])
@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_nan_is_a_failure_of_its_slice(hole, method):
    W, _ = planted((40, 30), [6.0])
    W[3, 4] = hole
    found = analyze_traps(KEY, W, method=method)
    assert (found.num_traps, found.num_spikes) == (None, None)
    assert found.failures == {0: Status.NOT_FINITE}
    assert repr(found) == f"Traps({Status.NOT_FINITE.sentence})"


def test_nan_leaves_other_slices():
    W, [where] = planted((40, 30), [6.0])
    found = analyze_traps(KEY, np.stack([np.full_like(W, np.nan), W]))
    assert list(found.failures) == [0]
    assert [place(trap.elements[0]) for trap in found.traps] == [where]


@pytest.mark.parametrize(
    "W",
    [
        np.zeros((30, 20)),
        np.outer(np.arange(1.0, 31), np.arange(1.0, 21)),
        np.random.default_rng(0).standard_normal((50, 1)),
        np.random.default_rng(0).standard_normal((1, 50)),
        np.ones((1, 1)),
        np.zeros((0, 5, 4)),
        np.zeros((5, 0)),
    ],
    ids=["zero", "rank-1", "column", "row", "scalar", "no-slice", "no-column"],
)
def test_degenerate_matrices_have_no_traps(W):
    assert analyze_traps(KEY, W).num_traps == 0


@pytest.mark.parametrize(
    "W", [np.ones((30, 20)), np.pad(np.ones((1, 1)), ((0, 19), (0, 9)))], ids=["one", "lonely"]
)
def test_without_noise_nothing_is_said_of_traps(W):
    found = analyze_traps(KEY, W)
    assert found.num_traps is found.num_spikes is None
    assert found.failures == {0: Status.NULL_SPACE}


def test_huge_elements_are_spikes_of_their_own():
    """Five ones in noise of 1e-9: with them nothing of the noise is left in double precision."""
    W = 1e-9 * np.random.default_rng(0).standard_normal((256, 256))
    places = [5, 500, 9000, 20000, 40000]
    W.flat[places] = [1, 1.1, -0.9, -1, 1]
    found = analyze_traps(KEY, W)
    elements = [trap.elements[0] for trap in found.traps]
    assert sorted(256 * e.row + e.column for e in elements) == places
    assert [e.value for e in elements] == [W[e.row, e.column] for e in elements]
    for trap, element in zip(found.traps, elements, strict=True):
        assert trap.eigenvalue == pytest.approx(element.value**2, rel=1e-12)
        assert element.share == pytest.approx(1.0, rel=1e-12)
        assert trap.row_shares[element.row] == pytest.approx(1.0, rel=1e-6)
    assert found.sigma[0] == pytest.approx(1e-9, rel=0.01)
    assert not found.others


@pytest.mark.parametrize(
    "W", [np.zeros(5), np.zeros((2, 2, 2, 2)), np.zeros((3, 3), int), np.ma.zeros((3, 3)), "W"]
)
def test_what_is_no_weight_matrix_is_refused(W):
    with pytest.raises(InputError):
        analyze_traps(KEY, W)


@pytest.mark.parametrize("options", [{"method": "mp"}, {"quantile": 1.0}, {"quantile": 0.0}])
def test_options_are_checked(options):
    with pytest.raises(OptionError):
        analyze_traps(KEY, np.ones((4, 4)), **options)


def test_the_edge_is_that_of_all_slices_together():
    """One spike in a thousand layers of noise, however many slices they have."""
    stack = np.random.default_rng(2).standard_normal((6, 90, 70))
    found = analyze_traps(KEY, stack)
    for index, (sigma, edge) in enumerate(zip(found.sigma, found.edge, strict=True)):
        level = tracywidom.quantile(0.999, of=6)
        expected = sigma**2 * tracywidom.largest_eigenvalue(90.0, 70.0, level)
        assert edge == pytest.approx(float(expected), rel=1e-5), index


@pytest.mark.parametrize("seed", range(6))
def test_a_large_element_is_no_cause_of_a_spike_elsewhere(seed):
    """The mean is: the spike lies in all elements alike."""
    W = np.random.default_rng(seed).standard_normal((100, 80)) + 1.0
    W[3, 4] = 1.1 * (100 * 80) ** 0.25
    found = analyze_traps(KEY, W)
    assert not found.traps
    assert len(found.others) == 1


@pytest.mark.parametrize(("count", "aside"), [(8, 8), (9, 0)])
def test_a_few_huge_elements_are_set_aside(count, aside):
    W = np.random.default_rng(4).standard_normal((60, 50))
    W.flat[7 : 7 + count] = 1e9
    assert spikes._huge(W).tolist() == list(range(7, 7 + aside))


@pytest.mark.parametrize(("strengths", "aside"), [(0.99e4, 0), (1.01e4, 1)])
def test_huge_is_ten_thousand_theta_c_by_the_median(strengths, aside):
    W = np.ones((60, 50))
    sigma = 1 / 0.6744897501960817  # of Gaussian elements whose median magnitude is 1
    W[3, 4] = strengths * sigma * 3000**0.25
    assert len(spikes._huge(W)) == aside
