"""`wwfunc compare MODEL MODEL ...`."""

from __future__ import annotations

import argparse
import sys

from wwfunc.analysis import Analysis, load_analysis
from wwfunc.checkpoint import Checkpoint
from wwfunc.cli import common, show
from wwfunc.comparison.manymodels import Comparison, compare
from wwfunc.tables import write_rows


def run(arguments: argparse.Namespace) -> int:
    """Measure each model, print a row a model, and what orders them as the truth does."""
    common.check_outputs(arguments.output)
    models = _opened(arguments)
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
        for note in found.notes:
            console.print(show.safe(f"note: {note}"), soft_wrap=True)
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


def _opened(arguments: argparse.Namespace) -> list[Analysis | Checkpoint]:
    """Saved analyses by their suffix, else checkpoints, which indices of shards are too."""
    saved = {
        path: load_analysis(path)
        for path in arguments.models
        if path.endswith(".json") and not path.endswith(".index.json")
    }
    others = iter(common.open_models(arguments, [p for p in arguments.models if p not in saved]))
    return [saved[path] if path in saved else next(others) for path in arguments.models]
