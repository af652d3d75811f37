"""How large the largest eigenvalue of a random matrix gets: the Tracy-Widom law of order 1."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from wwfunc.checks import as_float
from wwfunc.errors import OptionError
from wwfunc.pytrees import Array

NODES = 60
"""Of Gauss and Legendre: with 40 already nothing but rounding is left of the determinant."""

_AIRY_ENDS = 16.0
"""Ai is under 1e-19 from here on."""

_BRACKET = (-12.0, 20.0)

_SERIES_RANGE = (1e-6, -math.log(0.9))
"""Values of -log(p) between which `_SERIES` holds: 0.9 and up."""

_SERIES = (
    3.597076485261109,
    -2.854135847496567,
    -0.23228030081261622,
    -0.046213932318996814,
    -0.010924771327001004,
    -0.00262916703251745,
    -0.0006006422895875023,
    -0.00012402046210308995,
    -2.1779325090747822e-05,
    -2.808679620072744e-06,
    -7.92702756755138e-08,
    9.923941864487563e-08,
    4.097754057597994e-08,
    1.059911969097319e-08,
    1.932570902741313e-09,
    1.660644570633946e-10,
    -5.344524239307531e-11,
    -3.299843866229036e-11,
    -1.354743773236408e-11,
    -2.0061028583073403e-12,
    -1.3180171932578258e-12,
)
"""Chebyshev coefficients of the quantile, as a function of log(-log(p)) over `_SERIES_RANGE`."""


def distribution(s: float) -> float:
    r"""Compute the distribution function of the Tracy-Widom law of order 1.

    .. math:: F_1(s) = \det(1 - K_s), \quad
        K_s(x, y) = \tfrac12 \mathrm{Ai}\left(\tfrac{x + y}{2} + s\right), \quad x, y > 0

    Parameters
    ----------
    s
        A number.

    Returns
    -------
    float
        The probability that a variable with this law is at most `s`, to about 14 digits after the
        point.

    Notes
    -----
    On the host, by Gauss-Legendre quadrature of the determinant; some milliseconds.

    References
    ----------
    Ferrari, Spohn, J. Phys. A 38 (2005), doi:10.1088/0305-4470/38/33/L02.
    Bornemann, Math. Comp. 79 (2010), doi:10.1090/S0025-5718-09-02280-7.

    Examples
    --------
    >>> from wwfunc.randommatrix.tracywidom import distribution
    >>> round(distribution(2.0234492814), 10)
    0.99
    """
    return math.exp(_log_distribution(float(s)))


@functools.cache
def quantile(p: float, of: int = 1) -> float:
    """Find the value that a variable with the Tracy-Widom law of order 1 exceeds with 1 - p.

    Parameters
    ----------
    p
        A probability, above 0 and under 1.
    of
        How many independent variables: the largest of them exceeds the value with 1 - p.

    Returns
    -------
    float
        The quantile to 1e-10 for p from 1e-4 to 1 - 1e-6; what rounding leaves of it outside.

    Raises
    ------
    OptionError
        If `p` is no probability, or is 0 or 1.

    Notes
    -----
    From 0.9 on, up to 1 - 1e-6, a Chebyshev series: microseconds, and no import of SciPy. Elsewhere
    the root of the determinant, some 100 ms. Results are kept.

    References
    ----------
    Bornemann, Markov Processes Relat. Fields 16 (2010), arXiv:0904.1581.

    Examples
    --------
    >>> from wwfunc.randommatrix.tracywidom import quantile
    >>> [round(quantile(p), 4) for p in (0.05, 0.5, 0.95, 0.99)]
    [-3.1804, -1.2686, 0.9793, 2.0234]
    """
    if not 0 < as_float(p) < 1:
        raise OptionError(f"a quantile is a number above 0 and under 1, not {p!r}")
    low, high = _SERIES_RANGE
    rarity = -math.log(p) / of
    if low <= rarity <= high:
        return _series(math.log(rarity**2 / (low * high)) / math.log(high / low))
    return _root(rarity)


def largest_eigenvalue(
    n: Float[ArrayLike, "*batch"], m: Float[ArrayLike, "*batch"], tw: Float[ArrayLike, "*batch"]
) -> Float[Array, "*batch"]:
    r"""Turn a Tracy-Widom quantile into one of the largest eigenvalue of a Gaussian matrix.

    .. math:: \mu + s \, \tau, \quad
        \mu = \left(\sqrt{n - \tfrac12} + \sqrt{m - \tfrac12}\right)^2, \quad
        \tau = \sqrt{\mu} \left(\frac1{\sqrt{n - 1/2}} + \frac1{\sqrt{m - 1/2}}\right)^{1/3}

    Parameters
    ----------
    n, m
        Sides of the matrix W, from 1, in any order.
    tw
        The Tracy-Widom quantile s; for the largest of k matrices, that of p^(1 / k).

    Returns
    -------
    Array
        The eigenvalue of W^T W, for standard Gaussian entries, which the largest one exceeds with
        the probability of the quantile.

    Notes
    -----
    Works under `jit`, `vmap` and `grad`. Exact in the limit; the halves make what is left of the
    error of the order of min(n, m)^(-2/3).

    References
    ----------
    Johnstone, Annals of Statistics 29 (2001), doi:10.1214/aos/1009210544.
    Ma, Bernoulli 18 (2012), doi:10.3150/10-BEJ334.

    Examples
    --------
    >>> from wwfunc.randommatrix.tracywidom import largest_eigenvalue, quantile
    >>> round(float(largest_eigenvalue(500.0, 250.0, quantile(0.99))), 1)
    1491.8
    """
    longer, shorter = jnp.sqrt(jnp.asarray(n) - 0.5), jnp.sqrt(jnp.asarray(m) - 0.5)
    edge = longer + shorter
    return edge**2 + tw * edge * jnp.cbrt(1.0 / longer + 1.0 / shorter)


def _series(x: float) -> float:
    """Clenshaw's sum of the Chebyshev series."""
    after, later = 0.0, 0.0
    for coefficient in _SERIES[:0:-1]:
        after, later = coefficient + 2.0 * x * after - later, after
    return _SERIES[0] + x * after - later


def _root(rarity: float) -> float:
    """The quantile of exp(-rarity) from the determinant, by logs where those keep the digits."""
    from scipy.optimize import brentq  # slow to import, and seldom needed

    def above(s: float) -> float:
        return math.log(-_log_distribution(s) / rarity)

    def below(s: float) -> float:
        return math.exp(-rarity) - distribution(s)

    return float(brentq(above if rarity < 1 else below, *_BRACKET, xtol=1e-13, rtol=1e-14))


def _log_distribution(s: float) -> float:
    """Log of det(1 - K_s) from the eigenvalues of the kernel, which keeps the digits of a small K.

    The kernel lives where Ai does, up to x / 2 + s = 16; far to the left rounding lets an
    eigenvalue reach 1.
    """
    from scipy.special import airy  # slow to import, and seldom needed

    length = 2.0 * max(_AIRY_ENDS - s, 4.0)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    x, root = (nodes + 1.0) * length / 2.0, np.sqrt(weights * length / 2.0)
    kernel = root[:, None] * airy((x[:, None] + x) / 2.0 + s)[0] / 2.0 * root
    evals = np.minimum(np.linalg.eigvalsh(kernel), 1.0 - np.finfo(float).eps)
    return float(np.sum(np.log1p(-evals)))
