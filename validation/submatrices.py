"""FARMS: windows of one aspect ratio against the shape of a layer, laws, and exact eigenvalues."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from validation.finding import Finding, at_most, share
from wwfunc import host
from wwfunc.execution import bucket
from wwfunc.fits.hillestimator import hill
from wwfunc.fits.submatrices import window_sides

FULL = 200

SHAPES = ((256, 256), (512, 128), (1024, 64))
"""One number of weights, three aspect ratios."""
LARGE = ((1024, 1024), (2048, 512), (4096, 256))
"""The same at sizes that a short campaign has no time for."""
LAW_SHAPE = (120, 90)
WINDOWS = 5
EVERY = 10
"""Each law is looked at in one case of so many."""

Weights = np.ndarray


def campaign(cases: int) -> Iterator[Finding]:
    """Compare plain Hill alphas with those of windows over shapes; then laws and eigenvalues."""
    few = max(1, cases // EVERY)
    with threadpool_limits(1, "blas"):  # the matrices are too small for threads
        yield from _over_shapes(SHAPES, cases, 1)
        if cases >= FULL:
            yield from _over_shapes(LARGE, few, 2)
        yield from _laws(few)
        yield _eigenvalues(few)


def _over_shapes(shapes: tuple[tuple[int, int], ...], cases: int, seed: int) -> Iterator[Finding]:
    """Gaussian layers: the alpha of which should not tell their shapes apart."""
    rng = np.random.default_rng(seed)
    plain, windows = (np.empty((cases, len(shapes))) for _ in range(2))
    for case in range(cases):
        for column, shape in enumerate(shapes):
            W = rng.standard_normal(shape)
            plain[case, column], windows[case, column] = _plain(W), _farms(W)
    sides = ", ".join(f"{n} x {m}" for n, m in shapes)
    for name, alphas in (("whole layer", plain), ("windows", windows)):
        means = ", ".join(f"{mean:.2f}" for mean in alphas.mean(axis=0))
        yield _report(f"Gaussian layers of {sides}: mean Hill alpha of the {name}", means)
    yield share(
        f"Gaussian layers of {sides}: alphas of windows lie closer together than of whole layers",
        int(np.sum(np.ptp(windows, axis=1) < 0.1 * np.ptp(plain, axis=1))),
        cases,
        low=0.99,
        high=1.0,
        full=FULL,
    )


def _laws(cases: int) -> Iterator[Finding]:
    """How far alpha of windows moves under what leaves alpha of the whole layer alone."""
    rng = np.random.default_rng(3)
    moved = {"scaling by 1,000": 0.0, "transposing": 0.0, "reversing": 0.0, "permuting": 0.0}
    for _ in range(cases):
        W = rng.standard_t(3, LAW_SHAPE)
        others = 1000 * W, W.T, W[::-1, ::-1], rng.permutation(rng.permutation(W, 0), 1)
        base = _farms(W)
        for name, other in zip(moved, others, strict=True):
            moved[name] = max(moved[name], abs(_farms(other) / base - 1))
    for name in ("scaling by 1,000", "transposing"):
        yield at_most(f"FARMS: alpha moves by {name}, relatively", moved[name], 1e-9)
    for name in ("reversing", "permuting"):
        yield _report(f"FARMS: alpha moves by {name} rows and columns", f"{moved[name]:.2%}")


def _eigenvalues(cases: int) -> Finding:
    rngs = [np.random.default_rng([4, case]) for case in range(cases)]
    return at_most(
        "FARMS: eigenvalues of each window against its squared singular values, over the largest",
        max(map(_worst_eigenvalue, rngs)),
        1e-10,
    )


def _worst_eigenvalue(rng: np.random.Generator) -> float:
    """Largest deviation over the largest eigenvalue of the same window, for a random grid."""
    n, m = np.sort(rng.integers(5, 150, 2))[::-1]
    W = rng.standard_t(2.5, (int(n), int(m)))
    wide = W if n == m else W.T
    rows, cols = window_sides(*W.shape, None, float(rng.uniform(1, 4)))
    found = host.window_eigenvalues(W[None], rows, cols, WINDOWS)[0]
    worst = 0.0
    places = [
        (row, col)
        for col in host.window_starts(wide.shape[1], cols, WINDOWS)
        for row in host.window_starts(wide.shape[0], rows, WINDOWS)
    ]
    for (row, col), evals in zip(places, found, strict=True):
        window = wide[row : row + rows, col : col + cols]
        exact = np.linalg.svd(window, compute_uv=False)[::-1] ** 2
        worst = max(worst, float(np.abs(evals - exact).max() / exact[-1]))
    return worst


def _farms(W: Weights) -> float:
    return _alpha(host.window_esd(W[None], *window_sides(*W.shape, None, 1.0), WINDOWS))


def _plain(W: Weights) -> float:
    tall = W if W.shape[0] >= W.shape[1] else W.T
    return _alpha(host.esd(tall[None]))


def _alpha(spectrum: host.ESD) -> float:
    padded = host.padded(spectrum, bucket(spectrum.evals.size))
    return float(hill(padded, threshold="relative").alpha)


def _report(what: str, measured: str) -> Finding:
    return Finding(what=what, asked="", measured=measured)
