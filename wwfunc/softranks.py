"""How many directions a weight matrix uses: ranks without a threshold on single eigenvalues."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Int, Num

from wwfunc.metrics import matrix_rank, stable_rank
from wwfunc.precision import verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, as_esd, in_range
from wwfunc.status import Status


@record
class Ranks:
    """Soft ranks of one spectrum, between 1 and its rank; where it has none NaN, and counts -1."""

    stable_rank: Float[Array, "*batch"]
    """sum lambda / lambda_max."""
    effective_rank: Float[Array, "*batch"]
    """exp of the entropy of the singular values' shares."""
    energy_rank_95: Num[Array, "*batch"]
    """Fewest eigenvalues that hold 95 % of the sum; of a random matrix the mean number."""
    energy_rank_99: Num[Array, "*batch"]
    """The same for 99 %."""
    participation_ratio: Float[Array, "*batch"]
    """(sum lambda)^2 / sum lambda^2."""
    status: Int[Array, "*batch"]


@verb
def ranks(evals: ESD | Float[ArrayLike, " n"]) -> Ranks:
    r"""Count the directions that a spectrum uses, in five ways.

    .. math::
        R_s &= \frac{\sum_i \lambda_i}{\lambda_{\max}}, \quad
        R_e = \exp\left(-\sum_i p_i \ln p_i\right), \; p_i = \frac{\sigma_i}{\sum_j \sigma_j}, \\
        R_q &= \min \left\{k : \sum_{j \le k} \lambda_{(j)} \ge q \sum_i \lambda_i \right\}, \quad
        R_p = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}

    with the singular values sigma_i, lambda_i = sigma_i^2, and q = 0.95 and 0.99.

    Parameters
    ----------
    evals
        An `ESD`, or eigenvalues in any order. Those at or under the rounding floor count as zero.

    Returns
    -------
    Ranks
        With `status`. What a random matrix of the same shape would have is for
        `wwfunc.randommatrix.gaussianranks.random_ranks` to say.

    Notes
    -----
    O(n log n). Works under `jit`, `vmap` and `grad`; the energy ranks are whole numbers and have
    no derivative. All are free of scale. The effective rank is of singular values, as Roy and
    Vetterli define it; the spectral entropy in `ScaleMetrics` is of eigenvalues.

    References
    ----------
    Roy, Vetterli, EUSIPCO 2007, 606-610, https://ieeexplore.ieee.org/document/7098875.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.softranks import ranks
    >>> found = ranks(np.ones(40))
    >>> [round(float(getattr(found, name)), 9) for name in ("stable_rank", "effective_rank")]
    [40.0, 40.0]
    >>> int(found.energy_rank_95)
    38
    """
    return ranks_of(as_esd(evals))


@jax.jit
def ranks_of(esd: ESD) -> Ranks:
    """`ranks` of an `ESD`: one program for each padded size."""
    usable = in_range(esd) & (esd.evals[-1] > 0)
    # Over the largest one nothing overflows; a stand-in keeps NaN out of the gradient.
    largest = jnp.where(usable, esd.evals[-1], 1.0)
    share = jnp.where(usable & (esd.evals > esd.floor), esd.evals / largest, 0.0)
    effective = jnp.exp(_entropy(share))
    participation = jnp.sum(share) ** 2 / jnp.where(usable, jnp.sum(share**2), 1.0)
    return Ranks(
        stable_rank=jnp.where(usable, stable_rank(esd), jnp.nan),
        effective_rank=jnp.where(usable, effective, jnp.nan),
        energy_rank_95=_energy_rank(share, 0.95),
        energy_rank_99=_energy_rank(share, 0.99),
        participation_ratio=jnp.where(usable, participation, jnp.nan),
        status=_status(esd),
    )


def _entropy(share: Float[Array, " size"]) -> Float[Array, ""]:
    """Of the singular values, from the eigenvalues over the largest one."""
    positive = share > 0
    sigma = jnp.where(positive, jnp.sqrt(jnp.where(positive, share, 1.0)), 0.0)
    total = jnp.maximum(jnp.sum(sigma), 1.0)  # the largest one is 1
    p = jnp.where(positive, sigma / total, 1.0)
    return -jnp.sum(p * jnp.log(p))


def _energy_rank(share: Float[Array, " size"], energy: float) -> Int[Array, ""]:
    """Number of partial sums, from the largest on, that are too small, and one; -1 of nothing."""
    held = jax.lax.stop_gradient(jnp.cumsum(share[::-1]))
    rounding = 4 * jnp.finfo(share.dtype).eps.item() * share.size**0.5
    lacking = jnp.sum(held < energy * held[-1] * (1.0 - rounding), dtype=jnp.int32)
    return jnp.where(held[-1] > 0, lacking + 1, -1)


def _status(esd: ESD) -> Int[Array, ""]:
    outcomes = [
        (~in_range(esd), Status.NOT_FINITE),
        (esd.evals[-1] == 0, Status.ALL_ZERO),
        (matrix_rank(esd) < esd.n, Status.RANK_DEFICIENT),
    ]
    codes = [jnp.int32(status) for _, status in outcomes]
    return jnp.select([reason for reason, _ in outcomes], codes, jnp.int32(Status.SUCCESS))
