"""FARMS: alpha of windows of one aspect ratio, so that the shape of a layer does not set it."""

from __future__ import annotations

import functools
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Int

from wwfunc import checks
from wwfunc.errors import InputError
from wwfunc.fits.hillestimator import HillFit, hill_of
from wwfunc.fits.powerlaw import PowerLawFit, fit_limited
from wwfunc.fits.tail import Limits
from wwfunc.host import portions, window_starts
from wwfunc.options import KS, KS_DISTANCES, THRESHOLDS, Method, Threshold
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, gram_eigenvalues, underflows

Estimator = Literal["median", "peak", "PL"]

MOST_ROWS = 2000
"""A window that is not given takes half of the smaller side, and no more than these rows."""


@record
class FarmsFit:
    """A power law fitted to the eigenvalues of all windows of a layer."""

    alpha: Float[Array, "*batch"]
    """Exponent of the density."""
    D: Float[Array, "*batch"]
    """Kolmogorov-Smirnov distance, one-sided or two-sided as it was asked for."""
    xmin: Float[Array, "*batch"]
    """Where the tail starts."""
    k: Int[Array, "*batch"]
    """Number of eigenvalues in the tail, of all windows together; 0 where the fit failed."""
    num_windows: Int[Array, "*batch"]
    """Windows of all slices. They overlap: their eigenvalues are far from independent."""
    status: Int[Array, "*batch"]


@verb
def farms(
    W: Float[ArrayLike, "*slices n m"],
    *,
    rows: int | None = None,
    aspect: float = 1.0,
    windows: int = 10,
    estimator: Estimator = "median",
    threshold: Threshold = "absolute",
    ks: KS = "one-sided",
) -> FarmsFit:
    r"""Estimate alpha over windows of a fixed aspect ratio (FARMS).

    .. math:: \mathrm{ESD} = \bigcup_{w} \{\lambda_i(W_w W_w^T)\}, \quad
        W_w \in \mathbb{R}^{r \times q r}

    Windows lie on a grid over the matrix; the eigenvalues of all are pooled, and alpha is
    estimated once.

    Parameters
    ----------
    W
        One matrix (n, m), or a stack of k slices (k, n, m), as a convolution unfolds to; the
        windows are taken from each slice.
    rows
        r, the shorter side of a window; None takes half of the matrix's smaller side, at most
        2,000.
    aspect
        q, the longer side of a window over its shorter one, from 1. A window that does not fit
        into the matrix is made smaller with its aspect ratio kept.
    windows
        Windows along each side. With (side - window) // (windows - 1) from start to start they
        are distinct; where there is no room for so many, there are as many as have room.
    estimator
        "median" and "peak" are those of `hill`; "PL" is `fit_pl`, in O(N^2) over the N
        eigenvalues of all windows (minutes for 100 windows of 2,000).
    threshold, ks
        See `hill`.

    Returns
    -------
    FarmsFit
        With `status`, a `Status` code; a failed fit is NaN, never a number.

    Raises
    ------
    InputError
        If W is not a matrix or a stack of matrices of real numbers.
    OptionError
        If an option is outside its range.

    Notes
    -----
    The shorter side of a window lies along the smaller side of the matrix; in a square one along
    the rows. So transposing W changes nothing, but for a square W with an aspect above 1. The
    published code lays it along the rows of every dense layer; a convolution's slices it cuts into
    blocks along their larger side, and averages the alphas of the blocks.

    Windows of a column share one product: G = W[:, c] W[:, c]^T holds the Gram matrix of every
    window of rows as a principal submatrix. `windows` products of O(m^2 q r) for the smaller side
    m, and `windows`^2 eigenproblems of O(r^3); memory for one product and a few windows. W is not
    written to. Rows and columns behind the last window, fewer than `windows`, are not looked at.
    Permuting rows or columns changes the windows, and so alpha, a little.

    References
    ----------
    Hu et al., Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias, ICML 2025,
    arXiv:2506.06280.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> W = np.random.default_rng(0).standard_normal((64, 32))
    >>> fit = wwfunc.farms(W)
    >>> int(fit.num_windows), int(fit.k)
    (100, 800)
    """
    rows = checks.or_none(checks.count)("rows", rows)
    aspect = checks.aspect("aspect", aspect)
    windows = checks.count("windows", windows)
    checks.one_of("median", "peak", "PL")("estimator", estimator)
    checks.one_of(*THRESHOLDS)("threshold", threshold)
    checks.one_of(*KS_DISTANCES)("ks", ks)
    matrix = real_numbers(W, "W")
    if matrix.ndim not in (2, 3):
        raise InputError(
            f"farms takes a matrix (n, m) or a stack (k, n, m), not an array of {matrix.shape}"
        )
    stack = matrix if matrix.ndim == 3 else matrix[None]
    _, n, m = stack.shape
    sides = window_sides(n, m, rows, aspect)
    spectrum = window_esd(stack, *sides, windows)
    return farms_of(spectrum, count_windows(stack.shape, *sides, windows), estimator, threshold, ks)


def window_sides(n: int, m: int, rows: int | None, aspect: float) -> tuple[int, int]:
    """The two sides of a window, the shorter one first, that fits into an n x m matrix."""
    smaller, larger = sorted((n, m))
    wanted = min(smaller // 2, MOST_ROWS) if rows is None else rows
    fitting = min(wanted, smaller, int(larger / aspect))
    shorter = min(max(1, fitting), smaller)
    return shorter, min(max(shorter, int(shorter * aspect)), larger)


def count_windows(shape: tuple[int, ...], rows: int, cols: int, windows: int) -> int:
    """How many windows a stack of this shape has."""
    slices, *sides = shape
    smaller, larger = sorted(sides)
    if not rows:
        return 0
    along_rows = window_starts(smaller, rows, windows)
    return slices * len(along_rows) * len(window_starts(larger, cols, windows))


@functools.partial(jax.jit, static_argnames=("rows", "cols", "windows"))
def window_esd(
    stack: Float[Array, "k n m"],
    rows: int,
    cols: int,
    windows: int,
    scale: Float[ArrayLike, ""] = 1.0,
) -> ESD:
    """Pool the eigenvalues of all windows of scale * W; `host.window_esd` is the same on LAPACK.

    One product for each window of columns, and its principal submatrices a few at a time.
    """
    found = _window_eigenvalues(stack, rows, cols, windows).ravel()
    # Without any, padding alone: the last entry must exist.
    evals = jnp.sort(jnp.maximum(found if found.size else jnp.zeros(1, stack.dtype), 0.0))
    evals *= jnp.square(jnp.asarray(scale, stack.dtype))
    whole = jnp.isfinite(stack).all() & jnp.isfinite(evals).all()
    lost = ~whole | (underflows(evals[-1]) & jnp.any(stack != 0))
    evals = jnp.where(lost, jnp.nan, evals)
    n = jnp.asarray(found.size, jnp.int32)
    return ESD(evals=evals, n=n, floor=evals[-1] * jnp.finfo(stack.dtype).eps * cols)


def _window_eigenvalues(
    stack: Float[Array, "k n m"], rows: int, cols: int, windows: int
) -> Float[Array, "columns windows rows"]:
    if not stack.size:
        return jnp.zeros((0, 0, rows), stack.dtype)
    tall = stack if stack.shape[1] > stack.shape[2] else stack.mT
    slices, n, m = tall.shape
    along_rows = jnp.asarray(window_starts(m, rows, windows))
    along_cols = list(itertools.product(range(slices), window_starts(n, cols, windows)))

    def of_columns(place: Int[Array, " 2"]) -> Float[Array, "windows rows"]:
        corner = (*place, jnp.zeros_like(place[0]))
        part = jax.lax.dynamic_slice(tall, corner, (1, cols, m))[0]
        gram = jnp.matmul(part.T, part, precision=jax.lax.Precision.HIGHEST)

        def of_rows(row: Int[Array, ""]) -> Float[Array, " rows"]:
            own = jax.lax.dynamic_slice(gram, (row, row), (rows, rows))
            return gram_eigenvalues(own[None])[0]

        at_once = portions(len(along_rows), rows)[0].stop
        return jax.lax.map(of_rows, along_rows, batch_size=min(at_once, len(along_rows)))

    return jax.lax.map(of_columns, jnp.asarray(along_cols))


def farms_of(
    esd: ESD,
    num_windows: int,
    estimator: Estimator = "median",
    threshold: Threshold = "absolute",
    ks: KS = "one-sided",
) -> FarmsFit:
    """`farms` from the pooled spectrum on, which may be padded."""
    fit: HillFit | PowerLawFit
    if estimator == "PL":
        power_law = fit_limited(esd, Limits(), Method(threshold=threshold, ks=ks))
        fit, k = power_law, power_law.num_pl_spikes
    else:
        hill = hill_of(esd, estimator, threshold, ks)
        fit, k = hill, hill.k
    return FarmsFit(
        alpha=fit.alpha,
        D=fit.D,
        xmin=fit.xmin,
        k=k,
        num_windows=jnp.asarray(num_windows, jnp.int32),
        status=fit.status,
    )
