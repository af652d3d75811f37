"""Which of two distributions is closer to a sample, and whether that is more than chance."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import ArrayLike, Bool, Float

from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array


@verb
def loglikelihood_ratio(
    first: Float[ArrayLike, " n"],
    second: Float[ArrayLike, " n"],
    mask: Bool[ArrayLike, " n"] | None = None,
    *,
    nested: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Test which of two distributions is closer to a sample, from the log-likelihoods of points.

    .. math:: R = \sum_i d_i, \quad d_i = \ell^{(1)}_i - \ell^{(2)}_i, \quad
       p = \operatorname{erfc} \frac{|R|}{\sqrt{2 n \operatorname{var} d}}

    Parameters
    ----------
    first, second
        Natural logarithms of the likelihood of each point.
    mask
        Which points count; None counts all.
    nested
        Whether one family holds the other: then p is that of chi^2 = 2 \|R\|, one degree of
        freedom.

    Returns
    -------
    R
        Positive where the first is closer.
    p
        Probability of so large an \|R\| where neither is. Equal likelihoods give R = 0, p = 1.

    Raises
    ------
    InputError
        If an argument holds no real numbers.

    Notes
    -----
    O(n). Infinite or NaN log-likelihoods give NaN.

    References
    ----------
    Vuong, Econometrica 57 (1989), doi:10.2307/1912557.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> R, p = loglikelihood_ratio(np.zeros(4), -np.arange(4.0))
    >>> round(float(R), 3), round(float(p), 3)
    (6.0, 0.007)
    """
    first, second = real_numbers(first, "first"), real_numbers(second, "second")
    counted = jnp.ones(first.shape, bool) if mask is None else jnp.asarray(mask, bool)
    return ratio_of(first, second, counted, nested)


@functools.partial(jax.jit, static_argnums=3)
def ratio_of(
    first: Float[Array, " n"], second: Float[Array, " n"], mask: Bool[Array, " n"], nested: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`loglikelihood_ratio` of arrays."""
    difference = jnp.where(mask, first - second, 0.0)
    R, n = jnp.sum(difference), jnp.sum(mask)
    if nested:
        # The survival function of chi^2 with one degree of freedom at 2 |R|.
        return R, erfc(jnp.sqrt(jnp.abs(R)))
    squares = jnp.sum(jnp.where(mask, (difference - R / n) ** 2, 0.0))
    return R, jnp.where(R == 0, 1.0, erfc(jnp.abs(R) / jnp.sqrt(2.0 * squares)))
