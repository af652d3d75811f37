"""Distances and similarities of two matrices of one shape, in NumPy or JAX as the matrices are."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float

from wwfunc.pytrees import Array


def frobenius(A: Float[Array, "n m"], B: Float[Array, "n m"]) -> Array:
    r"""Frobenius norm of the difference.

    .. math:: \|A - B\|_F = \sqrt{\sum_{ij} (A_{ij} - B_{ij})^2}

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.comparison.matrixdistances import frobenius
    >>> float(frobenius(np.ones((2, 2)), np.zeros((2, 2))))
    2.0
    """
    xp = _namespace(A)
    change = A - B
    largest = _largest(change)
    return largest * xp.linalg.norm(change / xp.where(largest > 0, largest, 1.0))


def cka(A: Float[Array, "n m"], B: Float[Array, "n m"], *, centred: bool = False) -> Array:
    r"""Centred kernel alignment with a linear kernel between the rows: 1 for the same matrix.

    .. math:: \frac{\|A^\top B\|_F}{\sqrt{\|A^\top A\|_F \, \|B^\top B\|_F}}

    in WeightWatcher's form, whose numerator is not squared; `centred` takes the mean off each
    column and is Kornblith's, :math:`\|A^\top B\|_F^2 / (\|A^\top A\|_F \|B^\top B\|_F)`. Neither
    changes under orthogonal maps of the columns, nor with the scale. NaN where a matrix is zero,
    or constant along its columns.

    References
    ----------
    Kornblith, Norouzi, Lee, Hinton, ICML 2019, arXiv:1905.00414.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.comparison.matrixdistances import cka
    >>> A = np.arange(6.0).reshape(3, 2)
    >>> round(float(cka(A, -2 * A[:, ::-1], centred=True)), 12)
    1.0
    """
    xp = _namespace(A)
    A, B = (_centred(W) if centred else _scaled(W) for W in (A, B))
    if A.shape[0] < A.shape[1]:
        K, L = A @ A.T, B @ B.T
        squared = xp.maximum(xp.sum(K * L), 0.0)
    else:
        K, L = A.T @ A, B.T @ B
        squared = xp.sum((A.T @ B) ** 2)
    most = xp.linalg.norm(K) * xp.linalg.norm(L)
    usable = most > 0
    share = xp.where(usable, squared / xp.where(usable, most, 1.0), xp.nan)
    return share if centred else xp.sqrt(share)


def subspace_overlap(A: Float[Array, "n m"], B: Float[Array, "n m"], rank: int) -> Array:
    r"""How much of their leading `rank` directions two matrices share: 0 to 1.

    .. math:: \frac{\|U_A^\top U_B\|_F^2 + \|V_A^\top V_B\|_F^2}{2 k}

    over the first k left and right singular vectors of each, k at most the lower one of the two
    numerical ranks; NaN where a matrix is zero. Two random subspaces of dimension k of an
    n-dimensional space share k / n of them in the mean. Where singular values are equal, the first
    k are a matter of rounding.

    References
    ----------
    Hu et al., LoRA, ICLR 2022, arXiv:2106.09685, section 7.2, of the right vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.comparison.matrixdistances import subspace_overlap
    >>> float(subspace_overlap(np.diag([3.0, 2.0, 1.0]), np.diag([3.0, 1.0, 2.0]), 2))
    0.5
    """
    xp = _namespace(A)
    most = min(rank, *A.shape)
    first, second = _leading(A, most), _leading(B, most)
    k = xp.minimum(first[2], second[2])
    kept = (xp.arange(most) < k).astype(A.dtype)
    shared = sum(
        xp.sum((one.T @ other) ** 2 * xp.outer(kept, kept))
        for one, other in zip(first[:2], second[:2], strict=True)
    )
    share = xp.minimum(shared / (2 * xp.where(k > 0, k, 1)), 1.0)
    return xp.where(k > 0, share, xp.nan)


def _leading(W: Float[Array, "n m"], k: int) -> tuple[Array, Array, Array]:
    """The first k left and right singular vectors, and how many of them the rank leaves."""
    xp = _namespace(W)
    tall = W.shape[0] >= W.shape[1]
    W = _scaled(W if tall else W.T)
    evals, vectors = xp.linalg.eigh(W.T @ W)
    evals, shorter = evals[::-1][:k], vectors[:, ::-1][:, :k]
    found = evals > max(W.shape) * xp.finfo(W.dtype).eps * evals[0]
    longer = W @ shorter / xp.sqrt(xp.where(found, evals, 1.0))
    sides = (longer, shorter) if tall else (shorter, longer)
    return *sides, xp.sum(found)


def _centred(W: Float[Array, "n m"]) -> Array:
    """Scaled, without the mean of each column; zero where nothing but rounding is left."""
    xp = _namespace(W)
    W = _scaled(W)
    rest = W - xp.mean(W, axis=0)
    rounding = 4 * max(W.shape[0], 1) ** 0.5 * xp.finfo(W.dtype).eps
    return xp.where(_largest(rest) > rounding, rest, 0.0)


def _scaled(W: Float[Array, "n m"]) -> Array:
    """Over the largest element, so that no square leaves the range."""
    xp = _namespace(W)
    largest = _largest(W)
    return W / xp.where(largest > 0, largest, 1.0)


def _largest(W: Float[Array, "n m"]) -> Array:
    xp = _namespace(W)
    return xp.max(xp.abs(W)) if W.size else xp.zeros(())


def _namespace(W: Any) -> Any:
    """NumPy for NumPy's arrays, `jax.numpy` for JAX's."""
    return W.__array_namespace__()
