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
    from wwfunc.layers.coverage import Coverage
    from wwfunc.measures import Measures, measure
    from wwfunc.opening import load
    from wwfunc.options import Options
    from wwfunc.pipeline import analyze, describe
    from wwfunc.powerlaw import PowerLawFit, fit_pl
    from wwfunc.records import LayerRecord
    from wwfunc.spectrum import ESD, esd
    from wwfunc.status import Status

_HOMES = {
    "Analysis": "analysis",
    "AnalysisFileError": "errors",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "Coverage": "layers.coverage",
    "ESD": "spectrum",
    "InputError": "errors",
    "LayerRecord": "records",
    "Measures": "measures",
    "MissingExtraError": "errors",
    "OptionError": "errors",
    "Options": "options",
    "PowerLawFit": "powerlaw",
    "SelectionError": "errors",
    "Status": "status",
    "TensorHint": "checkpoint",
    "WwfuncError": "errors",
    "analyze": "pipeline",
    "describe": "pipeline",
    "esd": "spectrum",
    "fit_pl": "powerlaw",
    "load": "opening",
    "load_analysis": "analysis",
    "measure": "measures",
}

__all__ = [
    "ESD",
    "Analysis",
    "AnalysisFileError",
    "Checkpoint",
    "CheckpointError",
    "Coverage",
    "InputError",
    "LayerRecord",
    "Measures",
    "MissingExtraError",
    "OptionError",
    "Options",
    "PowerLawFit",
    "SelectionError",
    "Status",
    "TensorHint",
    "WwfuncError",
    "analyze",
    "describe",
    "esd",
    "fit_pl",
    "load",
    "load_analysis",
    "measure",
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
