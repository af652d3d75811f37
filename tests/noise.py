"""Spectra of planted noise and spikes, and their fits."""

from __future__ import annotations

import sys

import numpy as np
from conftest import REPOSITORY

from wwfunc import ESD, host
from wwfunc.randommatrix.marchenkopastur import mp_fit

sys.path.insert(0, str(REPOSITORY))

from validation.marchenkopastur import spiked

SEED = 5


def layer(n, m, strengths=(), sigma=1.0, seed=SEED):
    """Noise and a signal, its singular values in those of the upper edge of the bulk."""
    edge = np.sqrt(n) + np.sqrt(m)
    rng = np.random.default_rng(seed)
    return sigma**2 * spiked(rng, n, m, edge * np.asarray(strengths, float))[0]


def spectrum(W):
    return host.esd((W if W.shape[0] >= W.shape[1] else W.T)[None])


def fitted(evals, n, m, **options):
    """`mp_fit` behind padding: one program for nearly all tests."""
    esd = evals if isinstance(evals, ESD) else host.pooled(evals, max(n, m))
    return mp_fit(host.padded(esd, 256 if esd.evals.size <= 256 else 1024), n, m, **options)
