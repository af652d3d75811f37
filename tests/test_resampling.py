"""The bootstrap and the goodness-of-fit p: independent loops, laws, and every way to fail."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import pareto, with_body

import wwfunc
from wwfunc import Status, fit_pl, host
from wwfunc.fits.powerlaw import fit_limited
from wwfunc.fits.tail import Limits
from wwfunc.options import Method, Options
from wwfunc.trust.bootstrapping import bootstrap, bootstrap_fit
from wwfunc.trust.goodness import goodness_of, goodness_of_fit
from wwfunc.trust.resampling import uniform_ranks

KEY = jax.random.key(7)
FEW, MANY = 100, 2000
"""Replicates; as few numbers and sizes as can be, for each is compiled."""
LIMITS, METHOD = Limits(), Method()
ENDS = ("alpha_low", "alpha_high", "xmin_low", "xmin_high")


def padded(evals, size=128):
    """Test spectra of one size."""
    evals = np.sort(evals)
    return host.padded(host.as_esd(evals, n=evals.size, floor=0.0), size)


def numbers(found):
    return np.array([getattr(found, name) for name in ENDS])


fits_of_rows = jax.jit(functools.partial(jax.lax.map, fit_pl))


def many_fits(samples):
    """A fit for each row."""
    with jax.enable_x64(True):
        return jax.device_get(fits_of_rows(jnp.asarray(samples)))


# Ranks ----------------------------------------------------------------------------------------


def test_ranks_are_sorted_uniform_numbers():
    """The i-th of n sorted uniform numbers has mean i / (n + 1) and a beta's variance."""
    n, draws = 9, 4000
    with jax.enable_x64(True):
        keys = jax.random.split(KEY, draws)
        drawn = jax.vmap(lambda key: uniform_ranks(key, 16, jnp.int32(n), np.float64))(keys)
    drawn = np.asarray(drawn)
    assert (np.diff(drawn, axis=1) <= 0).all()
    np.testing.assert_allclose(drawn[:, :-n], n, rtol=1e-14)
    share = drawn[:, : -n - 1 : -1] / n
    i = np.arange(1, n + 1)
    variance = i * (n + 1 - i) / ((n + 1) ** 2 * (n + 2))
    error = np.sqrt(variance / draws)
    assert (np.abs(share.mean(axis=0) - i / (n + 1)) < 4 * error).all()
    np.testing.assert_allclose(share.var(axis=0), variance, rtol=0.15)


def test_ranks_do_not_depend_on_the_padding():
    with jax.enable_x64(True):
        short = uniform_ranks(KEY, 20, jnp.int32(20), np.float64)
        padded = uniform_ranks(KEY, 64, jnp.int32(20), np.float64)
    np.testing.assert_allclose(padded[-20:], short, rtol=1e-14)


# The bootstrap --------------------------------------------------------------------------------


def test_interval_with_xmin_given_equals_a_loop():
    """Quartiles of 2,000 replicates against those of NumPy, within their standard errors."""
    evals = pareto(np.random.default_rng(1), 128, 2.5)
    found = bootstrap(padded(evals), KEY, xmin=1.0, replicates=MANY, level=0.5)
    drawn = np.random.default_rng(2).choice(np.log(evals), (8 * MANY, evals.size))
    alphas = 1 + evals.size / drawn.sum(axis=1)
    low, high = np.quantile(alphas, [0.25, 0.75])
    # sqrt(p (1 - p) / n) over the density of a normal distribution at its quartile
    error = 3 * np.sqrt(0.25 * 0.75 / MANY) / 0.318 * alphas.std()
    assert error < 0.01 * 2.5, "an error of one percent shows"
    assert abs(found.alpha_low - low) < error
    assert abs(found.alpha_high - high) < error
    assert float(found.xmin_low) == float(found.xmin_high) == 1.0
    assert float(found.failed_share) == 0.0


def test_interval_with_xmin_scanned_equals_a_loop():
    """Quartiles of alpha and xmin; each refit has its own xmin."""
    evals = with_body(np.random.default_rng(3), 90)
    found = bootstrap(padded(evals), KEY, replicates=MANY, level=0.5)
    drawn = np.random.default_rng(4).choice(evals, (MANY, evals.size))
    fits = many_fits(drawn)
    for name in ("alpha", "xmin"):
        quartiles = np.quantile(getattr(fits, name), [0.25, 0.75])
        ours = [getattr(found, f"{name}_low"), getattr(found, f"{name}_high")]
        spread = quartiles[1] - quartiles[0]
        assert spread > 0
        np.testing.assert_allclose(ours, quartiles, atol=0.12 * spread)


def test_level_widens_the_interval():
    evals = with_body(np.random.default_rng(5), 120)
    narrow, wide = (
        bootstrap(padded(evals), KEY, replicates=FEW, level=level) for level in (0.5, 0.95)
    )
    assert wide.alpha_low < narrow.alpha_low < narrow.alpha_high < wide.alpha_high


def test_replicates_that_fail_are_counted():
    """Four draws of two values: some replicates hold one of them alone."""
    evals = np.r_[np.full(3, 1.0), 2.0]
    found = bootstrap(padded(evals), KEY, small_sample="mle", replicates=MANY)
    expected = 0.75**4 + 0.25**4
    error = np.sqrt(expected * (1 - expected) / MANY)
    assert abs(found.failed_share - expected) < 4 * error
    assert np.isfinite(numbers(found)).all()


# Goodness of fit ------------------------------------------------------------------------------


def distances_by_hand(evals, fit, rng):
    """Section 4.1 of the paper, a replicate at a time."""
    n, body = evals.size, evals[evals < fit.xmin]
    samples = []
    for _ in range(MANY):
        n_tail = rng.binomial(n, int(fit.num_pl_spikes) / n)
        tail = pareto(rng, n_tail, float(fit.alpha), float(fit.xmin))
        samples.append(np.concatenate([tail, rng.choice(body, n - n_tail)]))
    return many_fits(samples).D


def test_p_value_equals_a_loop():
    """A sample whose p is in the middle."""
    evals = with_body(np.random.default_rng(6), 90)
    fit = fit_pl(evals)
    distances = distances_by_hand(evals, fit, np.random.default_rng(7))
    expected = np.mean(distances >= fit.D)
    assert 0.2 < expected < 0.9
    found = goodness_of_fit(padded(evals), KEY, replicates=MANY)
    assert abs(found.p_value - expected) < 3 * np.sqrt(expected * (1 - expected) * 2 / MANY)


def test_p_value_with_xmin_given_equals_its_null():
    """With xmin given D* does not depend on alpha: a Pareto of any other alpha gives the null."""
    evals = pareto(np.random.default_rng(8), 100, 2.5)
    fit = fit_pl(evals, xmin=1.0)
    rng = np.random.default_rng(9)
    logs = np.sort(rng.exponential(size=(8 * MANY, evals.size)), axis=1)
    model = -np.expm1(-logs / logs.mean(axis=1, keepdims=True))
    null = np.abs(model - np.arange(evals.size) / evals.size).max(axis=1)
    expected = np.mean(null >= float(fit.D))
    assert 0.1 < expected < 0.9
    found = goodness_of_fit(padded(evals), KEY, xmin=1.0, replicates=MANY)
    error = np.sqrt(expected * (1 - expected) * (1 / MANY + 1 / (8 * MANY)))
    assert abs(found.p_value - expected) < 3 * error


def test_p_value_is_never_zero():
    rng = np.random.default_rng(10)
    uniform = goodness_of_fit(padded(rng.uniform(1, 2, 128)), KEY, xmin=1.0, replicates=MANY)
    np.testing.assert_allclose(uniform.p_value, 1 / (MANY + 1), rtol=1e-12)


def test_what_is_cut_off_above_is_not_part_of_the_sample():
    """Five outliers are left out: what remains is judged as it is without them."""
    evals = np.sort(with_body(np.random.default_rng(11), 100))
    outliers = padded(np.r_[evals, 1e6 * np.arange(1.0, 6.0)])
    alone = goodness_of_fit(padded(evals), KEY, replicates=FEW).p_value
    for cut in ({"xmax": -5}, {"xmax": float(evals[-1])}):
        found = goodness_of_fit(outliers, KEY, replicates=FEW, **cut).p_value
        np.testing.assert_allclose(found, alone, rtol=1e-12)


def test_fingers_that_were_clipped_are_not_part_of_the_sample():
    W = np.random.default_rng(6).standard_normal((120, 120))
    evals = np.linalg.svd(W, compute_uv=False)[::-1] ** 2 / 120
    esd, clip = padded(evals), {"fix_fingers": "clip_xmax"}
    fingers = int(fit_pl(esd, **clip).num_fingers)
    assert fingers == 3
    clipped = goodness_of_fit(esd, KEY, replicates=FEW, **clip)
    alone = goodness_of_fit(padded(evals[:-fingers]), KEY, replicates=FEW)
    np.testing.assert_allclose(clipped.p_value, alone.p_value, rtol=1e-12)


def test_draws_past_the_range_of_the_precision_do_no_harm():
    """An alpha of 1.02 draws x / xmin to the power 50: e^50 to e^350 above 1e200."""
    evals = 1e200 * np.exp(np.random.default_rng(13).exponential(50.0, 60))
    found = goodness_of_fit(padded(evals), KEY, xmin=1e200, replicates=MANY)
    assert float(found.failed_share) == 0.0
    assert 0 < float(found.p_value) <= 1


# Both -----------------------------------------------------------------------------------------

VERBS = [bootstrap, goodness_of_fit]


def leaves(found):
    return np.array(jax.tree.leaves(found), np.float64)


@pytest.mark.parametrize("verb", VERBS)
def test_the_key_decides(verb):
    esd = padded(with_body(np.random.default_rng(14), 100))
    one = leaves(verb(esd, KEY, replicates=FEW))
    old_style = jax.random.key_data(KEY)
    for same in (KEY, old_style, np.asarray(old_style)):
        np.testing.assert_array_equal(leaves(verb(esd, same, replicates=FEW)), one)
    assert (leaves(verb(esd, jax.random.key(8), replicates=FEW)) != one).any()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "key", [None, 3, np.zeros(2), np.zeros(3, np.uint32), jax.random.split(KEY), "key"], ids=str
)
def test_what_is_no_key_is_refused(verb, key):
    with pytest.raises(wwfunc.InputError, match="key"):
        verb(np.arange(1.0, 50.0), key)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "changes",
    [{"replicates": 0}, {"replicates": 18}, {"fit": "TPL"}, {"xmin": -1.0}, {"nonsense": 1}],
    ids=str,
)
def test_an_option_outside_its_range_is_refused(verb, changes):
    with pytest.raises(wwfunc.OptionError, match=next(iter(changes))):
        verb(np.arange(1.0, 50.0), KEY, **changes)


@pytest.mark.parametrize("level", [0, 1, -0.5, np.nan])
def test_a_level_outside_its_range_is_refused(level):
    with pytest.raises(wwfunc.OptionError, match="level"):
        bootstrap(np.arange(1.0, 50.0), KEY, level=level)


FAILURES = [
    (np.zeros(30), Status.ALL_ZERO),
    (np.full(30, np.nan), Status.NOT_FINITE),
    (np.r_[np.ones(29), np.inf], Status.NOT_FINITE),
    (np.full(30, 2.0), Status.NO_TAIL),
    (np.array([3.0]), Status.TAIL_TOO_SHORT),
    (np.array([]), Status.TAIL_TOO_SHORT),
    (np.full(30, 1e-7), Status.THRESHOLD_LEAVES_NONE),
]


@pytest.mark.parametrize(("evals", "status"), FAILURES)
def test_failures_have_a_status_and_no_number(evals, status):
    interval = bootstrap(padded(evals), KEY, replicates=FEW)
    goodness = goodness_of_fit(padded(evals), KEY, replicates=FEW)
    assert Status(int(interval.status)) is Status(int(goodness.status)) is status
    assert np.isnan(numbers(interval)).all()
    assert np.isnan(goodness.p_value)


def test_eigenvalues_in_any_order():
    """One, none, or many that are no `ESD`."""
    assert np.isnan(goodness_of_fit(np.array([]), KEY, replicates=FEW).p_value)
    assert np.isnan(goodness_of_fit(np.array([1.0]), KEY, replicates=FEW).p_value)
    evals = with_body(np.random.default_rng(15), 128)
    shuffled = goodness_of_fit(evals, KEY, replicates=FEW)
    ordered = goodness_of_fit(padded(evals), KEY, replicates=FEW)
    np.testing.assert_array_equal(leaves(shuffled), leaves(ordered))


@pytest.mark.parametrize(
    ("verb", "changes"),
    [
        (bootstrap, {"xmin_min": 1.2}),
        (goodness_of_fit, {"fix_fingers": "xmin_peak"}),
        (goodness_of_fit, {"ks": "two-sided"}),
    ],
)
def test_options_reach_every_refit(verb, changes):
    esd = padded(with_body(np.random.default_rng(15), 100))
    plain = leaves(verb(esd, KEY, replicates=FEW))
    changed = verb(esd, KEY, Options(replicates=FEW, **changes))
    assert np.isfinite(leaves(changed)).all()
    assert (plain != leaves(changed)).any()
    if "xmin_min" in changes:
        assert changed.xmin_low >= 1.2


def test_padding_changes_nothing():
    evals = np.sort(with_body(np.random.default_rng(16), 100))
    with jax.enable_x64(True):
        found = []
        for size in (128, 512):
            esd = padded(evals, size)
            fit = fit_limited(esd, LIMITS, METHOD)
            found.append(
                (
                    bootstrap_fit(esd, KEY, LIMITS, METHOD, replicates=FEW),
                    goodness_of(esd, fit, KEY, LIMITS, METHOD, replicates=FEW),
                )
            )
    for short, long in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(long, short, rtol=1e-12)


def test_vmap_gives_what_one_by_one_gives():
    rng = np.random.default_rng(17)
    stacked = np.stack([with_body(rng, 128) for _ in range(3)])
    keys = jax.random.split(KEY, 3)

    def both(evals, key):
        return bootstrap(evals, key, replicates=FEW), goodness_of_fit(evals, key, replicates=FEW)

    with jax.enable_x64(True):
        together = jax.device_get(jax.jit(jax.vmap(both))(stacked, keys))
    for i in range(3):
        for many, one in zip(
            jax.tree.leaves(together), jax.tree.leaves(both(stacked[i], keys[i])), strict=True
        ):
            np.testing.assert_allclose(many[i], one, rtol=1e-10)


def test_float32_is_close():
    """Other random bits, the same distribution: quartiles within their standard errors."""
    evals = pareto(np.random.default_rng(1), 128, 2.5)
    single = bootstrap(evals.astype(np.float32), KEY, xmin=1.0, replicates=MANY, level=0.5)
    assert single.alpha_low.dtype == np.float32
    double = bootstrap(padded(evals), KEY, xmin=1.0, replicates=MANY, level=0.5)
    spread = double.alpha_high - double.alpha_low
    assert abs(single.alpha_low - double.alpha_low) < 0.15 * spread
    p = goodness_of_fit(evals.astype(np.float32), KEY, xmin=1.0, replicates=MANY).p_value
    assert p.dtype == np.float32
    assert abs(p - goodness_of_fit(padded(evals), KEY, xmin=1.0, replicates=MANY).p_value) < 0.06


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.sampled_from([-300, -150, -20, 7, 300]))
def test_scaling_scales_xmin_and_leaves_the_rest(seed, power):
    evals = with_body(np.random.default_rng(seed), 80)
    factor = 2.0**power
    spectra = [padded(evals), padded(evals * factor)]
    options = Options(threshold="relative", replicates=FEW)
    one, other = (bootstrap(esd, KEY, options) for esd in spectra)
    np.testing.assert_allclose(numbers(other)[:2], numbers(one)[:2], rtol=1e-9)
    np.testing.assert_allclose(numbers(other)[2:], factor * numbers(one)[2:], rtol=1e-9)
    one, other = (goodness_of_fit(esd, KEY, options).p_value for esd in spectra)
    np.testing.assert_allclose(other, one, rtol=1e-12)
