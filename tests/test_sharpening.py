"""Sharpening: planted elements go, nothing else is touched, and the signal stays."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wwfunc import Status
from wwfunc.errors import InputError, OptionError
from wwfunc.randommatrix.traps import analyze_traps
from wwfunc.transforms import sharpening
from wwfunc.transforms.sharpening import Part, remove_traps

KEY = jax.random.key(0)


def trapped(shape, count, seed=0, signals=2, weakest=2.0):
    """The matrix without traps, with `count` of them, and their places as flat positions."""
    rng = np.random.default_rng(seed)
    n, m = shape
    theta_c = (n * m) ** 0.25
    clean = rng.standard_normal(shape)
    for strength in (1.5, 3.0, 6.0)[:signals]:
        u, v = rng.standard_normal(n), rng.standard_normal(m)
        clean += strength * theta_c * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    dirty, places = clean.copy(), rng.choice(n * m, count, replace=False)
    dirty.flat[places] = theta_c * rng.uniform(weakest, 6.0, count) * rng.choice([-1, 1], count)
    return clean, dirty, places


def removed_places(sharpened, shape):
    return sorted(element.row * shape[1] + element.column for element in sharpened.removed)


def sine(one, other):
    """Of the largest angle between the subspaces of orthonormal columns."""
    cosines = np.linalg.svd(one.T @ other, compute_uv=False)
    return np.sqrt(max(0.0, 1 - cosines.min() ** 2))


# What it does ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (256, 256)])
@pytest.mark.parametrize("count", [1, 5, 30])
def test_exactly_the_planted_elements_become_zero(shape, count):
    _, dirty, places = trapped(shape, count, seed=count)
    before = dirty.copy()
    sharpened = remove_traps(KEY, dirty)
    assert removed_places(sharpened, shape) == sorted(places)
    wanted = before.copy()
    wanted.flat[places] = 0
    np.testing.assert_array_equal(sharpened.W, wanted)
    np.testing.assert_array_equal(dirty, before)
    for element in sharpened.removed:
        assert element.value == before[element.row, element.column]
        assert element.strength > 1.9
    assert sharpened.clean
    assert (sharpened.left, sharpened.failures) == ((), {})
    assert sharpened.message == f"set {count} element{'s' if count > 1 else ''} to zero"


@pytest.mark.parametrize("method", ["tracy-widom", "kde"])
def test_fresh_keys_show_no_trap(method):
    _, dirty, _ = trapped((256, 128), 12, signals=3)
    W = remove_traps(KEY, dirty, method=method).W
    found = [analyze_traps(jax.random.key(seed), W, method=method) for seed in range(100, 120)]
    assert [one.num_traps for one in found] == [0] * 20
    assert sum(one.num_spikes for one in found) <= 1


@pytest.mark.parametrize("count", [1, 30])
def test_the_signal_is_what_it_was_without_the_trap(count):
    clean, dirty, _ = trapped((1000, 500), count, signals=3)
    found = remove_traps(KEY, dirty, keys=2).W
    (u, s, v), (u_found, s_found, v_found) = np.linalg.svd(clean), np.linalg.svd(found)
    np.testing.assert_allclose(s_found[:3], s[:3], rtol=0.005)
    np.testing.assert_allclose(s_found, s, rtol=0, atol=0.005 * s[3])
    assert sine(u[:, :3], u_found[:, :3]) < 0.02
    assert sine(v[:3].T, v_found[:3].T) < 0.02


def test_zeroing_singular_values_of_w_would_take_the_signal_and_leave_the_trap():
    """What WeightWatcher does: as many of W's top ones go as the shuffled W has spikes."""
    _, dirty, [place] = trapped((256, 128), 1, signals=3)
    u, s, v = np.linalg.svd(dirty, full_matrices=False)
    theirs = dirty - s[0] * np.outer(u[:, 0], v[0])
    [trap] = analyze_traps(KEY, theirs).traps
    assert trap.elements[0].row * 128 + trap.elements[0].column == place
    ours = remove_traps(KEY, dirty).W
    assert np.linalg.norm(ours @ v[0]) == pytest.approx(s[0], rel=0.01)
    assert np.linalg.norm(theirs @ v[0]) < 1e-9 * s[0]


def test_every_slice_is_sharpened_by_itself():
    shape = (96, 80)
    _, dirty, places = trapped(shape, 2, signals=0)
    noise = np.random.default_rng(5).standard_normal(shape)
    stack = np.stack([dirty, noise, 1000 * dirty]).astype(np.float32)
    sharpened = remove_traps(KEY, stack)
    assert sharpened.W.shape == stack.shape
    assert sorted(element.slice for element in sharpened.removed) == [0, 0, 2, 2]
    changed = np.argwhere(stack != sharpened.W)
    assert {tuple(row) for row in changed.tolist()} == {
        (part, *map(int, np.unravel_index(place, shape))) for part in (0, 2) for place in places
    }


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, ml_dtypes.float8_e4m3]
)
def test_the_type_stays(dtype):
    _, dirty, places = trapped((128, 96), 3, weakest=3.0)
    narrow = dirty.astype(dtype)
    for same in (narrow, jax.numpy.asarray(narrow)):
        sharpened = remove_traps(KEY, same)
        assert sharpened.W.dtype == dtype
        assert removed_places(sharpened, dirty.shape) == sorted(places)
    narrow.flat[places] = 0
    assert sharpened.W.tobytes() == narrow.tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_in_memory_does_not_matter(order):
    _, dirty, places = trapped((128, 96), 3)
    sharpened = remove_traps(KEY, np.array(dirty, order=order))
    assert removed_places(sharpened, dirty.shape) == sorted(places)


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
def test_scale_and_key_change_nothing(factor, seed):
    shape = (128, 96)
    _, dirty, places = trapped(shape, 4)
    sharpened = remove_traps(jax.random.key(seed), factor * dirty)
    assert removed_places(sharpened, shape) == sorted(places)


# Where there is nothing to do, or nothing to be done --------------------------------------------


def test_without_traps_nothing_changes():
    for seed in range(5):
        clean, _, _ = trapped((128, 96), 0, seed, signals=3)
        sharpened = remove_traps(KEY, clean, keys=3)
        assert sharpened.W.tobytes() == clean.tobytes()
        assert sharpened.W is not clean
        assert (sharpened.removed, sharpened.clean, sharpened.rounds) == ((), True, 3)
        assert repr(sharpened) == "Sharpened(no trap that single elements make)"


@pytest.mark.parametrize("kind", ["row", "column"])
def test_a_row_or_column_that_is_large_as_a_whole_is_left(kind):
    W = np.random.default_rng(6).standard_normal((256, 200))
    W[7] *= 10
    given = W if kind == "row" else np.ascontiguousarray(W.T)
    sharpened = remove_traps(KEY, given)
    assert sharpened.W.tobytes() == given.tobytes()
    assert not sharpened.clean
    assert sharpened.left == (Part(kind, 0, 7),)
    assert f"left {kind} 7 of slice 0" in sharpened.message


def test_a_matrix_of_few_elements_is_left():
    rng = np.random.default_rng(8)
    W = rng.standard_normal((500, 250)) * (rng.random((500, 250)) < 0.03)
    assert analyze_traps(KEY, W).num_traps > 0
    sharpened = remove_traps(KEY, W)
    np.testing.assert_array_equal(sharpened.W, W)
    assert sharpened.left == (Part("slice", 0, 0),)
    assert sharpened.message.endswith("left slice 0: too many of its elements are large")


def test_a_diagonal_is_no_trap():
    """Of 200 ones in noise none goes: what is left of such a slice would be neither."""
    W = 0.02 * np.random.default_rng(8).standard_normal((256, 255))
    W[range(200), range(200)] += 1.0
    sharpened = remove_traps(KEY, W)
    np.testing.assert_array_equal(sharpened.W, W)
    assert sharpened.removed == ()
    assert sharpened.left == (Part("slice", 0, 0),)


@pytest.mark.parametrize(("degrees", "seed", "side"), [(1.2, 3, 256), (1.8, 3, 128), (2.0, 3, 128)])
def test_a_slice_that_is_left_is_left_whole(degrees, seed, side):
    """Also where elements went before too many were left, as in the last two."""
    W = np.random.default_rng(seed).standard_t(degrees, (side, side))
    sharpened = remove_traps(KEY, W)
    assert Part("slice", 0, 0) in sharpened.left
    np.testing.assert_array_equal(sharpened.W, W)
    assert sharpened.removed == ()
    assert "nothing set to zero" in sharpened.message


@pytest.mark.parametrize("value", [1e8, 3e8, -1e12, 3e38])
def test_a_flipped_exponent_is_found(value):
    """Nothing of the noise is left in double precision beside it."""
    W = np.random.default_rng(5).standard_normal((300, 200))
    W[17, 42], W[1, 1] = value, 60
    sharpened = remove_traps(KEY, W)
    assert {(e.row, e.column): e.value for e in sharpened.removed} == {(17, 42): value, (1, 1): 60}
    assert sharpened.clean


@pytest.mark.parametrize("shape", [(32, 9), (64, 3), (128, 8)])
def test_noise_of_a_narrow_matrix_is_not_large(shape):
    for seed in range(10):
        W = np.random.default_rng(seed).standard_normal(shape)
        W[1, 1] = 100
        assert (1, 1) in [(e.row, e.column) for e in remove_traps(KEY, W).removed]


def test_elements_elsewhere_go_all_the_same():
    W = np.random.default_rng(6).standard_normal((256, 200))
    W[7] *= 10
    W[100, 50] = 120
    sharpened = remove_traps(KEY, W)
    assert [(e.row, e.column) for e in sharpened.removed] == [(100, 50)]
    assert sharpened.left == (Part("row", 0, 7),)


def test_a_few_elements_of_one_row_are_no_large_row():
    W = np.random.default_rng(6).standard_normal((256, 200))
    W[7, [3, 30, 90, 150]] = 60, -50, 70, 40
    sharpened = remove_traps(KEY, W)
    assert np.flatnonzero(sharpened.W[7] == 0).tolist() == [3, 30, 90, 150]
    assert sharpened.clean


def scattered(side, count, background, value=12.0):
    """Large elements on a diagonal, in a square of which the first elements are `background`."""
    W = np.zeros((side, side))
    W.flat[: background.size] = background
    W[range(count), range(count)] = value
    return W


@pytest.mark.parametrize(("size", "row"), [(6.0, True), (4.9, False)])
def test_half_of_theta_c_counts_in_a_row(size, row):
    """With sigma 1 and theta_c 10; nine such elements are a large row."""
    W = np.ones((100, 100))
    W[3, 10:19] = size
    large = sharpening._large(W, 1.0, 10.0)
    assert np.flatnonzero(large.rows).tolist() == ([3] if row else [])
    assert not large.columns.any()
    assert not large.slice


def test_large_rows_and_columns_do_not_make_a_slice_large():
    W = np.ones((100, 100))
    W[3], W[:, 7] = 20.0, 20.0
    large = sharpening._large(W, 1.0, 10.0)
    assert (large.rows.sum(), large.columns.sum(), large.slice) == (1, 1, False)


@pytest.mark.parametrize(("count", "row"), [(4, False), (5, True)])
def test_a_quarter_of_a_short_row_is_few(count, row):
    W = np.ones((40, 16))
    W[3, :count] = 12.0
    assert sharpening._large(W, 1.0, 10.0).rows[3] == row


@pytest.mark.parametrize(("count", "crowded"), [(32, False), (33, True)])
def test_more_than_thirty_two_elements_are_a_slice(count, crowded):
    assert sharpening._large(scattered(64, count, np.ones(4096)), 1.0, 10.0).slice == crowded


@pytest.mark.parametrize(("count", "crowded"), [(25, False), (26, True)])
def test_a_twentieth_of_what_is_not_zero_is_a_slice(count, crowded):
    W = scattered(64, count, np.ones(0))
    W.flat[np.flatnonzero(W.ravel() == 0)[: 510 - count]] = 1.0
    assert sharpening._large(W, 1.0, 10.0).slice == crowded


def test_a_row_with_more_than_eight_large_elements_is_left():
    W = np.random.default_rng(6).standard_normal((256, 200))
    W[7, :10] = 70
    sharpened = remove_traps(KEY, W)
    assert sharpened.left == (Part("row", 0, 7),)
    assert sharpened.removed == ()


def test_five_quiet_shuffles_follow_the_last_one_with_a_trap():
    W = np.random.default_rng(6).standard_normal((256, 200))
    assert remove_traps(KEY, W).rounds == 5
    W[7, 3] = 70
    assert remove_traps(KEY, W).rounds == 6
    assert remove_traps(KEY, W, keys=2).rounds == 3


def test_rounds_that_run_out_are_said():
    _, dirty, _ = trapped((128, 96), 4)
    sharpened = remove_traps(KEY, dirty, rounds=1)
    assert len(sharpened.removed) == 4
    assert (sharpened.clean, sharpened.rounds) == (False, 1)
    assert sharpened.message.endswith("; not finished after 1 shuffles")


def test_of_a_heavy_tail_what_makes_spikes_is_removed():
    W = np.random.default_rng(7).standard_t(3, (256, 128))
    sharpened = remove_traps(KEY, W)
    assert 3 <= len(sharpened.removed) <= 60
    assert all(element.strength >= 1 for element in sharpened.removed)
    theta_c = analyze_traps(KEY, sharpened.W).theta_c[0]
    assert np.abs(sharpened.W).max() < 1.4 * theta_c < np.abs(W).max()


def test_nan_stays_and_is_said():
    _, dirty, places = trapped((90, 60), 1)
    stack = np.stack([np.full_like(dirty, np.nan), dirty])
    sharpened = remove_traps(KEY, stack)
    assert sharpened.failures == {0: Status.NOT_FINITE}
    assert not sharpened.clean
    assert sharpened.message == f"set 1 element to zero; slice 0: {Status.NOT_FINITE.sentence}"
    assert np.isnan(sharpened.W[0]).all()
    assert [e.slice for e in sharpened.removed] == [1]
    assert removed_places(sharpened, dirty.shape) == list(places)


@pytest.mark.parametrize(
    ("W", "failures"),
    [
        (np.zeros((30, 20)), {}),
        (np.ones((30, 20)), {0: Status.NULL_SPACE}),
        (np.eye(20), {0: Status.NULL_SPACE}),
        (np.ones((9, 1)), {}),
        (np.zeros((0, 3, 2)), {}),
    ],
    ids=["zero", "one", "identity", "column", "no-slice"],
)
def test_degenerate_matrices_stay(W, failures):
    sharpened = remove_traps(KEY, W)
    np.testing.assert_array_equal(sharpened.W, W)
    assert sharpened.failures == failures
    assert sharpened.clean == (not failures)


@pytest.mark.parametrize("options", [{"keys": 0}, {"rounds": 0}, {"method": "x"}, {"quantile": 2}])
def test_options_are_checked(options):
    with pytest.raises(OptionError):
        remove_traps(KEY, np.ones((4, 4)), **options)


def test_what_is_no_weight_matrix_is_refused():
    with pytest.raises(InputError):
        remove_traps(KEY, np.zeros(5))
