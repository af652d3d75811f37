"""The planted weights behind the `seeded` reference tables, in PyTorch's layout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SEED = 20261122


def planted_tail(rng, rows, cols, alpha):
    """A matrix whose eigenvalues are a Pareto sample of exponent `alpha`."""
    rank = min(rows, cols)
    evals = (1.0 - rng.random(rank)) ** (-1.0 / (alpha - 1.0))
    left = np.linalg.qr(rng.standard_normal((rows, rank)))[0]
    right = np.linalg.qr(rng.standard_normal((cols, rank)))[0]
    return (left * np.sqrt(evals)) @ right.T


def _gaussian(rng, rows, cols):
    return rng.standard_normal((rows, cols)) / np.sqrt(rows)


def _spiked(rng):
    noise = _gaussian(rng, 500, 250)
    direction = np.outer(rng.standard_normal(500), rng.standard_normal(250))
    return noise + 6.0 * direction / np.linalg.norm(direction)


def _trapped(rng):
    noise = _gaussian(rng, 500, 250)
    noise[17, 42] = 8.0
    return noise


def _slices(rng):
    return np.stack([planted_tail(rng, 128, 96, 2.5) for _ in range(9)], axis=-1)


# The order matters: all layers draw from one stream.
_LAYERS = {
    "features.0.weight": lambda rng: rng.standard_normal((64, 3, 3, 3)) * 0.1,
    "features.3.weight": lambda rng: rng.standard_t(3, size=(96, 64, 3, 3)) * 0.05,
    "features.6.weight": lambda rng: _slices(rng).reshape(128, 96, 3, 3) * 0.02,
    "features.6.bias": lambda rng: rng.standard_normal(128) * 0.1,
    "bn.weight": lambda rng: np.ones(128),
    "bn.bias": lambda rng: np.zeros(128),
    "classifier.heavy2.weight": lambda rng: planted_tail(rng, 400, 300, 2.0) * 0.01,
    "classifier.heavy3.weight": lambda rng: planted_tail(rng, 300, 500, 3.0) * 0.1,
    "classifier.heavy5.weight": lambda rng: planted_tail(rng, 256, 256, 5.0),
    "classifier.gaussian.weight": lambda rng: _gaussian(rng, 600, 300),
    "classifier.square.weight": lambda rng: _gaussian(rng, 350, 350),
    "classifier.narrow.weight": lambda rng: rng.standard_normal((10, 300)) * 0.05,
    "embeddings.word_embeddings.weight": lambda rng: rng.standard_t(4, size=(2000, 128)) * 0.03,
    "classifier.spiked.weight": _spiked,
    "classifier.trapped.weight": _trapped,
}


@cache
def tensors():
    rng = np.random.default_rng(SEED)
    return {name: np.ascontiguousarray(make(rng), np.float32) for name, make in _LAYERS.items()}


def write(path: Path) -> Path:
    save_file(tensors(), path)
    return path


@cache
def noisy():
    """The same with noise of 0.01, drawn in the order of the names."""
    rng = np.random.default_rng(7)
    plain = tensors()
    return {
        name: (plain[name] + 0.01 * rng.standard_normal(plain[name].shape)).astype(np.float32)
        for name in sorted(plain)
    }
