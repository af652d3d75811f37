"""The side of SciPy in a worker: singular values of one window after another, in float64."""

from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file
from scipy.linalg import svd

MOST_ROWS, WINDOWS = 2000, 10


def prepare(path: str) -> Callable[[], int]:
    """Load the layer and return a function that takes all its windows and counts them."""
    (weights,) = load_file(path).values()
    side = min(min(weights.shape) // 2, MOST_ROWS)
    along_rows, along_cols = (starts(length, side) for length in weights.shape)

    def again() -> int:
        spectra = [
            svd(weights[row : row + side, col : col + side].astype(float), compute_uv=False) ** 2
            for row in along_rows
            for col in along_cols
        ]
        evals = np.sort(np.concatenate(spectra))
        tail = np.log(evals[evals.size // 2 :])
        alpha = 1 + tail.size / (tail - tail[0]).sum()
        return len(spectra) if np.isfinite(alpha) else 0

    return again


def starts(length: int, side: int) -> list[int]:
    """Where the windows begin along one side of the layer."""
    step = (length - side) // (WINDOWS - 1)
    return [index * step for index in range(WINDOWS)]
