"""`wwfunc compare MODEL MODEL ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from wwfunc.analysis import Analysis, load_analysis
from wwfunc.checkpoint import Checkpoint
from wwfunc.cli import common, show
from wwfunc.comparison.manymodels import Comparison, compare
from wwfunc.tables import write_rows


def run(arguments: argparse.Namespace) -> int:
    """Measure each model, print a row a model, and what orders them as the truth does."""
    common.check_outputs(arguments.output)
    models = [_opened(arguments, path) for path in arguments.models]
    with show.progress_bar(not arguments.quiet) as progress:
        found = compare(
            models,
            labels=arguments.labels,
            truth=arguments.truth,
            progress=progress,
            **common.given_options(arguments),
        )
    if not arguments.quiet:
        console = show.console()
        console.print(show.comparison_table(found))
        if found.has_truth:
            console.print(show.correlation_table(found))
        for line in _lines(found):
            console.print(show.safe(line), soft_wrap=True)
    for output in arguments.output:
        write_rows(found.as_dicts(), output)
    return _verdict(found)


def _verdict(found: Comparison) -> int:
    """0, or 1 with a line where no model has a number."""
    if any(row.summary[f"num_valid_{name}"] for row in found.rows for name in found.metrics):
        return 0
    count = len(found.rows)
    print(f"wwfunc: no layer with a number in {count} model{'s' * (count > 1)}", file=sys.stderr)
    return 1


def _opened(arguments: argparse.Namespace, path: str) -> Analysis | Checkpoint | Any:
    """A saved analysis by its suffix, else a checkpoint, which an index of shards is too."""
    saved = path.endswith(".json") and not path.endswith(".index.json")
    return load_analysis(path) if saved else common.open_model(arguments, path)


def _lines(found: Comparison) -> Iterator[str]:
    for note in found.notes:
        yield f"note: {note}"
