"""The empirical spectral density (ESD) of a weight matrix: the eigenvalues of W^T W."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.errors import InputError
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array, record


@record
class ESD:
    """Eigenvalues of W^T W, ascending, behind as many zeros as the padding needs.

    The padding stands in front, so that the last entry is the largest eigenvalue and a sum from
    any entry to the end never meets it. A stack of matrices is pooled into one spectrum.
    """

    evals: Float[Array, "*batch size"]
    """The `n` eigenvalues stand last; entries before them are padding."""
    n: Int[Array, "*batch"]
    """Number of eigenvalues: slices times the smaller side."""
    floor: Float[Array, "*batch"]
    """What the Gram form resolves; eigenvalues at or under it are rounding, not signal."""


@verb
def esd(W: Float[ArrayLike, "*slices n m"], scale: Float[ArrayLike, ""] = 1.0) -> ESD:
    r"""Compute the eigenvalues of (scale W)^T (scale W) on its smaller side.

    .. math:: \lambda_i = s^2 \sigma_i(W)^2, \quad i = 1 \ldots k \min(n, m)

    Parameters
    ----------
    W
        One matrix (n, m), or a stack of k slices (k, n, m) whose eigenvalues are pooled, as those
        of a convolution are. float64 is computed in float64, anything narrower in float32.
    scale
        Factor on W; WeightWatcher's `conv2d_norm` is sqrt(1/2).

    Returns
    -------
    ESD
        All eigenvalues, ascending, negative rounding set to zero. NaN or infinity in W, or
        squares out of the range of the precision, make every eigenvalue NaN.

    Raises
    ------
    InputError
        If W is not a matrix or a stack of matrices of real numbers.

    Notes
    -----
    O(k n m^2) for the Gram matrices and O(k m^3) for the eigenvalues, m the smaller side. The
    Gram form squares the condition number: eigenvalues under `floor` are not resolved. Eigenvalues
    are differentiable; where they coincide the derivative is that of their sum.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> wwfunc.esd(np.diag([3.0, 1.0, 2.0])).evals
    array([1., 4., 9.])
    """
    return _esd(real_numbers(W, "W"), real_numbers(scale, "scale"))


@jax.jit
def _esd(W: Float[Array, "*slices n m"], scale: Float[Array, ""]) -> ESD:
    stack = _as_stack(W)
    grams = jnp.matmul(stack.mT, stack, precision=jax.lax.Precision.HIGHEST)
    squared = (scale**2).astype(stack.dtype)
    evals = jnp.sort(jnp.maximum(gram_eigenvalues(grams).ravel(), 0.0)) * squared
    n = jnp.asarray(evals.size, jnp.int32)
    if not evals.size:
        evals = jnp.zeros(1, stack.dtype)  # padding alone: the last entry must exist
    lost = ~jnp.isfinite(grams).all() | (underflows(evals[-1]) & jnp.any(stack != 0))
    evals = jnp.where(lost, jnp.nan, evals)
    return ESD(evals=evals, n=n, floor=evals[-1] * jnp.finfo(stack.dtype).eps * stack.shape[1])


def pooled(each: ESD) -> ESD:
    """One spectrum of a batch of spectra of one length, without padding."""
    evals = jnp.sort(each.evals.ravel())
    lost = ~jnp.isfinite(evals).all()
    n = jnp.asarray(evals.size, jnp.int32)
    return ESD(evals=jnp.where(lost, jnp.nan, evals), n=n, floor=jnp.max(each.floor))


def as_esd(evals: ESD | Float[ArrayLike, " n"]) -> ESD:
    """Eigenvalues in any order as an `ESD` without a rounding floor; an `ESD` as it is."""
    if isinstance(evals, ESD):
        return evals
    ordered = jnp.sort(real_numbers(evals, "evals").ravel())
    zero = jnp.zeros((), ordered.dtype)
    n = jnp.asarray(ordered.size, jnp.int32)
    return ESD(evals=ordered if ordered.size else zero[None], n=n, floor=zero)


def scaled(esd: ESD, scale: Float[ArrayLike, ""]) -> ESD:
    """The ESD of scale W, given that of W."""
    squared = (real_numbers(scale, "scale") ** 2).astype(esd.evals.dtype)
    return ESD(evals=esd.evals * squared, n=esd.n, floor=esd.floor * squared)


@jax.jit
def inverted(esd: ESD) -> ESD:
    """The ESD of the (pseudo-)inverse: 1 / lambda of the eigenvalues that rounding resolves.

    Its floor is zero: what is not resolved is infinitely large there, and left out.
    """
    resolved = (esd.evals > esd.floor) | ~in_range(esd)
    inverse = jnp.where(resolved, 1.0 / jnp.where(resolved, esd.evals, 1.0), 0.0)
    evals = jnp.where(in_range(esd), jnp.sort(inverse), jnp.nan)
    return ESD(
        evals=evals,
        n=jnp.sum(resolved, dtype=jnp.int32),
        floor=jnp.zeros_like(esd.floor),
    )


def in_range(esd: ESD) -> Bool[Array, ""]:
    """Whether all eigenvalues and their sum are finite."""
    return jnp.isfinite(jnp.sum(esd.evals))


def underflows(largest: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether squares of the weights are too small for eigenvalues to keep their digits."""
    limits = jnp.finfo(largest.dtype)
    return largest * limits.eps < limits.tiny


def _as_stack(W: Array) -> Array:
    """(k, n, m) with n >= m."""
    if W.ndim not in (2, 3):
        raise InputError(
            f"esd takes a matrix (n, m) or a stack (k, n, m), not an array of shape {W.shape}"
        )
    stack = W if W.ndim == 3 else W[None]
    return stack if stack.shape[-2] >= stack.shape[-1] else stack.mT


@jax.custom_jvp
def gram_eigenvalues(grams: Float[Array, "k m m"]) -> Float[Array, "k m"]:
    """Eigenvalues of symmetric matrices, ascending, with a derivative where they coincide."""
    return jnp.linalg.eigvalsh(grams)


@gram_eigenvalues.defjvp
def _gram_eigenvalues_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, "k m"], Float[Array, "k m"]]:
    """d lambda_i = v_i^T dG v_i: no division by gaps, so equal eigenvalues do no harm."""
    evals, vectors = jnp.linalg.eigh(primals[0])
    return evals, jnp.einsum("kni,knp,kpi->ki", vectors, tangents[0], vectors)
