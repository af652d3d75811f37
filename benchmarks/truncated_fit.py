"""The side of wwfunc in a worker: the truncated power law of one layer's spectrum."""

from collections.abc import Callable

import wwfunc


def prepare(path: str, layer: str) -> Callable[[], int]:
    """Compute the spectrum, fit it once, and return a function that does so again."""
    evals = wwfunc.analyze(path, layers=[layer]).records[0].evals

    def again() -> int:
        return int(wwfunc.fit_tpl(evals).status < wwfunc.Status.NOT_FINITE)

    again()
    return again
