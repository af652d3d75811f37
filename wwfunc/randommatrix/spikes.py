"""The spikes of shuffled weights, slice by slice, beside the noise that each slice is of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt32

from wwfunc import host
from wwfunc.checks import as_float, one_of
from wwfunc.errors import OptionError
from wwfunc.options import MP_METHODS, MPMethod
from wwfunc.pytrees import Array
from wwfunc.randommatrix.marchenkopastur import mp_fit
from wwfunc.randommatrix.permutation import Words, folded, host_permute, words
from wwfunc.randommatrix.shuffling import host_shuffled
from wwfunc.spectrum import ESD
from wwfunc.status import Status

HUGE = 1e4
"""Elements of more than so many theta_c are spikes by themselves ..."""
FEW_HUGE = 8
"""... if there are no more of them in a slice: otherwise they are what the slice is."""
NORMAL_MEDIAN = 0.6744897501960817
"""Of the magnitude of a standard Gaussian number."""


class SliceNoise(NamedTuple):
    """What the slices are without their spikes."""

    sigma: Float[np.ndarray, " slices"]
    """Standard deviation of the elements."""
    theta_c: Float[np.ndarray, " slices"]
    """Strength from which on an element makes a spike: sigma (n m)^(1/4)."""
    edge: Float[np.ndarray, " slices"]
    """An eigenvalue above it is a spike."""
    status: Int[np.ndarray, " slices"]


class Spike(NamedTuple):
    """One spike of the shuffled slice `P`, whose element i was element `positions[i]` of W."""

    slice: int
    P: Float[np.ndarray, "n m"]
    positions: UInt32[np.ndarray, " elements"]
    s: float
    left: Float[np.ndarray, " n"]
    right: Float[np.ndarray, " m"]


def look(
    key: Array | UInt32[Array, " 2"],
    stack: Float[np.ndarray, "k n m"],
    method: MPMethod,
    quantile: float,
) -> tuple[SliceNoise, Iterator[Spike]]:
    """Shuffle each slice; what its noise is, and its spikes, made when they are asked for."""
    one_of(*MP_METHODS)("method", method)
    slices, n, m = stack.shape
    drawn = words(key)
    aside, rest = _set_aside(stack)
    evals = np.zeros((slices, min(n, m)))
    for index in range(slices):
        evals[index] = host.eigenvalues(_gram(_shuffled(drawn, rest, index)))[0]
    noise = _noise(evals, n, m, method, quantile)
    counts = np.sum(evals > noise.edge[:, None], axis=1)
    return noise, _spikes(drawn, stack, aside, rest, counts)


def _set_aside(
    stack: Float[np.ndarray, "k n m"],
) -> tuple[list[Int[np.ndarray, " few"]], Float[np.ndarray, "k n m"]]:
    """Where elements stand that are spikes whatever stands beside them, and the stack without.

    One of 1e8 sigma leaves nothing of the noise in double precision.
    """
    aside = [_huge(matrix) for matrix in stack]
    if not any(places.size for places in aside):
        return aside, stack
    rest = stack.copy()
    for matrix, places in zip(rest, aside, strict=True):
        matrix.reshape(-1)[places] = 0
    return aside, rest


def _huge(matrix: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " few"]:
    """A few elements of more than `HUGE` times theta_c, as the median element has it."""
    none = np.zeros(0, np.int64)
    size = np.abs(matrix.astype(np.float64)).ravel()
    largest = size.max(initial=0.0)
    # They hold nearly all of the norm: where none does, the median need not be found.
    if not 0 < largest < np.inf or np.sum((size / largest) ** 2) > 2 * FEW_HUGE:
        return none
    typical = np.median(size[size > 0]) / NORMAL_MEDIAN
    places = np.flatnonzero(size > HUGE * typical * size.size**0.25)
    return places if places.size <= FEW_HUGE else none


def _noise(
    evals: Float[np.ndarray, "k evals"], n: int, m: int, method: MPMethod, quantile: float
) -> SliceNoise:
    """Sigma and edge of each slice; WeightWatcher's are those of all slices together."""
    slices = len(evals)
    if not evals.size:
        none, zero = np.full(slices, np.nan), np.full(slices, Status.ALL_ZERO, np.int32)
        return SliceNoise(sigma=none, theta_c=none, edge=none, status=zero)
    if method == "kde":
        pooled = host.pooled(evals, max(n, m))
        fits = [mp_fit(_padded(pooled), n, m, slices=slices, method=method)] * slices
    else:
        # A spike in any of the slices is a spike of the layer.
        each = _quantile(quantile) ** (1 / slices)
        esds = [_padded(host.pooled(one, max(n, m))) for one in evals]
        fits = [mp_fit(one, n, m, method=method, quantile=each) for one in esds]
    sigma, edge = (np.array([getattr(fit, name) for fit in fits]) for name in ("sigma", "edge"))
    status = np.array([fit.status for fit in fits], np.int32)
    return SliceNoise(sigma=sigma, theta_c=sigma * (n * m) ** 0.25, edge=edge, status=status)


def _padded(spectrum: ESD) -> ESD:
    """One program serves all spectra up to the same power of two."""
    return host.padded(spectrum, max(64, 1 << (spectrum.evals.size - 1).bit_length()))


def _quantile(value: float) -> float:
    if not 0 < as_float(value) < 1:
        raise OptionError(f"quantile is a number between 0 and 1, not {value!r}")
    return float(value)


def _spikes(
    drawn: Words,
    stack: Float[np.ndarray, "k n m"],
    aside: list[Int[np.ndarray, " few"]],
    rest: Float[np.ndarray, "k n m"],
    counts: Int[np.ndarray, " k"],
) -> Iterator[Spike]:
    """Slice by slice: what was set aside, then the largest `counts` in descending order."""
    for index, (places, number) in enumerate(zip(aside, counts, strict=True)):
        if places.size or number:
            positions = host_permute(folded(drawn, index), stack[index].size)
        if places.size:
            yield from _lone(index, _shuffled(drawn, stack, index), positions, places)
        if number:
            yield from _decomposed(index, _shuffled(drawn, rest, index), positions, int(number))


def _lone(
    index: int, P: np.ndarray, positions: np.ndarray, places: Int[np.ndarray, " few"]
) -> Iterator[Spike]:
    """Spikes of one element each, the largest first."""
    P = P.astype(np.float64)
    found = np.flatnonzero(np.isin(positions, places))
    for place in sorted(found, key=lambda place: -abs(P.flat[place])):
        row, column = divmod(int(place), P.shape[1])
        left, right = (np.zeros(side) for side in P.shape)
        left[row], right[column] = 1.0, np.sign(P[row, column])
        yield Spike(index, P, positions, abs(float(P[row, column])), left, right)


def _decomposed(index: int, P: np.ndarray, positions: np.ndarray, number: int) -> Iterator[Spike]:
    from scipy.linalg import eigh  # slow to import, and seldom needed

    P = P.astype(np.float64)
    side = min(P.shape)
    evals, vectors = eigh(_gram(P)[0], lower=True, subset_by_index=[side - number, side - 1])
    for s, vector in zip(np.sqrt(evals[::-1]), vectors.T[::-1], strict=True):
        other = _tall(P) @ vector / s
        left, right = (other, vector) if P.shape[0] >= P.shape[1] else (vector, other)
        yield Spike(index, P, positions, float(s), left, right)


def _shuffled(
    drawn: Words, stack: Float[np.ndarray, "k n m"], index: int
) -> Float[np.ndarray, "n m"]:
    return host_shuffled(drawn, stack, part=slice(index, index + 1))[0]


def _gram(P: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "1 side side"]:
    return host.grams(_tall(P)[None])


def _tall(P: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    return P if P.shape[0] >= P.shape[1] else P.T
