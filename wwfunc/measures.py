"""What is measured of one layer: the numerical records, and the fit of its spectrum."""

from __future__ import annotations

import functools

import jax
from jaxtyping import Float, Int

from wwfunc.comparison.change import ChangeFromBase
from wwfunc.fits.hillestimator import HillFit, hill_of
from wwfunc.fits.powerlaw import PowerLawFit, fit_limited
from wwfunc.fits.submatrices import FarmsFit
from wwfunc.fits.tail import Limits
from wwfunc.fits.truncated import TruncatedPowerLawFit, fit_truncated
from wwfunc.metrics import (
    AlphaMetrics,
    ScaleMetrics,
    alpha_metrics,
    of_the_matrix,
    scale_metrics,
)
from wwfunc.options import Method
from wwfunc.pytrees import Array, record
from wwfunc.randommatrix.marchenkopastur import MPFit
from wwfunc.randommatrix.randomised import Randomized
from wwfunc.randommatrix.randomvectors import RandomVector
from wwfunc.randommatrix.tracelog import ERG
from wwfunc.softranks import Ranks
from wwfunc.spectrum import ESD, inverted
from wwfunc.trust.alternatives import Alternatives, LikelihoodRatio
from wwfunc.trust.bootstrapping import Bootstrap
from wwfunc.trust.goodness import GoodnessOfFit
from wwfunc.trust.statistics import Trust
from wwfunc.vectors import VectorMetrics


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
    mp: MPFit | None = None
    rand_mp: MPFit | None = None
    """Of the shuffled weights."""
    num_traps: Int[Array, "*batch"] | None = None
    """Spikes of a shuffled copy, in the mean; -1 where their bulk could not be fitted."""
    randomized: Randomized | None = None
    erg: ERG | None = None
    vectors: VectorMetrics | None = None
    random_vector: RandomVector | None = None
    """Of a vector of random direction, in the mean."""
    ranks: Ranks | None = None
    random_ranks: Ranks | None = None
    """Of Gaussian matrices of the same shape, in the mean."""
    spacing_ratio: Float[Array, "*batch"] | None = None
    change: ChangeFromBase | None = None
    """Beside the base that it is a change of."""


RECORDS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Measures,
        *(ESD, PowerLawFit, TruncatedPowerLawFit, HillFit, ScaleMetrics, AlphaMetrics, FarmsFit),
        *(Trust, Bootstrap, GoodnessOfFit, Alternatives, LikelihoodRatio),
        *(MPFit, Randomized, ERG, VectorMetrics, RandomVector, Ranks, ChangeFromBase),
    )
}
"""Every class that `Measures` is made of, by name."""


@functools.partial(jax.jit, static_argnames="method")
def measure_esd(spectrum: ESD, limits: Limits, method: Method) -> Measures:
    """`measure` from the spectrum on, without extras: one program for each padded size."""
    own = spectrum
    if method.inverse:
        spectrum = inverted(own)
    fit: PowerLawFit | TruncatedPowerLawFit
    if method.fit == "PL":
        fit = fit_limited(spectrum, limits, method)
    else:
        fit = fit_truncated(spectrum, limits, method)
    scale = scale_metrics(spectrum)
    return Measures(
        esd=spectrum,
        fit=fit,
        hill=hill_of(spectrum, "median", method.threshold, None),
        scale=of_the_matrix(scale, own) if method.inverse else scale,
        shape=alpha_metrics(spectrum, fit),
    )
