"""The singular values of a convolution as the linear map that it is on a periodic grid."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from operator import lt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from wwfunc import host
from wwfunc.checks import count
from wwfunc.errors import InputError, OptionError
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array
from wwfunc.spectrum import ESD, underflows

Grid = int | tuple[int, ...]

_BLOCK_ELEMENTS = 1 << 20
"""So many elements of the matrices of the frequencies are held at a time: 16 MiB."""


class Frequencies(NamedTuple):
    """One of each pair of opposite frequencies, at which a real kernel has conjugate matrices."""

    cosines: Float[np.ndarray, "half taps"]
    sines: Float[np.ndarray, "half taps"]
    times: np.ndarray
    """Whether a frequency stands for one or for two: it is its own opposite or not."""


@verb
def conv_esd(
    kernel: Float[ArrayLike, "*taps n m"], grid: Grid = 32, scale: Float[ArrayLike, ""] = 1.0
) -> ESD:
    r"""Compute the eigenvalues of A^T A, A the circular convolution with a kernel on a grid.

    .. math:: \lambda = s^2 \sigma(P(\omega))^2, \quad
              P(\omega) = \sum_t K_t e^{-2 \pi i \, \omega \cdot t / g}

    for each of the g_1 ... g_d frequencies of the grid: the Fourier transform makes A block
    diagonal, with one matrix of the size of a slice for each frequency.

    Parameters
    ----------
    kernel
        The taps' axes first, then the channels': (kh, kw, out, in) of two dimensions, (k, out, in)
        of one. A layer's stack (k, n, m) is `stack.reshape(kh, kw, n, m)`. Which channel axis is
        which, and whether the taps are flipped, changes nothing.
    grid
        Side of the grid, or one for each of its axes; at least the kernel's. It decides about
        shapes: static under `jit`.
    scale
        Factor s on the kernel.

    Returns
    -------
    ESD
        prod(grid) min(n, m) eigenvalues, ascending.

    Raises
    ------
    InputError
        If the kernel is no array of real numbers with three axes or more.
    OptionError
        If the grid has not as many axes, or is smaller than the kernel.

    Notes
    -----
    O(g^d (n m^2 + m^3)), m the smaller side, for one of each pair of opposite frequencies. Stride
    1, no dilation. Groups of a grouped or depthwise convolution are not known here: a kernel (3, 3,
    16, 1) is taken as a convolution of one input channel; give each group by itself. Of a real
    kernel opposite frequencies have the same singular values: all are there twice, but for the
    frequencies that are their own opposite. Zero padding instead of the periodic grid moves the
    values by little where the grid is much larger than the kernel.
    Works under `jit`, `vmap` and `grad`. All frequencies are held at once; `host_conv_esd` holds
    a few.

    References
    ----------
    Sedghi, Gupta, Long, ICLR 2019, arXiv:1805.10408.

    Examples
    --------
    >>> import numpy as np
    >>> from wwfunc.convolution import conv_esd
    >>> difference = np.array([1.0, -1.0]).reshape(2, 1, 1)
    >>> conv_esd(difference, 4).evals.round(12)
    array([0., 2., 2., 4.])
    """
    taps = real_numbers(kernel, "kernel")
    return _conv_esd(taps, real_numbers(scale, "scale"), _sides(taps.shape, grid))


def host_conv_esd(kernel: np.ndarray, grid: Grid = 32, scale: float = 1.0) -> ESD:
    """`conv_esd` by LAPACK in float64, some frequencies at a time."""
    sides = _sides(kernel.shape, grid)
    slices = _slices(np.asarray(kernel, np.float64))
    if not slices.size:
        return host.as_esd(np.zeros(1), n=0, floor=0.0)
    half = frequencies(kernel.shape[:-2], sides)
    step = max(1, _BLOCK_ELEMENTS // math.prod(slices.shape[1:]))
    flat = slices.reshape(len(slices), -1)
    evals = np.empty((len(half.times), slices.shape[2]))
    for start in range(0, len(evals), step):
        part = slice(start, start + step)
        with np.errstate(over="ignore", invalid="ignore"):  # not finite is a status
            matrices = half.cosines[part] @ flat - 1j * (half.sines[part] @ flat)
            matrices = matrices.reshape(len(matrices), *slices.shape[1:])
            evals[part] = host.eigenvalues(matrices.conj().swapaxes(1, 2) @ matrices)
    if not evals.any() and slices.any():
        evals[:] = np.nan  # the squares underflow
    return host.pooled(np.repeat(evals, half.times, axis=0), slices.shape[1], scale)


@functools.partial(jax.jit, static_argnames="sides")
def _conv_esd(
    kernel: Float[Array, "*taps n m"], scale: Float[Array, ""], sides: tuple[int, ...]
) -> ESD:
    slices = _slices(kernel)
    half = frequencies(kernel.shape[:-2], sides)
    if not slices.size:
        zero = jnp.zeros(1, kernel.dtype)
        return ESD(evals=zero, n=jnp.int32(0), floor=zero[0])
    grams = _grams(slices, half)
    each = jnp.maximum(_hermitian_eigenvalues(grams), 0.0)
    every = jnp.repeat(each, half.times, 0, total_repeat_length=math.prod(sides))
    evals = jnp.sort(every.ravel()) * (scale**2).astype(each.dtype)
    lost = ~jnp.isfinite(grams).all() | (underflows(evals[-1]) & jnp.any(slices != 0))
    evals = jnp.where(lost, jnp.nan, evals)
    floor = evals[-1] * jnp.finfo(kernel.dtype).eps * slices.shape[1]
    return ESD(evals=evals, n=jnp.asarray(evals.size, jnp.int32), floor=floor)


def frequencies(taps: tuple[int, ...], sides: tuple[int, ...]) -> Frequencies:
    """The Fourier transform of a kernel on a grid, as a small matrix over its taps."""
    waves = np.indices(sides).reshape(len(sides), -1).T
    opposite = np.ravel_multi_index(tuple((-waves % sides).T), sides)
    own = np.arange(len(waves))
    kept = own <= opposite
    turns = waves[kept] / np.array(sides) @ np.indices(taps).reshape(len(taps), -1)
    times = np.where(opposite[kept] == own[kept], 1, 2)
    return Frequencies(np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns), times)


def _grams(slices: Float[Array, "taps n m"], half: Frequencies) -> Array:
    """P(w)^H P(w) of each frequency."""
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    flat = slices.reshape(len(slices), -1)
    cosines, sines = (jnp.asarray(part, slices.dtype) for part in half[:2])
    matrices = jax.lax.complex(product(cosines, flat), -product(sines, flat))
    matrices = matrices.reshape(-1, *slices.shape[1:])
    return product(matrices.conj().mT, matrices)


@jax.custom_jvp
def _hermitian_eigenvalues(grams: Array) -> Float[Array, "half m"]:
    """As `wwfunc.spectrum.gram_eigenvalues`, of complex matrices."""
    return jnp.linalg.eigvalsh(grams)


@_hermitian_eigenvalues.defjvp
def _hermitian_eigenvalues_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, "half m"], Float[Array, "half m"]]:
    evals, vectors = jnp.linalg.eigh(primals[0])
    change = jnp.einsum("kni,knp,kpi->ki", vectors.conj(), tangents[0], vectors)
    return evals, change.real


def _slices(kernel: Any) -> Any:
    """(taps, n, m) with n >= m: the adjoint has the same singular values."""
    stack = kernel.reshape(math.prod(kernel.shape[:-2]), *kernel.shape[-2:])
    return stack if stack.shape[1] >= stack.shape[2] else stack.swapaxes(1, 2)


def _sides(shape: tuple[int, ...], grid: Grid) -> tuple[int, ...]:
    """The sides of the grid, checked against a kernel of this shape."""
    if len(shape) < 3:
        raise InputError(f"a kernel has its taps' axes and two of channels, not the shape {shape}")
    taps = shape[:-2]
    given = tuple(grid) if isinstance(grid, Sequence) else (grid,) * len(taps)
    sides = tuple(count("grid", side) for side in given)
    if len(sides) != len(taps) or any(map(lt, sides, taps)):
        raise OptionError(f"grid={grid!r} is smaller than the kernel's {taps}, or of other axes")
    return sides
