"""An Analysis as a file: CSV, JSON or Parquet, by the suffix."""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

from wwfunc.analysis import Analysis
from wwfunc.columns import COLUMNS
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


def check_writable(path: str | Path) -> Path:
    """Raise what `write_table` would raise for this path, before there is an analysis."""
    path = output_path(path)
    if path.suffix.lower() not in _WRITERS:
        raise OptionError(f"{path}: the suffix is one of {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("writing .parquet needs pyarrow: pip install 'wwfunc[parquet]'")
    return path


def _write_csv(analysis: Analysis, path: Path) -> None:
    def fill(beside: Path) -> None:
        with open(beside, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            table = csv.DictWriter(file, [column.name for column in COLUMNS])
            table.writeheader()
            for record in analysis.records:
                table.writerow({k: _cell(v) for k, v in record.row().items()})

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
