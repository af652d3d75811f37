"""What a vector of random direction has of the singular-vector metrics.

Each singular vector of a Gaussian matrix is uniform on the sphere. The metrics are free of scale,
so that they are those of a vector of independent Gaussians (Porter and Thomas).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float

from wwfunc.checks import count
from wwfunc.localization import BINS
from wwfunc.pytrees import Array, record

NODES = 48
"""Of Gauss and Legendre over the largest magnitude; a quarter as many over the smallest."""


@record
class RandomVector:
    """Expected values over random directions."""

    vec_entropy: Float[Array, ""]
    loc_ratio: Float[Array, ""]
    part_ratio: Float[Array, ""]


@functools.lru_cache(maxsize=256)
def random_vector(length: int) -> RandomVector:
    r"""Compute the expected localisation of a vector of random direction.

    .. math::
        E \frac{\|x\|_1}{\|x\|_\infty} &= 1 + (n - 1)
        \int \frac{2 (\varphi(0) - \varphi(t))}{t F(t)} dF(t)^n, \\
        E \frac{\|x\|_2}{\|x\|_4} &= \frac{1}{E \|x\|_2^{-1}} \frac{1}{\Gamma(1/4)}
        \int_0^\infty s^{-3/4} \left(E e^{-s x_1^4}\right)^n ds

    with independent Gaussian x_i, F(t) = erf(t / sqrt(2)) the distribution of \|x_i\|.

    Parameters
    ----------
    length
        Number of elements n, a whole number from 1.

    Returns
    -------
    RandomVector
        The means of the three metrics of `wwfunc.vectors.vector_metrics`.

    Raises
    ------
    OptionError
        If `length` is not a whole number from 1.

    Notes
    -----
    On the host, to about 1e-6; a tenth of a second, once for each length. Given the largest
    magnitude the others are independent, and the direction is independent of the norm: both
    integrals are exact. Given the smallest and the largest magnitude the counts of the 100 bins
    are binomial: the entropy is an integral over both, without WeightWatcher's 1e-10.

    References
    ----------
    Porter, Thomas, Physical Review 104 (1956), doi:10.1103/PhysRev.104.483.

    Examples
    --------
    >>> from wwfunc.randommatrix.randomvectors import random_vector
    >>> expected = random_vector(300)
    >>> round(float(expected.loc_ratio), 2), round(float(expected.part_ratio), 4)
    (78.36, 3.1716)
    """
    length = count("length", length)
    if length == 1:
        return _record(0.0, 1.0, 1.0)
    return _record(_entropy(length), _loc_ratio(length), _part_ratio(length))


def _record(*means: float) -> RandomVector:
    vec_entropy, loc_ratio, part_ratio = map(np.asarray, means)
    return RandomVector(vec_entropy=vec_entropy, loc_ratio=loc_ratio, part_ratio=part_ratio)


def _loc_ratio(n: int) -> float:
    largest, weights = _largest(n, 4 * NODES)
    below = 2.0 * (_density(0.0) - _density(largest)) / (largest * _share(largest))
    return 1.0 + (n - 1) * float(weights @ below)


def _part_ratio(n: int) -> float:
    from scipy.special import gammaln, kve

    logs = np.arange(-160.0, 160.0, 0.05)  # the trapezoid in log s; both ends have fallen by e^-40
    s = np.exp(logs)
    # E exp(-s x^4) in closed form, and for small s, where the Bessel function fails, its series.
    z = 1.0 / (32.0 * np.maximum(s, 1e-6))
    transform = np.log(kve(0.25, z) / (4.0 * np.sqrt(np.pi * np.maximum(s, 1e-6))))
    log_mean = np.where(s < 1e-6, -3.0 * s + 48.0 * s**2, transform)
    inverse_l4 = 0.05 * np.sum(np.exp(logs / 4 + n * log_mean)) / math.gamma(0.25)
    inverse_l2 = math.exp(gammaln((n - 1) / 2) - gammaln(n / 2)) / math.sqrt(2.0)
    return float(inverse_l4 / inverse_l2)


def _entropy(n: int) -> float:
    """H = ln n - sum_b E[c_b ln c_b] / n."""
    largest, weights = _largest(n, NODES)
    u, smallest_weights = _legendre(NODES // 4, 0.0, 1.0)
    mean = 0.0
    for top, weight in zip(largest, weights, strict=True):
        # F(smallest) / F(largest) is the smallest of n - 1 uniform numbers.
        bottoms = _quantile(_share(top) * (1.0 - u ** (1.0 / (n - 1))))
        mean += weight * (smallest_weights @ _count_logs(n - 2, bottoms, top))
    return math.log(n) - float(mean) / n


def _count_logs(n: int, bottoms: np.ndarray, top: float) -> Float[np.ndarray, " bottoms"]:
    """sum_b E[c_b ln c_b]: n elements fall anywhere, one in the first and one in the last bin."""
    edges = bottoms[:, None] + (top - bottoms[:, None]) * np.linspace(0.0, 1.0, BINS + 1)
    inside = np.diff(_share(edges), axis=1)
    q = inside / inside.sum(axis=1, keepdims=True)
    # E[c g(c)] = n q E[g(1 + c')] where c' is of one element less.
    middle = n * q[:, 1:-1] * _mean_log(1, n - 1, q[:, 1:-1])
    ends = q[:, [0, -1]]
    outer = _mean_log(1, n, ends) + n * ends * _mean_log(2, n - 1, ends)
    return middle.sum(axis=1) + outer.sum(axis=1)


def _mean_log(start: int, n: int, q: np.ndarray) -> np.ndarray:
    """E ln(start + c), c binomial (n, q): ln x = int_0^inf (e^-s - e^-xs) / s ds."""
    step = 0.4
    logs = np.arange(-36.0, 4.0, step)
    s = np.exp(logs)
    transform = np.exp(max(n, 0) * np.log1p(q[..., None] * np.expm1(-s)))
    return step * np.sum(np.exp(-s) - np.exp(-start * s) * transform, axis=-1)


def _largest(n: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the largest of n magnitudes, and their probabilities."""
    from scipy.special import erfcinv

    low, high = float(_quantile(1e-15 ** (1.0 / n))), math.sqrt(2.0) * float(erfcinv(1e-15 / n))
    t, weights = _legendre(nodes, low, high)
    return t, weights * n * _share(t) ** (n - 1) * 2.0 * _density(t)


def _legendre(nodes: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    x, weights = np.polynomial.legendre.leggauss(nodes)
    half = (high - low) / 2.0
    return low + half * (x + 1.0), half * weights


def _share(t: np.ndarray | float) -> np.ndarray:
    from scipy.special import erf

    return erf(t / math.sqrt(2.0))


def _quantile(share: np.ndarray | float) -> np.ndarray:
    from scipy.special import erfinv

    return math.sqrt(2.0) * erfinv(share)


def _density(t: np.ndarray | float) -> np.ndarray:
    return np.exp(-np.square(t) / 2.0) / math.sqrt(2.0 * math.pi)
