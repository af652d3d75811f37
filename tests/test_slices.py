"""The Marchenko-Pastur fit of a layer, slice by slice and without its lines of zeros."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import wwfunc
from wwfunc import Options, Status

ENGINES = ["host", "jax"]
FITS = ("sigma_noise", "sigma_mp", "bulk_min", "bulk_max", "mp_edge", "mp_softrank")
KEY = jax.random.key(0)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def kernel(scales, seed=0):
    """Noise of 48 x 40 in a row of taps, each with its own standard deviation."""
    return noise(48, 40, len(scales), seed=seed) * np.asarray(scales)


def record_of(W, **options):
    return wwfunc.analyze({"w.weight": W}, mp_fit=True, **options).records[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scales", [(1, 1, 1), (0.5, 2.0, 0.5), (0.1, 1, 10, 1, 0.1)])
def test_slices_of_noise_have_no_spikes_however_large_each_is(scales, engine):
    found = [record_of(kernel(scales, seed), randomize=True, engine=engine) for seed in range(5)]
    assert sum(record.num_spikes for record in found) == 0
    assert sum(record.num_traps for record in found) == 0
    for record in found:
        rms = np.sqrt(np.mean(np.square(scales)))
        assert record.sigma_noise == pytest.approx(rms, rel=0.03)
        assert record.rand_sigma_noise == pytest.approx(rms, rel=0.03)
        assert record.sigma_mp == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_layer_is_what_its_slices_are_together(engine):
    W = kernel((0.5, 2.0, 1.0))
    W[3, 5], W[7, 9] = 40, -60
    whole = record_of(W, engine=engine)
    alone = [
        wwfunc.mp_fit(wwfunc.esd(W[:, :, tap]), 48, 40, quantile=0.99 ** (1 / 3))
        for tap in range(3)
    ]
    sigma, spikes = (np.array([getattr(fit, n) for fit in alone]) for n in ("sigma", "num_spikes"))
    assert whole.num_spikes == spikes.sum() == 6
    assert whole.sigma_noise == pytest.approx(np.sqrt(np.mean(sigma**2)), rel=1e-9)
    share = np.sum(sigma**2) * 48 * 40 / np.sum(W**2)
    assert whole.sigma_mp == pytest.approx(np.sqrt(share), rel=1e-9)
    assert whole.bulk_min == pytest.approx(min(float(f.bulk_min) for f in alone), rel=1e-9)
    assert whole.bulk_max == pytest.approx(max(float(f.bulk_max) for f in alone), rel=1e-9)
    assert whole.mp_edge == pytest.approx(max(float(f.edge) for f in alone), rel=1e-9)
    assert whole.mp_softrank == pytest.approx(whole.bulk_max / whole.lambda_max, rel=1e-9)
    assert whole.W_scale == pytest.approx(np.sqrt(120 / np.sum(W**2)), rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(200, 128), (100, 128), (256, 70), (90, 90)])
def test_lines_of_zeros_hold_no_noise(rows, columns, turned, engine):
    """Of 256 by 128: as if the layer were without its dead units."""
    W = np.zeros((256, 128))
    W[:rows, 128 - columns :] = 0.3 * noise(rows, columns)
    alive = W[:rows, 128 - columns :]
    dead, own = (record_of(x.T if turned else x, engine=engine) for x in (W, alive))
    assert dead.num_spikes == own.num_spikes == 0
    for name in FITS:
        assert getattr(dead, name) == pytest.approx(getattr(own, name), rel=1e-8), name
    assert dead.W_scale == pytest.approx(np.sqrt(128 / np.sum(W**2)), rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_slices_of_zeros_are_left_out(engine):
    W = kernel((1, 0, 2, 0))
    found, without = (record_of(x, engine=engine) for x in (W, W[:, :, ::2]))
    assert found.num_spikes == 0
    # The edge is that of four slices there, of two here.
    for name in ("sigma_noise", "sigma_mp", "bulk_min", "bulk_max", "mp_softrank"):
        assert getattr(found, name) == pytest.approx(getattr(without, name), rel=1e-9), name


@pytest.mark.parametrize("engine", ENGINES)
def test_one_slice_without_a_bulk_is_a_layer_without_one(engine):
    W = kernel((1, 1))
    W[:, :, 1] = noise(48, 1, seed=1) @ noise(1, 40, seed=2)
    record = record_of(W, engine=engine)
    assert record.num_spikes is None
    assert np.isnan(record.sigma_noise)
    assert record.status.startswith("success; eigenvalues")
    assert record.status.endswith(f"; mp_fit {Status.NULL_SPACE.sentence}")
    assert int(record.measures.mp.status) == Status.NULL_SPACE


@pytest.mark.parametrize("shape", [(3, 48, 40), (40, 48), (1, 48, 40)])
def test_measure_is_the_same_under_jit_and_vmap(shape):
    W = noise(2, *shape).astype(np.float32)
    W[0, ..., 3] = 0
    options = Options(mp_fit=True, randomize=True)

    def measured(weights):
        return wwfunc.measure(weights, options, key=KEY)

    together = jax.device_get(jax.jit(jax.vmap(measured))(W))
    for index, weights in enumerate(W):
        alone, double = measured(weights), measured(weights.astype(np.float64))
        for part in ("mp", "rand_mp"):
            for name in ("sigma", "sigma_mp", "bulk_max", "edge", "num_spikes", "status"):
                values = [getattr(getattr(m, part), name) for m in (alone, double)]
                values.append(getattr(getattr(together, part), name)[index])
                np.testing.assert_allclose(values, values[1], rtol=1e-4, err_msg=name)


def test_measure_and_analyze_agree():
    W = kernel((0.5, 2.0, 1.0))
    W[2, 3, 1], W[:, 5] = 90, 0
    record = record_of(W, randomize=True)
    key = wwfunc.keys.layer_key(record.layer, 0)
    measures = wwfunc.measure(W.transpose(2, 0, 1), Options(mp_fit=True, randomize=True), key=key)
    for part in ("mp", "rand_mp"):
        own, other = getattr(record.measures, part), getattr(measures, part)
        for one, two in zip(jax.tree.leaves(own), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9)
    assert int(measures.num_traps) == record.num_traps == 1


def test_no_nan_in_the_derivative():
    """Neither of the slice without a bulk nor of the one of zeros."""
    W = kernel((1, 0, 1)).transpose(2, 0, 1)

    def sigma(x):
        return wwfunc.measure(x, Options(mp_fit=True)).mp.sigma

    slope = jax.grad(sigma)(W)
    assert np.isfinite(slope).all()
    step = 1e-6 * noise(48, 40, seed=3)
    ahead, behind = (W + sign * np.stack([step, 0 * step, 0 * step]) for sign in (1, -1))
    expected = (sigma(ahead) - sigma(behind)) / 2
    assert np.sum(slope[0] * step) == pytest.approx(float(expected), rel=1e-4)
    W[2] = np.outer(W[2, :, 0], W[2, 0])
    loss = jax.grad(lambda x: wwfunc.measure(x, Options(mp_fit=True)).esd.evals.sum())
    assert np.isfinite(loss(W)).all()


def test_smoothing_keeps_the_spikes_of_each_slice():
    """Of the small slice too, though they are under the noise of the large one."""
    W = kernel((0.1, 5.0))
    for tap, size in ((0, 3.0), (1, 150.0)):
        W[:, :, tap] += size * np.outer(noise(48, seed=4), noise(40, seed=5)) / 40
    smoothed = wwfunc.smooth(W.transpose(2, 0, 1), "mp")
    ranks = np.linalg.matrix_rank(smoothed)
    assert record_of(W).num_spikes == ranks.sum() == 2
    assert ranks.tolist() == [1, 1]
