"""`wwfunc describe PATH`."""

from __future__ import annotations

import argparse

from wwfunc.cli import common, show
from wwfunc.pipeline import describe


def run(arguments: argparse.Namespace) -> int:
    """Print the layers and how much they cover, write the files that were asked for."""
    common.check_outputs(arguments.output)
    model = common.open_model(arguments)
    analysis = describe(model, **common.given_options(arguments))
    if not arguments.quiet:
        console = show.console()
        console.print(show.description_table(analysis, console.width))
        for line in [show.coverage_line(analysis), *common.left_out(model)]:
            console.print(show.safe(line), soft_wrap=True)
    common.write_outputs(analysis, arguments.output)
    return common.verdict(analysis, len(analysis.records))
