"""`wwfunc distances A B`."""

from __future__ import annotations

import argparse
import sys

from wwfunc.cli import common, show
from wwfunc.cli.text import printable
from wwfunc.comparison.distancerecords import Distances
from wwfunc.comparison.twomodels import distances
from wwfunc.tables import write_rows


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a row a layer and the mean, write the files that were asked for."""
    common.check_outputs(arguments.output)
    first, second = common.open_models(arguments, [arguments.first, arguments.second])
    with show.progress_bar(not arguments.quiet) as progress:
        found = distances(
            first,
            second,
            arguments.method,
            rank=arguments.rank,
            layers=arguments.layers or (),
            progress=progress,
        )
    if not arguments.quiet:
        console = show.console()
        console.print(show.distance_table(found))
        for line in [_summary(found), *common.left_out(first, second)]:
            console.print(show.safe(line), soft_wrap=True)
    for output in arguments.output:
        write_rows(found.as_dicts(), output)
    return _verdict(found)


def _summary(found: Distances) -> str:
    count = len(found.rows) - len(found.unmatched)
    words = f"{count} of {len(found.rows)} layers: mean delta_W {found.mean_W:.4g}"
    words += "" if found.mean_b != found.mean_b else f", mean delta_b {found.mean_b:.4g}"
    shares = " and ".join(f"{one.share:.2%}" for one in found.coverage)
    return f"{words}; {shares} of the parameters"


def _verdict(found: Distances) -> int:
    """0, or 1 with a line where no layer has a distance."""
    if len(found.unmatched) < len(found.rows):
        return 0
    why = f": {found.rows[0].layer.longname}: {found.rows[0].status}" if found.rows else ""
    print(printable(f"wwfunc: no layer has a distance{why}"), file=sys.stderr)
    return 1
