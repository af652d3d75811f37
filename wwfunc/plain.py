"""Numerical records as plain JSON values, and back, bit for bit.

A record is an object that names its class; NaN is null, and a record that is None is left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

CLASS = "record"
"""The key that names the class."""


def as_plain(record: Any) -> dict[str, Any]:
    """A record of arrays, and the records in it, as plain values."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    present = {name: _plain(value) for name, value in fields.items() if value is not None}
    return {CLASS: type(record).__name__, **present}


def from_plain(plain: Mapping[str, Any], classes: Mapping[str, type]) -> Any:
    """The record in `plain`, of one of `classes`.

    Raises
    ------
    ValueError, TypeError, LookupError, ArithmeticError
        If it is not such a record.
    """
    cls = classes[plain[CLASS]]
    fields = {name: _restored(value, classes) for name, value in plain.items() if name != CLASS}
    return cls(**fields)


def numbers(values: list[Any]) -> np.ndarray:
    """A list of numbers as an array; ValueError if it is none."""
    return np.array([_number(item) for item in values], np.float64)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_plain(value)
    numbers = np.asarray(value).tolist()
    if isinstance(numbers, list):
        return [None if math.isnan(number) else number for number in numbers]
    return None if math.isnan(numbers) else numbers


def _restored(value: Any, classes: Mapping[str, type]) -> Any:
    if isinstance(value, dict):
        return from_plain(value, classes)
    return _number(value)


def _number(value: Any) -> np.generic:
    kinds: dict[type, type[np.generic]] = {bool: np.bool_, int: np.int32, float: np.float64}
    if value is None:
        return np.float64(math.nan)
    if type(value) not in kinds:
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return kinds[type(value)](value)
