"""The side of wwfunc in a worker: the change of an adapter, from its factors."""

from collections.abc import Callable

import wwfunc
from benchmarks.ours import measured


def prepare(path: str) -> Callable[[], int]:
    """Load an adapter and return a function that analyses it."""
    checkpoint = wwfunc.load(path)
    return lambda: measured(wwfunc.analyze(checkpoint))
