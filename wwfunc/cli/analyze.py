"""`wwfunc analyze PATH`."""

from __future__ import annotations

import argparse

from wwfunc.cli import common, show
from wwfunc.pipeline import analyze


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table and the summary, write the files that were asked for."""
    common.check_outputs(arguments.output)
    paths = [arguments.path] if arguments.base is None else [arguments.path, arguments.base]
    model, *bases = common.open_models(arguments, paths)
    with show.progress_bar(not arguments.quiet) as progress:
        analysis = analyze(
            model,
            base_model=next(iter(bases), None),
            threads=arguments.threads,
            progress=progress,
            **common.given_options(arguments),
        )
    if not arguments.quiet:
        console = show.console()
        console.print(show.analysis_table(analysis, console.width))
        for line in [*show.summary_lines(analysis), *common.left_out(model, *bases)]:
            console.print(show.safe(line), soft_wrap=True)
    common.write_outputs(analysis, arguments.output)
    return common.verdict(analysis, len(analysis.measured))
