"""From a model to an Analysis: find the layers, measure those that were asked for, gather rows."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wwfunc import checks
from wwfunc.analysis import Analysis
from wwfunc.checkpoint import Checkpoint, TensorHint
from wwfunc.comparison.pairing import Match, Matching, check_some, matching
from wwfunc.comparison.tasks import tasks_of
from wwfunc.errors import InputError, OptionError
from wwfunc.layers.coverage import Coverage, CoverageRow
from wwfunc.layers.find import Finding, coverage_row, find
from wwfunc.layers.layer import Task
from wwfunc.layers.select import NOT_SELECTED, chosen, unfit
from wwfunc.layers.views import views
from wwfunc.lowrank import LowRank
from wwfunc.options import Options, make_options
from wwfunc.records import LayerRecord
from wwfunc.sources import as_checkpoint, with_hints

logger = logging.getLogger("wwfunc")

Progress = Callable[[int, int, str], None]
"""Called with the layers done, the layers in all, and the name of the one just done."""

NOT_MEASURED = "described, not measured"

_PLAIN = {"peft": "peft_only", "intruders": False}
BASE_ALONE = "base model"
"""The part of a row that the base has and the model has not."""
_BEST_FIRST = ("analysed", "described")


def analyze(
    model: Any,
    options: Options | None = None,
    *,
    base_model: Any = None,
    hints: Mapping[str, TensorHint] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Analysis:
    """Measure every layer of a model from its weights alone.

    Parameters
    ----------
    model
        A Checkpoint, a path, a mapping or pytree of arrays, a state dict, a module that has one.
    options
        An `Options` record.
    **changes
        Single options by name, such as `layers="conv*"`, on top of `options`.
    base_model
        What `model` was made of, in any format: then each row is the change of a layer, model less
        base, or what an adapter adds. Layers match by name; one without a partner is a row that
        says so. Two layers are in memory at a time for each thread.
    hints
        What tensors are, by name pattern, where the rules cannot tell; in both models.
    threads
        Processors to use; None takes all, or what OMP_NUM_THREADS and its like allow.
    progress
        Called after each layer with (done, total, name).

    Returns
    -------
    Analysis
        `.records`, `.details`, `.summary`, `.coverage`.

    Raises
    ------
    CheckpointError
        If the file cannot be read. A fault in one tensor is the status of its row instead.
    OptionError, SelectionError, InputError
        If an option, a selector or the model itself makes no sense.

    Notes
    -----
    Always float64, whatever the weights are stored as; the inputs are never written to.

    Examples
    --------
    >>> import wwfunc
    >>> analysis = wwfunc.analyze("examples/digits.safetensors", layers="dense*")
    >>> [record.longname for record in analysis.records]
    ['dense1', 'dense2', 'dense3', 'dense4']
    """
    options = make_options(options, **changes)
    checks.callback("progress", progress)
    checkpoint, findings, base = _opened(model, base_model, hints)
    from wwfunc.execution import engine, measure_all  # JAX is imported once there is work for it

    planned = _planned(findings, None if base is None else find(base), options)
    rows = {row.task.layer.key: row.refusal(options) for row in planned}
    tasks = [row.task for row in planned if rows[row.task.layer.key] is None]
    done = itertools.count(1)

    def report(record: LayerRecord) -> None:
        rows[record.layer.key] = record
        if progress is not None:
            progress(next(done), len(tasks), record.layer.longname)

    measure_all(tasks, options, threads, report)
    source = None if base is None else base.source or "memory"
    return _gather(checkpoint, findings, rows, options, engine(options), source)


def describe(
    model: Any,
    options: Options | None = None,
    *,
    hints: Mapping[str, TensorHint] | None = None,
    **changes: Any,
) -> Analysis:
    """List the layers of a model without reading a tensor: the rows of `analyze`, not measured.

    Takes and raises what `analyze` does.

    Examples
    --------
    >>> import wwfunc
    >>> wwfunc.describe("examples/digits.safetensors")["head"].num_evals
    10
    """
    options = make_options(options, **changes)
    checkpoint, findings = found(model, hints)
    rows: dict[tuple[str, str], LayerRecord | None] = {
        row.task.layer.key: row.refusal(options)
        or LayerRecord(layer=row.task.layer, status=NOT_MEASURED, measures=None)
        for row in _planned(findings, None, options)
    }
    return _gather(checkpoint, findings, rows, options, "none")


def _opened(
    model: Any, base_model: Any, hints: Mapping[str, TensorHint] | None
) -> tuple[Checkpoint, Sequence[Finding], Checkpoint | None]:
    """The model, what its tensors are, and its base, hints for either."""
    if base_model is None:
        return *found(model, hints), None
    checkpoint, base = with_hints([as_checkpoint(model), as_checkpoint(base_model)], hints)
    if any(isinstance(leaf, LowRank) for leaf in base.values()):
        raise InputError("base_model= is an adapter: give the model that it was made for")
    return *found(checkpoint, None), base


def found(
    model: Any, hints: Mapping[str, TensorHint] | None
) -> tuple[Checkpoint, Sequence[Finding]]:
    """What `analyze` takes as a checkpoint, and a finding for each of its tensors."""
    (checkpoint,) = with_hints([as_checkpoint(model)], hints)
    findings = find(checkpoint)
    if not any(finding.layer for finding in findings):
        logger.warning("%r holds no layer; its coverage says why", checkpoint)
    return checkpoint, findings


@dataclass(frozen=True)
class _Row:
    """A row to be: what to measure, or why it cannot be measured."""

    task: Task
    reason: str = ""

    def refusal(self, options: Options) -> LayerRecord | None:
        """The row of a layer that is not to be measured."""
        reason = f"skipped: {self.reason}" if self.reason else unfit(self.task.layer, options)
        return LayerRecord(layer=self.task.layer, status=reason, measures=None) if reason else None


def _planned(
    findings: Sequence[Finding], base: Sequence[Finding] | None, options: Options
) -> list[_Row]:
    """What the options ask to measure: an entry for each row."""
    needed = [name for name in ("peft", "intruders") if getattr(options, name) != _PLAIN[name]]
    if base is None and needed:
        asked = f"{needed[0]}={getattr(options, needed[0])!r}"
        raise OptionError(f"{asked} looks at a change beside its base: give base_model=")
    layers = [finding.layer for finding in findings if finding.layer]
    names = chosen(layers, options.layers)
    lost: list[_Row] = []
    if base is None:
        matches = [Match(ours=f.task, theirs=None) for f in findings if f.task]
    else:
        found = matching(findings, base)
        check_some(found, findings, "the model", "the base model")
        matches = [*found.matches]
        lost = [] if options.layers else [*_lost(found)]
    rows = [
        _Row(view, match.reason)
        for match in matches
        if match.ours.layer.tensor in names
        for task in tasks_of(match, options)
        for view in views(task, options)
    ]
    return [*rows, *lost]


def _lost(found: Matching) -> Iterator[_Row]:
    """Layers of the base alone: an adapter leaves most as they are, a whole model has lost them."""
    if any(isinstance(match.ours.handle, LowRank) for match in found.matches):
        return
    for alone in found.rest:
        layer = replace(alone.task.layer, part=BASE_ALONE)
        yield _Row(replace(alone.task, layer=layer), alone.reason)


def _gather(
    checkpoint: Checkpoint,
    findings: Sequence[Finding],
    rows: Mapping[tuple[str, str], LayerRecord | None],
    options: Options,
    engine: str,
    base: str | None = None,
) -> Analysis:
    records = [record for record in rows.values() if record is not None]
    by_tensor: defaultdict[str, list[LayerRecord]] = defaultdict(list)
    for record in records:
        by_tensor[record.layer.tensor].append(record)
    return Analysis.of(
        records=records,
        coverage=Coverage(_coverage_row(f, by_tensor[f.tensor]) for f in findings),
        options=options,
        source=checkpoint.source,
        engine=engine,
        base=base,
    )


def _coverage_row(finding: Finding, records: Sequence[LayerRecord]) -> CoverageRow:
    """What became of a tensor: as much as of the row that went best."""
    statuses = [_coverage_status(record) for record in records]
    status = next((word for word in _BEST_FIRST if word in statuses), "skipped")
    reason = finding.reason
    if finding.layer and status != "analysed":
        reason = records[0].status if records else NOT_SELECTED
    longname = records[0].layer.longname if records else ""
    return coverage_row(finding, status, reason, longname)


def _coverage_status(record: LayerRecord) -> str:
    if record.status == NOT_MEASURED:
        return "described"
    return "skipped" if record.measures is None else "analysed"
