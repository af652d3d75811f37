"""A spectrum beside that of the same weights shuffled: what correlations add."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, in_range
from wwfunc.status import Status

FEW_EVALS = 100
REPLICAS_OF_FEW = 5


@record
class Randomized:
    """A layer beside its shuffled copies, WeightWatcher's `randomize=True`; NaN where undefined.

    WeightWatcher shuffles once for the first column and once more for the others; here all share
    their shuffles.
    """

    max_rand_eval: Float[Array, "*batch"]
    """The largest eigenvalue of all replicas."""
    rand_distance: Float[Array, "*batch"]
    """Jensen-Shannon distance of the two spectra as shares, to the first replica: 0 to 0.833."""
    ww_softrank: Float[Array, "*batch"]
    """The first replica's largest eigenvalue over that of the layer."""
    ww_maxdist: Float[Array, "*batch"]
    """The layer's largest eigenvalue minus that of the first replica."""
    status: Int[Array, "*batch"]


def replicas(evals: int) -> int:
    """How many shuffles a layer of so many eigenvalues, all slices together, is given."""
    return REPLICAS_OF_FEW if evals < FEW_EVALS else 1


@jax.jit
def randomised(esd: ESD, first: ESD, every: ESD) -> Randomized:
    """Compare a spectrum with its first replica, padded to one size, and with all, pooled."""
    largest, shuffled = esd.evals[-1], first.evals[-1]
    positive = largest > 0
    ratio = shuffled / jnp.where(positive, largest, 1.0)
    finite = in_range(esd) & in_range(first) & in_range(every)

    def kept(value: Float[Array, ""], defined: Array | bool = True) -> Float[Array, ""]:
        return jnp.where(finite & defined, value, jnp.nan)

    return Randomized(
        max_rand_eval=kept(every.evals[-1]),
        rand_distance=kept(share_distance(esd.evals, first.evals), positive),
        ww_softrank=kept(ratio, positive),
        ww_maxdist=kept(largest - shuffled),
        status=_status(finite, positive),
    )


def share_distance(evals: Float[Array, " size"], others: Float[Array, " size"]) -> Float[Array, ""]:
    r"""Jensen-Shannon distance of two ascending spectra, each divided by its sum.

    .. math:: d^2 = \frac{1}{2} \sum_i p_i \ln \frac{p_i}{m_i} + q_i \ln \frac{q_i}{m_i},
              \quad m = (p + q) / 2

    Eigenvalues are paired by rank; a zero beside a zero adds nothing.
    """
    p, q = _shares(evals), _shares(others)
    both = p + q
    balance = (p - q) / jnp.where(both > 0, both, 1.0)
    # (1 + x) ln(1 + x) + (1 - x) ln(1 - x), where the first order cancels before it is rounded.
    one_sided = jnp.abs(balance) == 1.0
    x = jnp.where(one_sided, 0.0, balance)
    terms = jnp.where(one_sided, 2.0 * jnp.log(2.0), 2.0 * x * jnp.arctanh(x) + jnp.log1p(-x * x))
    divergence = jnp.sum(both * terms) / 4.0
    apart = divergence > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, divergence, 1.0)), 0.0)


def _shares(evals: Float[Array, " size"]) -> Float[Array, " size"]:
    total = jnp.sum(evals)
    return evals / jnp.where(total > 0, total, 1.0)


def _status(finite: Array, positive: Array) -> Int[Array, ""]:
    found = jnp.where(positive, jnp.int32(Status.SUCCESS), jnp.int32(Status.ALL_ZERO))
    return jnp.where(finite, found, jnp.int32(Status.NOT_FINITE))
