"""A random permutation of 0 ... size - 1 that a key determines, the same in JAX and in NumPy.

A sorting shuffle takes seconds for a large layer, and NumPy's generators do not exist in JAX. Here
each place is computed by itself, by a Feistel network over the cells of an a x b table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt32

from wwfunc.checks import is_number
from wwfunc.errors import InputError
from wwfunc.keys import check_key
from wwfunc.pytrees import Array

ROUNDS = 8
WORDS = 2 * ROUNDS

_BLOCK = 1 << 15
"""Places that are computed together on the host: what a round touches stays in the cache."""
_MOST_TRACED = 1 << 31
_MOST = 1 << 32
_HALF = np.uint32(16)

Words: TypeAlias = Sequence[int] | Array
"""Two unsigned 32-bit numbers for each round."""


def permute(key: Array | UInt32[Array, " 2"], size: int) -> UInt32[Array, " size"]:
    r"""Draw a permutation of 0 ... size - 1, each place computed by itself.

    .. math:: x_{t + 2} = (x_t + F_t(x_{t + 1})) \bmod c_t, \quad
              i = x_0 b + x_1, \quad p_i = x_8 b + x_9

    where the moduli c_t are a, b, a, b, ... and the F_t are eight keyed hash functions. Where a b
    exceeds size, a place outside goes through the network again until it is inside.

    Parameters
    ----------
    key
        A random key, of `jax.random.key` or `jax.random.PRNGKey`.
    size
        Number of elements, 0 to 2^31. It decides about shapes: static under `jit`.

    Returns
    -------
    Array
        `positions`, so that `shuffled.flat[i] = W.flat[positions[i]]`: what stands at i was at
        positions[i].

    Raises
    ------
    InputError
        If `key` is not one random key, or `size` is not a whole number in this range.

    Notes
    -----
    O(size) time, and no memory beside the result where the compiler fuses. Works under `jit`, and
    under `vmap` over keys. `host_permute(words(key), size)` is the same permutation.

    It is a permutation whatever the hash functions are. To tell eight rounds of random functions
    from a random permutation takes more than all inputs and outputs of one permutation. Where size
    is a b and both are odd, all permutations are even: no two differ by a single exchange. At a few
    elements it is not uniform over the keys: the orders of 5 have from 0.77 to 1.25 times the
    uniform share, those of 6 from 0.6 to 2.0, as with eight rounds of truly random functions.

    References
    ----------
    Black, Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002, doi:10.1007/3-540-45760-7_9.
    Patarin, Generic attacks on Feistel schemes, Asiacrypt 2001, doi:10.1007/3-540-45682-1_14.

    Examples
    --------
    >>> import jax
    >>> from wwfunc.randommatrix.permutation import permute
    >>> sorted(permute(jax.random.key(0), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    return positions(traced_words(key), _checked(size, _MOST_TRACED))


def words(key: Array | UInt32[Array, " 2"]) -> tuple[int, ...]:
    """What the host's functions take in place of a key."""
    return tuple(int(word) for word in np.asarray(traced_words(key)))


def traced_words(key: Array | UInt32[Array, " 2"]) -> UInt32[Array, " words"]:
    """The words of a key, also inside `jit`."""
    return jax.random.bits(check_key(key), (WORDS,), jnp.uint32)


def folded(words: Words, index: int | Int[np.ndarray, "*many"]) -> UInt32[Array, "*many words"]:
    """The words of the `index`-th of several independent permutations; the 0th are `words`."""
    odd = np.arange(1, 2 * len(words), 2, dtype=np.uint32)
    salts = mixed(np.asarray(index, np.uint32)[..., None] * odd)  # it takes zero to zero
    return (words if isinstance(words, Array) else np.asarray(words, np.uint32)) ^ salts


def host_permute(words: Words, size: int) -> UInt32[np.ndarray, " size"]:
    """`permute` on the host, from the `words` of a key, for sizes up to 2^32."""
    result = np.empty(_checked(size, _MOST), np.uint32)
    start = 0
    for block in host_blocks(words, size):
        result[start : start + block.size] = block
        start += block.size
    return result


def host_blocks(words: Words, size: int) -> Iterator[UInt32[np.ndarray, " block"]]:
    """The positions of `host_permute` in their order, in blocks that fit into the cache."""
    sides = _sides(_checked(size, _MOST))
    tables = _tables(np.asarray(words, np.uint32), sides)
    index = np.arange(min(size, _BLOCK), dtype=np.uint32)
    for start in range(0, size, _BLOCK):
        block = _placed(tables, index[: size - start] + np.uint32(start), sides)
        outside = np.flatnonzero(block >= size)
        while outside.size:
            block[outside] = _placed(tables, block[outside], sides)
            outside = outside[block[outside] >= size]
        yield block


@functools.partial(jax.jit, static_argnums=1)
def positions(words: UInt32[Array, " words"], size: int) -> UInt32[Array, " size"]:
    """The permutation of traced words."""
    sides = _sides(size)
    result = _network(words, jnp.arange(size, dtype=jnp.uint32), sides)
    # The cells outside are few, fewer than a: what leads there is found from behind.
    outside = jnp.arange(size, int(sides[0]) * int(sides[1]), dtype=jnp.uint32)
    if not size or not outside.size:
        return result
    before = _network(words, outside, sides, backwards=True)
    inside = jax.lax.while_loop(
        lambda places: jnp.any(places >= size),
        lambda places: jnp.where(places >= size, _network(words, places, sides), places),
        # Cycles that never come inside begin at no place and are not followed.
        jnp.where(before < size, outside, 0),
    )
    return result.at[before].set(inside, mode="drop")


def mixed(x: Array) -> Array:
    """MurmurHash3's finaliser: each bit of `x` reaches each bit of the result."""
    x = (x ^ (x >> _HALF)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> _HALF)


def _sides(size: int) -> tuple[np.uint32, np.uint32]:
    """a and b, at most 2^16 each: a b is at least `size`, and less than `size` + a."""
    a = math.isqrt(max(size - 1, 0)) + 1
    return np.uint32(a), np.uint32(max(1, -(-size // a)))


def _drawn(x: Array, first: Array, second: Array, below: np.uint32) -> Array:
    """A keyed hash of `x`, uniform under `below`."""
    bits = mixed(mixed(x ^ first) ^ second)
    # The upper half of the 48-bit product bits * below, which is their product over 2^32.
    low = ((bits & np.uint32(0xFFFF)) * below) >> _HALF
    return ((bits >> _HALF) * below + low) >> _HALF


def _network(
    words: Array, index: jax.Array, sides: tuple[np.uint32, np.uint32], backwards: bool = False
) -> jax.Array:
    halves = [index // sides[1], index % sides[1]]
    rounds = range(len(words) // 2)
    for turn in reversed(rounds) if backwards else rounds:
        side, below = turn % 2, sides[turn % 2]
        change = _drawn(halves[1 - side], words[2 * turn], words[2 * turn + 1], below)
        moved = halves[side] - change if backwards else halves[side] + change
        # Of the two the one outside 0 ... below - 1 is larger: unsigned numbers wrap around.
        halves[side] = jnp.minimum(moved, moved + below if backwards else moved - below)
    return halves[0] * sides[1] + halves[1]


def _tables(words: np.ndarray, sides: tuple[np.uint32, np.uint32]) -> list[np.ndarray]:
    """What each round adds to one half, for all values of the other one: there are few."""
    values = [np.arange(side, dtype=np.uint32) for side in sides]
    return [
        np.asarray(_drawn(values[1 - turn % 2], first, second, sides[turn % 2]))
        for turn, (first, second) in enumerate(words.reshape(-1, 2))
    ]


def _placed(
    tables: list[np.ndarray], index: np.ndarray, sides: tuple[np.uint32, np.uint32]
) -> np.ndarray:
    """`_network` by tables, in place."""
    left = index // sides[1]
    halves = [left, index - left * sides[1]]
    scratch = np.empty_like(index)
    for turn, table in enumerate(tables):
        side = turn % 2
        moved = halves[side]
        moved += np.take(table, halves[1 - side], out=scratch, mode="clip")
        np.subtract(moved, sides[side], out=scratch)
        np.minimum(moved, scratch, out=moved)
    halves[0] *= sides[1]
    halves[0] += halves[1]
    return halves[0]


def _checked(size: int, most: int) -> int:
    if not is_number(Integral, size) or not 0 <= size <= most:
        raise InputError(f"size is a whole number from 0 to {most}, not {size!r}")
    return int(size)
