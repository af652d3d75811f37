"""Data-free diagnostics of neural networks from their weights alone, in JAX.

    import wwfunc
    analysis = wwfunc.analyze(wwfunc.load("ckpt.safetensors"))

Importing this package imports nothing else: each name below is resolved when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wwfunc.analysis import Analysis, load_analysis
    from wwfunc.checkpoint import Checkpoint, TensorHint
    from wwfunc.comparison.distancerecords import Distances
    from wwfunc.comparison.intruders import intruder_dimensions
    from wwfunc.comparison.manymodels import Comparison, compare
    from wwfunc.comparison.matrixdistances import cka, subspace_overlap
    from wwfunc.comparison.rankcorrelation import RankCorrelation, kendall
    from wwfunc.comparison.twomodels import distances
    from wwfunc.convolution import conv_esd
    from wwfunc.crosslayer import intra
    from wwfunc.errors import (
        AnalysisFileError,
        CheckpointError,
        InputError,
        MissingExtraError,
        OptionError,
        SelectionError,
        WwfuncError,
    )
    from wwfunc.fits.hillestimator import HillCurve, HillFit, hill, hill_curve
    from wwfunc.fits.powerlaw import PowerLawFit, fit_pl
    from wwfunc.fits.submatrices import FarmsFit, farms
    from wwfunc.fits.truncated import TruncatedPowerLawFit, fit_tpl
    from wwfunc.layers.coverage import Coverage
    from wwfunc.levels import Spacings, spacings
    from wwfunc.measures import Measures
    from wwfunc.onelayer import measure
    from wwfunc.opening import load
    from wwfunc.options import Options
    from wwfunc.pipeline import analyze, describe
    from wwfunc.randommatrix.density import bulk_edges, mp_density
    from wwfunc.randommatrix.gaussianranks import random_ranks
    from wwfunc.randommatrix.marchenkopastur import MPFit, mp_fit
    from wwfunc.randommatrix.randomised import Randomized
    from wwfunc.randommatrix.randomvectors import RandomVector, random_vector
    from wwfunc.randommatrix.shuffling import random_esd, shuffled
    from wwfunc.randommatrix.tracelog import ERG, erg
    from wwfunc.randommatrix.traps import Trap, Traps, analyze_traps
    from wwfunc.records import LayerRecord
    from wwfunc.saving import save
    from wwfunc.softranks import Ranks, ranks
    from wwfunc.spectrum import ESD, esd
    from wwfunc.status import Status
    from wwfunc.transforms.handles import Change, changes
    from wwfunc.transforms.models import sharpen, smooth
    from wwfunc.transforms.sharpening import Sharpened, remove_traps
    from wwfunc.trust.alternatives import Alternatives, LikelihoodRatio, compare_alternatives
    from wwfunc.trust.bootstrapping import Bootstrap, bootstrap
    from wwfunc.trust.goodness import GoodnessOfFit, goodness_of_fit
    from wwfunc.trust.null import NullAlphas, null_alphas, p_random, random_fits
    from wwfunc.trust.randomspectra import gaussian_esd
    from wwfunc.trust.statistics import Trust
    from wwfunc.vectors import Localization, VectorMetrics, vector_metrics

_HOMES = {
    "ERG": "randommatrix.tracelog",
    "ESD": "spectrum",
    "Alternatives": "trust.alternatives",
    "Analysis": "analysis",
    "AnalysisFileError": "errors",
    "Bootstrap": "trust.bootstrapping",
    "Change": "transforms.handles",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "Comparison": "comparison.manymodels",
    "Coverage": "layers.coverage",
    "Distances": "comparison.distancerecords",
    "FarmsFit": "fits.submatrices",
    "GoodnessOfFit": "trust.goodness",
    "HillCurve": "fits.hillestimator",
    "HillFit": "fits.hillestimator",
    "InputError": "errors",
    "LayerRecord": "records",
    "LikelihoodRatio": "trust.alternatives",
    "Localization": "vectors",
    "MPFit": "randommatrix.marchenkopastur",
    "Measures": "measures",
    "MissingExtraError": "errors",
    "NullAlphas": "trust.null",
    "OptionError": "errors",
    "Options": "options",
    "PowerLawFit": "fits.powerlaw",
    "RandomVector": "randommatrix.randomvectors",
    "Randomized": "randommatrix.randomised",
    "RankCorrelation": "comparison.rankcorrelation",
    "Ranks": "softranks",
    "SelectionError": "errors",
    "Sharpened": "transforms.sharpening",
    "Spacings": "levels",
    "Status": "status",
    "TensorHint": "checkpoint",
    "Trap": "randommatrix.traps",
    "Traps": "randommatrix.traps",
    "TruncatedPowerLawFit": "fits.truncated",
    "Trust": "trust.statistics",
    "VectorMetrics": "vectors",
    "WwfuncError": "errors",
    "analyze": "pipeline",
    "analyze_traps": "randommatrix.traps",
    "bootstrap": "trust.bootstrapping",
    "bulk_edges": "randommatrix.density",
    "changes": "transforms.handles",
    "cka": "comparison.matrixdistances",
    "compare": "comparison.manymodels",
    "compare_alternatives": "trust.alternatives",
    "conv_esd": "convolution",
    "describe": "pipeline",
    "distances": "comparison.twomodels",
    "erg": "randommatrix.tracelog",
    "esd": "spectrum",
    "farms": "fits.submatrices",
    "fit_pl": "fits.powerlaw",
    "fit_tpl": "fits.truncated",
    "gaussian_esd": "trust.randomspectra",
    "goodness_of_fit": "trust.goodness",
    "hill": "fits.hillestimator",
    "hill_curve": "fits.hillestimator",
    "intra": "crosslayer",
    "intruder_dimensions": "comparison.intruders",
    "kendall": "comparison.rankcorrelation",
    "load": "opening",
    "load_analysis": "analysis",
    "measure": "onelayer",
    "mp_density": "randommatrix.density",
    "mp_fit": "randommatrix.marchenkopastur",
    "null_alphas": "trust.null",
    "p_random": "trust.null",
    "random_esd": "randommatrix.shuffling",
    "random_fits": "trust.null",
    "random_ranks": "randommatrix.gaussianranks",
    "random_vector": "randommatrix.randomvectors",
    "ranks": "softranks",
    "remove_traps": "transforms.sharpening",
    "save": "saving",
    "sharpen": "transforms.models",
    "shuffled": "randommatrix.shuffling",
    "smooth": "transforms.models",
    "spacings": "levels",
    "subspace_overlap": "comparison.matrixdistances",
    "vector_metrics": "vectors",
}

__all__ = [
    "ERG",
    "ESD",
    "Alternatives",
    "Analysis",
    "AnalysisFileError",
    "Bootstrap",
    "Change",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "Coverage",
    "Distances",
    "FarmsFit",
    "GoodnessOfFit",
    "HillCurve",
    "HillFit",
    "InputError",
    "LayerRecord",
    "LikelihoodRatio",
    "Localization",
    "MPFit",
    "Measures",
    "MissingExtraError",
    "NullAlphas",
    "OptionError",
    "Options",
    "PowerLawFit",
    "RandomVector",
    "Randomized",
    "RankCorrelation",
    "Ranks",
    "SelectionError",
    "Sharpened",
    "Spacings",
    "Status",
    "TensorHint",
    "Trap",
    "Traps",
    "TruncatedPowerLawFit",
    "Trust",
    "VectorMetrics",
    "WwfuncError",
    "analyze",
    "analyze_traps",
    "bootstrap",
    "bulk_edges",
    "changes",
    "cka",
    "compare",
    "compare_alternatives",
    "conv_esd",
    "describe",
    "distances",
    "erg",
    "esd",
    "farms",
    "fit_pl",
    "fit_tpl",
    "gaussian_esd",
    "goodness_of_fit",
    "hill",
    "hill_curve",
    "intra",
    "intruder_dimensions",
    "kendall",
    "load",
    "load_analysis",
    "measure",
    "mp_density",
    "mp_fit",
    "null_alphas",
    "p_random",
    "random_esd",
    "random_fits",
    "random_ranks",
    "random_vector",
    "ranks",
    "remove_traps",
    "save",
    "sharpen",
    "shuffled",
    "smooth",
    "spacings",
    "subspace_overlap",
    "vector_metrics",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from wwfunc.provenance import installed

        return installed("wwfunc")
    if name not in _HOMES:
        raise AttributeError(f"module 'wwfunc' has no attribute {name!r}")
    return getattr(import_module(f"wwfunc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
