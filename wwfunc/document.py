"""An Analysis as one JSON document, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from wwfunc.columns import COLUMNS
from wwfunc.errors import AnalysisFileError
from wwfunc.files import write_atomically
from wwfunc.layers.coverage import Coverage, CoverageRow
from wwfunc.layers.layer import Layer
from wwfunc.options import Options
from wwfunc.provenance import Provenance
from wwfunc.records import LayerRecord

SCHEMA = 1
"""Raised whenever a document can no longer be read by the code before."""


def as_document(
    records: Sequence[LayerRecord],
    coverage: Coverage,
    options: Options,
    provenance: Provenance,
    summary: Mapping[str, float],
) -> dict[str, Any]:
    """The parts of an Analysis as plain JSON values.

    NaN is None, so that the document is JSON; `codes` holds the `Status` codes of each layer.
    """
    document = {
        "schema": SCHEMA,
        **dataclasses.asdict(provenance),
        "options": dataclasses.asdict(options),
        "summary": dict(summary),
        "layers": [_layer(record) for record in records],
        "coverage": coverage.as_dicts(),
    }
    return {key: _without_nan(value) for key, value in document.items()}


def write_document(document: Mapping[str, Any], path: Path) -> None:
    """Write the document to `path`, atomically."""
    text = json.dumps(document, allow_nan=False, indent=1) + "\n"

    def fill(beside: Path) -> None:
        beside.write_text(text, "utf-8")

    write_atomically(path, fill)


def read_document(path: Path) -> dict[str, Any]:
    """The parts of the Analysis in a document, by the names of its fields."""
    try:
        return _restored(json.loads(path.read_text("utf-8"), parse_constant=_refuse))
    except OSError as cause:
        raise AnalysisFileError(f"{path}: cannot be read: {cause.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as cause:
        raise AnalysisFileError(f"{path}: not a saved analysis: {cause}") from None
    except RecursionError:
        raise AnalysisFileError(f"{path}: not a saved analysis: nested too deep") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _restored(document: Mapping[str, Any]) -> dict[str, Any]:
    if type(document["schema"]) is not int or document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, this version reads {SCHEMA}")
    return {
        "records": tuple(_record(layer) for layer in document["layers"]),
        "coverage": Coverage(
            CoverageRow(**{**row, "shape": tuple(row["shape"])}) for row in document["coverage"]
        ),
        "options": Options(**document["options"]),
        "provenance": Provenance(
            source=document["source"], engine=document["engine"], versions=document["versions"]
        ),
    }


def _layer(record: LayerRecord) -> dict[str, Any]:
    layer = {**record.row(), "evals": record.evals.tolist()}
    if record.measures is not None:
        measures = record.measures
        layer["codes"] = {"fit": int(measures.fit.status), "scale": int(measures.scale.status)}
    return layer


def _record(row: Mapping[str, Any]) -> LayerRecord:
    _check_types(row)
    layer = Layer(**_fields(row, Layer, "layer."))
    measures = _measures(row) if "codes" in row else None
    return LayerRecord(layer=layer, status=row["status"], measures=measures)


def _check_types(row: Mapping[str, Any]) -> None:
    """Raise unless every column holds what its type says, or None for a missing number."""
    types = {"text": (str,), "int": (int,), "float": (int, float)}
    for column in COLUMNS:
        value = row[column.name]
        missing = value is None and column.type != "text"
        good = type(value) in types[column.type] and (column.type == "text" or abs(value) < 1e300)
        if not (missing or good):
            raise ValueError(f"{column.name} is {str(value)[:40]!r}, which is no {column.type}")


def _measures(row: Mapping[str, Any]) -> Any:
    # These modules import JAX, which a saved table can be listed without.
    from wwfunc.host import as_esd
    from wwfunc.measures import Measures
    from wwfunc.metrics import AlphaMetrics, ScaleMetrics
    from wwfunc.powerlaw import PowerLawFit

    evals = np.array(row["evals"], np.float64)
    codes = {name: np.int32(code) for name, code in row["codes"].items()}
    fit = _numbers(row, PowerLawFit, "measures.fit.") | {"status": codes["fit"]}
    scale = _numbers(row, ScaleMetrics, "measures.scale.") | {"status": codes["scale"]}
    return Measures(
        esd=as_esd(evals, n=evals.size, floor=_or_nan(row["floor"])),
        fit=PowerLawFit(**fit),
        scale=ScaleMetrics(**scale),
        shape=AlphaMetrics(**_numbers(row, AlphaMetrics, "measures.shape.")),
    )


def _fields(row: Mapping[str, Any], cls: Any, prefix: str) -> dict[str, Any]:
    """Values of the fields of `cls`, from the columns that read them."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {
        column.path.removeprefix(prefix): row[column.name]
        for column in COLUMNS
        if column.path.startswith(prefix) and column.path.removeprefix(prefix) in names
    }


def _numbers(row: Mapping[str, Any], cls: Any, prefix: str) -> dict[str, Any]:
    fields = _fields(row, cls, prefix)
    types = {column.path.removeprefix(prefix): column.type for column in COLUMNS}
    return {
        name: np.int32(value) if types[name] == "int" else np.float64(_or_nan(value))
        for name, value in fields.items()
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
