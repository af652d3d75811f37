"""The side of wwfunc in a worker: FARMS in float64 on the one layer of a checkpoint."""

from collections.abc import Callable

import jax

import wwfunc
from wwfunc import host
from wwfunc.fits.submatrices import count_windows, farms_of, window_sides

WINDOWS = 10


def prepare(path: str) -> Callable[[], int]:
    """Map the layer and return a function that fits all its windows and counts them."""
    (weights,) = (handle.read() for handle in wwfunc.load(path).values())
    shape = (1, *weights.shape)
    sides = window_sides(*weights.shape, None, 1.0)

    def again() -> int:
        spectrum = host.window_esd(weights[None], *sides, WINDOWS)
        with jax.enable_x64(True):
            fit = farms_of(spectrum, count_windows(shape, *sides, WINDOWS))
        return int(fit.num_windows)

    return again
