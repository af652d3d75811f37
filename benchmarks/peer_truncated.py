"""The side of WeightWatcher with powerlaw 1.5: the truncated power law of one layer's spectrum."""

from collections.abc import Callable

import numpy as np
import powerlaw
import weightwatcher
from safetensors.torch import load_file


def prepare(path: str, layer: str) -> Callable[[], int]:
    """Compute the spectrum and return a function that fits it."""
    if powerlaw.__version__ != "1.5":  # with 2.0 every truncated fit of it fails
        raise SystemExit(f"powerlaw {powerlaw.__version__} is installed, not 1.5")
    weights = load_file(path)[f"{layer}.weight"].double().numpy()
    evals = np.sort(np.linalg.svd(weights, compute_uv=False) ** 2)
    watcher = weightwatcher.WeightWatcher()

    def again() -> int:
        fitted = watcher.fit_powerlaw(
            evals, plot=False, fit_type="truncated_power_law", pl_package="powerlaw"
        )
        return int("success" in fitted)

    return again
