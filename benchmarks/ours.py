"""The side of wwfunc in a worker."""

from collections.abc import Callable

import wwfunc


def prepare(path: str, *switched_on: str) -> Callable[[], int]:
    """Load a checkpoint and return a function that analyses it, with options switched on."""
    checkpoint, options = wwfunc.load(path), dict.fromkeys(switched_on, True)
    return lambda: measured(wwfunc.analyze(checkpoint, **options))


def measured(analysis: wwfunc.Analysis) -> int:
    """Count the layers that were measured; the others are records that say why not."""
    return sum(record.measures is not None for record in analysis.records)
