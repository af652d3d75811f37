"""An Analysis as one JSON document, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

from wwfunc.columns import COLUMNS
from wwfunc.errors import AnalysisFileError
from wwfunc.files import write_atomically
from wwfunc.layers.coverage import Coverage, CoverageRow
from wwfunc.layers.layer import Layer
from wwfunc.options import Options
from wwfunc.plain import as_plain, from_plain, numbers
from wwfunc.provenance import Provenance
from wwfunc.records import LayerRecord

SCHEMA = 3
"""Raised whenever a document can no longer be read by the code before."""


def as_document(
    records: Sequence[LayerRecord],
    coverage: Coverage,
    options: Options,
    provenance: Provenance,
    summary: Mapping[str, float],
) -> dict[str, Any]:
    """The parts of an Analysis as plain JSON values.

    NaN is None, so that the document is JSON. A layer holds its row, its eigenvalues and, under
    `measures`, the numerical records that the row was read from.
    """
    document = {
        "schema": SCHEMA,
        **dataclasses.asdict(provenance),
        "options": dataclasses.asdict(options),
        "summary": dict(summary),
        "layers": [_layer(record) for record in records],
        "coverage": coverage.as_dicts(),
    }
    return {key: without_nan(value) for key, value in document.items()}


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
            source=document["source"],
            engine=document["engine"],
            versions=document["versions"],
            base=document["base"],
        ),
    }


def _layer(record: LayerRecord) -> dict[str, Any]:
    layer = {**record.row(), "evals": record.evals.tolist()}
    if record.measures is not None:
        measures = as_plain(record.measures)
        del measures["esd"]["evals"]  # they stand in the layer itself
        layer["measures"] = measures
    return layer


def _record(row: Mapping[str, Any]) -> LayerRecord:
    layer = Layer(**_identity(row))
    measures = _measures(row) if "measures" in row else None
    record = LayerRecord(layer=layer, status=row["status"], measures=measures)
    for name, value in without_nan(record.row()).items():
        if type(row[name]) is not type(value) or row[name] != value:
            raise ValueError(f"{name} is {str(row[name])[:40]}, its records say {value!r}")
    return record


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the row's `Layer`, each of the type that its column says."""
    types: dict[str, tuple[type, ...]] = {"text": (str,), "int": (int, NoneType)}
    names = {field.name for field in dataclasses.fields(Layer)}
    fields = {}
    for column in COLUMNS:
        name = column.path.removeprefix("layer.")
        if column.path.startswith("layer.") and name in names:
            fields[name] = row[column.name]
            if type(row[column.name]) not in types[column.type]:
                raise ValueError(f"{name} is {str(row[column.name])[:40]!r}, no {column.type}")
    return fields


def _measures(row: Mapping[str, Any]) -> Any:
    # Imports JAX, which a saved table can be listed without.
    from wwfunc.measures import RECORDS, Measures

    plain = row["measures"]
    measures = from_plain({**plain, "esd": {**plain["esd"], "evals": None}}, RECORDS)
    if not isinstance(measures, Measures):
        raise ValueError(f"{type(measures).__name__} where Measures belong")
    evals = numbers(row["evals"])
    if evals.size != measures.esd.n:
        raise ValueError(f"{evals.size} eigenvalues, its records say {measures.esd.n}")
    return dataclasses.replace(measures, esd=dataclasses.replace(measures.esd, evals=evals))


def without_nan(value: Any) -> Any:
    """Plain values with None for each number that JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
