"""An Analysis, or rows of another kind, as a file: CSV, JSON or Parquet, by the suffix."""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wwfunc.analysis import Analysis
from wwfunc.columns import COLUMNS
from wwfunc.document import without_nan, write_document
from wwfunc.errors import MissingExtraError, OptionError
from wwfunc.files import output_path, write_atomically


def write_table(analysis: Analysis, path: str | Path) -> None:
    """Write `analysis` to `path`, atomically.

    Raises
    ------
    OptionError
        If the suffix is none of .csv, .json, .parquet, or the path cannot be written to.
    MissingExtraError
        If .parquet is asked for and pyarrow is not installed.
    """
    path = check_writable(path)
    _WRITERS[path.suffix.lower()](analysis, path)


def write_rows(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write plain rows that share their names to `path`, atomically; raises as `write_table`."""
    path = check_writable(path)
    if path.suffix.lower() == ".csv":
        _fill_csv(list(rows[0]) if rows else [], rows, path)
    elif path.suffix.lower() == ".json":
        write_document({"rows": without_nan(list(rows))}, path)
    else:
        import pandas

        frame = pandas.DataFrame(list(rows))
        write_atomically(path, lambda beside: frame.to_parquet(beside, index=False))


def check_writable(path: str | Path) -> Path:
    """Raise what `write_table` would raise for this path, before there is an analysis."""
    path = output_path(path)
    if path.suffix.lower() not in _WRITERS:
        raise OptionError(f"{path}: the suffix is one of {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("writing .parquet needs pyarrow: pip install 'wwfunc[parquet]'")
    return path


def _write_csv(analysis: Analysis, path: Path) -> None:
    rows = (record.row() for record in analysis.records)
    _fill_csv([column.name for column in COLUMNS], rows, path)


def _fill_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    def fill(beside: Path) -> None:
        with open(beside, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            for row in rows:
                table.writerow({name: _cell(value) for name, value in row.items()})

    write_atomically(path, fill)


def _cell(value: object) -> object:
    """Empty for a missing number; the shortest text that reads back as the same float."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _write_parquet(analysis: Analysis, path: Path) -> None:
    write_atomically(path, lambda beside: analysis.details.to_parquet(beside, index=False))


_WRITERS: dict[str, Callable[[Analysis, Path], None]] = {
    ".csv": _write_csv,
    ".json": Analysis.save,
    ".parquet": _write_parquet,
}
