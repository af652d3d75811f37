"""The trace-log condition: how many of the largest eigenvalues have a product of one."""

from __future__ import annotations

from numbers import Integral

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int

from wwfunc.checks import MOST_CLIPPED, is_number
from wwfunc.errors import OptionError
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd
from wwfunc.status import Status

EQUAL = 8
"""Eigenvalues within so many roundings of the largest one are equal to it."""


@record
class ERG:
    """The tail that the trace-log condition cuts off, by WeightWatcher's names."""

    detX_num: Int[Array, "*batch"]
    """Number of eigenvalues in it; -1 where it failed."""
    detX_val: Float[Array, "*batch"]
    """The smallest of them where the mean eigenvalue is 1."""
    detX_val_unrescaled: Float[Array, "*batch"]
    """The smallest of them."""
    ERG_gap: Float[Array, "*batch"]
    """`detX_num` less the number of eigenvalues in the power-law tail; NaN without such a fit."""
    status: Int[Array, "*batch"]

    @property
    def num_ERG_spikes(self) -> Int[Array, "*batch"]:
        """WeightWatcher's second name for `detX_num`."""
        return self.detX_num


@verb
def erg(
    evals: ESD | Float[ArrayLike, " n"], num_pl_spikes: int | Int[Array, ""] | None = None
) -> ERG:
    r"""Find the shortest tail of the spectrum whose product falls under one.

    .. math:: \min \Big\{ k : \sum_{j=1}^{k} \ln \frac{\lambda_{(j)}}{\bar\lambda} < 0 \Big\},
        \quad \bar\lambda = \frac{1}{N} \sum_{j=1}^{N} \lambda_{(j)}

    with the eigenvalues in descending order.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order.
    num_pl_spikes
        Number of eigenvalues in the power-law tail, `k` of `wwfunc.fit_pl`, to be compared with;
        None or 0 where there is no such fit. An array, also a traced one, is not checked.

    Returns
    -------
    ERG
        With `status`, a `Status` code; where there is no such tail the numbers are NaN, and
        `detX_num` is -1.

    Raises
    ------
    OptionError
        If `num_pl_spikes` is no whole number from 0.

    Notes
    -----
    O(n log n) for eigenvalues in any order, O(n) for an `ESD`. Sums of logarithms neither overflow
    nor underflow, whatever n. Works under `jit` and `vmap`, and under `grad` (the number of
    eigenvalues is held fixed by the derivative).

    The mean over all eigenvalues is at least their geometric mean, so that the product of all of
    them is under one unless they are all equal, which is a failure. Eigenvalues that rounding does
    not resolve (at or under the floor) count as zero in the mean and are never part of the tail:
    where those above them still have a product over one, that is another failure.

    In the theory the effective correlation space of an ideal layer satisfies the condition as its
    power law has alpha = 2, so that both tails start at the same eigenvalue and the gap is near 0.

    References
    ----------
    Martin, Hinrichs, SETOL: A Semi-Empirical Theory of (Deep) Learning, 2025, arXiv:2507.17912,
    doi:10.48550/arXiv.2507.17912.

    Examples
    --------
    >>> import numpy as np, wwfunc.randommatrix.tracelog as tracelog
    >>> found = tracelog.erg(np.array([8.0, 4.0, 2.0, 1.0, 1.0]), num_pl_spikes=2)  # mean 3.2
    >>> int(found.detX_num), float(found.detX_val_unrescaled), float(found.ERG_gap)
    (4, 1.0, 2.0)
    """
    return erg_of(as_esd(evals), _checked(num_pl_spikes))


@jax.jit
def erg_of(esd: ESD, num_pl_spikes: int | Int[Array, ""]) -> ERG:
    """`erg` of an `ESD`: one program for each padded size. 0 means that there is no fit."""
    evals, size = esd.evals, esd.evals.size
    real = jnp.arange(size) >= size - esd.n
    counted = real & (evals > esd.floor) & (evals > 0)
    mean = jnp.sum(jnp.where(counted, evals, 0.0)) / jnp.maximum(esd.n, 1)
    # Double `where`: no branch may divide by zero or take the log of it.
    share = jnp.where(counted, evals, 1.0) / jnp.where(mean > 0, mean, 1.0)
    # of the product of this eigenvalue and all above
    logs = jax.lax.cumsum(jnp.where(counted, jnp.log(share), 0.0), reverse=True)
    # The product of all is under one by the inequality of the means, also where rounding hides it.
    under = counted & ((logs < 0) | (jnp.arange(size) == size - esd.n))
    start = size - 1 - jnp.argmax(under[::-1])
    failure = _failure(esd, counted, jnp.any(under))
    found = failure == 0
    number = jnp.where(found, size - start, -1).astype(jnp.int32)
    fitted = jnp.asarray(num_pl_spikes)
    deficient = jnp.any(real & ~counted)
    remark = jnp.where(deficient, jnp.int32(Status.RANK_DEFICIENT), jnp.int32(Status.SUCCESS))
    return ERG(
        detX_num=number,
        detX_val=jnp.where(found, share[start], jnp.nan),
        detX_val_unrescaled=jnp.where(found, evals[start], jnp.nan),
        ERG_gap=jnp.where(found & (fitted > 0), (number - fitted).astype(evals.dtype), jnp.nan),
        status=jnp.where(found, remark, failure),
    )


def _failure(esd: ESD, counted: Bool[Array, " size"], crossed: Bool[Array, ""]) -> Int[Array, ""]:
    """The status of a spectrum without such a tail; 0 where it has one."""
    largest = esd.evals[-1]
    smallest = jnp.min(
        jnp.where(jnp.arange(counted.size) >= counted.size - esd.n, esd.evals, largest)
    )
    rounding = jnp.maximum(esd.floor, EQUAL * jnp.finfo(largest.dtype).eps * largest)
    causes = [
        # XLA multiplies by the reciprocal of the mean, which must not underflow either.
        (~jnp.isfinite(4.0 * jnp.sum(esd.evals)), Status.NOT_FINITE),
        (esd.n < 2, Status.TAIL_TOO_SHORT),
        (~jnp.any(counted), Status.ALL_ZERO),
        (largest - smallest <= rounding, Status.NO_TAIL),
        (~crossed, Status.NO_TRACE_LOG),
    ]
    conditions = [condition for condition, _ in causes]
    return jnp.select(conditions, [jnp.int32(status) for _, status in causes], jnp.int32(0))


def _checked(num_pl_spikes: int | Int[Array, ""] | None) -> int | Int[Array, ""]:
    if isinstance(num_pl_spikes, Array):
        return num_pl_spikes
    if num_pl_spikes is None:
        return 0
    if is_number(Integral, num_pl_spikes) and 0 <= int(num_pl_spikes) <= MOST_CLIPPED:
        return int(num_pl_spikes)
    raise OptionError(f"num_pl_spikes is a whole number from 0 or None, not {num_pl_spikes!r}")
