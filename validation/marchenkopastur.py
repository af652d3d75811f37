"""Sigma of Gaussian noise under spikes, and from which strength on a spike is found."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from validation.finding import Finding, at_most, share
from wwfunc import host
from wwfunc.randommatrix.marchenkopastur import fit_bulk
from wwfunc.randommatrix.tracywidom import quantile
from wwfunc.spectrum import ESD

FULL = 1000
CASES_A_DRAW = 20
"""Sigma is estimated 50 times for each shape in full."""

LARGE = ((256, 256), (600, 300), (1000, 250), (1600, 160), (2000, 100), (2560, 128), (1024, 1024))
"""N M is 65,000 or more: 1 % is more than three standard errors of sigma."""
SMALL = ((64, 64), (128, 64), (100, 100), (320, 80), (800, 80), (1140, 57), (400, 40), (640, 32))
SPIKES = (0, 5, 10)
STRENGTHS = (1.5, 4.0)
"""Of the weakest and the strongest spike, in singular values of the upper edge of the bulk."""
MOST_OFF, MEAN_OFF = 0.01, 0.002
STANDARD_ERRORS = 3.5
"""Of sigma from N M entries, 1 / sqrt(2 N M): noise itself is further off once in 2,000 draws, and
more often the more directions spikes take; so a share is asked for, not each one."""
BESIDE = 0.5
"""In the same unit, from the root mean square of the very entries outside the spikes; where noise
is taken for a spike, in 1 % of the spectra, 1.5 are possible."""

SHAPES = ((64, 64), (640, 64), (1280, 64), (256, 256), (1024, 256), (5120, 256))
CURVE = (0.0, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 2.0)
"""Strengths of one spike over theta_c = sigma (N M)^(1/4), under which none is visible."""
WEAK = (1.1, 1.3, 1.5)
"""Strengths of ten spikes over theta_c: the weakest are not told from noise, and make it larger."""
TINY = ((8, 8), (12, 8), (16, 16), (32, 32), (64, 64))
"""Where the Tracy-Widom law is not reached yet."""
QUANTILE = 0.99
PADDED = (128, 256, 1024)
"""Spectra are padded to these lengths: a program is compiled for each."""

Evals = Float[np.ndarray, "count evals"]


def campaign(cases: int) -> Iterator[Finding]:
    """Sigma over shapes and spikes, then the share of single spikes that are found."""
    draws = max(2, cases // CASES_A_DRAW)
    with threadpool_limits(1, "blas"):  # the matrices are too small for threads
        for number, shape in enumerate(LARGE if cases >= FULL else LARGE[:3]):
            yield from _sigma_of_large(shape, draws, number)
        yield from _sigma_of_small(draws)
        yield from _sigma_under_weak_spikes(draws)
        for number, shape in enumerate(SHAPES):
            yield from _curve(shape, cases, number)
        for shape in TINY:
            yield from _false_alarms(shape, 4 * cases)


def spiked(
    rng: np.random.Generator, n: int, m: int, thetas: np.ndarray
) -> tuple[np.ndarray, float]:
    """Eigenvalues of standard Gaussian noise and a signal of the given singular values.

    Rotations change nothing about the noise: the signal may stand on the diagonal. Beside them the
    root mean square of the noise in the rows and columns that hold none: the best one can know.
    """
    k = thetas.size
    W = rng.standard_normal((n, m))
    known = float(np.sqrt(np.mean(W[k:, k:] ** 2)))
    W[np.arange(k), np.arange(k)] += thetas
    return np.asarray(host.esd(W[None]).evals), known


def once_spiked(rng: np.random.Generator, n: int, m: int, theta: float, count: int) -> Evals:
    """Spectra of noise with one spike, n >= m, drawn as bidiagonal factors: O(m^2) each.

    The spike lengthens one column of the noise, before Householder's reflections make of the
    matrix chi-distributed entries: a longer column is all that is left of it.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    diagonal = rng.chisquare(n - np.arange(m), (count, m))
    diagonal[:, 0] = rng.noncentral_chisquare(n, theta**2, count)
    above = rng.chisquare(np.arange(m - 1, 0, -1), (count, m - 1))
    beside = np.sqrt(diagonal[:, :-1] * above)
    diagonal[:, 1:] += above
    evals = [
        eigvalsh_tridiagonal(a, b, check_finite=False, lapack_driver="sterf")
        for a, b in zip(diagonal, beside, strict=True)
    ]
    return np.maximum(np.stack(evals), 0.0)


def fits(evals: Evals, n: int, m: int, level: float = QUANTILE) -> tuple[np.ndarray, np.ndarray]:
    """Sigma and the number of spikes for each of the spectra."""
    size = next(size for size in PADDED if size >= evals.shape[1])
    tw = quantile(level)
    with jax.enable_x64(True):
        found = [fit_bulk(_as_esd(row, n, size), n, m, 1, tw) for row in evals]
    return np.array([fit.sigma for fit in found]), np.array([fit.num_spikes for fit in found])


def _as_esd(evals: np.ndarray, n: int, size: int) -> ESD:
    floor = float(evals[-1]) * n * np.finfo(float).eps
    return host.padded(host.as_esd(evals, n=evals.size, floor=floor), size)


def _sigmas(
    shape: tuple[int, int], spikes: int, draws: int, seed: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Sigma as it is estimated, and as the noise of each draw has it."""
    rng = np.random.default_rng(seed)
    edge = np.sqrt(shape[0]) + np.sqrt(shape[1])
    thetas = edge * np.linspace(*STRENGTHS, spikes)
    drawn = [spiked(rng, *shape, thetas) for _ in range(draws)]
    return fits(np.stack([evals for evals, _ in drawn]), *shape)[0], np.array(
        [known for _, known in drawn]
    )


def _sigma_of_large(shape: tuple[int, int], draws: int, number: int) -> Iterator[Finding]:
    """Each within 1 %, and the mean of all within 0.2 %; a few have a less certain mean."""
    off = [_sigmas(shape, k, draws, [1, number, k])[0] - 1.0 for k in SPIKES]
    what = f"sigma of {shape[0]} x {shape[1]} with {_spikes()} spikes"
    yield at_most(f"{what}: worst of {draws} draws", max(np.abs(off).ravel()), MOST_OFF)
    doubt = 3.0 / np.sqrt(2 * shape[0] * shape[1] * draws) if draws < FULL // CASES_A_DRAW else 0.0
    mean = max(np.abs(np.mean(off, axis=1)))
    yield at_most(f"{what}: largest of the mean errors", mean, round(MEAN_OFF + doubt, 5))


def _sigma_of_small(draws: int) -> Iterator[Finding]:
    """How far from the truth, and from what the noise of each draw tells at best."""
    off, beside = [], []
    for number, shape in enumerate(SMALL):
        for k in SPIKES:
            found, known = _sigmas(shape, k, draws, [2, number, k])
            off.extend(np.abs(found - 1.0) * np.sqrt(2 * shape[0] * shape[1]))
            beside.extend(np.abs(found - known) * np.sqrt(2 * shape[0] * shape[1]))
    sides = ", ".join(f"{n} x {m}" for n, m in SMALL)
    what = f"sigma of {sides} with {_spikes()} spikes"
    within = int(np.sum(np.array(off) < STANDARD_ERRORS))
    yield share(
        f"{what}: within 3.5 / sqrt(2 N M)", within, len(off), low=0.995, high=1.0, full=FULL
    )
    yield Finding(
        what="the worst of these, in 1 / sqrt(2 N M)", asked="", measured=f"{max(off):.2f}"
    )
    near = int(np.sum(np.array(beside) < BESIDE))
    yield share(
        "the same within 0.5 / sqrt(2 N M) of the root mean square of the noise outside the spikes",
        near,
        len(beside),
        low=0.98,
        high=1.0,
        full=FULL,
    )


def _sigma_under_weak_spikes(draws: int) -> Iterator[Finding]:
    """No bound is asked for: what cannot be told from noise counts as noise."""
    n, m = 256, 256
    for strength in WEAK:
        rng = np.random.default_rng([4, int(10 * strength)])
        thetas = np.full(10, strength * (n * m) ** 0.25)
        evals = np.stack([spiked(rng, n, m, thetas)[0] for _ in range(draws)])
        mean = np.mean(fits(evals, n, m)[0]) - 1.0
        what = f"sigma of {n} x {m} with ten spikes of {strength:g} theta_c: mean error"
        yield Finding(what=what, asked="", measured=f"{mean:.2%}")


def _false_alarms(shape: tuple[int, int], count: int) -> Iterator[Finding]:
    """How often noise alone shows a spike, where it is to be one time in 100, or in 1,000."""
    evals = once_spiked(np.random.default_rng([5, *shape]), *shape, 0.0, count)
    shares = [np.mean(fits(evals, *shape, level)[1] > 0) for level in (0.99, 0.999)]
    measured = f"{shares[0]:.1%} at 0.99, {shares[1]:.1%} at 0.999"
    what = f"noise of {shape[0]} x {shape[1]} shows a spike, of {count:,}"
    yield Finding(what=what, asked="", measured=measured)


def _spikes() -> str:
    return ", ".join(map(str, SPIKES[:-1])) + f" and {SPIKES[-1]}"


def _curve(shape: tuple[int, int], count: int, number: int) -> Iterator[Finding]:
    """The share of spectra with a spike over its strength, and what is asked of three of them."""
    visible = (shape[0] * shape[1]) ** 0.25
    shares = {}
    for strength in CURVE:
        rng = np.random.default_rng([3, number, int(100 * strength)])
        evals = once_spiked(rng, *shape, strength * visible, count)
        shares[strength] = int(np.sum(fits(evals, *shape)[1] > 0))
    what = f"{shape[0]} x {shape[1]}: a spike is found"
    table = ", ".join(f"{hits / count:.1%} at {x:g}" for x, hits in shares.items())
    yield Finding(what=f"{what}, by strength over theta_c", asked="", measured=table)
    asked = {0.8: (0.0, 0.05), 2.0: (1.0, 1.0)}
    if min(shape) >= 256:
        asked[1.5] = (0.95, 1.0)
    for strength, (low, high) in sorted(asked.items()):
        yield share(
            f"{what} at {strength:g} theta_c",
            shares[strength],
            count,
            low=low,
            high=high,
            full=FULL,
        )
