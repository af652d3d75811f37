"""The Marchenko-Pastur fit: planted noise and spikes, laws, WeightWatcher's numbers."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import SEED, fitted, layer, spectrum
from scipy.optimize import brentq

from wwfunc import ESD, Status, host
from wwfunc.randommatrix.marchenkopastur import MPFit, fit_bulk, mp_fit
from wwfunc.randommatrix.tracywidom import largest_eigenvalue, quantile

sys.path.insert(0, str(REPOSITORY))

from validation.marchenkopastur import campaign, once_spiked

TW99 = quantile(0.99)
FIELDS = list(MPFit.__dataclass_fields__)
FAILED_THERE = "embeddings.position_embeddings"


def table(name):
    path = REPOSITORY / "tests" / "reference" / f"{name}_random_matrix.csv"
    return pd.read_csv(path).set_index("longname")


# Planted truth ----------------------------------------------------------------------------------


def by_hand(evals, n, m, k):
    """The equation of sigma^2 as the docstring writes it, for k spikes."""
    x = np.sort(evals)[::-1]
    rows, cols = n - k, m - k

    def missing(variance):
        b = x[:k] - variance * (rows + cols)
        theta = (b + np.sqrt(np.maximum(b**2 - 4 * variance**2 * rows * cols, 0))) / 2
        lost = np.sum(variance / theta)
        return variance * rows * cols * (1 - lost) - x[k:].sum()

    guess = x[k:].sum() / rows / cols
    return np.sqrt(brentq(missing, 0.9 * guess, 1.1 * guess, xtol=1e-15, rtol=1e-14))


@pytest.mark.parametrize(
    ("n", "m", "k"), [(256, 256, 0), (256, 256, 10), (1600, 160, 5), (640, 32, 3), (60, 20, 1)]
)
def test_sigma_solves_its_equation(n, m, k):
    evals = layer(n, m, np.linspace(1.5, 4, k), sigma=0.02)
    fit = fitted(evals, n, m)
    sigma = float(fit.sigma)
    assert int(fit.num_spikes) == k
    assert sigma == pytest.approx(by_hand(evals, n, m, k), rel=1e-9)
    assert sigma == pytest.approx(0.02, rel=3 / np.sqrt(2 * n * m))
    edge = sigma**2 * (np.sqrt(n) + np.sqrt(m)) ** 2
    scale = np.sqrt(len(evals) / evals.sum())
    np.testing.assert_allclose(
        [fit.bulk_max, fit.mp_softrank, fit.W_scale, fit.sigma_mp],
        [edge, edge / evals.max(), scale, sigma * np.sqrt(n) * scale],
        rtol=1e-12,
    )
    assert float(fit.bulk_min) == pytest.approx((sigma * (n**0.5 - m**0.5)) ** 2, abs=1e-15)
    assert float(fit.edge) == pytest.approx(
        sigma**2 * float(largest_eigenvalue(np.float64(n), m, TW99)), rel=1e-6
    )


def test_spikes_take_energy_from_the_bulk():
    """Without that sigma of these twelve would be 0.27 % too small on average."""
    found = [float(fitted(layer(256, 256, [1.5] * 10, seed=s), 256, 256).sigma) for s in range(12)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.0015)


def test_many_spikes_and_hardly_any_noise():
    rng = np.random.default_rng(SEED)
    signal = rng.standard_normal((300, 60)) @ rng.standard_normal((60, 200))
    fit = fitted(spectrum(signal + 1e-4 * rng.standard_normal((300, 200))), 300, 200)
    assert int(fit.num_spikes) == 60
    assert float(fit.sigma) == pytest.approx(1e-4, rel=0.01)


def test_slices_are_pooled():
    """Nine slices, three of them with spikes: as sure of no false one as a single matrix."""
    rng = np.random.default_rng(SEED)
    stack = 0.1 * rng.standard_normal((9, 96, 64))
    stack[[0, 1, 2], 0, 0] += 5.0
    fit = fitted(host.esd(stack), 64, 96, slices=9)
    assert int(fit.num_spikes) == 3
    assert float(fit.sigma) == pytest.approx(0.1, rel=3 / np.sqrt(2 * stack.size))
    top = float(largest_eigenvalue(96.0, 64.0, quantile(0.99, 9)))
    assert float(fit.edge) == pytest.approx(float(fit.sigma) ** 2 * top, rel=1e-6)


def test_the_quantile_moves_the_edge():
    evals = layer(200, 100)
    edges = [float(fitted(evals, 200, 100, quantile=p).edge) for p in (0.5, 0.99, 0.999)]
    assert edges == sorted(edges)
    assert edges[2] / edges[0] > 1.03


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_noise_shows_a_spike_as_often_as_asked(p):
    rng = np.random.default_rng(SEED)
    spectra = once_spiked(rng, 120, 60, 0.0, 400)
    found = np.mean([int(fitted(evals, 120, 60, quantile=p).num_spikes) > 0 for evals in spectra])
    assert found == pytest.approx(1 - p, abs=0.07)


# Laws -------------------------------------------------------------------------------------------


@given(scale=st.floats(1e-9, 1e9), seed=st.integers(0, 99), k=st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_scaling(scale, seed, k):
    evals = layer(90, 60, [2.0] * k, seed=seed)
    one, other = fitted(evals, 90, 60), fitted(scale**2 * evals, 90, 60)
    assert int(one.num_spikes) == int(other.num_spikes)
    for name, power in {
        "sigma": 1,
        "W_scale": -1,
        "sigma_mp": 0,
        "mp_softrank": 0,
        "edge": 2,
    }.items():
        expected = float(getattr(one, name)) * scale**power
        assert float(getattr(other, name)) == pytest.approx(expected, rel=1e-9), name


@given(seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_order_transposition_and_padding(seed):
    evals = layer(90, 60, [2.0], seed=seed)
    one = fitted(evals, 90, 60)
    others = [
        mp_fit(np.random.default_rng(seed).permutation(evals), 60, 90),
        mp_fit(host.padded(host.as_esd(evals, n=60, floor=0.0), 1024), 90, 60),
    ]
    for other in others:
        for name in FIELDS:
            assert float(getattr(other, name)) == pytest.approx(
                float(getattr(one, name)), rel=1e-9
            ), name


@given(
    evals=st.lists(st.floats(0, 1e12), min_size=12, max_size=12),
    method=st.sampled_from(["kde", "tracy-widom"]),
)
@settings(max_examples=40, deadline=None)
def test_any_spectrum_ends_in_numbers_or_a_status(evals, method):
    """The search ends, and what it says fits together."""
    fit = mp_fit(np.array(evals), 30, 12, method=method)
    if Status(int(fit.status)).failed:
        assert np.isnan(float(fit.sigma))
        assert int(fit.num_spikes) == -1
    else:
        assert 0 < float(fit.sigma) < np.inf
        assert int(fit.num_spikes) == np.sum(np.array(evals) > float(fit.edge))


# WeightWatcher ----------------------------------------------------------------------------------


def sides(row):
    return int(row.N), int(row.M)


@pytest.mark.parametrize("name", ["minilm", "seeded"])
def test_kde_is_weightwatchers(name, analyses):
    reference = table(name)
    assert len(reference) == {"minilm": 39, "seeded": 12}[name]
    for longname, row in reference.iterrows():
        evals = np.asarray(analyses[name][longname].evals)
        fit = fitted(evals, *sides(row), slices=int(row.rf), method="kde")
        assert float(fit.W_scale) == pytest.approx(row.W_scale, rel=1e-9), longname
        if longname == FAILED_THERE:
            continue
        for column in ("sigma_mp", "mp_softrank", "bulk_max"):
            assert float(getattr(fit, column)) == pytest.approx(row[column], rel=1e-6), longname
        assert float(fit.bulk_min) == pytest.approx(row.bulk_min, rel=1e-6, abs=1e-6 * (row.Q == 1))
        assert int(fit.num_spikes) == row.num_spikes, longname


def test_a_failed_kernel_fit_says_so(analyses):
    """There it is the first sigma of the grid, 0.05 times that of the largest eigenvalue."""
    row = table("minilm").loc[FAILED_THERE]
    assert row.mp_softrank == pytest.approx(0.05**2)
    evals = np.asarray(analyses["minilm"][FAILED_THERE].evals)
    fit = fitted(evals, *sides(row), method="kde")
    assert Status(int(fit.status)) is Status.NO_BULK
    assert np.isnan([fit.sigma, fit.sigma_mp, fit.bulk_max, fit.edge, fit.mp_softrank]).all()
    assert int(fit.num_spikes) == -1
    ours = fitted(evals, *sides(row))
    assert Status(int(ours.status)) is Status.SUCCESS
    assert 0 < float(ours.sigma_mp) < 0.2


def test_square_matrices_tell_kde_nothing():
    """At Q = 1 it measures the height of a circle that is too wide as soon as there are spikes."""
    for k, kde_off in ((0, 0.005), (3, 0.15), (10, 0.36)):
        evals = layer(256, 256, np.linspace(1.5, 4, k))
        kde, ours = (fitted(evals, 256, 256, method=method) for method in ("kde", "tracy-widom"))
        assert float(ours.sigma) == pytest.approx(1.0, rel=0.005)
        assert float(kde.sigma) == pytest.approx(1.0 + kde_off, abs=0.01)
    reference = table("minilm")
    square = reference[reference.Q == 1]
    assert len(square) == 25
    assert square.sigma_mp.between(1.007, 1.023).all()


# How it runs ------------------------------------------------------------------------------------


def test_float32_beside_float64():
    """A square matrix has eigenvalues under the floor of float32, and full rank."""
    W = np.random.default_rng(SEED).standard_normal((240, 240))
    W[0, 0] += 200.0
    wide = spectrum(W)
    floor = np.finfo(np.float32).eps * 240 * wide.evals[-1]
    narrow = ESD(evals=wide.evals.astype(np.float32), n=wide.n, floor=np.float32(floor))
    assert np.sum(narrow.evals <= narrow.floor) > 3
    single, double = mp_fit(narrow, 240, 240), fitted(wide, 240, 240)
    assert (single.sigma.dtype, double.sigma.dtype) == (np.float32, np.float64)
    assert int(single.status) == int(double.status) == 0
    assert int(single.num_spikes) == int(double.num_spikes) == 1
    assert float(single.sigma) == pytest.approx(float(double.sigma), rel=1e-5)
    with jax.enable_x64(True):
        stays = fit_bulk(narrow, 240, 240, 1, TW99)
    dtypes = {np.dtype(getattr(stays, name).dtype) for name in FIELDS}
    assert dtypes == {np.dtype("float32"), np.dtype("int32")}


def test_jit_and_vmap():
    evals = np.stack([layer(90, 60, strengths) for strengths in ([], [2.0], [1.5, 3.0, 4.0])])
    with jax.enable_x64(True):
        spectra = ESD(evals=jnp.asarray(evals), n=jnp.full(3, 60, jnp.int32), floor=jnp.zeros(3))
        batch = jax.jit(jax.vmap(lambda esd: fit_bulk(esd, 90, 60, 1, TW99)))(spectra)
    for i, row in enumerate(evals):
        one = fitted(row, 90, 60)
        for name in FIELDS:
            assert float(getattr(batch, name)[i]) == pytest.approx(
                float(getattr(one, name)), rel=1e-9
            )
    traced = jax.jit(lambda evals: mp_fit(evals, 90, 60).sigma)(evals[1].astype(np.float32))
    assert float(traced) == pytest.approx(float(fitted(evals[1], 90, 60).sigma), rel=1e-5)


def test_sigma_has_a_derivative():
    evals = layer(60, 40, [2.0, 3.0])

    def sigma(evals):
        return fit_bulk(
            ESD(evals=evals, n=jnp.int32(40), floor=jnp.zeros(())), 60, 40, 1, TW99
        ).sigma

    with jax.enable_x64(True):
        slopes = np.asarray(jax.grad(sigma)(jnp.asarray(evals)))
        step = 1e-4
        for i in (0, 20, 37, 38, 39):
            up, down = evals + step * (np.arange(40) == i), evals - step * (np.arange(40) == i)
            steep = (float(sigma(jnp.asarray(up))) - float(sigma(jnp.asarray(down)))) / (2 * step)
            assert slopes[i] == pytest.approx(steep, rel=1e-5, abs=1e-11)


def test_a_short_campaign():
    findings = list(campaign(40))
    assert [finding for finding in findings if not finding.met] == []
    assert sum(bool(finding.asked) for finding in findings) > 15
