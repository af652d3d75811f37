"""Tables and progress on a terminal, through rich."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from wwfunc.analysis import Analysis
from wwfunc.cli.text import printable
from wwfunc.comparison.distancerecords import Distances
from wwfunc.comparison.manymodels import Comparison
from wwfunc.comparison.rankcorrelation import holm
from wwfunc.pipeline import Progress as Callback
from wwfunc.records import LayerRecord

PIPE_WIDTH = 160
"""Width of a table that no terminal limits."""
MEASURED = {"alpha": 0, "D": 90, "num_pl_spikes": 100, "stable_rank": 120, "log_spectral_norm": 120}
"""Columns of numbers, each with the width of the terminal from which on it is shown."""
TRUSTED = {"alpha": 0, "num_pl_spikes": 90, "p_value": 100, "p_random": 100}
"""The same where trust was asked for: the verdict needs the room."""
ASKED = {
    "farms": "farms_alpha",
    "mp_fit": "num_spikes",
    "randomize": "num_traps",
    "detX": "ERG_gap",
    "ranks": "effective_rank",
    "deltas": "spacing_ratio",
}
"""Options with the column that is shown where they are asked for."""
MOST_SHOWN = 6
"""More columns of numbers are shown only where they are asked for."""
KIND_WIDTH = 100
LEAST_NAME, LEAST_LABEL = 18, 14
"""Columns of numbers leave so much room for the name of a layer and for its label."""
GAP = 3
"""Between two columns."""


def console() -> Console:
    """Standard output; in a pipe wide enough for long names."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


@contextmanager
def progress_bar(show: bool) -> Iterator[Callback | None]:
    """A bar on standard error while it is a terminal; nothing in a pipe."""
    errors = Console(stderr=True)
    if not show or not errors.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def update(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=safe(name))

        yield update


def analysis_table(analysis: Analysis, width: int) -> Table:
    """A row a layer: sizes, the fit, its label in words, and how it ended."""
    wanted = dict(TRUSTED if analysis.options.trust else MEASURED)
    if analysis.options.fit != "PL":
        wanted = {name: least for name, least in wanted.items() if not name.startswith("p_")}
        wanted["Lambda"] = 0
    options = analysis.options
    wanted |= {name: 0 for flag, name in ASKED.items() if getattr(options, flag)}
    wanted |= {"relative_change": 0} if analysis.provenance.base else {}
    wanted |= {"num_intruders": 0} if options.intruders else {}
    asked = [name for name, least in wanted.items() if not least]
    room = max(0, MOST_SHOWN - len(asked))
    optional = [name for name, least in wanted.items() if 0 < least <= width][:room]
    fit = _fitting(analysis, width, [*asked, *optional])
    shown = [name for name in wanted if name in fit]
    table = _table(analysis, width, *shown)
    table.add_column("verdict" if analysis.options.trust else "label", overflow="fold")
    hidden = [name for name in asked if name not in fit]
    if hidden:
        table.caption = f"no room for {', '.join(hidden)}: --output writes every column"
        table.caption_justify = "left"
    for record in analysis.records:
        numbers = [_number(getattr(record, name)) for name in shown]
        table.add_row(*_identity(record, width), *numbers, safe(label(record)))
    return table


def _fitting(analysis: Analysis, width: int, names: list[str]) -> set[str]:
    """Those of the columns, the first ones first, beside which a layer keeps its name."""
    kind = ["kind"] if width >= KIND_WIDTH else []
    rows = [["id", "layer", *kind, "N x M", "label"]]
    rows += [[*_identity(record, width), label(record)] for record in analysis.records]
    number, longname, *others, words = (max(map(len, cells)) for cells in zip(*rows, strict=True))
    taken = number + min(longname, LEAST_NAME) + sum(others) + min(words, LEAST_LABEL)
    taken += GAP * (len(others) + 3)
    fit = set(names[:1])
    for name in names:
        cells = (_number(getattr(record, name)) for record in analysis.records)
        needed = GAP + max(map(len, (name, *cells)))
        if taken + needed <= width or name in fit:
            fit.add(name)
            taken += needed
    return fit


def description_table(analysis: Analysis, width: int) -> Table:
    """A row a layer: its sizes and kind, nothing measured."""
    table = _table(analysis, width, "evals", "dtype", "parameters")
    for record in analysis.records:
        layer = record.layer
        sizes = (str(layer.num_evals), layer.dtype, f"{layer.num_params:,}")
        table.add_row(*_identity(record, width), *sizes)
    return table


def label(record: LayerRecord) -> str:
    """The verdict, or what alpha says in WeightWatcher's words; or why there is no alpha.

    Remarks stand behind.
    """
    if not record.status.startswith("success"):
        return record.status
    words = record.warning or ("within 2 to 6" if record.fit == "PL" else "truncated power law")
    return record.status.replace("success", record.verdict or words, 1)


def summary_lines(analysis: Analysis) -> Iterator[str]:
    """Mean metrics and coverage in words."""
    summary = analysis.summary
    valid = int(summary["num_valid_alpha"])
    yield (
        f"{int(summary['num_layers'])} layers, {valid} with a fit: "
        f"mean alpha {_number(summary['alpha'])}, "
        f"alpha_weighted {_number(summary['alpha_weighted'])}, "
        f"log_spectral_norm {_number(summary['log_spectral_norm'])}, "
        f"stable_rank {_number(summary['stable_rank'])}"
    )
    yield coverage_line(analysis)
    if analysis.options.fit != "PL":
        return  # the labels are of power laws
    over = sum(record.warning == "over-trained" for record in analysis.counted)
    under = sum(record.warning == "under-trained" for record in analysis.counted)
    yield (
        f"labels: {over} over-trained (alpha < 2), {under} under-trained (alpha > 6), "
        f"{valid - over - under} between"
    )


def coverage_line(analysis: Analysis) -> str:
    """How much of the checkpoint the rows speak of."""
    coverage = analysis.coverage
    return (
        f"coverage: {coverage.share:.2%} of {coverage.num_params:,} parameters; "
        f"{len(coverage.skipped)} of {len(coverage)} tensors skipped, each with its reason"
    )


def _table(analysis: Analysis, width: int, *numbers: str) -> Table:
    title = analysis.provenance.source
    table = Table(title=title and safe(title), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("layer", overflow="fold")
    if width >= KIND_WIDTH:
        table.add_column("kind", no_wrap=True)
    table.add_column("N x M", justify="right", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _identity(record: LayerRecord, width: int) -> list[str]:
    layer = record.layer
    kind = [layer.kind] if width >= KIND_WIDTH else []
    name = f"{layer.longname} [{layer.part}]" if layer.part else layer.longname
    return [str(layer.layer_id), safe(name), *kind, layer.size]


def safe(text: str) -> str:
    """Neither markup nor control characters of a stranger's text are obeyed."""
    return escape(printable(text))


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:#.3g}".rstrip(".")


def distance_table(found: Distances) -> Table:
    """A row a layer of either model."""
    first, second = (source or "memory" for source in found.sources)
    title = f"{found.method}: {first} and {second}"
    table = Table(title=safe(title), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("layer", overflow="fold")
    for name in ("N x M", "delta_W", "delta_b"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold")
    for row in found.rows:
        layer, name = row.layer, row.layer.longname
        renamed = row.partner and row.partner != name
        words = f"{row.status}, {row.partner} there" if renamed else row.status
        numbers = _number(row.delta_W), _number(row.delta_b)
        table.add_row(str(layer.layer_id), safe(name), layer.size, *numbers, safe(words))
    return table


def comparison_table(found: Comparison) -> Table:
    """A row a model."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    truth = ["truth"] if found.has_truth else []
    names = [*truth, "num_layers", "num_valid_alpha", *found.metrics]
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for row in found.rows:
        values = {"truth": row.truth, **row.summary}
        table.add_row(safe(row.label), *(_number(values[name]) for name in names))
    return table


def correlation_table(found: Comparison) -> Table:
    """How each metric orders the models, beside the truth."""
    table = Table(title="Kendall's tau with the truth", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for name in ("tau", "95 % interval", "p", "p (Holm)", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    adjusted = holm([one.p for one in found.correlations.values()])
    for (metric, one), p in zip(found.correlations.items(), adjusted, strict=True):
        low, high = _number(one.low), _number(one.high)
        interval = f"{low} to {high}" if low else ""
        table.add_row(metric, _number(one.tau), interval, _number(one.p), _number(p), str(one.n))
    return table
