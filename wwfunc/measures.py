"""One layer measured: arrays in, arrays out. The only place that composes spectrum and fits."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from wwfunc.errors import InputError
from wwfunc.fits.hillestimator import HillFit, hill_of
from wwfunc.fits.powerlaw import PowerLawFit, fit_limited
from wwfunc.fits.submatrices import FarmsFit, farms
from wwfunc.fits.tail import Limits, limits_of
from wwfunc.fits.truncated import TruncatedPowerLawFit, fit_truncated
from wwfunc.metrics import AlphaMetrics, ScaleMetrics, alpha_metrics, scale_metrics
from wwfunc.options import Method, Options, make_options
from wwfunc.precision import real_numbers, verb
from wwfunc.pytrees import Array, record
from wwfunc.spectrum import ESD, esd, scaled
from wwfunc.trust.alternatives import Alternatives, LikelihoodRatio
from wwfunc.trust.bootstrapping import Bootstrap
from wwfunc.trust.goodness import GoodnessOfFit
from wwfunc.trust.null import null_quantiles
from wwfunc.trust.statistics import Trust, trust_of


@record
class Measures:
    """Everything that is measured of one layer."""

    esd: ESD
    fit: PowerLawFit | TruncatedPowerLawFit
    hill: HillFit
    """At the median, without D."""
    scale: ScaleMetrics
    shape: AlphaMetrics
    trust: Trust | None = None
    farms: FarmsFit | None = None


RECORDS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Measures,
        *(ESD, PowerLawFit, TruncatedPowerLawFit, HillFit, ScaleMetrics, AlphaMetrics, FarmsFit),
        *(Trust, Bootstrap, GoodnessOfFit, Alternatives, LikelihoodRatio),
    )
}
"""Every class that `Measures` is made of, by name."""


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
        Which fit, and whether trust and farms are wanted; the selection options are for
        checkpoints and are not read here.
    scale
        Factor on W; on an `ESD` its square, so that it means the same.
    key
        Random key of the resampling behind trust; None takes one from `options.seed`.

    Returns
    -------
    Measures
        A pytree of arrays: `.esd`, `.fit`, `.hill`, `.scale` (norms, ranks), `.shape` (alpha with
        scale), and `.trust` and `.farms` where they are asked for.

    Raises
    ------
    InputError
        If farms is asked for and W is an `ESD`, which has no windows.

    Notes
    -----
    Works under `jit` and `vmap`, and under `grad` but for trust: inside a training step, stack
    equal layers and `vmap`. A program is compiled for each shape; `analyze` compiles a few for
    all shapes. An `ESD` tells no shape, so that its `trust.p_random` is NaN.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc
    >>> stacked = np.random.default_rng(0).standard_normal((4, 64, 32)).astype(np.float32)
    >>> jax.jit(jax.vmap(wwfunc.measure))(stacked).fit.alpha.shape
    (4,)
    """
    options = make_options(options)
    if isinstance(W, ESD):
        if options.farms:
            raise InputError("farms=True takes windows of a matrix; an ESD has none")
        return _measure(scaled(W, scale), options, key, None)
    measures = _measure(esd(W, scale), options, key, np.shape(W))
    return dataclasses.replace(measures, farms=_farms(W, scale, options))


def _measure(
    spectrum: ESD, options: Options, key: Array | None, shape: tuple[int, ...] | None
) -> Measures:
    limits, method = limits_of(options), options.method
    measures = measure_esd(spectrum, limits, method)
    if not options.trust:
        return measures
    trust = trust_of(
        spectrum,
        measures.fit,
        jax.random.key(options.seed) if key is None else key,
        limits,
        None if shape is None else _quantiles(shape, limits, method),
        method,
        replicates=options.replicates,
    )
    return dataclasses.replace(measures, trust=trust)


def _quantiles(shape: tuple[int, ...], limits: Limits, method: Method) -> np.ndarray | None:
    slices, n, m = (1, *shape)[-3:]
    return null_quantiles(slices, max(n, m), min(n, m), limits, method) if n and m else None


def _farms(
    W: Float[ArrayLike, "*slices n m"], scale: Float[ArrayLike, ""], options: Options
) -> FarmsFit | None:
    if not options.farms:
        return None
    matrix = real_numbers(W, "W")
    return farms(
        matrix * real_numbers(scale, "scale").astype(matrix.dtype),
        rows=options.farms_rows,
        aspect=options.farms_aspect,
        windows=options.farms_windows,
        threshold=options.threshold,
        ks=options.ks,
    )


@functools.partial(jax.jit, static_argnames="method")
def measure_esd(spectrum: ESD, limits: Limits, method: Method) -> Measures:
    """`measure` from the spectrum on, without extras: one program for each padded size."""
    fit: PowerLawFit | TruncatedPowerLawFit
    if method.fit == "PL":
        fit = fit_limited(spectrum, limits, method)
    else:
        fit = fit_truncated(spectrum, limits, method)
    return Measures(
        esd=spectrum,
        fit=fit,
        hill=hill_of(spectrum, "median", method.threshold, None),
        scale=scale_metrics(spectrum),
        shape=alpha_metrics(spectrum, fit),
    )
