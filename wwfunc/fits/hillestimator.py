"""The Hill estimator: alpha of the largest eigenvalues, without a search for xmin."""

from __future__ import annotations

import functools
from numbers import Integral
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.checks import MOST_CLIPPED, is_number, one_of
from wwfunc.errors import OptionError
from wwfunc.fits.fingers import peak_of
from wwfunc.fits.ksdistance import ks_distance
from wwfunc.fits.tail import SHORTEST_TAIL, Limits, Tail, tail_of, tail_status
from wwfunc.options import KS, KS_DISTANCES, THRESHOLDS, Threshold
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd, in_range
from wwfunc.status import Status

Place = Literal["median", "peak"]
"""Where a tail starts when its length is not given."""


@record
class HillFit:
    """The Hill estimate of one tail. Where `status` is a failure, numbers are NaN."""

    alpha: Float[Array, "*batch"]
    """Exponent of the density."""
    xmin: Float[Array, "*batch"]
    """The smallest eigenvalue of the tail."""
    D: Float[Array, "*batch"]
    """Kolmogorov-Smirnov distance, one-sided or two-sided as it was asked for."""
    k: Int[Array, "*batch"]
    """Number of eigenvalues in the tail, xmin included; 0 where the fit failed."""
    status: Int[Array, "*batch"]


@record
class HillCurve:
    """The Hill estimate of each tail, aligned with the ascending eigenvalues of the ESD.

    Entry i is the tail that starts there. NaN, and 0 for k, where no tail does: in the padding,
    under the threshold, inside a group of equal eigenvalues and at the largest one.
    """

    alpha: Float[Array, "*batch size"]
    xmin: Float[Array, "*batch size"]
    k: Int[Array, "*batch size"]


@verb
def hill(
    evals: ESD | Float[ArrayLike, " n"],
    k: int | Int[Array, ""] | Place = "median",
    *,
    threshold: Threshold = "absolute",
    ks: KS = "one-sided",
) -> HillFit:
    r"""Estimate alpha from the k largest eigenvalues.

    .. math:: \alpha = 1 + k \Big/ \sum_{j = 1}^{k} \ln (\lambda_{(j)} / \lambda_{(k)})

    with the eigenvalues in descending order, so that xmin is the k-th largest and one of the k.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    k
        How many, from 2; "median" takes the upper half of the N that are fitted, N - floor(N / 2);
        "peak" all from the peak of the ESD on, the left edge of the fullest of 100 logarithmic
        bins. An array, also a traced one, is not checked.
    threshold
        "absolute" fits eigenvalues above 1e-5; "relative" all that rounding resolves.
    ks
        D looks at each step of the empirical distribution from one side, or is the "two-sided"
        supremum.

    Returns
    -------
    HillFit
        With `status`, a `Status` code; a failed fit is NaN, never a number. Its `k` is larger than
        what was asked where the k-th largest eigenvalue has equals: the tail is all x >= xmin.

    Raises
    ------
    OptionError
        If an option is outside its range.

    Notes
    -----
    O(n log n). Works under `jit`, `vmap` and `grad` (which eigenvalues are taken is held fixed by
    the derivative, and D has none). A tail of two eigenvalues is the shortest.

    The median is what TempBalance, AlphaPruning and FARMS call PL_Alpha_Hill. Their code leaves
    out eigenvalues under 1e-5 on request alone: its default is threshold="relative" here.
    AlphaPruning's "alpha_peak" is another estimate than "peak": it searches for the best xmin
    around the peak, `fit_pl(evals, fix_fingers="xmin_peak")`. Hill himself does not count xmin:
    where `hill(evals, k + 1)` has k + 1 over a sum, he has k over the same one.

    References
    ----------
    Hill, Annals of Statistics 3 (1975), doi:10.1214/aos/1176343247.
    Zhou et al., TempBalance, NeurIPS 2023, arXiv:2312.00359.
    Lu et al., AlphaPruning, NeurIPS 2024, arXiv:2410.10912.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> evals = (1 - np.random.default_rng(0).random(2000)) ** (-1 / 1.5)  # alpha = 2.5
    >>> fit = wwfunc.hill(evals)
    >>> int(fit.k), round(float(fit.alpha), 1)
    (1000, 2.5)
    """
    one_of(*THRESHOLDS)("threshold", threshold)
    one_of(*KS_DISTANCES)("ks", ks)
    return hill_of(as_esd(evals), _checked(k), threshold, ks)


@verb
def hill_curve(
    evals: ESD | Float[ArrayLike, " n"], *, threshold: Threshold = "absolute"
) -> HillCurve:
    """Estimate alpha for every k: the Hill plot is `alpha` over `k`.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    threshold
        "absolute" takes eigenvalues above 1e-5; "relative" all that rounding resolves.

    Returns
    -------
    HillCurve
        An entry for each of the ascending eigenvalues.

    Raises
    ------
    OptionError
        If `threshold` is neither of its words.

    Notes
    -----
    O(n log n). Where alpha stays level over a range of k, that range behaves as a power law; where
    it drifts all along, none does. NaN or infinity among the eigenvalues leaves no entry.

    References
    ----------
    Drees, de Haan, Resnick, How to make a Hill plot, Annals of Statistics 28 (2000),
    doi:10.1214/aos/1016120372.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> wwfunc.hill_curve(np.exp([3.0, 0.0, 1.0])).alpha
    array([1.75, 2.  ,  nan])
    """
    one_of(*THRESHOLDS)("threshold", threshold)
    return _curve(as_esd(evals), threshold)


def hill_of(
    esd: ESD, k: int | Int[Array, ""] | Place, threshold: Threshold, ks: KS | None = "one-sided"
) -> HillFit:
    """`hill` of an `ESD`: one program for each padded size and each way to say k.

    Without `ks` D stays NaN, which saves most of the compilation.
    """
    if isinstance(k, str):
        return _fit(esd, None, k, threshold, ks)
    return _fit(esd, k, None, threshold, ks)


@functools.partial(jax.jit, static_argnames=("place", "threshold", "ks"))
def _fit(
    esd: ESD,
    k: int | Int[Array, ""] | None,
    place: Place | None,
    threshold: Threshold,
    ks: KS | None,
) -> HillFit:
    tail = tail_of(esd, Limits(), threshold)
    start, enough = _start(tail, k, place)
    long_enough = enough & (tail.count[start] >= SHORTEST_TAIL)
    above = jnp.arange(tail.evals.size) > start
    excess = jnp.sum(jnp.where(above, _spacings(tail), 0.0))
    found = long_enough & (excess > 0) & tail.starts[start] & in_range(esd)
    alpha = 1.0 + tail.count[start] / jnp.where(found, excess, 1.0)
    # D is a maximum: like the choice of the start it has no derivative here.
    fixed = jax.lax.stop_gradient((tail, start[None], tail.log_evals[start][None], alpha[None]))
    (D,) = jnp.full_like(alpha[None], jnp.nan) if ks is None else ks_distance(*fixed, ks)
    return HillFit(
        alpha=jnp.where(found, alpha, jnp.nan),
        xmin=jnp.where(found, tail.evals[start], jnp.nan),
        D=jnp.where(found, D, jnp.nan),
        k=jnp.where(found, tail.count[start], 0),
        status=_status(esd, tail, found, long_enough, threshold),
    )


@functools.partial(jax.jit, static_argnames="threshold")
def _curve(esd: ESD, threshold: Threshold) -> HillCurve:
    tail = tail_of(esd, Limits(), threshold)
    excess = jnp.append(jax.lax.cumsum(_spacings(tail), reverse=True)[1:], 0.0)
    found = tail.starts & (tail.count >= SHORTEST_TAIL) & (excess > 0) & in_range(esd)
    alpha = 1.0 + tail.count / jnp.where(found, excess, 1.0)
    unpadded = slice(tail.evals.size - esd.evals.size, None)
    return HillCurve(
        alpha=jnp.where(found, alpha, jnp.nan)[unpadded],
        xmin=jnp.where(found, tail.evals, jnp.nan)[unpadded],
        k=jnp.where(found, tail.count, 0)[unpadded],
    )


def _start(
    tail: Tail, k: int | Int[Array, ""] | None, place: Place | None
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Where the tail starts, in front of all equals, and whether there are k eigenvalues."""
    if place == "peak":
        # The first bin begins at the smallest eigenvalue: rounding must not leave that one out.
        lowest = peak_of(tail) * (1.0 - 64 * jnp.finfo(tail.evals.dtype).eps)
        return jnp.argmax(tail.fitted & (tail.evals >= lowest)), jnp.any(tail.fitted)
    wanted = tail.candidates - tail.candidates // 2 if k is None else jnp.asarray(k)
    enough = (wanted >= 1) & (wanted <= tail.candidates)
    smallest = tail.evals[tail.evals.size - jnp.where(enough, wanted, 1)]
    return jnp.argmax(tail.fitted & (tail.evals >= smallest)), enough


def _spacings(tail: Tail) -> Float[jax.Array, " size"]:
    """Log of each eigenvalue over the one before, times the eigenvalues from there on.

    Above xmin these add up to the sum of log(x / xmin), and none is negative: nothing cancels
    however narrow the spectrum.
    """
    x, below = tail.evals[1:], tail.evals[:-1]
    inside = tail.fitted[:-1]
    near = inside & (x < 2.0 * below)
    # Double `where`: neither branch may divide by zero where the other one is taken.
    ratio = (x - below) / jnp.where(near, below, 1.0)
    close = jnp.log1p(jnp.where(near, ratio, 0.0))
    gaps = jnp.where(near, close, tail.log_evals[1:] - tail.log_evals[:-1])
    return jnp.append(jnp.zeros(1, gaps.dtype), jnp.where(inside, gaps * tail.count[1:], 0.0))


def _status(
    esd: ESD, tail: Tail, found: Bool[Array, ""], long_enough: Bool[Array, ""], threshold: Threshold
) -> Int[Array, ""]:
    status = tail_status(esd, tail, found, threshold)
    equal = long_enough & (status == Status.TAIL_TOO_SHORT)
    return jnp.where(equal, jnp.int32(Status.NO_TAIL), status)


def _checked(k: int | Int[Array, ""] | Place) -> int | Int[Array, ""] | Place:
    if isinstance(k, Array) or k in ("median", "peak"):
        return k
    if is_number(Integral, k) and int(k) >= SHORTEST_TAIL:
        return min(int(k), MOST_CLIPPED)
    raise OptionError(f"k is a whole number from 2, 'median' or 'peak', not {k!r}")
