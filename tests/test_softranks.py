"""Ranks: definitions by hand, random matrices against their expectation, laws, failures."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import OptionError, Status, host
from wwfunc.randommatrix import gaussianranks, tracywidom
from wwfunc.randommatrix.gaussianranks import random_ranks
from wwfunc.softranks import Ranks, ranks
from wwfunc.spectrum import ESD
from wwfunc.trust.randomspectra import random_evals

NAMES = [field.name for field in dataclasses.fields(Ranks) if field.name != "status"]


def values(found):
    return np.array([np.asarray(getattr(found, name), float) for name in NAMES])


def by_hand(evals):
    descending = np.sort(evals)[::-1]
    sigma = np.sqrt(descending)
    p = sigma / sigma.sum()
    p = p[p > 0]
    held = np.cumsum(descending) / descending.sum()
    return [
        descending.sum() / descending[0],
        np.exp(-np.sum(p * np.log(p))),
        np.searchsorted(held, 0.95 - 1e-12) + 1,
        np.searchsorted(held, 0.99 - 1e-12) + 1,
        descending.sum() ** 2 / np.sum(descending**2),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_definitions(seed):
    rng = np.random.default_rng(seed)
    evals = rng.pareto(1.5, 100) if seed % 2 else rng.uniform(0, 1, 100)
    found = ranks(evals)
    np.testing.assert_allclose(values(found), by_hand(evals), rtol=1e-12)
    assert found.energy_rank_95.dtype == found.energy_rank_99.dtype == np.int32
    assert Status(int(found.status)) is Status.SUCCESS


def test_the_effective_rank_is_of_singular_values():
    """Roy and Vetterli's: singular values 3 and 1 have the shares 3/4 and 1/4."""
    found = wwfunc.esd(np.diag([3.0, 1.0]))
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert float(ranks(found).effective_rank) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [20, 40, 100, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_flat_spectrum_has_its_size(size, dtype):
    """Partial sums that reach a share exactly hold it, whatever rounding says."""
    found = ranks(np.full(size, 0.1, dtype))
    expected = [size, size, size * 95 // 100, -(-size * 99 // 100), size]
    np.testing.assert_allclose(values(found), expected, rtol=1e-4)


def test_a_dominant_direction():
    evals = np.r_[np.full(99, 1e-6), 1.0]
    found = ranks(evals)
    assert (int(found.energy_rank_95), int(found.energy_rank_99)) == (1, 1)
    np.testing.assert_allclose(values(found)[[0, 4]], [1.000099, 1.000198], rtol=1e-6)
    assert float(found.effective_rank) == pytest.approx(by_hand(evals)[1], rel=1e-12)


def test_what_rounding_does_not_resolve_is_zero():
    evals = np.r_[np.full(3, 0.01), 1.0, 2.0, 3.0]
    found = ranks(host.as_esd(evals, n=6, floor=0.01))
    np.testing.assert_allclose(values(found)[1:], by_hand(evals[3:])[1:], rtol=1e-12)
    assert Status(int(found.status)) is Status.RANK_DEFICIENT
    whole = ranks(host.padded(host.as_esd(evals[3:], n=3, floor=0.01), 8))
    np.testing.assert_allclose(values(whole), by_hand(evals[3:]), rtol=1e-12)
    assert Status(int(whole.status)) is Status.SUCCESS


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-140, 1e140), st.floats(0.5, 3))
def test_laws(seed, scale, heaviness):
    rng = np.random.default_rng(seed)
    evals = rng.pareto(heaviness, 30) + 1e-3
    base = values(ranks(evals))
    np.testing.assert_allclose(values(ranks(rng.permutation(scale * evals))), base, rtol=1e-10)
    stable, effective, energy_95, energy_99, participation = base
    assert 1 <= stable <= participation * (1 + 1e-12) <= effective * (1 + 1e-9) <= 30 * (1 + 1e-9)
    assert 1 <= energy_95 <= energy_99 <= 30


def test_transposing_changes_nothing():
    W = np.random.default_rng(1).standard_t(3, (40, 25))
    np.testing.assert_allclose(
        values(ranks(wwfunc.esd(W))), values(ranks(wwfunc.esd(W.T))), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        (np.array([1.0, np.nan]), Status.NOT_FINITE),
        (np.array([1.0, np.inf]), Status.NOT_FINITE),
        (np.zeros(3), Status.ALL_ZERO),
        (np.zeros(0), Status.ALL_ZERO),
    ],
    ids=["nan", "infinity", "zero", "none"],
)
def test_what_has_no_rank(evals, status):
    found = ranks(evals)
    assert np.isnan(values(found)[[0, 1, 4]]).all()
    assert int(found.energy_rank_95) == int(found.energy_rank_99) == -1
    assert Status(int(found.status)) is status


def test_one_eigenvalue():
    np.testing.assert_allclose(values(ranks(np.array([7.0]))), 1.0, rtol=1e-15)


def test_float32_jit_vmap_and_the_derivative():
    evals = np.random.default_rng(2).uniform(0.1, 2, (3, 40)).astype(np.float32)
    found = jax.jit(jax.vmap(ranks))(evals)
    assert found.effective_rank.dtype == found.participation_ratio.dtype == np.float32
    np.testing.assert_allclose(values(found), np.transpose([by_hand(e) for e in evals]), rtol=1e-4)
    x = evals[0].astype(float)
    with jax.enable_x64(True):
        total = jax.jit(lambda x: ranks(x).effective_rank + ranks(x).participation_ratio)
        slope = jax.jit(jax.grad(total))(jnp.asarray(x))
        step = 1e-6 * np.eye(40)[7]
        numeric = (total(x + step) - total(x - step)) / 2e-6
    assert float(slope[7]) == pytest.approx(float(numeric), rel=1e-5)


def test_zeros_leave_the_derivative_finite():
    total = jax.jit(jax.grad(lambda x: ranks(x).effective_rank + ranks(x).participation_ratio))
    assert np.isfinite(total(jnp.array([0.0, 0.0, 1.0, 2.0], jnp.float32))).all()


# Beside random matrices ----------------------------------------------------------------------

SIMULATED = jax.jit(
    jax.vmap(lambda evals: ranks(ESD(evals=evals, n=jnp.int32(evals.size), floor=jnp.zeros(()))))
)


@pytest.mark.parametrize(
    ("n", "m", "slices", "draws", "percent"),
    [
        # Stable and effective rank, participation ratio.
        (8, 8, 1, 8000, (4.5, 1.7, 1.6)),
        (100, 8, 1, 8000, (0.5, 0.1, 0.1)),
        (12, 8, 9, 2000, (0.5, 0.2, 0.3)),
        (16, 16, 1, 4000, (1.6, 0.6, 0.5)),
        (64, 64, 1, 1000, (0.3, 0.1, 0.1)),
        (640, 64, 1, 1000, (0.3, 0.1, 0.1)),
        (200, 100, 1, 400, (0.3, 0.1, 0.1)),
        (96, 64, 9, 100, (0.3, 0.1, 0.1)),
    ],
)
def test_the_mean_of_gaussian_matrices(n, m, slices, draws, percent):
    evals = random_evals(np.random.default_rng([n, m, slices]), n, m, draws, slices)
    found = values(SIMULATED(evals.astype(np.float32)))
    mean, error = found.mean(axis=1), found.std(axis=1) / np.sqrt(draws)
    expected = values(random_ranks(n, m, slices))
    off = np.abs(expected - mean) - 3.5 * error
    assert np.all(off[[0, 1, 4]] < np.array(percent) / 100 * mean[[0, 1, 4]])
    assert np.all(off[2:4] < 0.3), "of an eigenvalue"
    assert np.all(error < 0.005 * mean)


@pytest.mark.parametrize("n", [400, 1000, 4000])
def test_energy_ranks_of_tall_matrices_are_within_half_an_eigenvalue(n):
    evals = random_evals(np.random.default_rng(n), n, 64, 200)
    mean = values(SIMULATED(evals.astype(np.float32)))[2:4].mean(axis=1)
    assert np.all(np.abs(values(random_ranks(n, 64))[2:4] - mean) < 0.5)


@pytest.mark.parametrize(("side", "slices", "percent"), [(2, 1, -15), (3, 1, -8), (3, 100, -5)])
def test_what_the_effective_rank_lacks_under_eight_columns(side, slices, percent):
    evals = random_evals(np.random.default_rng(side), side, side, 10_000 // slices, slices)
    mean = values(SIMULATED(evals.astype(np.float32)))[1].mean()
    off = float(random_ranks(side, side, slices).effective_rank) / mean - 1
    assert 100 * off == pytest.approx(percent, abs=1)


def test_sides_go_in_any_order_and_may_be_traced():
    expected = values(random_ranks(70, 30, 4))
    np.testing.assert_array_equal(values(random_ranks(30, 70, 4)), expected)
    traced = jax.jit(jax.vmap(lambda n: random_ranks(n, 30, 4)))(jnp.array([70, 90]))
    np.testing.assert_allclose(values(traced)[:, 0], expected, rtol=1e-5)


def test_large_shapes_stay_near_the_law():
    """Of a square matrix the mean of sigma is 8 / (3 pi), in float32 too."""
    n = 30_000
    found = random_ranks(n, n)
    assert found.effective_rank.dtype == np.float32
    sigma = np.sin((np.arange(100_000) + 0.5) / 100_000 * np.pi / 2) * 2
    weight = np.cos((np.arange(100_000) + 0.5) / 100_000 * np.pi / 2) ** 2
    weight /= weight.sum()
    s, log = weight @ sigma, weight @ (sigma * np.log(sigma))
    assert s == pytest.approx(8 / (3 * np.pi), rel=1e-6)
    assert float(found.effective_rank) == pytest.approx(n * s * np.exp(-log / s), rel=1e-4)
    assert float(found.participation_ratio) == pytest.approx(n / 2, rel=1e-4)
    assert float(found.stable_rank) == pytest.approx(n / 4, rel=2e-3)


def test_a_shape_whose_product_is_over_int32():
    expected = values(random_ranks(60_000, 50_000))
    traced = jax.jit(random_ranks)(jnp.int32(60_000), jnp.int32(50_000))
    np.testing.assert_allclose(values(traced), expected, rtol=1e-6)
    assert np.all((expected > 10_000) & (expected < 50_000))
    assert np.all(values(random_ranks(200, 2**31)) > 190)


def test_the_shortest_side():
    np.testing.assert_allclose(values(random_ranks(9, 1)), 1.0)
    assert np.all(values(random_ranks(2, 2)) <= 2)


def test_the_largest_of_several_tracy_widom_variables():
    nodes, weights = np.polynomial.legendre.leggauss(100)
    s, weights = 2.5 + 11.5 * nodes, 11.5 * weights
    below = np.array([tracywidom.distribution(value) for value in s])
    for k in (1, 2, 9, 49, 400, 1000):
        mean = 14 - weights @ below**k
        second = 14**2 - 2 * weights @ (s * below**k)
        found = [
            np.polyval(series[::-1], np.log(k))
            for series in (gaussianranks._MEAN, gaussianranks._DEVIATION)
        ]
        np.testing.assert_allclose(found, [mean, np.sqrt(second - mean**2)], rtol=0, atol=2e-5)
        if k == 1:
            assert mean == pytest.approx(-1.2065335745820, abs=1e-9)


@pytest.mark.parametrize("shape", [(0, 3), (3, 2.5), (3, 3, 0), (True, 2)])
def test_shapes_that_are_refused(shape):
    with pytest.raises(OptionError):
        random_ranks(*shape)
