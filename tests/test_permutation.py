"""The keyed permutation: bijective, the same in JAX and NumPy, and as random as it should be."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from wwfunc import InputError, analyze_traps, random_esd, remove_traps
from wwfunc.randommatrix.permutation import (
    ROUNDS,
    WORDS,
    folded,
    host_blocks,
    host_permute,
    permute,
    positions,
    words,
)

KEYS = 400
SIDE = 31
SIZE = SIDE * SIDE - 5
"""Some places leave the table, and a permutation of a few rounds shows its rows and columns."""

seeds = st.lists(st.integers(0, 2**32 - 1), min_size=WORDS, max_size=WORDS)


def many(rounds=ROUNDS, count=KEYS, size=SIZE):
    """Permutations of as many keys by networks of so many rounds."""
    seeds = jax.random.bits(jax.random.key(7), (count, 2 * rounds), jnp.uint32)
    return np.asarray(jax.vmap(positions, (0, None))(seeds, size)).astype(int)


@settings(deadline=None, max_examples=300)
@given(seeds, st.integers(0, 3000))
@example([0] * WORDS, 0)
@example([0] * WORDS, 1)
@example([0] * WORDS, 2)
@example([2**32 - 1] * WORDS, 1021)
@example([1] * WORDS, 1024)
@example([1] * WORDS, 2048)
@example([1] * WORDS, 40_000)
@example([1] * WORDS, 65_537)
def test_every_place_is_taken_once(seed, size):
    placed = host_permute(seed, size)
    assert placed.dtype == np.uint32
    np.testing.assert_array_equal(np.sort(placed), np.arange(size))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 13, 64, 97, 1000, 1024, 32_768, 40_009])
def test_jax_and_numpy_place_alike(size):
    for key in (jax.random.key(size), jax.random.PRNGKey(5)):
        placed = permute(key, size)
        assert placed.dtype == jnp.uint32
        np.testing.assert_array_equal(placed, host_permute(words(key), size))


@settings(deadline=None, max_examples=150)
@given(seeds, st.sampled_from([2, 3, 5, 6, 8, 11, 21, 31, 43, 91]))
def test_places_outside_the_table_come_back_alike(seed, size):
    """Small tables leave many places outside, some of them on cycles that never come inside."""
    traced = positions(jnp.asarray(np.asarray(seed, np.uint32)), size)
    np.testing.assert_array_equal(traced, host_permute(seed, size))


def test_no_place_has_moved():
    """The numbers themselves: a stored shuffle stays what it was."""
    assert words(jax.random.key(0))[:2] == (4070199207, 4202968722)
    assert host_permute(range(WORDS), 10).tolist() == [7, 2, 3, 5, 0, 1, 8, 9, 4, 6]
    assert host_permute(folded(range(WORDS), 3), 10).tolist() == [6, 2, 4, 1, 9, 3, 0, 7, 5, 8]


def test_under_jit_and_vmap_over_keys():
    keys = jax.random.split(jax.random.key(1), 4)
    placed = jax.jit(jax.vmap(lambda key: permute(key, 46)))(keys)
    for key, row in zip(keys, placed, strict=True):
        np.testing.assert_array_equal(row, host_permute(words(key), 46))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(permute(keys[0], 46), placed[0])


def test_the_largest_sizes():
    seed = words(jax.random.key(2))
    for size in (2**32, 2**32 - 1, 2**31 + 12_345):
        block = next(host_blocks(seed, size)).astype(np.int64)
        assert block.max() < size
        assert len(np.unique(block)) == len(block)
        assert stats.kstest(block / size, "uniform").pvalue > 1e-3


def test_the_result_is_most_of_the_memory():
    seed = words(jax.random.key(3))
    tracemalloc.start()
    placed = host_permute(seed, 1_500_000)
    assert tracemalloc.get_traced_memory()[1] < placed.nbytes + 2**21
    tracemalloc.stop()


def test_a_folded_permutation_is_another_one():
    seed = words(jax.random.key(4))
    np.testing.assert_array_equal(folded(seed, 0), seed)
    placed = np.stack([host_permute(folded(seed, index), SIZE) for index in range(KEYS)])
    assert np.array_equal(folded(seed, np.arange(3))[2], folded(seed, 2))
    for test in (first_places, neighbours, fixed_points, companions):
        assert test(placed.astype(int)) > 1e-3, test.__name__


def test_other_keys_place_otherwise():
    placed = many(count=50)
    agreeing = [np.sum(a == b) for a, b in itertools.combinations(placed, 2)]
    assert max(agreeing) < 10  # Poisson of mean 1


def test_each_word_matters():
    seed = list(words(jax.random.key(5)))
    placed = host_permute(seed, SIZE)
    for index in range(WORDS):
        changed = [word ^ (i == index) for i, word in enumerate(seed)]
        assert np.mean(host_permute(changed, SIZE) == placed) < 0.1


def first_places(placed):
    """Rows and columns of the table that the first elements come from: uniform."""
    p_values = []
    for cell in np.divmod(np.arange(SIZE), SIDE):
        expected = np.bincount(cell) * len(placed) / SIZE
        counts = np.stack([np.bincount(cell[place], minlength=SIDE) for place in placed[:, :50].T])
        chi2 = np.sum((counts - expected) ** 2 / expected)
        p_values.append(stats.chi2.sf(chi2, 50 * (SIDE - 1)))
    return 2 * min(p_values)


def neighbours(placed):
    """Origins of neighbours in a row or a column: uncorrelated but for being two different ones."""
    mean, scale = (SIZE - 1) / 2, np.var(np.arange(SIZE))
    centred = (placed - mean) / np.sqrt(scale)
    lagged = [np.mean(centred[:, lag:] * centred[:, :-lag], axis=1) for lag in (1, SIDE)]
    return 2 * min(_two_sided(values, -1 / (SIZE - 1)) for values in lagged)


def fixed_points(placed):
    """Elements that stay where they are: Poisson of mean 1."""
    counts = np.sum(placed == np.arange(SIZE), axis=1)
    shares = stats.poisson.pmf(np.arange(4), 1.0)
    observed = np.bincount(np.minimum(counts, 4), minlength=5)
    return stats.chisquare(observed, len(counts) * np.append(shares, 1 - shares.sum())).pvalue


def companions(placed):
    """Pairs of one row, or of one column, of the table that come from one row, or column."""
    cells = np.divmod(np.arange(SIZE), SIDE)
    return 2 * min(_two_sided(_together(cell, placed), _chance(cell)) for cell in cells)


def _together(cell, placed):
    """Share of pairs in one cell, for each permutation, whose origins are in one cell."""
    left, right = np.nonzero(np.triu(cell[:, None] == cell, 1))
    return np.mean(cell[placed[:, left]] == cell[placed[:, right]], axis=1)


def _chance(cell):
    sizes = np.bincount(cell)
    return np.sum(sizes * (sizes - 1)) / (SIZE * (SIZE - 1))


def _two_sided(values, expected):
    z = (values.mean() - expected) / max(values.std(ddof=1) / np.sqrt(len(values)), 1e-12)
    return 2 * stats.norm.sf(abs(z))


@pytest.mark.parametrize("test", [first_places, neighbours, fixed_points, companions])
def test_it_is_as_random_as_a_sorting_shuffle(test):
    assert test(many()) > 1e-3
    rng = np.random.default_rng(6)
    assert test(np.stack([rng.permutation(SIZE) for _ in range(KEYS)])) > 1e-3


@pytest.mark.parametrize("test", [first_places, neighbours, fixed_points, companions])
def test_one_round_would_be_seen(test):
    assert test(many(1)) < 1e-6


@pytest.mark.parametrize("size", [3, 4])
def test_all_orders_of_a_few_elements_are_as_frequent(size):
    orders = {order: index for index, order in enumerate(itertools.permutations(range(size)))}
    drawn = [orders[tuple(place)] for place in many(count=20_000, size=size).tolist()]
    assert stats.chisquare(np.bincount(drawn, minlength=math.factorial(size))).pvalue > 1e-3


@pytest.mark.parametrize("size", [16, 30, 49])
def test_all_pairs_of_origins_are_as_frequent(size):
    placed = many(count=60_000, size=size)
    for one, other in ((0, 1), (0, size - 1), (size // 2, size - 2)):
        pairs = np.bincount(placed[:, one] * size + placed[:, other], minlength=size**2)
        assert not pairs[:: size + 1].any()  # no two elements have one origin
        off_diagonal = np.delete(pairs, np.s_[:: size + 1])
        assert stats.chisquare(off_diagonal).pvalue > 1e-4


@pytest.mark.parametrize("size", [-1, 2.0, True, None, "3", 2**32 + 1])
def test_no_such_size(size):
    with pytest.raises(InputError, match="size is a whole number from 0"):
        permute(jax.random.key(0), size)
    with pytest.raises(InputError, match="size is a whole number from 0"):
        host_permute(range(WORDS), size)


def test_jax_indexes_no_more_than_2_to_the_31():
    with pytest.raises(InputError, match="to 2147483648"):
        permute(jax.random.key(0), 2**31 + 1)


@pytest.mark.parametrize("function", [permute, random_esd, analyze_traps, remove_traps])
@pytest.mark.parametrize(
    "key",
    [0, None, "key", np.zeros(3), np.zeros((3, 2), np.uint32), jax.random.split(jax.random.key(0))],
    ids=str,
)
def test_no_such_key(key, function):
    with pytest.raises(InputError, match="key is one random key"):
        function(key, 5 if function is permute else np.eye(9))
