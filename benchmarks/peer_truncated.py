"""The side of WeightWatcher with powerlaw 1.5 in a worker: the truncated power law of one layer."""

from collections.abc import Callable

import powerlaw
import weightwatcher
from safetensors.torch import load_file


def prepare(path: str, layer: str) -> Callable[[], int]:
    """Load one layer of a checkpoint and return a function that analyses it."""
    if powerlaw.__version__ != "1.5":  # with 2.0 every truncated fit of it fails
        raise SystemExit(f"powerlaw {powerlaw.__version__} is installed, not 1.5")
    name = f"{layer}.weight"
    state = {name: load_file(path)[name]}

    def again() -> int:
        watcher = weightwatcher.WeightWatcher(model=state)
        return int((watcher.analyze(fit="TPL", pl_package="powerlaw").status == "success").sum())

    return again
