"""The Marchenko-Pastur fit of what is no noise, hardly there, or wrong."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from noise import SEED, fitted, spectrum

import wwfunc
from wwfunc import ESD, Status
from wwfunc.randommatrix.marchenkopastur import MPFit, fit_bulk, mp_fit
from wwfunc.randommatrix.tracywidom import quantile

TW99 = quantile(0.99)
FIELDS = list(MPFit.__dataclass_fields__)


@pytest.mark.parametrize("dead", [20, 40, 150])
def test_more_zeros_than_noise_has_are_no_noise(dead):
    """Whether columns are zero, or others combined."""
    W = 0.3 * np.random.default_rng(SEED).standard_normal((300, 240))
    W[:, :dead] = 0.0
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((240, 240)))[0]
    for weights in (W, W @ rotation):
        fit = fitted(spectrum(weights), 300, 240)
        assert Status(int(fit.status)) is Status.NULL_SPACE
        assert np.isnan(float(fit.sigma))
        assert int(fit.num_spikes) == -1


@pytest.mark.parametrize(("side", "zeros"), [(20, 1), (300, 4)])
def test_a_few_zeros_do_not_matter(side, zeros):
    """Rows that sum to zero, such as a softmax may have, take one."""
    evals = spectrum(np.random.default_rng(SEED).standard_normal((300, side))).evals.copy()
    whole = fitted(evals, 300, side)
    evals[:zeros] = 0.0
    fit = fitted(evals, 300, side)
    assert Status(int(fit.status)) is Status.SUCCESS
    assert float(fit.sigma) == pytest.approx(float(whole.sigma), rel=0.02)
    evals[: zeros + 1] = 0.0
    assert Status(int(fitted(evals, 300, side).status)) is Status.NULL_SPACE


def test_a_low_rank_is_no_noise():
    """Sigma of eight directions would be three times what the elements are."""
    rng = np.random.default_rng(SEED)
    fit = fitted(spectrum(rng.standard_normal((300, 8)) @ rng.standard_normal((8, 200))), 300, 200)
    assert Status(int(fit.status)) is Status.NULL_SPACE
    assert np.isnan(float(fit.sigma))


def test_what_single_precision_does_not_resolve_is_no_noise():
    """A mean of 8 hides the noise from float32, and not from float64."""
    W = np.random.default_rng(SEED).standard_normal((1024, 512)) + 8.0
    single = mp_fit(wwfunc.esd(W.astype(np.float32)), 1024, 512)
    assert Status(int(single.status)) is Status.NULL_SPACE
    fit = fitted(spectrum(W), 1024, 512)
    assert int(fit.num_spikes) == 1
    assert float(fit.sigma) == pytest.approx(1.0, rel=0.005)


def test_no_derivative_is_zero_and_not_half_of_one():
    evals = spectrum(np.random.default_rng(0).standard_normal((60, 40))).evals
    for name in ("sigma", "mp_softrank", "bulk_max"):
        slope = jax.grad(lambda e, name=name: getattr(mp_fit(e, 60, 40, method="kde"), name))
        assert not np.any(slope(evals))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (300, 1), (1, 300), (300, 2), (2, 2)])
def test_few_eigenvalues(n, m):
    evals = spectrum(np.random.default_rng(SEED).standard_normal((n, m)))
    fit = fitted(evals, n, m)
    assert Status(int(fit.status)) is Status.SUCCESS
    assert int(fit.num_spikes) == 0
    assert float(fit.sigma) == pytest.approx(np.sqrt(evals.evals.sum() / n / m), rel=1e-9)


@pytest.mark.parametrize("method", ["tracy-widom", "kde"])
@pytest.mark.parametrize(
    ("value", "status"),
    [(0.0, Status.ALL_ZERO), (np.nan, Status.NOT_FINITE), (np.inf, Status.NOT_FINITE)],
)
def test_what_cannot_be_fitted_says_why(value, status, method):
    evals = np.zeros(20)
    evals[-1] = value
    fit = mp_fit(evals, 50, 20, method=method)
    assert Status(int(fit.status)) is status
    assert np.isnan([getattr(fit, name) for name in FIELDS[:6]]).all()
    assert int(fit.num_spikes) == -1


def test_no_eigenvalues():
    empty = ESD(evals=np.zeros(256), n=np.int32(0), floor=np.float64(0))
    for method in ("tracy-widom", "kde"):
        with jax.enable_x64(True):
            fit = fit_bulk(empty, 5, 1, 1, TW99, method)
        assert Status(int(fit.status)) is Status.TAIL_TOO_SHORT
        assert np.isnan(float(fit.sigma))


@pytest.mark.parametrize(
    "wrong",
    [{"method": "median"}, {"quantile": 1.0}, {"quantile": "x"}, {"slices": 0}, {"slices": 1.5}],
)
def test_options_are_checked(wrong):
    with pytest.raises(wwfunc.OptionError):
        mp_fit(np.ones(4), 4, 4, **wrong)
    with pytest.raises(wwfunc.OptionError, match="n is a whole number"):
        mp_fit(np.ones(4), 0, 4)


def test_a_spectrum_of_another_shape_is_refused():
    with pytest.raises(wwfunc.InputError, match="have 8 eigenvalues, not 4"):
        mp_fit(np.ones(4), 4, 6, slices=2)
