"""One layer measured: arrays in, arrays out. The only place that composes spectrum and fits."""

from __future__ import annotations

import functools

import jax
from jaxtyping import ArrayLike, Float

from wwfunc.metrics import AlphaMetrics, ScaleMetrics, alpha_metrics, scale_metrics
from wwfunc.options import Method, Options, make_options
from wwfunc.powerlaw import PowerLawFit, fit_limited
from wwfunc.precision import verb
from wwfunc.pytrees import record
from wwfunc.spectrum import ESD, esd
from wwfunc.tail import Limits, limits_of


@record
class Measures:
    """Everything that is measured of one layer."""

    esd: ESD
    fit: PowerLawFit
    scale: ScaleMetrics
    shape: AlphaMetrics


@verb
def measure(
    W: Float[ArrayLike, "*slices n m"] | ESD,
    options: Options | None = None,
    *,
    scale: Float[ArrayLike, ""] = 1.0,
) -> Measures:
    """Measure one weight matrix, one stack of slices, or a spectrum that is at hand.

    Parameters
    ----------
    W
        A matrix (n, m), a stack (k, n, m) whose eigenvalues are pooled, or an `ESD`.
    options
        Which fit; the selection options are for checkpoints and are not read here.
    scale
        Factor on W.

    Returns
    -------
    Measures
        A pytree of arrays: `.esd`, `.fit`, `.scale` (norms, ranks), `.shape` (alpha with scale).

    Notes
    -----
    Works under `jit`, `vmap` and `grad`: inside a training step, stack equal layers and `vmap`.
    A program is compiled for each shape; `analyze` compiles a few for all shapes.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc
    >>> stacked = np.random.default_rng(0).standard_normal((4, 64, 32)).astype(np.float32)
    >>> jax.jit(jax.vmap(wwfunc.measure))(stacked).fit.alpha.shape
    (4,)
    """
    options = make_options(options)
    spectrum = W if isinstance(W, ESD) else esd(W, scale)
    return measure_esd(spectrum, limits_of(options), options.method)


@functools.partial(jax.jit, static_argnames="method")
def measure_esd(spectrum: ESD, limits: Limits, method: Method) -> Measures:
    """`measure` from the spectrum on: one program for each padded size."""
    fit = fit_limited(spectrum, limits, method)
    return Measures(
        esd=spectrum,
        fit=fit,
        scale=scale_metrics(spectrum),
        shape=alpha_metrics(spectrum, fit),
    )
