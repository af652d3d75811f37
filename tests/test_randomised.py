"""Columns beside shuffled weights: against WeightWatcher over twenty seeds, and against SciPy."""

from __future__ import annotations

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wwfunc import Status, esd, host
from wwfunc.randommatrix.marchenkopastur import fit_bulk
from wwfunc.randommatrix.permutation import words
from wwfunc.randommatrix.randomised import randomised, replicas, share_distance
from wwfunc.randommatrix.shuffling import host_shuffles
from wwfunc.spectrum import as_esd

TABLE = Path(__file__).parent / "reference" / "seeded_random_20_seeds.csv"
DRAWS = 20
OWN = ["max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist"]


@pytest.fixture(scope="module")
def theirs():
    return pd.read_csv(TABLE)


@pytest.fixture(scope="module")
def ours():
    """The same table under twenty keys, each layer with its own."""
    stacks = {n.removesuffix(".weight"): t for n, t in seeded.tensors().items() if t.ndim > 1}
    with jax.enable_x64(True):
        return pd.DataFrame([row for item in stacks.items() for row in randomised_rows(*item)])


def randomised_rows(name, tensor):
    stack, scale = stack_of(tensor)
    slices, n, m = stack.shape
    spectrum = padded(host.esd(stack, scale))
    for seed in range(DRAWS):
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
        drawn = host_shuffles(words(key), stack, scale, replicas(slices * m))
        first, every = padded(drawn.first), padded(drawn.every)
        found = randomised(spectrum, first, every)
        bulk = fit_bulk(every, n, m, slices, 0.0, method="kde")
        own = {column: getattr(found, column) for column in OWN}
        columns = ["sigma_mp", "mp_softrank", "W_scale", "bulk_max", "bulk_min"]
        own |= {f"rand_{column}": getattr(bulk, column) for column in columns}
        yield {"longname": name, "num_traps": int(bulk.num_spikes)} | {
            column: float(value) for column, value in own.items()
        }


def stack_of(tensor):
    if tensor.ndim == 2:
        tall = tensor if tensor.shape[0] >= tensor.shape[1] else tensor.T
        return tall[None], 1.0
    slices = tensor.transpose(2, 3, 0, 1).reshape(-1, *tensor.shape[:2])
    tall = slices if slices.shape[1] >= slices.shape[2] else slices.swapaxes(1, 2)
    return tall, np.sqrt(0.5)


def padded(spectrum):
    """At a power of two: twelve layers share six programs."""
    return host.padded(spectrum, 1 << spectrum.evals.size.bit_length())


def compared(theirs, ours):
    """Welch's z of the two means for each layer and column, NaN where WeightWatcher's is constant;
    and where it is, how far off ours are."""
    grouped = [table.groupby("longname") for table in (theirs, ours)]
    columns = [c for c in theirs.columns if c not in ("seed", "longname")]
    means, variances = (
        [getattr(group[columns], name)() for group in grouped] for name in ("mean", "var")
    )
    spread = grouped[0][columns].max() - grouped[0][columns].min()
    constant = spread <= 1e-8 * means[0].abs()
    z = (means[1] - means[0]) / np.sqrt((variances[0] + variances[1]) / DRAWS)
    extremes = [grouped[1][columns].max() - means[0], means[0] - grouped[1][columns].min()]
    off = np.maximum(*extremes) / means[0].abs().where(means[0] != 0, 1.0)
    return z.mask(constant), off.where(constant)


def test_twenty_keys_agree_with_twenty_of_weightwatchers_seeds(theirs, ours):
    z, off = compared(theirs, ours)
    assert z.shape == (12, 10)
    assert z.notna().sum().sum() == 98
    assert off["rand_W_scale"].notna().all()
    assert off.max().max() < 1e-8
    assert (z.abs() > 3).sum().sum() <= 2
    assert z.abs().max().max() < 4.5
    assert 0.7 < np.nanstd(z) < 1.3  # as different as two samples of one distribution are


@pytest.mark.parametrize("column", [*OWN, "rand_sigma_mp", "rand_bulk_max", "rand_mp_softrank"])
def test_one_percent_would_be_seen(theirs, ours, column):
    z, _ = compared(theirs, ours.assign(**{column: 1.01 * ours[column]}))
    assert z[column].abs().max() > 4.5


def test_one_shuffle_serves_all_columns(theirs, ours):
    """WeightWatcher draws twice: its largest random eigenvalue is not the one of its soft rank."""
    many = ~ours.longname.isin(["features.0", "classifier.narrow"])  # those have five replicas
    for table, agree in ((ours[many], True), (theirs, False)):
        largest = table.ww_maxdist / (1 - table.ww_softrank)
        ratio = table.ww_softrank * largest / table.max_rand_eval
        assert np.allclose(ratio, 1.0, rtol=1e-6) == agree


def test_five_shuffles_under_a_hundred_eigenvalues():
    assert [replicas(evals) for evals in (0, 10, 99, 100, 5000)] == [5, 5, 5, 1, 1]


def entropies(evals, others):
    """The distance with SciPy's entropy, which takes 0 ln 0 as 0 and divides by the sums."""
    mean = (evals / evals.sum() + others / others.sum()) / 2
    return np.sqrt(max(0.0, (stats.entropy(evals, mean) + stats.entropy(others, mean)) / 2))


spectra = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e3)), min_size=8, max_size=8).filter(
    any
)


@settings(deadline=None, max_examples=200)
@given(spectra, spectra, st.floats(1e-3, 1e3))
def test_the_distance_is_jensen_and_shannons(evals, others, factor):
    p, q = np.sort(evals), np.sort(others)
    with jax.enable_x64(True):
        distance = jax.jit(share_distance)
        found = float(distance(p, q))
        np.testing.assert_allclose(found, entropies(p, q), rtol=1e-9, atol=1e-7)
        np.testing.assert_allclose(float(distance(q, factor * p)), found, atol=1e-7)
        longer = [np.append(np.zeros(5), x) for x in (p, q)]
        np.testing.assert_allclose(float(distance(*longer)), found, atol=1e-7)


def test_spectra_that_differ_by_rounding_are_at_no_distance():
    """A sum of entropies, as WeightWatcher's, may fall under zero there, and its root is NaN."""
    rng = np.random.default_rng(2)
    theirs, found = [], []
    with jax.enable_x64(True):
        for _ in range(50):
            p = np.sort(rng.random(8))
            q = p * (1 + 2.0**-52 * rng.integers(-1, 2, 8))
            found.append(float(jax.jit(share_distance)(p, q)))
            theirs.append(stats.entropy(p, (p + q) / 2) + stats.entropy(q, (p + q) / 2))
    assert min(theirs) < 0
    assert 0 <= min(found) <= max(found) < 1e-15


def test_distances_at_their_ends():
    x = jnp.asarray([0.0, 1.0, 2.0])
    assert float(share_distance(x, x)) == 0.0
    apart = share_distance(jnp.asarray([0.0, 1.0]), jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(apart, np.sqrt(np.log(2)), rtol=1e-6)


def test_a_small_distance_keeps_its_digits_in_float32():
    rng = np.random.default_rng(0)
    p = np.sort(rng.random(300)) + 0.5
    q = p * (1 + 1e-3 * rng.standard_normal(300))
    found = share_distance(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, entropies(p, q), rtol=1e-3)


def test_the_columns_are_what_they_say():
    spectrum, first = as_esd([1.0, 2.0, 8.0]), as_esd([2.0, 4.0, 5.0])
    found = randomised(spectrum, first, as_esd([2.0, 4.0, 5.0, 6.0]))
    assert int(found.status) == Status.SUCCESS
    assert [float(found.max_rand_eval), float(found.ww_maxdist)] == [6.0, 3.0]
    np.testing.assert_allclose(found.ww_softrank, 5 / 8, rtol=1e-6)
    expected = entropies(np.array([1.0, 2.0, 8.0]), np.array([2.0, 4.0, 5.0]))
    np.testing.assert_allclose(found.rand_distance, expected, rtol=1e-5)


def test_failures_are_statuses():
    good, zero, bad = (as_esd(np.array(x)) for x in ([1.0, 2.0], [0.0, 0.0], [1.0, np.nan]))
    for trio in ((bad, good, good), (good, bad, good), (good, good, bad)):
        found = randomised(*trio)
        assert int(found.status) == Status.NOT_FINITE
        assert all(np.isnan(getattr(found, column)) for column in OWN)
    for nothing in (zero, as_esd([])):
        found = randomised(nothing, nothing, nothing)
        assert int(found.status) == Status.ALL_ZERO
        assert np.isnan(found.rand_distance)
        assert np.isnan(found.ww_softrank)
        assert float(found.max_rand_eval) == float(found.ww_maxdist) == 0.0


def test_under_vmap_and_grad_in_float32():
    rng = np.random.default_rng(1)
    W = jnp.asarray(rng.standard_normal((3, 30, 12)), jnp.float32)
    others = jax.vmap(esd)(W[::-1])
    found = jax.jit(jax.vmap(randomised))(jax.vmap(esd)(W), others, others)
    assert found.rand_distance.dtype == jnp.float32
    assert found.status.dtype == jnp.int32
    alone = randomised(esd(W[0]), esd(W[2]), esd(W[2]))
    np.testing.assert_allclose(found.rand_distance[0], alone.rand_distance, rtol=1e-4)
    assert float(found.rand_distance[1]) < 1e-6
    for index in (0, 1):
        slope = jax.grad(lambda x, other: share_distance(esd(x).evals, esd(other).evals))
        assert np.isfinite(slope(W[index], W[2 - index])).all()
