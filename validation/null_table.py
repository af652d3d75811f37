"""Makes wwfunc/trust/null.npz: quantiles of alpha among Gaussian random matrices, shape by shape.

    python -m validation.null_table [wwfunc/trust/null.npz]

It takes about twenty minutes of one idle core. The file holds, for rf = 1 and 9, the sides
`M_rf`, the ratios `Q` = N / M, the number of random matrices of each side `draws_rf`, their
quantiles `quantiles_rf` (sides, ratios, levels), and what is used of all this: `coefficients_rf`
(terms, levels) of the surface through the logarithms of the quantiles.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wwfunc.trust.null import LEVELS, random_fits, terms

SEED = 20260
RATIOS = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0, 256.0)
DRAWS = {
    1: {64: 4000, 128: 4000, 256: 3000, 512: 1500, 1024: 750, 2048: 250, 4096: 100},
    9: {16: 4000, 32: 4000, 64: 3000, 128: 1500, 256: 500, 512: 150},
}
"""Random matrices for each ratio: as many as the time allows."""


def main(path: Path) -> None:
    """Simulate every shape and write the table."""
    table = {"levels": np.array(LEVELS), "Q": np.array(RATIOS), "seed": np.array(SEED)}
    for rf, sides in DRAWS.items():
        M = np.array(list(sides))
        quantiles = np.stack([[_quantiles(rf, ratio, side) for ratio in RATIOS] for side in sides])
        table |= {f"M_{rf}": M, f"draws_{rf}": np.array(list(sides.values()))}
        table |= {f"quantiles_{rf}": quantiles.astype(np.float32)}
        table |= {f"coefficients_{rf}": surface(M, table[f"draws_{rf}"], quantiles)}
    made_by = [f"{name} {version(name)}" for name in ("wwfunc", "jax", "numpy", "scipy")]
    np.savez_compressed(path, made_by=np.array(made_by), **table)


def _quantiles(rf: int, ratio: float, M: int) -> np.ndarray:
    started, draws = time.perf_counter(), DRAWS[rf][M]
    alphas = random_fits(draws, N=round(ratio * M), M=M, rf=rf, seed=SEED).alpha
    assert not np.isnan(alphas).any(), "a fit failed"
    print(rf, M, ratio, f"{time.perf_counter() - started:.1f} s", flush=True)
    return np.quantile(alphas, LEVELS, method="weibull")


def surface(M: np.ndarray, draws: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Coefficients (terms, levels) of least squares, each shape weighted by its draws.

    A quantile's variance goes with p (1 - p) / draws; a level that a shape's draws do not
    resolve is left to the other shapes.
    """
    sides, ratios = np.meshgrid(M, RATIOS, indexing="ij")
    matrix = terms(np.round(sides * ratios), sides)
    fitted = []
    for level, logs in zip(LEVELS, np.moveaxis(np.log(quantiles), -1, 0), strict=True):
        resolved = (draws + 1) * min(level, 1 - level) >= 1
        weights = np.sqrt(draws * resolved)[:, None] * np.ones(len(RATIOS))
        left = (matrix * weights[..., None]).reshape(-1, matrix.shape[-1])
        fitted.append(np.linalg.lstsq(left, (logs * weights).ravel(), rcond=None)[0])
    return np.stack(fitted, axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "wwfunc/trust/null.npz"))
