"""Element-wise shuffles of weight matrices: what a spectrum is without correlations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, UInt32

from wwfunc import host
from wwfunc.checks import count
from wwfunc.errors import InputError
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array, record
from wwfunc.randommatrix.permutation import Words, folded, host_blocks, positions, traced_words
from wwfunc.spectrum import ESD, esd, pooled


@record
class Shuffles:
    """Spectra of the shuffled weights."""

    first: ESD
    """Of the first replica, its slices pooled."""
    every: ESD
    """Of all slices of all replicas, pooled."""
    each: ESD
    """Of each slice of each replica, without padding."""


@verb
def shuffled(
    key: Array | UInt32[Array, " 2"], W: Float[ArrayLike, "*slices n m"]
) -> Float[Array, "*slices n m"]:
    r"""Shuffle the elements of a matrix, or of each slice of a stack by itself.

    .. math:: \tilde W_i = W_{p_i}

    with i counting the elements row by row and p = `permute(key, n m)` the random permutation of
    the key; the slices of a stack after the first have others.

    Parameters
    ----------
    key
        A random key, of `jax.random.key` or `jax.random.PRNGKey`. The same key gives the same
        shuffle, in any precision and on any device.
    W
        One matrix (n, m), or a stack of k slices (k, n, m).

    Returns
    -------
    Array
        The same elements in the same shape, in float32 or float64.

    Raises
    ------
    InputError
        If `key` is not one random key, or W not a matrix or a stack of matrices of real numbers.

    Notes
    -----
    O(k n m), without a sort. Works under `jit`, `vmap` and `grad`. The shuffle of W^T is not that
    of W, transposed.

    References
    ----------
    Martin, Mahoney, JMLR 22 (2021), arXiv:1810.01075 (randomised weight matrices).

    Examples
    --------
    >>> import jax, numpy as np, wwfunc.randommatrix.shuffling as sh
    >>> np.sort(sh.shuffled(jax.random.key(0), np.eye(3)).ravel())
    array([0., 0., 0., 0., 0., 0., 1., 1., 1.])
    """
    return _shuffled(traced_words(key), _checked(W), 1).reshape(np.shape(W))


@verb
def random_esd(
    key: Array | UInt32[Array, " 2"],
    W: Float[ArrayLike, "*slices n m"],
    scale: Float[ArrayLike, ""] = 1.0,
    *,
    replicas: int = 1,
) -> ESD:
    r"""Compute the ESD of scale W with its elements shuffled: what it is without correlations.

    .. math:: \lambda_i = s^2 \sigma_i(\tilde W)^2, \quad \tilde W_i = W_{p_i}

    Parameters
    ----------
    key
        A random key, of `jax.random.key` or `jax.random.PRNGKey`.
    W
        One matrix (n, m), or a stack of k slices (k, n, m), each of which is shuffled by itself.
    scale
        Factor on W; WeightWatcher's `conv2d_norm` is sqrt(1/2).
    replicas
        How many shuffles to pool into one spectrum, from 1. The first one does not depend on how
        many follow.

    Returns
    -------
    ESD
        The eigenvalues of all slices of all replicas, as `esd(shuffled(key, W), scale)` for one.

    Raises
    ------
    InputError
        If `key` is not one random key, or W not a matrix or a stack of matrices of real numbers.
    OptionError
        If `replicas` is not a whole number from 1.

    Notes
    -----
    The shuffle costs O(k n m), little beside the eigenvalues of `esd`. Works under `jit`, `vmap`
    and `grad`. What remains of W is the distribution of its elements: the bulk of a Gaussian matrix
    of the same variance, and an eigenvalue above it for each element that is large enough to make
    one (a trap).

    References
    ----------
    Martin, Mahoney, JMLR 22 (2021), arXiv:1810.01075 (randomised weight matrices).

    Examples
    --------
    >>> import jax, numpy as np, wwfunc.randommatrix.shuffling as sh
    >>> W = np.ones((4, 3))  # nothing to shuffle
    >>> sh.random_esd(jax.random.key(0), W).evals.round(6)
    array([ 0.,  0., 12.])
    """
    return esd(_shuffled(traced_words(key), _checked(W), count("replicas", replicas)), scale)


def host_shuffled(
    words: Words, stack: Float[np.ndarray, "k n m"], replica: int = 0, part: slice = slice(None)
) -> Float[np.ndarray, "_ n m"]:
    """`shuffled` of slices of a stack on the host, from the `words` of a key, in its own dtype."""
    chosen = range(len(stack))[part]
    result = np.empty((len(chosen), *stack.shape[1:]), stack.dtype)
    for out, index in zip(result, chosen, strict=True):
        _shuffle(folded(words, replica * len(stack) + index), stack[index], out.reshape(-1))
    return result


@functools.partial(jax.jit, static_argnames="replicas")
def shuffles(
    key: Array, W: Float[Array, "*slices n m"], scale: Float[Array, ""], replicas: int
) -> Shuffles:
    """The spectra behind `random_esd`, one by one and pooled."""
    copies = _shuffled(traced_words(key), W, replicas)
    each = jax.vmap(esd, (0, None))(copies, scale)
    first = jax.tree.map(lambda leaf: leaf[: len(copies) // replicas], each)
    return Shuffles(first=pooled(first), every=pooled(each), each=each)


def host_shuffles(
    words: Words, stack: Float[np.ndarray, "k n m"], scale: float = 1.0, replicas: int = 1
) -> Shuffles:
    """`shuffles` on the host in float64, of a stack (k, n, m), n >= m: see `wwfunc.host.esd`.

    What it needs beside W is one shuffled slice, or some small ones, and their Gram matrices.
    """
    evals = [_host_evals(words, stack, replica) for replica in range(replicas)]
    rows, every = stack.shape[1], np.concatenate(evals)
    return Shuffles(
        first=host.pooled(evals[0], rows, scale),
        every=host.pooled(every, rows, scale),
        each=host.batched(every, rows, scale),
    )


def _host_evals(words: Words, stack: np.ndarray, replica: int) -> np.ndarray:
    parts = host.portions(len(stack), stack.shape[2])
    grams = (host.grams(host_shuffled(words, stack, replica, part)) for part in parts)
    return np.concatenate([host.eigenvalues(some) for some in grams])


def _shuffle(words: Words, matrix: np.ndarray, out: np.ndarray) -> None:
    """Fill `out`. Only a matrix contiguous along neither side, a slice of a kernel, is copied."""
    rows, cols = map(np.uint32, matrix.shape)
    turned = matrix.flags.f_contiguous and not matrix.flags.c_contiguous
    flat = (matrix.T if turned else matrix).reshape(-1)
    start = 0
    for block in host_blocks(words, matrix.size):
        row = block // cols if turned else block
        places = (block - row * cols) * rows + row if turned else block
        np.take(flat, places, out=out[start : start + places.size], mode="clip")
        start += places.size


@functools.partial(jax.jit, static_argnums=2)
def _shuffled(
    words: UInt32[Array, " words"], W: Float[Array, "*slices n m"], replicas: int
) -> Float[Array, "all n m"]:
    """All slices of the first replica, then those of the next one."""
    n, m = W.shape[-2:]
    slices = W.shape[0] if W.ndim == 3 else 1
    every = folded(words, np.arange(replicas * slices))
    places = jax.vmap(positions, (0, None))(every, n * m)
    flat = jnp.tile(W.reshape(slices, n * m), (replicas, 1))
    return jnp.take_along_axis(flat, places, 1).reshape(replicas * slices, n, m)


def _checked(W: Float[ArrayLike, "*slices n m"]) -> Array:
    weights = real_numbers(W, "W")
    if weights.ndim not in (2, 3):
        raise InputError(
            f"W is a matrix (n, m) or a stack (k, n, m), not an array of shape {weights.shape}"
        )
    return weights
