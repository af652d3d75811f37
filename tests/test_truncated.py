"""The truncated power law: planted truth, oracles, WeightWatcher's tables, laws and failures."""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import pareto
from scipy import integrate

import wwfunc
from validation.truncated import campaign, fit_all, planted
from wwfunc import Status
from wwfunc.fits.expintegral import log_expint, moments
from wwfunc.fits.tail import asked
from wwfunc.fits.truncated import fit_tpl, fit_truncated
from wwfunc.fits.truncatedlikelihood import maximise
from wwfunc.spectrum import ESD

TABLES = Path(__file__).parent / "reference"

NORMALISER, MOMENTS = jax.jit(log_expint), jax.jit(moments)
SEARCH = {
    free: jax.jit(lambda a, b, free=free: maximise(a, b, free=free)) for free in (False, True)
}


def negative_log_likelihood(alpha, z, t):
    """Per point, for t = x / xmin."""
    with jax.enable_x64(True):
        return alpha * np.log(t).mean() + z * t.mean() + np.asarray(NORMALISER(alpha, z))


def padded(evals, size):
    x = np.sort(np.asarray(evals, np.float64))
    return ESD(evals=np.pad(x, (size - x.size, 0)), n=np.int32(x.size), floor=np.float64(0.0))


def fit_padded(evals, size=1024, **changes):
    """One compiled program for spectra of many sizes."""
    limits, method = asked(fit="TPL", **changes)
    with jax.enable_x64(True):
        return jax.device_get(fit_truncated(padded(evals, size), limits, method))


# Planted truth -------------------------------------------------------------------------------


def test_campaign_of_planted_tails():
    findings = list(campaign(100))
    assert all(finding.met for finding in findings), findings
    assert len(findings) >= 3


def test_planted_tail_under_a_body_is_found():
    rng = np.random.default_rng(1)
    evals = np.concatenate([rng.uniform(0.05, 1.0, 400), planted(rng, 600, 2.0, 0.2)])
    fit = fit_padded(evals)
    assert 0.8 < fit.xmin < 1.6
    assert abs(fit.alpha - 2.0) < 3 * fit.sigma
    assert abs(fit.Lambda - 0.2) < 3 * fit.sigma_Lambda
    assert fit.num_pl_spikes == np.sum(evals >= fit.xmin)
    assert Status(int(fit.status)) is Status.SUCCESS


def test_standard_errors_are_the_spread_of_the_estimates():
    """2,000 points, alpha 2.5, z 0.5, far from the bound: 300 fits."""
    rng = np.random.default_rng(2)
    fits = fit_all(np.stack([planted(rng, 2000, 2.5, 0.5) for _ in range(300)]))
    # The standard deviation of 300 values is known to 4 %.
    np.testing.assert_allclose(np.mean(fits.sigma), np.std(fits.alpha, ddof=1), rtol=0.12)
    np.testing.assert_allclose(np.mean(fits.sigma_Lambda), np.std(fits.Lambda, ddof=1), rtol=0.12)
    assert abs(np.mean(fits.alpha) - 2.5) < 4 * np.mean(fits.sigma) / np.sqrt(300)


# Oracles -------------------------------------------------------------------------------------


def distance_by_quad(x, xmin, alpha, Lambda, two_sided=False):
    """The KS distance with each value of the distribution function from SciPy's quad."""
    t = np.sort(x[x >= xmin]) / xmin
    z = Lambda * xmin

    def density(u):
        return np.exp(-(alpha - 1) * u - z * np.expm1(u))

    with mpmath.workdps(30):
        total = float(mpmath.expint(alpha, z) * mpmath.exp(z))
    ends = np.concatenate([[0.0], np.log(t)])
    gaps = [
        integrate.quad(density, a, b, epsabs=1e-13, epsrel=1e-12, limit=500)[0]
        for a, b in itertools.pairwise(ends)
    ]
    model = np.cumsum(gaps) / total
    steps = np.arange(t.size) / t.size
    D = np.abs(model - steps).max()
    return max(D, np.abs(model - steps - 1 / t.size).max()) if two_sided else D


SPECTRA = {
    "planted": lambda rng: planted(rng, 150, 1.8, 0.2),
    "outlier": lambda rng: np.r_[planted(rng, 60, 2.5, 0.5), 3e4],
    "tight and an outlier": lambda rng: np.r_[1 + 1e-3 * rng.random(400), 40.0],
    "wide": lambda rng: np.exp(6 * rng.random(80)),
    "few": lambda rng: planted(rng, 6, 2.0, 0.3),
}


@pytest.mark.parametrize(("free", "ks"), [(False, "one-sided"), (True, "two-sided")])
@pytest.mark.parametrize("name", SPECTRA)
def test_distance_against_quad(name, free, ks):
    evals = SPECTRA[name](np.random.default_rng(3))
    for start in (0, evals.size // 4):
        xmin = np.sort(evals)[start]
        fit = fit_padded(evals, xmin=np.array(xmin), free_alpha=free, ks=ks)
        D = distance_by_quad(evals, xmin, fit.alpha, fit.Lambda, ks == "two-sided")
        assert abs(fit.D - D) < 1e-9


def test_distance_of_a_plain_power_law():
    evals = np.r_[(1 - np.random.default_rng(3).random(300)) ** -0.5, 3e3]
    fit = fit_padded(evals, xmin=np.array(1.0))
    assert fit.Lambda == 0
    t = np.sort(evals)
    gap = 1 - t ** (1 - fit.alpha) - np.arange(t.size) / t.size
    assert abs(fit.D - np.abs(gap).max()) < 1e-9


@pytest.mark.parametrize("size", [25, 300, 511, 513])
def test_scan_equals_the_loop(size):
    """Each xmin by itself; sizes around the tiles of the scan."""
    rng = np.random.default_rng(size)
    evals = np.sort(np.r_[rng.uniform(0.1, 1, size // 3), planted(rng, size - size // 3, 1.5, 0.1)])
    fit = fit_padded(evals)
    alone = [fit_padded(evals, xmin=np.array(x)) for x in evals[: -1 : max(size // 60, 1)]]
    np.testing.assert_array_less(fit.D, [f.D + 1e-12 for f in alone])
    again = fit_padded(evals, xmin=np.array(fit.xmin))
    for name in ("alpha", "Lambda", "D", "sigma", "sigma_Lambda", "num_pl_spikes", "status"):
        np.testing.assert_allclose(getattr(fit, name), getattr(again, name), rtol=1e-9)


def by_nested_search(t, least):
    """The minimum over a fine grid of alpha and, for each, over z: no code in common but E."""
    a, b = np.log(t).mean(), t.mean()
    alphas = np.linspace(least, min(1 + 1 / a, 30.0), 120)
    zs = np.concatenate([[0.0], np.geomspace(1e-6, 20 / (b - 1) + 20 / a, 120)])
    with jax.enable_x64(True):
        E = np.asarray(NORMALISER(alphas[:, None], zs))
    return np.nanmin(alphas[:, None] * a + zs * b + E)


@pytest.mark.parametrize("free", [False, True])
def test_no_grid_point_is_better(free):
    rng = np.random.default_rng(4)
    for _ in range(4):
        t = np.exp(rng.exponential(rng.choice([0.1, 1.0, 2.0]), 30) * rng.random(30))
        t /= t.min()
        with jax.enable_x64(True):
            alpha, z = maximise(jnp.asarray(np.log(t).mean()), jnp.asarray(t.mean()), free=free)
        best = by_nested_search(t, -5.0 if free else 1.0)
        found = negative_log_likelihood(float(alpha), float(z), t)
        assert found <= best + 1e-12
        assert found > best - 0.01, "the grid is not far off"


# The search ----------------------------------------------------------------------------------


def residuals(a, b, alpha, z, least):
    """Projected gradient in (alpha, z), each relative to its mean."""
    with jax.enable_x64(True):
        model = MOMENTS(alpha, np.where(z == 0, np.finfo(float).eps ** 2, z))
    power_law = 1 / np.where(z == 0, alpha - 1, 1.0)
    by_alpha = a - np.where(z == 0, power_law, model.mean_log)
    by_z = b - 1 - np.asarray(model.mean_excess)
    by_alpha = np.where(alpha == least, np.minimum(by_alpha, 0), by_alpha)
    by_z = np.where(z == 0, np.minimum(by_z, 0), by_z)
    return np.abs(by_alpha) / a, np.abs(by_z) / (b - 1)


@pytest.mark.parametrize("free", [False, True])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_any_means_a_sample_can_have(free, seed):
    """256 samples at a time: from ties broken in the sixth digit to ten decades."""
    rng = np.random.default_rng(seed)
    a = 10 ** rng.uniform(-6, 1.0, 256)
    above_jensen = 10 ** rng.uniform(-6, 4, 256)
    b = np.exp(a) + (np.expm1(a) - a) * above_jensen
    least = -5.0 if free else 1.0
    with jax.enable_x64(True):
        alpha, z = jax.device_get(SEARCH[free](a, b))
    assert (alpha >= least).all()
    assert (z >= 0).all()
    by_alpha, by_z = residuals(a, b, alpha, z, least)
    assert by_alpha.max() < 1e-10
    assert by_z.max() < 1e-10


def test_edges_are_exact():
    with jax.enable_x64(True):
        # Spread evenly: the likelihood wants to rise, so alpha stops.
        t = np.linspace(1, 2, 50)
        alpha, z = SEARCH[True](np.log(t).mean(), t.mean())
        assert float(alpha) == -5.0
        alpha, z = SEARCH[False](np.log(t).mean(), t.mean())
        assert float(alpha) == 1.0
        # Heavier than any power law of its mean logarithm.
        alpha, z = SEARCH[False](0.4, 50.0)
        assert (float(alpha), float(z)) == (1 + 1 / 0.4, 0.0)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (np.nan, 2.0), (0.5, np.inf), (0.3, np.nan)])
def test_means_without_spread(a, b):
    alpha, z = maximise(jnp.float32(a), jnp.float32(b), free=False)
    assert np.isnan([alpha, z]).all()


# WeightWatcher's tables ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(analyses):
    """Each row of the four tables: its table, the spectrum, and our fit at its xmin."""
    found = []
    for weights in ("minilm", "seeded"):
        for table in ("tpl", "e_tpl"):
            reference = pd.read_csv(TABLES / f"{weights}_{table}.csv").set_index("longname")
            for name, row in reference.iterrows():
                evals = analyses[weights][name].evals
                xmin = evals[np.argmin(np.abs(evals - row.xmin))]
                assert xmin == pytest.approx(row.xmin, rel=1e-6)
                found.append((table, evals, xmin, row, fit_padded(evals, xmin=np.array(xmin))))
    assert len(found) == 26
    return found


def agrees(fit, row):
    """Whether the reference has found the maximum; along its flat side Lambda has 3 digits."""
    close = abs(fit.alpha - row.alpha) < 1e-4 * fit.alpha
    return close and abs(fit.Lambda - row.Lambda) < 1e-3 * fit.Lambda


def test_likelihood_at_the_reference_xmin(rows):
    for _, evals, xmin, row, fit in rows:
        t = evals[evals >= xmin] / xmin
        assert int(fit.num_pl_spikes) == row.num_pl_spikes == t.size
        theirs = negative_log_likelihood(row.alpha, row.Lambda * xmin, t)
        ours = negative_log_likelihood(fit.alpha, fit.Lambda * xmin, t)
        assert ours <= theirs + 1e-9
        assert fit.gradient < 1e-8
        assert not Status(int(fit.status)).failed


def test_what_the_reference_misses(rows):
    """Its simplex stops at alpha = 1: short of an inner maximum, or with Lambda off."""
    kinds = {"agrees": 0, "missed": 0, "Lambda off": 0}
    for _, _, _, row, fit in rows:
        if agrees(fit, row):
            kinds["agrees"] += 1
        elif fit.alpha > 1.5 and row.alpha < 1.001:
            kinds["missed"] += 1
        else:
            assert fit.alpha == 1.0
            assert row.alpha < 1.001
            assert 1e-3 < abs(row.Lambda / fit.Lambda - 1) < 0.11
            kinds["Lambda off"] += 1
    # Each of the two missed maxima stands in the tables of TPL and of E_TPL.
    assert kinds["missed"] == 4
    inner = [(row, fit) for *_, row, fit in rows if row.alpha > 1.001]
    assert len(inner) == 4
    for row, fit in inner:
        assert fit.alpha == pytest.approx(row.alpha, rel=1e-4)
        assert fit.Lambda == pytest.approx(row.Lambda, rel=1e-3)


def test_an_inner_maximum(analyses):
    evals = analyses["minilm"]["encoder.layer.0.output.dense"].evals
    xmin = evals[np.argmin(np.abs(evals - 1.8736647993))]
    t = evals[evals >= xmin] / xmin
    fit = fit_padded(evals, xmin=np.array(xmin))
    assert fit.alpha == pytest.approx(1.71591, abs=5e-6)
    assert fit.Lambda == pytest.approx(0.106389, abs=5e-7)
    ours = negative_log_likelihood(fit.alpha, fit.Lambda * xmin, t)
    theirs = negative_log_likelihood(1.00000169655, 0.23893293469 * xmin, t)
    np.testing.assert_allclose([ours, theirs], [1.26244, 1.27626], atol=5e-6)


def test_the_chosen_xmin(rows):
    """The same where the table's fit is the maximum, or an xmin whose maximum lies closer."""
    same = 0
    for table, evals, xmin, row, fit in rows:
        fingers = {"fix_fingers": "xmin_peak", "peak_range": "weightwatcher"}
        chosen = fit_padded(evals, **(fingers if table == "e_tpl" else {}))
        assert chosen.D <= fit.D + 1e-12
        if chosen.xmin == xmin:
            same += 1
            continue
        # The table's D at its own xmin is of other parameters, or it has missed ours.
        assert not agrees(fit, row) or chosen.D < row.D
    assert same == 12


# Laws ----------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 1e6))
def test_scaling_scales_lambda_and_leaves_alpha(seed, factor):
    evals = planted(np.random.default_rng(seed), 120, 2.0, 0.3)
    one, other = fit_padded(evals), fit_padded(evals * factor)
    np.testing.assert_allclose(other.alpha, one.alpha, rtol=1e-6)
    np.testing.assert_allclose(other.Lambda * factor, one.Lambda, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(other.xmin, one.xmin * factor, rtol=1e-12)


def test_ties_stay_on_one_side_of_xmin():
    evals = np.repeat(planted(np.random.default_rng(5), 40, 1.5, 0.4), 3)
    fit = fit_padded(evals)
    assert fit.num_pl_spikes == np.sum(evals >= fit.xmin)
    assert fit.num_pl_spikes % 3 == 0


def test_limits():
    evals = np.sort(planted(np.random.default_rng(6), 300, 1.5, 0.2))
    both = fit_padded(evals, xmin_min=np.array(1.7), xmin_max=np.array(1.8), xmax=np.array(5.0))
    assert 1.7 <= both.xmin <= 1.8
    assert both.xmax == evals[evals <= 5.0].max()
    assert both.num_pl_spikes == np.sum((evals >= both.xmin) & (evals <= 5.0))
    clipped, short = fit_padded(evals, xmax=-7), fit_padded(evals[:-7])
    np.testing.assert_allclose(
        [clipped.alpha, clipped.Lambda, clipped.D], [short.alpha, short.Lambda, short.D], rtol=1e-8
    )
    assert clipped.xmax == evals[-8]


def test_xmin_near_the_peak():
    rng = np.random.default_rng(7)
    evals = np.r_[rng.uniform(0.9, 1.1, 100), planted(rng, 200, 1.5, 0.1), [80.0, 90.0]]
    fit = fit_padded(evals, fix_fingers="xmin_peak")
    assert 0.8 < fit.xmin < 1.7


def test_threshold():
    evals = planted(np.random.default_rng(8), 200, 2.0, 0.3)
    tiny = fit_padded(evals * 5e-6)
    assert Status(int(tiny.status)) is Status.THRESHOLD_HIDES
    whole = fit_padded(evals * 5e-6, threshold="relative")
    np.testing.assert_allclose(whole.alpha, fit_padded(evals).alpha, rtol=1e-6)


# Statuses ------------------------------------------------------------------------------------


def test_an_estimate_on_a_bound_says_so_and_has_no_standard_error():
    even = np.linspace(1, 2, 60)
    rng = np.random.default_rng(9)
    heavy = np.r_[(1 - rng.random(200)) ** (-1 / 2.0), 1e3]
    cases = [
        (even, False, Status.ALPHA_AT_ONE),
        (even, True, Status.ALPHA_AT_LEAST),
        (heavy, False, Status.PLAIN_POWER_LAW),
    ]
    for evals, free, status in cases:
        fit = fit_padded(evals, xmin=np.array(1.0), free_alpha=free)
        assert Status(int(fit.status)) is status
        assert not status.failed
        assert np.isnan([fit.sigma, fit.sigma_Lambda]).all()
        assert np.isfinite([fit.alpha, fit.Lambda, fit.D, fit.gradient]).all()
        assert fit.gradient < 1e-8


FAILURES = [
    (np.zeros(30), Status.ALL_ZERO),
    (np.full(30, np.nan), Status.NOT_FINITE),
    (np.r_[np.ones(29), np.inf], Status.NOT_FINITE),
    (np.full(30, 2.0), Status.NO_TAIL),
    (np.array([3.0]), Status.TAIL_TOO_SHORT),
    (np.full(30, 1e-7), Status.THRESHOLD_LEAVES_NONE),
]


@pytest.mark.parametrize(("evals", "status"), FAILURES)
def test_failures_have_a_status_and_no_number(evals, status):
    fit = fit_padded(evals)
    assert Status(int(fit.status)) is status
    numbers = [fit.alpha, fit.Lambda, fit.xmin, fit.xmax, fit.D, fit.gradient]
    assert np.isnan([*numbers, fit.sigma, fit.sigma_Lambda]).all()
    assert int(fit.num_pl_spikes) == 0


def test_nothing_to_fit():
    assert Status(int(fit_tpl(np.array([])).status)) is Status.TAIL_TOO_SHORT
    above = fit_padded(np.arange(1.0, 50.0), xmin=np.array(100.0))
    assert Status(int(above.status)) is Status.TAIL_TOO_SHORT
    assert np.isnan(above.alpha)


def test_a_search_that_does_not_converge_fails(monkeypatch):
    monkeypatch.setattr("wwfunc.fits.truncatedlikelihood.STEPS", 2)
    # A size of its own: nothing compiled with the right number of steps is at hand.
    fit = fit_tpl(planted(np.random.default_rng(10), 77, 2.0, 0.3), xmin=1.0)
    assert Status(int(fit.status)) is Status.NOT_CONVERGED
    assert np.isnan(float(fit.alpha))


@pytest.mark.parametrize("options", [{"xmin": 0.0}, {"fix_fingers": "clip_xmax"}, {"ks": "no"}])
def test_an_option_outside_its_range_is_refused(options):
    with pytest.raises(wwfunc.OptionError, match=next(iter(options))):
        fit_tpl(np.arange(1.0, 50), **options)


# Transformations -----------------------------------------------------------------------------


def test_vmap_over_stacked_spectra():
    rng = np.random.default_rng(11)
    stacked = np.stack([planted(rng, 100, alpha, 0.2) for alpha in (1.2, 2.5)])
    with jax.enable_x64(True):
        together = jax.jit(jax.vmap(fit_tpl))(stacked)
    for i, row in enumerate(stacked):
        alone = fit_padded(row)
        np.testing.assert_allclose(together.alpha[i], alone.alpha, rtol=1e-9)
        np.testing.assert_allclose(together.D[i], alone.D, rtol=1e-9)


def test_float32_is_close():
    evals = planted(np.random.default_rng(12), 400, 1.5, 0.3)
    single, double = (
        fit_tpl(evals.astype(np.float32), xmin=1.0),
        fit_padded(evals, xmin=np.array(1.0)),
    )
    assert single.alpha.dtype == np.float32
    assert not Status(int(single.status)).failed
    np.testing.assert_allclose(single.alpha, double.alpha, rtol=3e-4)
    np.testing.assert_allclose(single.D, double.D, atol=1e-4)


def test_gradient_against_finite_differences():
    """With xmin fixed the optimum is smooth, also along an edge."""

    def numbers(x):
        fit = fit_tpl(x, xmin=1.0)
        return jnp.stack([fit.alpha, fit.Lambda])

    def differences(x):
        h = 1e-5
        steps = h * jnp.eye(60)[::10]
        return jax.lax.map(lambda step: (numbers(x + step) - numbers(x - step)) / (2 * h), steps).T

    rng = np.random.default_rng(13)
    inside = np.sort(planted(rng, 60, 2.5, 0.1))
    at_alpha_1 = np.linspace(1.1, 2, 60)
    at_Lambda_0 = np.r_[np.sort((1 - rng.random(59)) ** -0.4), 300.0]
    with jax.enable_x64(True):
        everything = jax.jit(lambda x: (numbers(x), jax.jacrev(numbers)(x), differences(x)))
        kinds = []
        for evals in (inside, at_alpha_1, at_Lambda_0):
            (alpha, Lambda), jacobian, secant = jax.device_get(everything(evals))
            kinds.append((alpha > 1, Lambda > 0))
            np.testing.assert_allclose(jacobian[:, ::10], secant, rtol=1e-4, atol=1e-7)
            assert np.abs(jacobian).max() > 1e-3
    assert kinds == [(True, True), (False, True), (True, False)]


def test_gradient_of_the_scan_is_finite():
    with jax.enable_x64(True):
        evals = np.sort(planted(np.random.default_rng(14), 60, 2.0, 0.2))
        gradient = jax.grad(lambda x: fit_tpl(x).Lambda)(evals)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


TIED = [
    np.array([1.0, 2.0, 2.0]),
    np.r_[np.sort(pareto(np.random.default_rng(0), 60, 2.5)), [50.0, 50.0]],
    np.r_[np.sort(pareto(np.random.default_rng(1), 60, 2.5)), [50.0, np.nextafter(50.0, 51.0)]],
]


@pytest.mark.parametrize("evals", TIED, ids=["three", "pair", "one rounding apart"])
def test_an_equal_pair_at_the_top_is_no_tail_of_its_own(evals):
    """Its likelihood has no maximum; the other starts are as good as ever."""
    found = fit_tpl(evals)
    assert not Status(int(found.status)).failed
    starts = np.unique(evals)[:-2] if evals.size > 3 else evals[:1]
    fits = [fit_tpl(evals, xmin=start) for start in starts]
    np.testing.assert_allclose(found.D, min(float(fit.D) for fit in fits), rtol=1e-9)
