"""The side of wwfunc in a worker: truncated power laws of all layers."""

from collections.abc import Callable

import wwfunc
from benchmarks.ours import measured


def prepare(path: str) -> Callable[[], int]:
    """Load a checkpoint, analyse it once, and return a function that does so again."""
    checkpoint = wwfunc.load(path)

    def again() -> int:
        return measured(wwfunc.analyze(checkpoint, fit="TPL"))

    again()
    return again
