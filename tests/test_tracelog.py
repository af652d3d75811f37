"""The trace-log condition against exact arithmetic and WeightWatcher's tables."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reference import table

import wwfunc
from wwfunc import host
from wwfunc.randommatrix.tracelog import erg, erg_of
from wwfunc.status import Status


def exactly(evals) -> int:
    """The smallest k whose largest eigenvalues have a product under the mean to the k-th power."""
    ordered = sorted(map(Fraction, evals.tolist()), reverse=True)
    mean = sum(ordered) / len(ordered)
    product = Fraction(1)
    for k, value in enumerate(ordered, 1):
        product *= value / mean
        if product < 1:
            return k
    raise AssertionError("the product of all is one: they are all equal")


def heavy(rng, count):
    """Whole numbers, so that exact arithmetic stays fast."""
    return np.ceil(100 * (1 - rng.random(count)) ** (-1 / 1.5))


@pytest.mark.parametrize("name", ["minilm", "seeded"])
def test_every_row_of_the_reference(name, analyses):
    """Their detX_val is ours without the scale, and the other way round.

    In a layer of ten eigenvalues all of them are needed; WeightWatcher stops one before.
    """
    reference = table(f"{name}_random_matrix")
    assert len(reference) == {"minilm": 39, "seeded": 12}[name]
    for longname, row in reference.iterrows():
        record = analyses[name][longname]
        found = erg(record.evals, int(record.num_pl_spikes))
        assert Status(int(found.status)) is Status.SUCCESS
        assert int(found.detX_num) == row.detX_num, longname
        assert int(found.num_ERG_spikes) == row.num_ERG_spikes, longname
        assert float(found.ERG_gap) == row.ERG_gap, longname
        theirs = [row.detX_val_unrescaled, row.detX_val]
        if row.detX_num == row.num_evals:
            assert longname == "classifier.narrow"
            second = np.sort(record.evals)[1]
            np.testing.assert_allclose(theirs, [second * row.W_scale**2, second], rtol=1e-9)
            theirs = [record.evals.min() * row.W_scale**2, record.evals.min()]
        np.testing.assert_allclose(
            [found.detX_val, found.detX_val_unrescaled], theirs, rtol=1e-9, err_msg=longname
        )


def test_a_product_beyond_the_range_of_floats():
    """WeightWatcher multiplies: infinity is never under one, so that it takes them all."""
    rng = np.random.default_rng(0)
    evals = np.sort(np.ceil(1e4 * rng.chisquare(1, 3000)))
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.cumprod(evals[::-1] / evals.mean())
    assert np.isinf(products[900])
    assert not (products < 1).any()
    expected = exactly(evals)
    assert 1000 < expected < 2500
    found = erg(evals)
    assert int(found.detX_num) == expected
    assert float(found.detX_val_unrescaled) == evals[-expected]
    assert float(found.detX_val) == pytest.approx(evals[-expected] / evals.mean(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([2, 3, 10, 64]),
    power=st.integers(-60, 60),
    factor=st.floats(1e-12, 1e12),
)
def test_exact_numbers_scale_and_order(seed, count, power, factor):
    rng = np.random.default_rng(seed)
    evals = heavy(rng, count)
    if np.ptp(evals) == 0:
        return
    expected = exactly(evals)
    found = erg(evals, 3)
    assert int(found.detX_num) == expected
    assert float(found.ERG_gap) == expected - 3
    assert int(erg(rng.permutation(evals)).detX_num) == expected
    doubled = erg(evals * 2.0**power)
    assert int(doubled.detX_num) == expected
    assert float(doubled.detX_val) == float(found.detX_val)
    assert float(doubled.detX_val_unrescaled) == np.sort(evals)[-expected] * 2.0**power
    scaled = erg(evals * factor)
    np.testing.assert_allclose(scaled.detX_val, found.detX_val, rtol=1e-12)


def test_a_larger_share_of_small_ones_makes_the_tail_longer():
    evals = heavy(np.random.default_rng(1), 200)
    shifted = int(erg(evals + 1000).detX_num)
    assert shifted == exactly(evals + 1000)
    assert shifted > int(erg(evals).detX_num)


def test_the_gap_is_missing_where_a_fit_is():
    evals = np.array([8.0, 4.0, 2.0, 1.0, 1.0])
    for spikes in (None, 0, np.int32(0), jnp.int32(0)):
        found = erg(evals, spikes)
        assert int(found.detX_num) == 4
        assert np.isnan(found.ERG_gap)
    assert float(erg(evals, np.int64(5)).ERG_gap) == -1


def spectrum(evals, floor=0.0, n=None):
    ordered = np.sort(np.asarray(evals, np.float64))
    return wwfunc.ESD(evals=ordered, n=np.int32(n or ordered.size), floor=np.float64(floor))


def test_padding_changes_nothing():
    found = host.esd(np.random.default_rng(2).standard_t(3, (1, 90, 70)))
    one, other = erg(found, 9), erg(host.padded(found, 1024), 9)
    assert int(one.detX_num) == int(other.detX_num) == exactly(found.evals)
    np.testing.assert_allclose(
        [one.detX_val, one.detX_val_unrescaled, one.ERG_gap],
        [other.detX_val, other.detX_val_unrescaled, other.ERG_gap],
        rtol=1e-12,
    )


def test_what_rounding_does_not_resolve_counts_as_zero():
    """A crossing above the floor stands; a zero that has to end the tail is no crossing."""
    evals = np.array([1e-17, 2e-17, 0.1, 0.5, 1.0, 9.0])
    found = erg(spectrum(evals, floor=1e-15))
    assert Status(int(found.status)) is Status.RANK_DEFICIENT
    assert int(found.detX_num) == exactly(np.r_[0, 0, evals[2:]]) == 3
    assert float(found.detX_val_unrescaled) == 0.5
    assert float(found.detX_val) == pytest.approx(0.5 / (10.6 / 6), rel=1e-12)
    lost = erg(spectrum(np.array([1e-17, 2e-17, 1.0, 1.1, 1.2]), floor=1e-15), 2)
    assert Status(int(lost.status)) is Status.NO_TRACE_LOG
    assert int(lost.detX_num) == -1
    assert np.isnan([lost.detX_val, lost.detX_val_unrescaled, lost.ERG_gap]).all()


def test_a_rank_deficient_matrix():
    W = np.random.default_rng(3).standard_normal((60, 40))
    W[:, 20:] = W[:, :20]
    found = erg(wwfunc.esd(W))
    assert Status(int(found.status)) is Status.NO_TRACE_LOG
    W[:, 20:30] = np.random.default_rng(4).standard_normal((60, 10))
    found = erg(wwfunc.esd(W))
    assert Status(int(found.status)) is Status.RANK_DEFICIENT
    assert 0 < int(found.detX_num) <= 30


def test_nearly_equal_ones_are_all_in_the_tail():
    """Rounding hides that their product is under one; the inequality of the means does not."""
    for exponent in range(-12, -1):
        evals = 1 + 10.0**exponent * np.linspace(-1, 1, 101) ** 3
        assert int(erg(evals).detX_num) == exactly(evals)


FAILURES = [
    (np.zeros(9), Status.ALL_ZERO),
    (np.full(9, np.nan), Status.NOT_FINITE),
    (np.r_[np.ones(8), np.nan], Status.NOT_FINITE),
    (np.r_[np.ones(8), np.inf], Status.NOT_FINITE),
    (np.full(9, 0.3), Status.NO_TAIL),
    (np.full(2, 7.0), Status.NO_TAIL),
    (np.r_[np.zeros(5), np.ones(4)], Status.NO_TRACE_LOG),
    (np.array([3.0]), Status.TAIL_TOO_SHORT),
    (np.array([]), Status.TAIL_TOO_SHORT),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("evals", "status"), FAILURES)
def test_failures_have_a_status_and_no_number(evals, status, dtype):
    found = erg(evals.astype(dtype), 2)
    assert Status(int(found.status)) is status
    assert int(found.detX_num) == int(found.num_ERG_spikes) == -1
    assert np.isnan([found.detX_val, found.detX_val_unrescaled, found.ERG_gap]).all()


def test_an_orthogonal_matrix_has_equal_eigenvalues():
    Q = np.linalg.qr(np.random.default_rng(5).standard_normal((64, 64)))[0]
    for W in (Q, Q.astype(np.float32)):
        assert Status(int(erg(wwfunc.esd(W)).status)) is Status.NO_TAIL


def test_numbers_near_the_end_of_the_range():
    evals = heavy(np.random.default_rng(6), 64)
    for scale in (1e-38, 1e32):
        assert int(erg((evals * scale).astype(np.float32)).detX_num) == exactly(evals)
    for scale in (1e-300, 1e300):
        assert int(erg(evals * scale).detX_num) == exactly(evals)
    for beyond in (evals * (1.7e308 / evals.max()), np.array([1e304, 1.7e308])):
        assert Status(int(erg(beyond).status)) is Status.NOT_FINITE


def test_vmap_and_jit_over_stacked_spectra():
    rng = np.random.default_rng(7)
    layers = [heavy(rng, 50), heavy(rng, 20), np.ones(30), heavy(rng, 1)]
    with jax.enable_x64(True):
        padded = [host.padded(host.as_esd(np.sort(x), n=x.size, floor=0.0), 64) for x in layers]
        stacked = jax.tree.map(lambda *rows: np.stack(rows), *padded)
        together = jax.jit(jax.vmap(erg_of))(stacked, np.array([5, 0, 5, 5]))
        one = jax.jit(erg)(layers[0], 5)
    assert together.num_ERG_spikes.tolist() == [exactly(layers[0]), exactly(layers[1]), -1, -1]
    assert int(one.detX_num) == exactly(layers[0])
    assert float(together.ERG_gap[0]) == exactly(layers[0]) - 5
    assert np.isnan(together.ERG_gap[1:]).all()
    assert float(together.detX_val_unrescaled[1]) == np.sort(layers[1])[-exactly(layers[1])]


def test_float32_is_close():
    evals = heavy(np.random.default_rng(8), 400)
    single, double = erg(evals.astype(np.float32), 5), erg(evals, 5)
    for name in ("detX_val", "detX_val_unrescaled", "ERG_gap"):
        assert getattr(single, name).dtype == np.float32
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=1e-5)
    assert int(single.detX_num) == exactly(evals)


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        evals = np.sort(heavy(np.random.default_rng(9), 30)) + np.linspace(0, 0.5, 30)
        value = jax.jit(lambda x: erg(x).detX_val)
        gradient = jax.grad(value)(evals)
        steps = 1e-6 * np.eye(evals.size) * evals[:, None]
        secant = [(value(evals + h) - value(evals - h)) / (2 * h.sum()) for h in steps]
    np.testing.assert_allclose(gradient, secant, rtol=1e-5, atol=1e-9)
    assert np.abs(gradient).max() > 1e-4


@pytest.mark.parametrize("evals", [np.zeros(9), np.ones(9), np.r_[np.zeros(8), 2.0]], ids=str)
def test_gradients_of_odd_input_are_finite(evals):
    slope = jax.grad(lambda x: jnp.nan_to_num(erg(x).detX_val))(evals.astype(np.float32))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("spikes", [-1, 2.5, True, "all", [3]], ids=str)
def test_a_number_of_spikes_that_is_none_is_refused(spikes):
    with pytest.raises(wwfunc.OptionError, match="num_pl_spikes is"):
        erg(np.arange(1.0, 9), spikes)
