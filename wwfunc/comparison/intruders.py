"""Intruder dimensions: leading directions after fine-tuning that the base model has none like."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wwfunc import host

LEADING = 10
"""So many of the leading directions are looked at."""
UNLIKE = 0.5
"""A direction whose cosine with every one of the base's is smaller is an intruder."""


def intruder_dimensions(
    base: Float[np.ndarray, "n m"],
    tuned: Float[np.ndarray, "n m"],
    *,
    leading: int = LEADING,
    unlike: float = UNLIKE,
) -> int:
    r"""Count the leading left singular vectors of `tuned` that no one of `base` is near.

    .. math:: \#\{j \le k : \max_i |u_i^\top u'_j| < \epsilon\}

    over all left singular vectors u of the base and the first k, u', of the tuned weights.

    Parameters
    ----------
    base, tuned
        A matrix (outputs, inputs) before and after.
    leading
        k.
    unlike
        epsilon.

    Notes
    -----
    Directions in which the base is zero are none of the base's. Where singular values are equal, as
    those of an orthogonal matrix are, their vectors and so the count are a matter of rounding. On
    the host in float64, O(n m^2) for two Gram matrices of the smaller side and their vectors;
    vectors of the longer side are never formed. Low-rank adapters have such directions and full
    fine-tuning has none, Shuttleworth et al. find, who take k = 10 and several epsilon.

    References
    ----------
    Shuttleworth, Andreas, Torralba, Sharma (2024), arXiv:2410.21228, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.comparison.intruders import intruder_dimensions
    >>> base = np.random.default_rng(0).standard_normal((300, 200))
    >>> intruder_dimensions(base, base + 1.0)
    1
    """
    return int(np.sum(likeness(base, tuned, leading) < unlike))


def likeness(
    base: Float[np.ndarray, "n m"], tuned: Float[np.ndarray, "n m"], leading: int
) -> Float[np.ndarray, " k"]:
    """For each leading left vector of `tuned` the largest |cosine| with one of `base`."""
    tall = base.shape[0] >= base.shape[1]
    base, tuned = (_scaled(W if tall else W.T) for W in (base, tuned))
    (s, before), (t, after) = (_right(W) for W in (base, tuned))
    k = min(leading, len(t))
    if not tall:  # then these are the left vectors
        return np.abs(before.T @ after[:, :k]).max(axis=0, initial=0.0)
    cosines = before.T @ (base.T @ (tuned @ after[:, :k]))
    return (np.abs(cosines) / np.outer(s, t[:k])).max(axis=0, initial=0.0)


def _scaled(W: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Over the largest element, so that no square leaves the range."""
    largest = np.abs(W).max(initial=0.0)
    return np.asarray(W, np.float64) / (largest or 1.0)


def _right(W: Float[np.ndarray, "n m"]) -> tuple[np.ndarray, np.ndarray]:
    """Singular values that rounding resolves, and right vectors, the largest first."""
    evals, vectors = np.linalg.eigh(host.grams(W[None])[0], UPLO="L")
    found = evals > max(W.shape) * np.finfo(np.float64).eps * evals[-1]
    return np.sqrt(evals[found])[::-1], vectors[:, found][:, ::-1]
