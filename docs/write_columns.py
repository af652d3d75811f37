"""Write docs/columns.md from `wwfunc.columns`: `make columns`."""

from __future__ import annotations

from pathlib import Path

from wwfunc.columns import COLUMNS

PAGE = Path(__file__).with_name("columns.md")

HEAD = """# Columns

One row of `analysis.details`, of a CSV, of `layers` in the JSON, is one layer. Column names are
WeightWatcher's where the quantity is the same. A missing number is NaN (empty in a CSV, null in
JSON), never -1; `status` says why. Names that begin with `log_` are base 10.

| column | meaning | range | source |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = (f"| `{c.name}` | {c.meaning} | {c.range} | {c.reference} |\n" for c in COLUMNS)
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
