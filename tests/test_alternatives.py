"""A power law against its alternatives: SciPy's optimum, powerlaw's parameters, laws, limits."""

from __future__ import annotations

import functools

import jax
import mpmath
import numpy as np
import powerlaw
import pytest
import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

import wwfunc
from wwfunc.fits import truncatedlikelihood
from wwfunc.fits.tail import Limits
from wwfunc.options import Method
from wwfunc.spectrum import ESD
from wwfunc.trust.alternatives import alternatives_at, compare_alternatives

NAMES = ("exponential", "lognormal", "stretched_exponential", "truncated")
SIZE = 512
"""All spectra here are padded to so many entries: one compiled program."""
SHORTFALL = 1e-6
"""Nats by which a likelihood may lie under the best that another search finds."""
TRUNCATED_MAXIMUM = jax.jit(functools.partial(truncatedlikelihood.maximise, free=False))


def spectrum(x):
    x = np.sort(x)
    evals = np.concatenate([np.zeros(SIZE - x.size, x.dtype), x])
    return ESD(evals=evals, n=np.int32(x.size), floor=evals.dtype.type(0))


def compare(x, xmin=1.0):
    """At a given xmin."""
    with jax.enable_x64(True):
        xmin = np.asarray(xmin, float)
        found = alternatives_at(spectrum(np.asarray(x, float)), Limits(), Method(), xmin)
        return jax.device_get(found)


def compare_rows(rows):
    """All at xmin = 1, by one program."""
    with jax.enable_x64(True):
        spectra = jax.tree.map(lambda *leaves: np.stack(leaves), *map(spectrum, rows))
        verb = jax.jit(jax.vmap(lambda esd: compare_alternatives(esd, xmin=1.0)))
        return jax.device_get(verb(spectra))


def ratios(found):
    return [getattr(found, name) for name in NAMES]


def draw(name, n, seed=0):
    rng = np.random.default_rng(seed)
    samples = {
        "power law": (1.0 - rng.random(n)) ** (-1 / 1.5),
        "exponential": 1.0 + rng.exponential(1.0, n),
        "lognormal": np.exp(stats.truncnorm.rvs(-0.5, np.inf, 0.4, 0.8, n, random_state=rng)),
        "stretched exponential": (1.0 + 1.4 * rng.exponential(1.0, n)) ** (1 / 0.6),
        "narrow": 100.0 + rng.random(n),
        "at least 1": np.exp(rng.normal(0.0, 1.0, 3 * n)),
    }
    return samples[name]


DRAWS = [
    (name, n)
    for name in ("power law", "exponential", "lognormal", "stretched exponential", "narrow")
    for n in (12, 300)
]


# The likelihoods ------------------------------------------------------------------------------


def density(name, x, xmin, first, second):
    """Logarithm of the densities as powerlaw parametrises them, by SciPy and mpmath."""
    if name == "exponential":
        return stats.expon.logpdf(x, xmin, 1 / first)
    if name == "lognormal":
        normaliser = stats.norm.logsf(np.log(xmin), first, second)
        return stats.norm.logpdf(np.log(x), first, second) - np.log(x) - normaliser
    if name == "stretched_exponential":
        model = stats.weibull_min(second, scale=1 / first)
        return model.logpdf(x) - model.logsf(xmin)
    integral = mpmath.expint(first, second * xmin) * mpmath.mpf(xmin) ** (1 - first)
    return -first * np.log(x) - second * x - float(mpmath.log(integral))


def best_of_scipy(name, x, xmin):
    """The highest of several simplex searches; the second parameter in logarithms."""

    def negative(p):
        with np.errstate(all="ignore"):
            first = p[0] if name == "lognormal" else np.exp(p[0])
            total = -np.sum(density(name, x, xmin, first, np.exp(p[1])))
        return total if np.isfinite(total) else 1e12

    y = np.log(x)
    starts = [(y.mean(), np.log(y.std())), (0.0, 0.0), (-3.0, 0.7), (1.0, -1.0)]
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 3000, "maxfev": 3000}
    return -min(
        optimize.minimize(negative, start, method="Nelder-Mead", options=options).fun
        for start in starts
    )


@pytest.mark.parametrize(("name", "n"), DRAWS)
def test_likelihoods_are_maxima(name, n):
    """Where the maximum is the power law itself a simplex cannot reach it: ours is higher."""
    x = draw(name, n)
    found = compare(x)
    np.testing.assert_allclose(
        found.exponential.loglikelihood,
        stats.expon.logpdf(x, 1.0, x.mean() - 1.0).sum(),
        rtol=1e-11,
    )
    for family in ("lognormal", "stretched_exponential"):
        ratio = getattr(found, family)
        best = best_of_scipy(family, x, 1.0)
        assert ratio.loglikelihood > best - SHORTFALL
        # The narrow tail's simplex has far to go.
        assert ratio.limit or name == "narrow" or ratio.loglikelihood < best + SHORTFALL


@pytest.mark.parametrize(("name", "n"), DRAWS)
def test_truncated_likelihood_is_that_of_its_parameters(name, n):
    """The density by mpmath at the parameters that the maximum is said to have."""
    x = draw(name, n)
    ratio = compare(x).truncated
    with jax.enable_x64(True):
        alpha, z = TRUNCATED_MAXIMUM(np.log(x).mean(), x.mean())
    # Lambda 0 has no normaliser in mpmath: a tiny one changes nothing that counts.
    by_hand = density("truncated", x, 1.0, float(alpha), max(float(z), 1e-13)).sum()
    np.testing.assert_allclose(ratio.loglikelihood, by_hand, rtol=1e-9, atol=1e-8)
    assert bool(ratio.limit) == (float(z) == 0)


def test_R_is_what_the_likelihoods_say():
    x = draw("lognormal", 300)
    found = compare(x)
    alpha = 1 + x.size / np.log(x).sum()
    power_law = np.sum(np.log(alpha - 1) - alpha * np.log(x))
    for ratio in ratios(found):
        np.testing.assert_allclose(ratio.R, power_law - ratio.loglikelihood, atol=1e-9)
        assert not ratio.limit
    np.testing.assert_allclose(
        found.truncated.p, stats.chi2.sf(2 * abs(found.truncated.R), 1), rtol=1e-9
    )
    points = density("exponential", x, 1.0, 1 / (x.mean() - 1), None)
    expected = powerlaw.loglikelihood_ratio(np.log(alpha - 1) - alpha * np.log(x), points)
    np.testing.assert_allclose(
        [found.exponential.R, found.exponential.p], expected, rtol=1e-10, atol=1e-10
    )


def fit_by_powerlaw(name, x, xmin):
    kinds = {
        "exponential": powerlaw.Exponential,
        "lognormal": powerlaw.Lognormal,
        "stretched_exponential": powerlaw.Stretched_Exponential,
        "truncated": powerlaw.Truncated_Power_Law,
    }
    return kinds[name](xmin=xmin, data=x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["exponential", "lognormal", "stretched exponential"])
def test_likelihood_is_at_least_powerlaw_s(name, kind):
    """Its parameters in the density as it is written down, not through its normalisers."""
    x = draw(kind, 200)
    fit = fit_by_powerlaw(name, x, 1.0)
    theirs = density(name, x, 1.0, fit.parameter1, fit.parameter2).sum()
    assert getattr(compare(x), name).loglikelihood > theirs - SHORTFALL


# The limit ------------------------------------------------------------------------------------


def test_a_wide_tail_cannot_be_told_from_its_limit():
    """mean(y^2) above 2 mean(y)^2: lognormal and stretched exponential end as power laws."""
    x = draw("power law", 300, seed=5)
    found = compare(x)
    y = np.log(x)
    assert np.mean(y**2) > 2 * np.mean(y) ** 2
    for ratio in (found.lognormal, found.stretched_exponential):
        assert ratio.limit
        assert (ratio.R, ratio.p) == (0.0, 1.0)
    assert not found.exponential.limit


@pytest.mark.parametrize("shortfall", [1e-9, 1e-7, 1e-5, 1e-3])
def test_the_way_to_the_limit_is_smooth(shortfall):
    """What is gained just before it is n shortfall^2 / 8 at first: nothing is lost there."""
    n = 400
    y = stats.expon.ppf((np.arange(n) + 0.5) / n)
    power = optimize.brentq(
        lambda k: 2 - np.mean(y ** (2 * k)) / np.mean(y**k) ** 2 - shortfall, 0.5, 1.2, xtol=1e-15
    )
    found = compare(np.exp(y**power))
    gain = n * shortfall**2 / 8
    for ratio in (found.lognormal, found.stretched_exponential):
        assert -1.3 * gain - 1e-11 < ratio.R < -0.7 * gain + 1e-11
        assert ratio.p > 0.5
        assert bool(ratio.limit) == (shortfall < 1.5e-8)


def test_a_planted_power_law_is_not_taken_for_a_lognormal():
    """powerlaw 1.5 does: far out its normaliser underflows."""
    W = seeded.tensors()["classifier.heavy3.weight"].astype(np.float64)
    evals = np.linalg.svd(W, compute_uv=False) ** 2
    fit = wwfunc.fit_pl(spectrum(evals))
    xmin = float(fit.xmin)
    x = np.sort(evals[evals >= xmin])
    with pytest.warns(RuntimeWarning, match="invalid value encountered in divide"):
        theirs = fit_by_powerlaw("lognormal", x, xmin)
    power_law = powerlaw.Power_Law(xmin=xmin, data=x).loglikelihoods(x)
    R, p = powerlaw.loglikelihood_ratio(power_law, theirs.loglikelihoods(x))
    assert R < 0
    assert p < 1e-4
    ours = compare_alternatives(spectrum(evals))
    assert ours.lognormal.limit
    assert ours.lognormal.p == 1.0
    assert ours.stretched_exponential.p > 0.05
    assert ours.truncated.p > 0.05


# Planted truth --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("exponential", "exponential"),
        ("lognormal", "lognormal"),
        ("stretched exponential", "stretched_exponential"),
    ],
)
def test_the_true_distribution_beats_the_power_law(kind, name):
    ratio = getattr(compare(draw(kind, 500)), name)
    assert ratio.R < 0
    assert ratio.p < 1e-4


def test_a_true_power_law_is_seldom_rejected_also_in_a_batch():
    """At most the 5 % asked for: Lambda cannot be negative, nor the limit be passed."""
    samples = (1.0 - np.random.default_rng(5).random((200, 100))) ** (-1 / 1.5)
    found = compare_rows(samples)
    for ratio in ratios(found):
        rejected = np.mean((ratio.R < 0) & (ratio.p < 0.05))
        assert rejected < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert 0.2 < np.mean(found.lognormal.limit) < 0.7
    for row in range(5):
        assert_same(jax.tree.map(lambda leaf, row=row: leaf[row], found), compare(samples[row]))


# Which points are compared --------------------------------------------------------------------


def assert_same(found, expected, rtol=1e-9):
    for ours, theirs in zip(ratios(found), ratios(expected), strict=True):
        for field in ("R", "p", "loglikelihood"):
            np.testing.assert_allclose(
                getattr(ours, field), getattr(theirs, field), rtol=rtol, atol=1e-10
            )


def test_the_tail_is_that_of_the_fit():
    x = draw("at least 1", 150)
    fit = wwfunc.fit_pl(spectrum(x))
    tail = x[x >= fit.xmin]
    assert 2 < tail.size < x.size
    assert_same(compare_alternatives(spectrum(x)), compare(tail, fit.xmin))


def test_what_the_fit_leaves_out_is_left_out():
    x = np.sort(draw("power law", 150))
    with jax.enable_x64(True):
        clipped = alternatives_at(spectrum(x), Limits(clip=4), Method(), np.asarray(1.0), 3)
        assert_same(jax.device_get(clipped), compare(x[:-7]))
    evals = np.sort(np.exp(np.random.default_rng(82).uniform(0, 5, 40)))
    limits = {"fix_fingers": "clip_xmax", "finger_thresh": 0.6}
    fit = wwfunc.fit_pl(spectrum(evals), **limits)
    assert fit.num_fingers == 4
    kept = evals[:-4]
    found = compare_alternatives(spectrum(evals), **limits)
    assert_same(found, compare(kept[kept >= fit.xmin], fit.xmin))


def test_free_alpha_gains():
    x = draw("narrow", 300)
    with jax.enable_x64(True):
        free = alternatives_at(
            spectrum(x), Limits(), Method(free_alpha=True), np.asarray(1.0)
        ).truncated
        assert float(free.loglikelihood) > compare(x).truncated.loglikelihood + 1.0


def test_a_misspelt_option_is_refused():
    with pytest.raises(wwfunc.OptionError, match="threshold"):
        compare_alternatives(np.arange(1.0, 50), threshold="none")


# Laws -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 1e6), n=st.integers(3, 300))
def test_scaling_shifts_likelihoods_alone(seed, factor, n):
    x = draw("lognormal", n, seed)
    one, other = compare(x), compare(x * factor, factor)
    for before, after in zip(ratios(one), ratios(other), strict=True):
        np.testing.assert_allclose(after.R, before.R, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(after.p, before.p, rtol=1e-5, atol=1e-8)
        shifted = before.loglikelihood - n * np.log(factor)
        np.testing.assert_allclose(after.loglikelihood, shifted, rtol=1e-9, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 300), alpha=st.floats(1.2, 6.0))
def test_a_family_that_holds_the_power_law_is_never_worse(seed, n, alpha):
    x = (1.0 - np.random.default_rng(seed).random(n)) ** (-1 / (alpha - 1))
    for ratio in ratios(compare(x))[1:]:
        assert ratio.R <= 0
        assert 0 < ratio.p <= 1
        assert not ratio.limit or ratio.p == 1


# Edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x", [[], [3.0], [0.0] * 30, [2.0, np.nan] + 30 * [3.0], [np.inf] * 20, [0.5] * 20]
)
def test_without_a_power_law_there_are_no_numbers(x):
    x = np.array(x)
    for ratio in (*ratios(compare(x)), *ratios(compare_alternatives(spectrum(x)))):
        assert np.isnan([ratio.R, ratio.p, ratio.loglikelihood]).all()
        assert not ratio.limit


def test_equal_eigenvalues_above_xmin():
    """A lognormal may be as narrow as it likes there: its likelihood has no maximum."""
    found = compare(np.full(30, 2.0))
    for ratio in (found.lognormal, found.stretched_exponential):
        assert np.isnan([ratio.R, ratio.p, ratio.loglikelihood]).all()
        assert not ratio.limit
    np.testing.assert_allclose(found.exponential.loglikelihood, -30.0)
    assert np.isfinite(found.truncated.loglikelihood)


def test_two_eigenvalues():
    """From the first on: y is 0 and something, which is the limit, exactly."""
    found = compare([1.0, 2.0])
    assert found.lognormal.limit
    assert found.stretched_exponential.limit
    np.testing.assert_allclose(found.exponential.loglikelihood, 2 * np.log(2.0) - 2.0)


def test_huge_eigenvalues_do_not_overflow():
    x = draw("lognormal", 100)
    for ours, theirs in zip(ratios(compare(x * 1e150, 1e150)), ratios(compare(x)), strict=True):
        np.testing.assert_allclose([ours.R, ours.p], [theirs.R, theirs.p], rtol=1e-5, atol=1e-8)


def test_float32_is_close():
    for name in ("exponential", "lognormal", "stretched exponential"):
        x = draw(name, 300)
        single = compare_alternatives(spectrum(x.astype(np.float32)), xmin=1.0)
        assert single.lognormal.R.dtype == np.float32
        for ours, exact in zip(ratios(single), ratios(compare(x)), strict=True):
            np.testing.assert_allclose(ours.R, exact.R, rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(ours.loglikelihood, exact.loglikelihood, rtol=1e-4)
            np.testing.assert_allclose(ours.p, exact.p, rtol=0.05, atol=1e-4)
