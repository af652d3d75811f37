"""Spectra of Gaussian random matrices, drawn without forming the matrices.

Householder reflections from both sides turn a Gaussian matrix into a bidiagonal one whose entries
are independent and chi-distributed: Bartlett's factor, reduced once more.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt32

from wwfunc.errors import InputError
from wwfunc.pytrees import Array
from wwfunc.spectrum import ESD, esd


def gaussian_esd(key: Array | UInt32[Array, " 2"], n: int, m: int) -> ESD:
    r"""Draw the ESD of a Gaussian random matrix.

    .. math:: \lambda_i = \sigma_i(W)^2, \quad W_{jk} \sim N(0, 1 / \max(n, m))

    Parameters
    ----------
    key
        JAX's random key.
    n, m
        Sides of the matrix, whole numbers from 1, in any order. They decide about shapes: static
        under `jit`.

    Returns
    -------
    ESD
        The min(n, m) eigenvalues, ascending, around 1: their mean is 1 in expectation.

    Raises
    ------
    InputError
        If a side is not a whole number from 1.

    Notes
    -----
    W is not formed: the lower bidiagonal B with independent entries chi_n ... chi_{n-m+1} on its
    diagonal and chi_{m-1} ... chi_1 under it (n >= m) has B B^T of the same eigenvalues in law.
    O(m^2) random numbers and memory, O(m^3) time for the eigenvalues. float64 where the caller
    has set `jax_enable_x64`, else float32. Works under `jit`, and under `vmap` over keys.

    References
    ----------
    Dumitriu, Edelman, J. Math. Phys. 43 (2002), section III B, doi:10.1063/1.1507823.

    Examples
    --------
    >>> import jax, wwfunc.trust.randomspectra as rs
    >>> keys = jax.random.split(jax.random.key(0), 5)
    >>> jax.vmap(lambda key: rs.gaussian_esd(key, 300, 40))(keys).evals.shape
    (5, 40)
    """
    for name, side in (("n", n), ("m", m)):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
            raise InputError(f"{name} is a whole number from 1, not {side!r}")
    return _gaussian_esd(key, max(int(n), int(m)), min(int(n), int(m)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _gaussian_esd(key: Array, n: int, m: int) -> ESD:
    freedom = jnp.concatenate([n - jnp.arange(m), jnp.arange(m - 1, 0, -1)]).astype(float)
    entries = jnp.sqrt(jax.random.chisquare(key, freedom) / n)
    factor = jnp.diag(entries[:m]) + (jnp.diag(entries[m:], -1) if m > 1 else 0.0)
    spectrum = esd(factor)
    # W has n rows, not m: rounding would be what it is for W.
    return dataclasses.replace(spectrum, floor=spectrum.floor * (n / m))


def random_evals(
    rng: np.random.Generator, N: int, M: int, count: int, rf: int = 1
) -> Float[np.ndarray, "count evals"]:
    """Ascending spectra of `count` layers of `rf` Gaussian (N, M) slices each, N >= M, in float64.

    As `gaussian_esd`, on the host: the tridiagonal B B^T goes to LAPACK as it is, O(M^2) a slice.
    """
    diagonal = rng.chisquare(N - np.arange(M), (count, rf, M))
    subdiagonal = rng.chisquare(np.arange(M - 1, 0, -1), (count, rf, M - 1))
    from scipy.linalg import eigvalsh_tridiagonal  # slow to import, and seldom needed

    beside = np.sqrt(diagonal[..., :-1] * subdiagonal) / N
    diagonal[..., 1:] += subdiagonal
    diagonal /= N
    evals = np.empty_like(diagonal)
    for index in np.ndindex(count, rf):
        evals[index] = eigvalsh_tridiagonal(
            diagonal[index], beside[index], check_finite=False, lapack_driver="sterf"
        )
    # Rounding may leave the smallest one of a square matrix under zero.
    return np.sort(np.maximum(evals, 0.0).reshape(count, rf * M), axis=1)
