"""The side of wwfunc in a worker."""

from collections.abc import Callable

import wwfunc


def prepare(path: str) -> Callable[[], int]:
    """Load a checkpoint and return a function that analyses it by default."""
    checkpoint = wwfunc.load(path)
    return lambda: measured(wwfunc.analyze(checkpoint))


def measured(analysis: wwfunc.Analysis) -> int:
    """Count the layers that were measured; the others are records that say why not."""
    return sum(record.measures is not None for record in analysis.records)
