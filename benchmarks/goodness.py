"""The side of wwfunc in a worker: a goodness-of-fit p with 1,000 replicates for every layer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax

import wwfunc
from benchmarks.machine import cores


def prepare(path: str) -> Callable[[], int]:
    """Compute the spectra, and return a function that computes a p-value for each."""
    spectra = [record.evals for record in wwfunc.analyze(path).measured]
    keys = list(jax.random.split(jax.random.key(0), len(spectra)))

    def again() -> int:
        with ThreadPoolExecutor(cores()) as pool:
            return len(list(pool.map(wwfunc.goodness_of_fit, spectra, keys)))

    return again
