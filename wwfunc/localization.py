"""Numbers that say how localised vectors are: entropy, localisation ratio, participation ratio.

On JAX and, vector for vector the same, on NumPy.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wwfunc.pytrees import Array

BINS = 100
EPSILON = 1e-10
"""WeightWatcher adds it to the density in each bin, so that an empty one has a logarithm."""

_BLOCK_ELEMENTS = 1 << 20
"""On the host, vectors are looked at by blocks of 8 MiB."""


def numbers(vectors: Float[Array, "count length"]) -> tuple[Array, Array, Array]:
    """Entropy, localisation ratio and participation ratio of each row."""
    magnitudes = abs(vectors)
    index, width = _bins(magnitudes)
    rows = jnp.arange(len(vectors))[:, None]
    counts = jnp.zeros((len(vectors), BINS), vectors.dtype).at[rows, index].add(1.0)
    return _entropy(jnp, counts, width), *_ratios(magnitudes)


def host_numbers(vectors: Float[np.ndarray, "length count"]) -> Float[np.ndarray, "3 count"]:
    """`numbers` of each column, in float64."""
    length, count = vectors.shape
    step = max(1, _BLOCK_ELEMENTS // max(1, length))
    measured = np.empty((3, count))
    for start in range(0, count, step):
        magnitudes = np.ascontiguousarray(abs(vectors[:, start : start + step].T))
        index, width = _bins(magnitudes)
        index += BINS * np.arange(len(index), dtype=np.int32)[:, None]
        counts = np.bincount(index.ravel(), minlength=BINS * len(index)).reshape(-1, BINS)
        measured[:, start : start + step] = (
            _entropy(np, counts.astype(np.float64), width),
            *_ratios(magnitudes),
        )
    return measured


def _ratios(magnitudes: Any) -> tuple[Any, Any]:
    """L1 over L-infinity, and L2 over L4; the vectors have length 1 up to rounding."""
    squares = magnitudes * magnitudes
    fourth = (squares * squares).sum(axis=-1) ** 0.25
    return magnitudes.sum(axis=-1) / magnitudes.max(axis=-1), squares.sum(axis=-1) ** 0.5 / fourth


def _bins(magnitudes: Any) -> tuple[Any, Any]:
    """In which bin each element falls, and how wide the bins of its vector are."""
    low, high = (f(axis=-1, keepdims=True) for f in (magnitudes.min, magnitudes.max))
    spread = high - low
    flat = spread <= np.finfo(magnitudes.dtype).eps.item() * magnitudes.shape[-1] * high
    spread = spread + flat  # NumPy's histogram gives a single value a bin of a range of 1 too
    index = ((magnitudes - low) / spread * BINS).astype(np.int32).clip(0, BINS - 1)
    return index, spread / BINS


def _entropy(xp: ModuleType, counts: Any, width: Any) -> Any:
    """The densities counts / (length width) + EPSILON, as shares."""
    mass = counts / counts.sum(axis=-1, keepdims=True) + EPSILON * width
    shares = mass / mass.sum(axis=-1, keepdims=True)
    return -(shares * xp.log(shares)).sum(axis=-1)
