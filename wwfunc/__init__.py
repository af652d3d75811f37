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
    from wwfunc.measures import Measures, measure
    from wwfunc.opening import load
    from wwfunc.options import Options
    from wwfunc.pipeline import analyze, describe
    from wwfunc.records import LayerRecord
    from wwfunc.spectrum import ESD, esd
    from wwfunc.status import Status
    from wwfunc.trust.alternatives import Alternatives, LikelihoodRatio, compare_alternatives
    from wwfunc.trust.bootstrapping import Bootstrap, bootstrap
    from wwfunc.trust.goodness import GoodnessOfFit, goodness_of_fit
    from wwfunc.trust.null import NullAlphas, null_alphas, p_random, random_fits
    from wwfunc.trust.randomspectra import random_esd
    from wwfunc.trust.statistics import Trust

_HOMES = {
    "Alternatives": "trust.alternatives",
    "Analysis": "analysis",
    "AnalysisFileError": "errors",
    "Bootstrap": "trust.bootstrapping",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "Coverage": "layers.coverage",
    "ESD": "spectrum",
    "FarmsFit": "fits.submatrices",
    "GoodnessOfFit": "trust.goodness",
    "HillCurve": "fits.hillestimator",
    "HillFit": "fits.hillestimator",
    "InputError": "errors",
    "LayerRecord": "records",
    "LikelihoodRatio": "trust.alternatives",
    "Measures": "measures",
    "MissingExtraError": "errors",
    "NullAlphas": "trust.null",
    "OptionError": "errors",
    "Options": "options",
    "PowerLawFit": "fits.powerlaw",
    "SelectionError": "errors",
    "Status": "status",
    "TensorHint": "checkpoint",
    "TruncatedPowerLawFit": "fits.truncated",
    "Trust": "trust.statistics",
    "WwfuncError": "errors",
    "analyze": "pipeline",
    "bootstrap": "trust.bootstrapping",
    "compare_alternatives": "trust.alternatives",
    "describe": "pipeline",
    "esd": "spectrum",
    "farms": "fits.submatrices",
    "fit_pl": "fits.powerlaw",
    "fit_tpl": "fits.truncated",
    "goodness_of_fit": "trust.goodness",
    "hill": "fits.hillestimator",
    "hill_curve": "fits.hillestimator",
    "load": "opening",
    "load_analysis": "analysis",
    "measure": "measures",
    "null_alphas": "trust.null",
    "p_random": "trust.null",
    "random_esd": "trust.randomspectra",
    "random_fits": "trust.null",
}

__all__ = [
    "ESD",
    "Alternatives",
    "Analysis",
    "AnalysisFileError",
    "Bootstrap",
    "Checkpoint",
    "CheckpointError",
    "Coverage",
    "FarmsFit",
    "GoodnessOfFit",
    "HillCurve",
    "HillFit",
    "InputError",
    "LayerRecord",
    "LikelihoodRatio",
    "Measures",
    "MissingExtraError",
    "NullAlphas",
    "OptionError",
    "Options",
    "PowerLawFit",
    "SelectionError",
    "Status",
    "TensorHint",
    "TruncatedPowerLawFit",
    "Trust",
    "WwfuncError",
    "analyze",
    "bootstrap",
    "compare_alternatives",
    "describe",
    "esd",
    "farms",
    "fit_pl",
    "fit_tpl",
    "goodness_of_fit",
    "hill",
    "hill_curve",
    "load",
    "load_analysis",
    "measure",
    "null_alphas",
    "p_random",
    "random_esd",
    "random_fits",
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
