"""Correlation traps: how often there are some, what makes them, and weights without them.

Gaussian elements have none. Student's t with few degrees of freedom has large elements, and each
trap is to have one over theta_c = sigma (N M)^(1/4). A spike of the shuffled matrix is no trap
where no such element makes it; those are counted too. Sharpening is given Gaussian noise with one
to five signals of rank one and thirty elements or fewer of 2 to 6 theta_c, and compared with the
same matrix before these were planted. Zero is not what stood there: that alone turns weak signals
in small matrices, whoever finds the places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from validation.finding import Finding, at_most, share
from wwfunc.options import MP_METHODS
from wwfunc.randommatrix.traps import analyze_traps
from wwfunc.transforms.sharpening import remove_traps

FULL = 1000

SHAPES = ((64, 64), (128, 64), (640, 64), (256, 256), (1000, 500))
LARGE = 1 << 16
"""From so many elements on a short campaign has a tenth of the cases."""
FREEDOMS = (3, 4, 5)
STUDENT_SHAPES = ((128, 64), (256, 256), (1000, 500))

SHARPENED = ((256, 256), (512, 256), (1000, 500))
ASKED_FROM = 500
"""The subspace of signals is asked to stay where the smaller side is so long."""
STRENGTHS = (1.5, 4.0)
MOST_TRAPS, MOST_SIGNALS = 30, 5
FRESH_KEYS = 20


class Sharpening(NamedTuple):
    """How one sharpened matrix differs from the one before elements were planted."""

    exact: bool
    """Whether the planted elements are zero and all others are as they were."""
    traps: int
    """Under all fresh keys."""
    spikes: int
    signals: float
    """The largest relative deviation of the signals' singular values."""
    others: float
    """The largest deviation of any singular value, over the largest one of the noise."""
    sine: float
    """Of the largest angle between the subspaces of the signals."""


def campaign(cases: int) -> Iterator[Finding]:
    """Yield false traps, the causes of true ones, and what sharpening changes."""
    with threadpool_limits(1, "blas"):  # the matrices are too small for threads
        for shape in SHAPES:
            yield from gaussian(shape, _fewer(cases, shape))
        for freedom in FREEDOMS:
            for shape in STUDENT_SHAPES:
                yield from student(freedom, shape, max(1, _fewer(cases, shape) // 5))
        for shape in SHARPENED:
            yield from sharpening(shape, max(2, _fewer(cases, shape) // 5))


def gaussian(shape: tuple[int, int], cases: int) -> Iterator[Finding]:
    """How many matrices of independent Gaussian elements show a spike once they are shuffled."""
    for number, method in enumerate(MP_METHODS):
        rng = np.random.default_rng([1, number, *shape])
        hits = 0
        for case in range(cases):
            W = rng.standard_normal(shape)
            hits += bool(analyze_traps(jax.random.key(case), W, method=method).num_spikes)
        yield share(
            f"Gaussian {_name(shape)}, {method}: matrices with a spike, shuffled",
            hits,
            cases,
            low=0.0,
            high=0.01,
            full=FULL,
        )


def student(freedom: int, shape: tuple[int, int], cases: int) -> Iterator[Finding]:
    """How many heavy-tailed matrices have traps, and how many of the spikes have a cause."""
    rng = np.random.default_rng([2, freedom, *shape])
    layers = traps = matched = spikes = 0
    for case in range(cases):
        W = rng.standard_t(freedom, shape)
        found = analyze_traps(jax.random.key(case), W)
        for trap in found.traps:
            element = trap.elements[0]
            size = abs(W[element.row, element.column])
            matched += bool(size == abs(element.value) and size >= found.theta_c[0])
        layers += bool(found.traps)
        traps += len(found.traps)
        spikes += len(found.traps) + len(found.others)
    what = f"Student's t, {freedom} degrees of freedom, {_name(shape)}:"
    yield Finding(what=f"{what} matrices with traps", asked="", measured=_part(layers, cases))
    yield Finding(what=f"{what} spikes that are traps", asked="", measured=_part(traps, spikes))
    yield at_most(f"{what} traps without an element above theta_c", traps - matched, 0)


def sharpening(shape: tuple[int, int], cases: int) -> Iterator[Finding]:
    """Remove planted elements, and look at what is left."""
    rng = np.random.default_rng([3, *shape])
    found = [_sharpened(rng, shape, case) for case in range(cases)]
    what = f"Sharpening {_name(shape)}:"
    inexact = sum(not one.exact for one in found)
    yield at_most(f"{what} matrices whose changed elements are not the planted ones", inexact, 0)
    traps, spikes = (sum(getattr(one, name) for one in found) for name in ("traps", "spikes"))
    yield at_most(f"{what} traps under {FRESH_KEYS} fresh keys each", traps, 0)
    looks = cases * FRESH_KEYS
    yield Finding(what=f"{what} fresh keys with a spike", asked="", measured=_part(spikes, looks))
    yield _largest(f"{what} signals' singular values, relatively", found, "signals", 0.005)
    yield _largest(f"{what} any singular value, over the noise's largest", found, "others", 0.005)
    sines = f"{what} sine of the angle between the signals' subspaces"
    asked = 0.02 if min(shape) >= ASKED_FROM else None
    yield _largest(sines, found, "sine", asked)
    median = np.median([one.sine for one in found])
    yield Finding(what=f"{sines}, median", asked="", measured=f"{median:.3g}")


def _sharpened(rng: np.random.Generator, shape: tuple[int, int], case: int) -> Sharpening:
    clean, signals = _with_signals(rng, shape)
    places = rng.choice(clean.size, int(rng.integers(1, MOST_TRAPS + 1)), replace=False)
    dirty = clean.copy()
    strengths = rng.uniform(2.0, 6.0, places.size) * rng.choice([-1, 1], places.size)
    dirty.flat[places] = clean.size**0.25 * strengths
    W = remove_traps(jax.random.key(case), dirty).W
    dirty.flat[places] = 0.0
    keys = jax.random.split(jax.random.key(FULL + case), FRESH_KEYS)
    fresh = [analyze_traps(key, W) for key in keys]
    return Sharpening(
        bool(np.array_equal(W, dirty)),
        sum(one.num_traps or 0 for one in fresh),
        sum(bool(one.num_spikes) for one in fresh),
        *_moved(clean, W, signals),
    )


def _with_signals(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Gaussian noise with one to five delocalised matrices of rank one."""
    W = rng.standard_normal(shape)
    signals = int(rng.integers(1, MOST_SIGNALS + 1))
    for strength in rng.uniform(*STRENGTHS, signals) * W.size**0.25:
        u, v = rng.standard_normal(shape[0]), rng.standard_normal(shape[1])
        W += strength * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return W, signals


def _moved(clean: np.ndarray, W: np.ndarray, signals: int) -> tuple[float, float, float]:
    u, s, v = np.linalg.svd(clean, full_matrices=False)
    u_new, s_new, v_new = np.linalg.svd(W, full_matrices=False)
    relative = np.abs(s_new / s - 1)[:signals].max()
    absolute = np.abs(s_new - s).max() / s[signals]
    pairs = (u[:, :signals], u_new[:, :signals]), (v[:signals].T, v_new[:signals].T)
    return float(relative), float(absolute), max(_sine(*pair) for pair in pairs)


def _sine(one: np.ndarray, other: np.ndarray) -> float:
    cosines = np.linalg.svd(one.T @ other, compute_uv=False)
    return float(np.sqrt(max(0.0, 1.0 - cosines.min() ** 2)))


def _largest(what: str, found: list[Sharpening], name: str, bound: float | None) -> Finding:
    value = max(getattr(one, name) for one in found)
    if bound is None:
        return Finding(what=f"{what}, largest", asked="", measured=f"{value:.3g}")
    return at_most(f"{what}, largest", value, bound)


def _fewer(cases: int, shape: tuple[int, int]) -> int:
    return cases if cases >= FULL or np.prod(shape) < LARGE else max(2, cases // 10)


def _part(hits: int, of: int) -> str:
    return f"{hits / of:.1%} of {of:,}" if of else "none"


def _name(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
