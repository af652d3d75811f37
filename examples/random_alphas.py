"""How often a random matrix passes for a well-trained layer, whose alpha lies between 2 and 6.

Prints a Markdown table of the power-law exponents that matrices of independent Gaussian entries
show, shape by shape, in about twenty seconds:

    python examples/random_alphas.py [--draws 1000] [--seed 1]
"""

from __future__ import annotations

import argparse

import numpy as np

from wwfunc import random_fits

SHAPES = ((64, 64), (128, 128), (256, 256), (768, 256), (2048, 512), (768, 768))
HEADER = """\
| shape | alpha in [2, 6] | median alpha | 5 % to 95 % of alphas | median tail length |
|---|---|---|---|---|"""


def row(N: int, M: int, draws: int, seed: int) -> str:
    """Describe the fits of random matrices of one shape."""
    fits = random_fits(draws, N=N, M=M, seed=seed)
    passing = np.mean((fits.alpha >= 2) & (fits.alpha <= 6))
    low, median, high = np.nanquantile(fits.alpha, [0.05, 0.5, 0.95])
    cells = (
        f"{N:,} x {M}",
        f"{passing:.1%}",
        f"{median:.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{np.median(fits.num_pl_spikes):.0f} of {M}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="random matrices of each shape")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print(HEADER)
    for N, M in SHAPES:
        print(row(N, M, chosen.draws, chosen.seed), flush=True)


if __name__ == "__main__":
    main()
