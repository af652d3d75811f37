"""WeightWatcher's Marchenko-Pastur fit against its tables, and its search against SciPy's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn.neighbors import KernelDensity
from test_reference import table

import wwfunc
from wwfunc import host
from wwfunc.randommatrix import kernelfit
from wwfunc.randommatrix.kernelfit import POINTS, _density, fit_kernel

SIZE = 512
FAILS = ("minilm", "embeddings.position_embeddings")


def spectrum(evals, size=SIZE):
    ordered = np.sort(np.asarray(evals, np.float64))
    return host.padded(host.as_esd(ordered, n=ordered.size, floor=0.0), max(size, ordered.size))


def fitted(evals, n, m):
    with jax.enable_x64(True):
        sigma, failed = fit_kernel(spectrum(evals), n, m)
        return float(sigma), bool(failed)


def prepared(evals, Q):
    """Where WeightWatcher takes the density, the density there, and its unit of sigma."""
    evals = np.sort(evals) * len(evals) / evals.sum()
    points = np.sqrt(evals) if Q == 1 else evals
    x = np.linspace(0, points[-1] + 0.5, POINTS)
    y = np.zeros(POINTS)
    for point in points:
        y += np.maximum(0.0, 1.0 - np.abs(x - point) / 0.1) / (0.1 * len(points))
    return x, y, np.sqrt(evals[-1]) / (1 + np.sqrt(1 / Q))


def direct(evals, Q):
    """The same fit by SciPy: (sigma, its sum of squares, sums on the grid, the penalty)."""
    x, y, unit = prepared(evals, Q)
    kept = y > 0.01
    mode = x[np.argmax(y > y.max() * (1 - 1e-12))]  # the first one where it is level
    x, y = x[kept], y[kept]
    penalty = 1e6 * x.size

    def error(sigma):
        sigma = float(np.ravel(sigma)[0])
        a, b = (sigma * (1 + np.array([-1, 1]) * np.sqrt(1 / Q))) ** 2
        if Q == 1:
            law = np.sqrt(np.maximum(4 - x**2, 0)) / (np.pi * sigma**2)
        elif b < mode or b > x[-1] or a > mode:
            return penalty
        else:
            inside = (x > 0) & (x > a) & (x < b)
            law = np.zeros_like(x)
            law[inside] = np.sqrt((b - x[inside]) * (x[inside] - a)) / x[inside]
            law *= Q / (2 * np.pi * sigma**2)
        return np.sum((law - y) ** 2)

    grid = (slice(0.05 * unit, 2 * unit, 0.01 * unit),)
    (sigma, *_), least, _, sums = optimize.brute(error, grid, full_output=True)
    return float(sigma), least, sums, penalty


def drawn(rng, kind, n, m):
    W = {
        "gaussian": lambda: rng.standard_normal((n, m)),
        "student": lambda: rng.standard_t(3, (n, m)),
        "spiked": lambda: rng.standard_normal((n, m)) + 0.5 * np.outer(np.ones(n), np.ones(m)),
        "heavy": lambda: rng.standard_normal((n, m)) * rng.lognormal(0, 1.0, m),
    }[kind]()
    return np.linalg.eigvalsh(W.T @ W)


SHAPES = [(200, 200), (150, 100), (120, 12), (161, 160), (40, 40)]


@pytest.mark.parametrize("name", ["minilm", "seeded"])
def test_every_row_of_the_reference(name, analyses):
    """bulk_max, bulk_min and mp_softrank are sigma_mp in other words."""
    reference = table(f"{name}_random_matrix")
    rows = [longname for longname in reference.index if (name, longname) != FAILS]
    assert len(rows) == {"minilm": 38, "seeded": 12}[name]
    for longname in rows:
        row, evals = reference.loc[longname], analyses[name][longname].evals
        sigma, failed = fitted(evals, int(row.N), int(row.M))
        assert not failed
        assert sigma == pytest.approx(row.sigma_mp, rel=1e-9), longname
        edges = (sigma / row.W_scale * (1 + np.array([-1, 1]) / np.sqrt(row.Q))) ** 2
        np.testing.assert_allclose(edges, [row.bulk_min, row.bulk_max], rtol=1e-9, atol=1e-12)
        assert edges[1] / evals.max() == pytest.approx(row.mp_softrank, rel=1e-9), longname


def test_where_every_grid_point_is_penalised_it_differs_on_purpose(analyses):
    """WeightWatcher reports the first point of its grid."""
    name, longname = FAILS
    row, evals = table(f"{name}_random_matrix").loc[longname], analyses[name][longname].evals
    sigma, failed = fitted(evals, int(row.N), int(row.M))
    assert failed
    assert np.isnan(sigma)
    *_, unit = prepared(evals, row.Q)
    assert row.sigma_mp == pytest.approx(0.05 * unit, rel=1e-9)
    *_, sums, penalty = direct(evals, row.Q)
    assert (sums == penalty).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_density_is_that_of_scikit_learn(shape):
    n, m = shape
    evals = drawn(np.random.default_rng(n + m), "student", n, m)
    with jax.enable_x64(True):
        found = jax.device_get(_density(spectrum(evals), jnp.float64(n / m)))
    scaled = evals * len(evals) / evals.sum()
    points = (np.sqrt(scaled) if n == m else scaled)[:, None]
    x = np.linspace(0, points.max() + 0.5, POINTS)
    kernel = KernelDensity(kernel="linear", bandwidth=0.1).fit(points)
    y = np.exp(kernel.score_samples(x[:, None]))
    np.testing.assert_allclose(found.x, x, rtol=1e-13)
    np.testing.assert_allclose(found.y, np.where(y > 0.01, y, 0.0), rtol=1e-10, atol=1e-14)
    assert 0 < (y <= 0.01).sum() < POINTS
    assert found.y[found.x == found.mode] == pytest.approx(y.max(), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["gaussian", "student", "spiked", "heavy"])
def test_the_search_is_that_of_scipy(kind, shape):
    rng = np.random.default_rng([*map(ord, kind), *shape])
    for _ in range(4):
        evals = drawn(rng, kind, *shape)
        sigma, failed = fitted(evals, *shape)
        expected, _, sums, penalty = direct(evals, shape[0] / shape[1])
        assert failed == bool((sums == penalty).all())
        if not failed:
            assert sigma == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("budget", [3, 4, 7, 10, 11])
def test_the_search_ends_where_scipy_s_calls_run_out(budget, monkeypatch):
    evals = drawn(np.random.default_rng(2), "spiked", 200, 100)
    *_, unit = prepared(evals, 2.0)
    with jax.enable_x64(True):
        monkeypatch.setattr(kernelfit, "MOST_CALLS", budget)
        density = _density(spectrum(evals), jnp.float64(2.0))

        def error(sigma):
            return float(kernelfit._errors(jnp.ravel(jnp.asarray(sigma)), density)[0])

        start = jnp.float64(0.9 * unit)
        found = kernelfit._polished(start, jnp.float64(error(start)), density)
        expected = optimize.fmin(error, 0.9 * unit, maxfun=budget, disp=False)
    assert float(found) == pytest.approx(expected.item(), rel=1e-12)


def test_a_bulk_gives_its_sigma_and_a_square_one_its_height():
    """At Q = 1 sigma_mp says nothing of the variance: the radius of the circle is fixed."""
    rng = np.random.default_rng(3)
    for n, m in ((400, 100), (300, 200)):
        W = rng.standard_normal((n, m))
        assert fitted(np.linalg.eigvalsh(W.T @ W), n, m)[0] == pytest.approx(1, abs=0.02)
    W = rng.standard_normal((300, 300))
    half = W * np.where(np.arange(300) < 150, 1.0, 0.5)[:, None]
    assert 1.005 < fitted(np.linalg.eigvalsh(W.T @ W), 300, 300)[0] < 1.02
    assert 1.005 < fitted(np.linalg.eigvalsh(half.T @ half), 300, 300)[0] < 1.05


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-12, 1e12))
def test_neither_scale_nor_order_nor_the_order_of_the_sides_matters(seed, factor):
    rng = np.random.default_rng(seed)
    evals = drawn(rng, "spiked", 90, 60)
    sigma, failed = fitted(evals, 90, 60)
    assert not failed
    for other in (fitted(rng.permutation(evals), 90, 60), fitted(evals, 60, 90)):
        assert other == (sigma, failed)
    assert fitted(evals * factor, 90, 60)[0] == pytest.approx(sigma, rel=1e-9)
    assert fitted(evals, 120, 60)[0] != pytest.approx(sigma, rel=1e-3)


def test_padding_changes_nothing():
    evals = drawn(np.random.default_rng(4), "student", 200, 120)
    with jax.enable_x64(True):
        for size in (120, 2048):
            sigma, _ = fit_kernel(spectrum(evals, size), 200, 120)
            assert float(sigma) == pytest.approx(fitted(evals, 200, 120)[0], rel=1e-12)


def test_vmap_over_layers_of_other_shapes():
    rng = np.random.default_rng(5)
    shapes = np.array([(90, 60), (80, 80), (300, 20), (512, 12)])
    layers = [drawn(rng, "gaussian", *shape) for shape in shapes[:3]] + [np.zeros(12)]
    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *rows: np.stack(rows), *map(spectrum, layers))
        together = jax.jit(jax.vmap(fit_kernel))(stacked, *shapes.T)
    for i, (evals, (n, m)) in enumerate(zip(layers, shapes, strict=True)):
        sigma, failed = fitted(evals, int(n), int(m))
        assert bool(together[1][i]) == failed
        np.testing.assert_allclose(together[0][i], sigma, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_is_close(shape):
    evals = drawn(np.random.default_rng(6), "gaussian", *shape)
    single = jax.tree.map(jnp.asarray, spectrum(evals.astype(np.float32)))
    sigma, failed = fit_kernel(single, *shape)
    assert sigma.dtype == jnp.float32
    assert not failed
    assert float(sigma) == pytest.approx(fitted(evals, *shape)[0], rel=2e-3)


ODD = {
    "no": np.zeros(0),
    "zero": np.zeros(9),
    "NaN": np.full(9, np.nan),
    "one NaN": np.r_[np.arange(1.0, 9), np.nan],
    "infinite": np.r_[np.arange(1.0, 9), np.inf],
}


@pytest.mark.parametrize("sides", [(9, 9), (20, 9)], ids=str)
@pytest.mark.parametrize("evals", ODD.values(), ids=ODD)
def test_no_number_where_there_is_no_spectrum(evals, sides):
    sigma, failed = fitted(evals, *sides)
    assert failed
    assert np.isnan(sigma)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (50, 1)])
def test_a_single_eigenvalue_is_fitted_as_scipy_does(n, m):
    sigma, failed = fitted([3.0], n, m)
    expected, _, sums, penalty = direct(np.array([3.0]), n / m)
    assert failed == bool((sums == penalty).all())
    assert failed or sigma == pytest.approx(expected, rel=1e-9)


def test_it_has_no_derivative_and_does_no_harm_to_that_of_others():
    evals = np.sort(drawn(np.random.default_rng(7), "gaussian", 60, 40)).astype(np.float32)

    def loss(x):
        esd = wwfunc.ESD(evals=x, n=np.int32(40), floor=np.float32(0))
        return fit_kernel(esd, 60, 40)[0] + jnp.sum(x)

    np.testing.assert_array_equal(jax.grad(loss)(evals), np.ones(40, np.float32))
