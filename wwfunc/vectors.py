"""How localised the singular vectors of a weight matrix are, in the bulk and in the tail.

They are the eigenvectors of W^T W on the smaller side, from the decomposition that gives the
eigenvalues too.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc import host
from wwfunc.errors import InputError
from wwfunc.localization import host_numbers, numbers
from wwfunc.metrics import matrix_rank
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, in_range, underflows
from wwfunc.status import Status


@record
class Localization:
    """One number a vector, aligned with the ascending eigenvalues; 0 in the padding.

    Vectors of eigenvalues that coincide are any basis of their space, and so are those of
    eigenvalues at or under the rounding floor: their numbers say nothing.
    """

    esd: ESD
    vec_entropy: Float[Array, "*batch size"]
    """Entropy of a histogram of the elements' magnitudes: from 0 to ln 100."""
    loc_ratio: Float[Array, "*batch size"]
    """||v||_1 / ||v||_inf: 1 for one element, the length for elements that are all equal."""
    part_ratio: Float[Array, "*batch size"]
    """||v||_2 / ||v||_4: 1 for one element, length^(1/4) for elements that are all equal."""


@record
class VectorMetrics:
    """Means and variances over the vectors under xmin (bulk) and from xmin on (tail)."""

    bulk_mean_vec_entropy: Float[Array, "*batch"]
    bulk_var_vec_entropy: Float[Array, "*batch"]
    bulk_mean_loc_ratio: Float[Array, "*batch"]
    bulk_var_loc_ratio: Float[Array, "*batch"]
    bulk_mean_part_ratio: Float[Array, "*batch"]
    bulk_var_part_ratio: Float[Array, "*batch"]
    tail_mean_vec_entropy: Float[Array, "*batch"]
    tail_var_vec_entropy: Float[Array, "*batch"]
    tail_mean_loc_ratio: Float[Array, "*batch"]
    tail_var_loc_ratio: Float[Array, "*batch"]
    tail_mean_part_ratio: Float[Array, "*batch"]
    tail_var_part_ratio: Float[Array, "*batch"]
    status: Int[Array, "*batch"]


@verb
def vector_metrics(
    W: Float[ArrayLike, "*slices n m"], scale: Float[ArrayLike, ""] = 1.0
) -> Localization:
    r"""Measure how localised each singular vector on the smaller side of W is.

    .. math:: \frac{\|v\|_1}{\|v\|_\infty}, \quad \frac{\|v\|_2}{\|v\|_4}, \quad
              S = -\sum_{b=1}^{100} p_b \ln p_b

    where p_b is the share of the \|v_i\| in the b-th of 100 equal bins between the smallest and
    the largest of them.

    Parameters
    ----------
    W
        A matrix (n, m), or a stack of slices (k, n, m) whose vectors are pooled.
    scale
        Factor on W, which scales the eigenvalues and nothing else.

    Returns
    -------
    Localization
        An entry for each eigenvalue, and the `ESD` itself. Where W is zero or not finite the
        numbers are NaN. What a random vector would have: `random_vector(min(n, m))`.

    Raises
    ------
    InputError
        If W is not a matrix or a stack of matrices of real numbers.

    Notes
    -----
    O(k m^3), m the smaller side, and k m^2 memory for the vectors. Works under `jit` and `vmap`;
    the two ratios have derivatives, the entropy has none. Where eigenvalues coincide up to rounding
    the derivative leaves out how their vectors turn into each other, which says nothing; those of
    the other eigenvalues are right. Of a square matrix the vectors are the left ones, those of
    W W^T, as WeightWatcher takes them. WeightWatcher subtracts the mean of the magnitudes first,
    which moves the bins along with it.
    Magnitudes that are equal up to rounding are in one bin here: their entropy is 0.

    References
    ----------
    Martin, Mahoney, JMLR 22 (2021), arXiv:1810.01075.

    Examples
    --------
    >>> import numpy as np, wwfunc.vectors as vectors
    >>> found = vectors.vector_metrics(np.diag([3.0, 1.0, 2.0]))
    >>> found.loc_ratio, found.part_ratio
    (array([1., 1., 1.]), array([1., 1., 1.]))
    """
    matrix = real_numbers(W, "W")
    if matrix.ndim not in (2, 3):
        raise InputError(
            f"vector_metrics takes a matrix (n, m) or a stack (k, n, m), not shape {matrix.shape}"
        )
    return _vector_metrics(matrix, real_numbers(scale, "scale"))


def host_vector_metrics(stack: np.ndarray, scale: float = 1.0) -> Localization:
    """`vector_metrics` of a stack (k, n, m), n >= m, by LAPACK in float64."""
    slices, rows, cols = stack.shape
    stack = stack if rows > cols else stack.swapaxes(1, 2)  # square: W W^T
    evals, measured = np.full((slices, cols), np.nan), np.full((3, slices, cols), np.nan)
    for index in range(slices):
        gram = host.grams(stack[index : index + 1])[0]
        if np.isfinite(gram).all():
            evals[index], vectors = np.linalg.eigh(gram, UPLO="L")
            measured[:, index] = host_numbers(vectors)
    order = np.argsort(evals, axis=None, kind="stable")
    spectrum = host.pooled(np.maximum(evals, 0.0), rows, scale)
    measured = measured.reshape(3, slices * cols)[:, order]
    if not spectrum.evals.any() or not np.isfinite(spectrum.evals).all():
        measured[:] = np.nan
    entropy, loc_ratio, part_ratio = measured
    return Localization(
        esd=spectrum, vec_entropy=entropy, loc_ratio=loc_ratio, part_ratio=part_ratio
    )


def padded(localization: Localization, size: int) -> Localization:
    """The same vectors behind zeros, `size` entries long, on the host."""
    width = (size - localization.esd.evals.size, 0)
    return Localization(
        esd=host.padded(localization.esd, size),
        vec_entropy=np.pad(localization.vec_entropy, width),
        loc_ratio=np.pad(localization.loc_ratio, width),
        part_ratio=np.pad(localization.part_ratio, width),
    )


@verb
@jax.jit
def bulk_and_tail(localization: Localization, xmin: Float[ArrayLike, ""]) -> VectorMetrics:
    """Mean and variance of each metric on either side of xmin.

    Parameters
    ----------
    localization
        What `vector_metrics` measured.
    xmin
        The smallest eigenvalue of the tail, whose vector is one of the tail's. It may come from
        another decomposition of the same matrix: the eigenvalue that equals it up to rounding is
        meant.

    Returns
    -------
    VectorMetrics
        NaN where a side has no vector, and everywhere with a status where xmin is NaN.

    Notes
    -----
    O(k m). Works under `jit` and `vmap`. Variances are over the vectors, not of an estimate.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.vectors import bulk_and_tail, vector_metrics
    >>> found = bulk_and_tail(vector_metrics(np.random.default_rng(0).normal(size=(60, 40))), 100.0)
    >>> bool(found.bulk_mean_loc_ratio > 10), bool(found.tail_mean_loc_ratio > 10)
    (True, True)
    """
    spectrum = localization.esd
    # Of a null space any basis is as good as the one that was found.
    real = spectrum.evals > spectrum.floor
    in_tail = real & (spectrum.evals >= _start_of_tail(spectrum, jnp.asarray(xmin)))
    sides = {"bulk": real & ~in_tail & ~jnp.isnan(xmin), "tail": in_tail}
    moments = {
        f"{side}_{moment}_{name}": value
        for side, among in sides.items()
        for name in ("vec_entropy", "loc_ratio", "part_ratio")
        for moment, value in _moments(getattr(localization, name), among).items()
    }
    return VectorMetrics(**moments, status=_status(spectrum, jnp.isnan(jnp.asarray(xmin))))


def _start_of_tail(spectrum: ESD, xmin: Float[Array, ""]) -> Float[Array, ""]:
    """xmin, or the eigenvalue just under it that differs from it by rounding alone."""
    nearest = spectrum.evals[jnp.argmin(jnp.abs(spectrum.evals - xmin))]
    rounded = jnp.abs(nearest - xmin) <= spectrum.floor
    return jnp.where(rounded, jnp.minimum(nearest, xmin), xmin)


def _moments(
    values: Float[Array, " size"], among: Bool[Array, " size"]
) -> dict[str, Float[Array, ""]]:
    count = jnp.sum(among, dtype=values.dtype)
    several = jnp.maximum(count, 1)
    mean = jnp.sum(jnp.where(among, values, 0.0)) / several
    variance = jnp.sum(jnp.where(among, (values - mean) ** 2, 0.0)) / several
    return {
        "mean": jnp.where(count > 0, mean, jnp.nan),
        "var": jnp.where(count > 0, variance, jnp.nan),
    }


def _status(spectrum: ESD, no_tail: Bool[Array, ""]) -> Int[Array, ""]:
    outcomes = [
        (~in_range(spectrum), Status.NOT_FINITE),
        (spectrum.evals[-1] == 0, Status.ALL_ZERO),
        (no_tail, Status.TAIL_TOO_SHORT),
        (matrix_rank(spectrum) < spectrum.n, Status.RANK_DEFICIENT),
    ]
    codes = [jnp.int32(status) for _, status in outcomes]
    return jnp.select([reason for reason, _ in outcomes], codes, jnp.int32(Status.SUCCESS))


@jax.jit
def _vector_metrics(W: Float[Array, "*slices n m"], scale: Float[Array, ""]) -> Localization:
    stack = W if W.ndim == 3 else W[None]
    tall = stack if stack.shape[1] > stack.shape[2] else stack.mT  # square: W W^T
    if not tall.size:
        return _nothing(tall.dtype)
    grams = jnp.matmul(tall.mT, tall, precision=jax.lax.Precision.HIGHEST)
    evals, vectors = _eigh(grams)
    order = jnp.argsort(evals.ravel())
    squared = (scale**2).astype(tall.dtype)
    ordered = jnp.maximum(evals.ravel()[order], 0.0) * squared
    lost = ~jnp.isfinite(grams).all() | (underflows(ordered[-1]) & jnp.any(tall != 0))
    ordered = jnp.where(lost, jnp.nan, ordered)
    defined = ordered[-1] > 0
    entropy, *ratios = numbers(vectors.mT.reshape(-1, tall.shape[2]))
    measured = [jax.lax.stop_gradient(entropy), *ratios]
    entropy, loc, part = (jnp.where(defined, values[order], jnp.nan) for values in measured)
    floor = ordered[-1] * jnp.finfo(tall.dtype).eps * tall.shape[1]
    spectrum = ESD(evals=ordered, n=jnp.asarray(ordered.size, jnp.int32), floor=floor)
    return Localization(esd=spectrum, vec_entropy=entropy, loc_ratio=loc, part_ratio=part)


@jax.custom_jvp
def _eigh(grams: Float[Array, "k m m"]) -> tuple[Float[Array, "k m"], Float[Array, "k m m"]]:
    """Eigenvalues and vectors of symmetric matrices, with a derivative where values coincide."""
    return tuple(jnp.linalg.eigh(grams))


@_eigh.defjvp
def _eigh_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """dV = V (F * V^T dG V) with F_ij = 1 / (lambda_j - lambda_i), 0 where rounding is the gap."""
    evals, vectors = _eigh(primals[0])
    turned = jnp.einsum("kni,knp,kpj->kij", vectors, tangents[0], vectors)
    gaps = evals[:, None, :] - evals[:, :, None]
    rounding = jnp.finfo(evals.dtype).eps * evals.shape[1] * jnp.max(jnp.abs(evals), axis=1)
    apart = jnp.abs(gaps) > rounding[:, None, None]
    mixing = jnp.where(apart, turned / jnp.where(apart, gaps, 1.0), 0.0)
    return (evals, vectors), (jnp.einsum("kii->ki", turned), vectors @ mixing)


def _nothing(dtype: Any) -> Localization:
    """Of an empty matrix: padding alone, as `wwfunc.esd` gives it."""
    zero = jnp.zeros(1, dtype)
    spectrum = ESD(evals=zero, n=jnp.int32(0), floor=zero[0])
    return Localization(esd=spectrum, vec_entropy=zero, loc_ratio=zero, part_ratio=zero)
