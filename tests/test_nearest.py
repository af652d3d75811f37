"""The tail that its own power law describes best, against a loop over all tails."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from planted import with_body

from wwfunc import host
from wwfunc.fits.nearest import nearest_tail
from wwfunc.fits.tail import Limits, tail_of
from wwfunc.spectrum import as_esd


def nearest_by_hand(x, alphas, valid, two_sided):
    """Every distance, one at a time."""
    found = np.full(x.size, np.inf)
    for start in np.flatnonzero(valid):
        tail = x[start:]
        model = 1 - (tail / tail[0]) ** (1 - alphas[start])
        step = np.arange(tail.size) / tail.size
        found[start] = np.abs(model - step).max()
        if two_sided:
            found[start] = max(found[start], np.abs(model - step - 1 / tail.size).max())
    return found.argmin(), found.min()


@pytest.mark.parametrize("ks", ["one-sided", "two-sided"])
@pytest.mark.parametrize(("n", "size"), [(3, 16), (25, 25), (64, 512), (300, 300), (700, 1024)])
def test_nearest_tail_equals_the_loop(n, size, ks):
    """Behind padding, with a cut above, for alphas that fit and some that do not."""
    rng = np.random.default_rng(n)
    x = np.sort(with_body(rng, n))
    with jax.enable_x64(True):
        esd = host.padded(host.as_esd(x, n=n, floor=0.0), size)
        tail = tail_of(esd, Limits(clip=2), "absolute")
        alphas = rng.uniform(1.5, 4.0, tail.evals.size)
        valid = tail.fitted & (rng.random(tail.evals.size) < 0.8)
        assert np.any(valid)
        start, D = jax.jit(nearest_tail, static_argnums=3)(tail, alphas, valid, ks)
    before = tail.evals.size - n
    fitted = slice(before, before + n - 2)
    expected = nearest_by_hand(x[:-2], alphas[fitted], valid[fitted], ks == "two-sided")
    assert int(start) - before == expected[0]
    np.testing.assert_allclose(D, expected[1], rtol=1e-12)


def test_nearest_tail_of_none():
    with jax.enable_x64(True):
        tail = tail_of(as_esd(np.arange(1.0, 30.0)), Limits(), "absolute")
        nothing = np.zeros(tail.evals.size, bool)
        start, D = nearest_tail(tail, np.full(tail.evals.size, 2.0), nothing)
    assert int(start) == 0
    assert float(D) == np.inf
