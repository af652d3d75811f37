"""Distances of the spectra of two matrices, which no rotation of rows or columns changes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wwfunc import host


def wasserstein(A: Float[np.ndarray, "n m"], B: Float[np.ndarray, "n m"]) -> float:
    r"""Wasserstein distance of the singular values.

    .. math:: W_1 = \frac{1}{M} \sum_{i=1}^M |\sigma_i(A) - \sigma_i(B)|
              \le \|A - B\|_F / \sqrt{M}

    Notes
    -----
    Paired by rank, which is the optimal transport of two samples of one size. The bound is
    Mirsky's. Singular values are roots of eigenvalues, which are right within 1e-16 of the largest:
    those that are zero may come out as 1e-8 of it.

    References
    ----------
    Mirsky, Quarterly Journal of Mathematics 11 (1960), doi:10.1093/qmath/11.1.50.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.comparison.spectraldistances import wasserstein
    >>> wasserstein(np.diag([3.0, 1.0]), np.diag([2.0, 4.0]))
    1.0
    """
    first, second = (np.sqrt(_evals(W)) for W in (A, B))
    return float(np.mean(np.abs(first - second)))


def jensen_shannon(A: Float[np.ndarray, "n m"], B: Float[np.ndarray, "n m"]) -> float:
    r"""Jensen-Shannon distance of the eigenvalues as shares of their sum.

    .. math:: d^2 = \frac{1}{2} \sum_i p_i \ln \frac{p_i}{m_i} + q_i \ln \frac{q_i}{m_i},
              \quad p_i = \frac{\lambda_i(A)}{\sum_j \lambda_j(A)}, \quad m = (p + q) / 2

    Notes
    -----
    0 for the same shape at any scale, at most sqrt(ln 2) = 0.833; NaN where a matrix is zero. It is
    what `rand_distance` is for a layer and its shuffle.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.comparison.spectraldistances import jensen_shannon
    >>> A = np.random.default_rng(0).standard_normal((5, 4))
    >>> jensen_shannon(A, 10 * A) < 1e-7
    True
    """
    first, second = _evals(A), _evals(B)
    p, q = (evals / evals.sum() if evals.sum() > 0 else evals * np.nan for evals in (first, second))
    middle = (p + q) / 2
    from scipy.special import rel_entr  # slow to import, and seldom needed

    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum() / 2
    return float(np.sqrt(max(divergence, 0.0)))


def _evals(W: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " M"]:
    tall = W if W.shape[0] >= W.shape[1] else W.T
    return host.eigenvalues(host.grams(tall[None]))[0]
