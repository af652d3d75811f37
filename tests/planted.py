"""Samples of laws that are known."""

from __future__ import annotations

import numpy as np


def pareto(rng, n, alpha, xmin=1.0):
    """A power law from xmin on."""
    return xmin * (1.0 - rng.random(n)) ** (-1.0 / (alpha - 1.0))


def with_body(rng, n, alpha=2.5):
    """Two thirds of one, with numbers under it."""
    return np.concatenate([rng.uniform(0.1, 1.0, n // 3), pareto(rng, n - n // 3, alpha)])


def formed(rng, N, M, count, rf=1):
    """Spectra of Gaussian matrices that are formed entry by entry."""
    W = rng.standard_normal((count, rf, N, M)) / np.sqrt(N)
    return np.sort(np.linalg.svd(W, compute_uv=False).reshape(count, -1) ** 2, axis=1)
