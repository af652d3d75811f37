"""One column of a table: its meaning, unit, range and source, and where a record holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Type = Literal["text", "int", "float"]

NATURE = "Martin, Peng, Mahoney 2021, doi:10.1038/s41467-021-24025-8"
CLAUSET = "Clauset, Shalizi, Newman 2009, doi:10.1137/070710111"


@dataclass(frozen=True)
class Column:
    """One column. `path` leads to its value from a `LayerRecord`."""

    name: str
    type: Type
    path: str
    meaning: str
    range: str = ""
    reference: str = ""

    @property
    def missing(self) -> Any:
        """The value where a row has none: NaN, None or empty text."""
        return {"float": math.nan, "int": None, "text": ""}[self.type]

    def read(self, record: Any) -> Any:
        """The value for a record as a plain Python number or text."""
        value = record
        for part in self.path.split("."):  # a row has not every record, a record not every field
            value = getattr(value, part, None)
        if value is None:
            return self.missing
        if self.type == "int" and value < 0:  # inside a program no count can be None
            return self.missing
        return {"float": float, "int": int, "text": str}[self.type](value)


def column(
    name: str, type: Type, path: str, meaning: str, range: str = "", reference: str = ""
) -> Column:
    """A column, its fields in their order."""
    return Column(name, type, path, meaning, range, reference)
