"""One layer measured: arrays in, arrays out, under `jit` and `vmap` too."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float

from wwfunc.errors import InputError
from wwfunc.extras import bulks_of, extras_of, shape_of, vectors_of, wanted
from wwfunc.fits.powerlaw import PowerLawFit
from wwfunc.fits.submatrices import FarmsFit, farms
from wwfunc.fits.tail import limits_of
from wwfunc.fits.truncated import TruncatedPowerLawFit
from wwfunc.measures import Measures, measure_esd
from wwfunc.options import Options, make_options
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array
from wwfunc.randommatrix.randomised import replicas
from wwfunc.randommatrix.randomvectors import random_vector
from wwfunc.randommatrix.shuffling import Shuffles, shuffles
from wwfunc.randommatrix.slices import Slices, slices_of
from wwfunc.spectrum import ESD, esd, pooled, scaled
from wwfunc.trust.null import null_quantiles
from wwfunc.trust.statistics import Trust, trust_of
from wwfunc.vectors import Localization, vector_metrics

OF_MATRICES = ("farms", "mp_fit", "randomize", "vectors", "ranks", "deltas")
"""Options that look at more than eigenvalues."""

Sides = tuple[int, int, int]
"""Slices, the longer side and the shorter one."""


@verb
def measure(
    W: Float[ArrayLike, "*slices n m"] | ESD,
    options: Options | None = None,
    *,
    scale: Float[ArrayLike, ""] = 1.0,
    key: Array | None = None,
) -> Measures:
    """Measure one weight matrix, one stack of slices, or a spectrum that is at hand.

    Parameters
    ----------
    W
        A matrix (n, m), a stack (k, n, m) whose eigenvalues are pooled, or an `ESD`.
    options
        Which fit, and what else is wanted (`trust`, `farms`, `mp_fit`, `randomize`, ...); what
        selects layers and slices is for checkpoints and is not read here.
    scale
        Factor on W; on an `ESD` its square, so that it means the same.
    key
        Random key of shuffles and of the resampling behind trust; None makes one of
        `options.seed`.

    Returns
    -------
    Measures
        A pytree of arrays: `.esd`, `.fit`, `.hill`, `.scale` (norms, ranks), `.shape` (alpha with
        scale), and what the options ask for, None elsewhere.

    Raises
    ------
    InputError
        If W is an `ESD` and what is asked for needs a matrix: windows, sides or vectors.

    Notes
    -----
    Works under `jit` and `vmap`, and under `grad` but for trust: inside a training step, stack
    equal layers and `vmap`. A program is compiled for each shape; `analyze` compiles a few for
    all shapes. An `ESD` tells no shape, so that its `trust.p_random` is NaN. Of a wide matrix the
    shuffle is another one than `analyze` has, which turns it first. On CPUs of few cores jaxlib
    0.10.2 can wait for ever where two programs decompose stacks at a time:
    `jax.config.update("jax_cpu_enable_async_dispatch", False)` runs them one after another.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc
    >>> stacked = np.random.default_rng(0).standard_normal((4, 64, 32)).astype(np.float32)
    >>> jax.jit(jax.vmap(wwfunc.measure))(stacked).fit.alpha.shape
    (4,)
    """
    options = make_options(options)
    key = jax.random.key(options.seed) if key is None else key
    if isinstance(W, ESD):
        return _of_a_spectrum(scaled(W, scale), options, key)
    matrix, factor = real_numbers(W, "W"), real_numbers(scale, "scale")
    if not matrix.size:
        own = esd(matrix, factor)
        return _with_trust(measure_esd(own, limits_of(options), options.method), options, key, None)
    parts = _decomposed(matrix, factor, options, key)
    measures = measure_esd(parts.own, limits_of(options), options.method)
    slices, n, m = (1, *matrix.shape)[-3:]
    sides = slices, max(n, m), min(n, m)
    found = _beside_random(parts, measures.fit, sides, options)
    farms_fit = _farms(_after(parts.last, matrix) * factor.astype(matrix.dtype), options)
    measures = dataclasses.replace(measures, **found, farms=farms_fit)
    return _with_trust(measures, options, key, sides)


class Decomposed(NamedTuple):
    """Every decomposition that the options ask for."""

    own: ESD
    slices: Slices | None
    drawn: Shuffles | None
    localization: Localization | None
    last: Float[Array, ""]
    """A number that is there once all of them are."""


def _decomposed(matrix: Array, scale: Array, options: Options, key: Array) -> Decomposed:
    """One after another: see `_after`."""
    slices, drawn, localization = None, None, None
    if options.mp_fit:
        slices = slices_of(matrix, scale)
    own = esd(matrix, scale) if slices is None else pooled(slices.esd)
    last = own.floor
    if options.randomize:
        copies = replicas(min(matrix.shape[-2:]) * (matrix.size // math.prod(matrix.shape[-2:])))
        drawn = shuffles(key, _after(last, matrix), scale, copies)
        last = drawn.every.floor
    if options.vectors:
        localization = vector_metrics(_after(last, matrix), scale)
        last = localization.esd.floor
    return Decomposed(own, slices, drawn, localization, last)


def _after(number: Float[Array, ""], matrix: Array) -> Array:
    """The matrix, once that number of an earlier decomposition is there.

    On a CPU jaxlib (0.10.2) splits a batch of decompositions over the threads on which they run
    themselves: two batches at a time wait for each other for ever. What was not finite stays so.
    """
    return jnp.where(jnp.isnan(number), jnp.nan, matrix)


def _of_a_spectrum(spectrum: ESD, options: Options, key: Array) -> Measures:
    asked = [name for name in OF_MATRICES if getattr(options, name)]
    if asked:
        raise InputError(f"{asked[0]}=True takes a matrix; an ESD tells neither sides nor vectors")
    measures = measure_esd(spectrum, limits_of(options), options.method)
    parts = wanted(options)
    if parts is not None:
        extras = extras_of(spectrum, measures.fit, None, None, parts)
        measures = dataclasses.replace(measures, **extras)
    return _with_trust(measures, options, key, None)


def _beside_random(
    parts: Decomposed,
    fit: PowerLawFit | TruncatedPowerLawFit,
    sides: Sides,
    options: Options,
) -> dict[str, Any]:
    slices, N, M = sides
    found: dict[str, Any] = {}
    shape, asked, drawn = shape_of(N, M, slices), wanted(options), parts.drawn
    if asked is not None:
        shuffled = drawn and (drawn.first, drawn.every)
        found |= extras_of(parts.own, fit, shuffled, shape, asked)
    found |= bulks_of(parts.own, parts.slices, drawn, shape, options.mp_method)
    if parts.localization is not None:
        found["vectors"] = vectors_of(parts.localization, fit, options.inverse)
        found["random_vector"] = random_vector(M)
    return found


def _with_trust(measures: Measures, options: Options, key: Array, sides: Sides | None) -> Measures:
    if not options.trust:
        return measures
    limits, method = limits_of(options), options.method
    calibrated = sides if not options.inverse else None
    trust: Trust = trust_of(
        measures.esd,
        measures.fit,
        key,
        limits,
        null_quantiles(*calibrated, limits, method) if calibrated else None,
        method,
        replicates=options.replicates,
    )
    return dataclasses.replace(measures, trust=trust)


def _farms(matrix: Array, options: Options) -> FarmsFit | None:
    if not options.farms:
        return None
    return farms(
        matrix,
        rows=options.farms_rows,
        aspect=options.farms_aspect,
        windows=options.farms_windows,
        threshold=options.threshold,
        ks=options.ks,
    )
