"""What a user hands over to be compared: models by their labels, and what is known of each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from wwfunc.analysis import Analysis
from wwfunc.checkpoint import Checkpoint
from wwfunc.errors import InputError, OptionError


def named_models(models: Any, labels: Any) -> Mapping[str, Any]:
    """The models by their labels, each once."""
    one = isinstance(models, (str, os.PathLike, Checkpoint, Analysis))
    if one or not isinstance(models, (Sequence, Mapping)):
        raise InputError(f"models is a list of models, or a mapping, not a {type(models).__name__}")
    if isinstance(models, Mapping) and any(hasattr(value, "dtype") for value in models.values()):
        raise InputError("models is a list of models, or a mapping; this is one model")
    if not models:
        raise InputError("there are no models to compare")
    if not isinstance(models, Mapping):
        names = _names(models) if labels is None else _listed("labels", labels)
        return _paired("labels", [str(name) for name in names], models)
    if labels is not None:
        raise OptionError("labels= are for a sequence of models; a mapping has its own")
    return _paired("labels", [str(name) for name in models], list(models.values()))


def _paired(what: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    if len(names) != len(values):
        raise OptionError(f"{len(names)} {what} for {len(values)} models")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise OptionError(f"two models have the label {twice[0]!r}")
    return dict(zip(names, values, strict=True))


def _listed(what: str, values: Any) -> list[Any]:
    """Values in an order: of a text or a set it is not the user's."""
    if isinstance(values, (str, bytes, Set)) or not isinstance(values, Iterable):
        raise OptionError(f"{what} is a list with one for each model, not {values!r}")
    try:
        return list(values)
    except TypeError as cause:  # NumPy's arrays of no axis
        raise OptionError(f"{what} is a list with one for each model: {cause}") from None


def _names(models: Sequence[Any]) -> list[str]:
    """File names without what the formats add; numbers before those that are not one's alone."""
    sources = enumerate(map(_source, models), 1)
    names = [_name(Path(source)) if source else f"model {number}" for number, source in sources]
    if len(set(names)) == len(names):
        return names
    return [f"{number} {name}" for number, name in enumerate(names, 1)]


def _name(path: Path) -> str:
    """Of a folder all of it: `pythia-1.4b`."""
    return path.name if path.is_dir() else path.name.removesuffix(".index.json").rpartition(".")[0]


def _source(model: Any) -> str | None:
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    if isinstance(model, Analysis):
        return model.provenance.source
    return model.source if isinstance(model, Checkpoint) else None


def _from_pandas(truth: Any) -> Any:
    """A Series by its labels, or in order where it has but the numbers of its rows."""
    if truth.ndim != 1:
        raise OptionError("truth is one number for each model: a Series, not a table")
    if type(truth.index).__name__ == "RangeIndex":
        return list(truth)
    labels = list(truth.index)
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise OptionError(f"truth has {twice[0]!r} twice")
    return dict(zip(labels, truth, strict=True))


def truth_of(names: Sequence[str], truth: Any) -> Mapping[str, float]:
    """What is known of each model, by its label; infinity is nothing that is known."""
    if truth is None:
        return dict.fromkeys(names, math.nan)
    if hasattr(truth, "index") and hasattr(truth, "to_numpy"):
        truth = _from_pandas(truth)
    if isinstance(truth, Mapping):
        given = {str(name): value for name, value in truth.items()}
        unknown = [name for name in given if name not in names]
        if unknown:
            raise OptionError(f"truth is known of {unknown[0]!r}, which no model is labelled")
        values = [given.get(name, math.nan) for name in names]
    else:
        values = _listed("truth", truth)
    if len(values) != len(names):
        raise OptionError(f"truth has {len(values)} numbers for {len(names)} models")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as cause:
        raise OptionError(f"truth is a number for each model: {cause}") from None
    known = [number if math.isfinite(number) else math.nan for number in numbers]
    return dict(zip(names, known, strict=True))
