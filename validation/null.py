"""Is the null by shape calibrated? Random matrices of shapes that no table holds, held against it.

The p of a random matrix is uniform: five in a hundred lie at or under 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from validation.finding import Finding, share
from wwfunc import host
from wwfunc.fits.powerlaw import fit_limited
from wwfunc.fits.tail import Limits
from wwfunc.options import Method
from wwfunc.trust.null import null_p, null_quantiles, random_fits

FULL = 2000
"""Random matrices of each shape."""
SEED = 4
SHAPES = (
    *((1, 48, 24), (16, 24, 12), (9, 20, 10)),  # drawn live
    *((1, 100, 90), (1, 300, 200), (1, 700, 90), (1, 900, 700), (1, 2400, 1200)),
    *((1, 20000, 300), (9, 48, 24), (9, 200, 100)),
)
"""rf, N, M."""
FORMED = ((1, 100, 90), (9, 48, 24))
"""Shapes whose matrices are also formed, entry by entry, and decomposed whole."""


def campaign(cases: int) -> Iterator[Finding]:
    """Yield the share of small p for each shape, and how alphas pass for well-trained ones."""
    for rf, N, M in SHAPES:
        alphas = random_fits(cases, N=N, M=M, rf=rf, seed=SEED).alpha
        yield from _uniform(_name(rf, N, M), alphas, (rf, N, M))
    for rf, N, M in FORMED:
        name = f"{_name(rf, N, M)}, matrices formed"
        yield from _uniform(name, _formed(cases, rf, N, M), (rf, N, M))


def _name(rf: int, N: int, M: int) -> str:
    return f"{N:,} x {M}" + (f", {rf} pooled" if rf > 1 else "")


def _uniform(name: str, alphas: np.ndarray, shape: tuple[int, int, int]) -> Iterator[Finding]:
    quantiles = null_quantiles(*shape)
    assert quantiles is not None, "the shapes here are calibrated"
    with jax.enable_x64(True):
        p = np.asarray(null_p(alphas, quantiles))
    for level, low, high in ((0.05, 0.03, 0.07), (0.5, 0.45, 0.55)):
        what = f"random matrices with p <= {level:g}, {name}"
        hits = int((p <= level).sum())
        yield share(what, hits, p.size, low=low, high=high, full=FULL)


def _formed(cases: int, rf: int, N: int, M: int) -> np.ndarray:
    """Alphas of matrices drawn entry by entry, through the Gram matrix as layers are."""
    rng = np.random.default_rng([SEED, rf, N, M])
    method = Method(threshold="relative")
    fit = jax.jit(lambda esd: fit_limited(esd, Limits(), method).alpha)
    spectra = [host.esd(rng.standard_normal((rf, N, M))) for _ in range(cases)]
    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *spectra)
        return np.asarray(jax.jit(lambda all_: jax.lax.map(fit, all_))(stacked))
