"""From a model to an Analysis: find the layers, measure those that were asked for, gather rows."""

from __future__ import annotations

import fnmatch
import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wwfunc.analysis import Analysis
from wwfunc.checkpoint import Checkpoint, TensorHint
from wwfunc.errors import OptionError
from wwfunc.layers.coverage import Coverage, CoverageRow
from wwfunc.layers.find import Finding, find
from wwfunc.layers.layer import Task
from wwfunc.layers.select import chosen, unfit
from wwfunc.layers.views import views
from wwfunc.options import Options, make_options
from wwfunc.records import LayerRecord
from wwfunc.sources import as_checkpoint

logger = logging.getLogger("wwfunc")

Progress = Callable[[int, int, str], None]
"""Called with the layers done, the layers in all, and the name of the one just done."""

NOT_SELECTED = "not selected by layers="
NOT_MEASURED = "described, not measured"

_BEST_FIRST = ("analysed", "described")


def analyze(
    model: Any,
    options: Options | None = None,
    *,
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
    hints
        What tensors are, by name pattern, where the rules cannot tell.
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
    if progress is not None and not callable(progress):
        raise OptionError(f"progress= is called with (done, total, name), {progress!r} cannot be")
    checkpoint, findings = found(model, hints)
    from wwfunc.execution import engine, measure_all  # JAX is imported once there is work for it

    wanted = _wanted(findings, options)
    rows = {task.layer.key: _unfit(task, options) for task in wanted}
    tasks = [task for task in wanted if rows[task.layer.key] is None]
    done = itertools.count(1)

    def report(record: LayerRecord) -> None:
        rows[record.layer.key] = record
        if progress is not None:
            progress(next(done), len(tasks), record.layer.longname)

    measure_all(tasks, options, threads, report)
    return _gather(checkpoint, findings, rows, options, engine(options))


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
        task.layer.key: _unfit(task, options)
        or LayerRecord(layer=task.layer, status=NOT_MEASURED, measures=None)
        for task in _wanted(findings, options)
    }
    return _gather(checkpoint, findings, rows, options, "none")


def found(
    model: Any, hints: Mapping[str, TensorHint] | None
) -> tuple[Checkpoint, Sequence[Finding]]:
    """What `analyze` takes as a checkpoint, and a finding for each of its tensors."""
    checkpoint = as_checkpoint(model)
    if hints is not None:
        _check_patterns(hints, checkpoint)
        checkpoint = checkpoint.with_hints(hints)
    findings = find(checkpoint)
    if not any(finding.layer for finding in findings):
        logger.warning("%r holds no layer; its coverage says why", checkpoint)
    return checkpoint, findings


def _check_patterns(hints: Any, checkpoint: Checkpoint) -> None:
    if not isinstance(hints, Mapping):
        raise OptionError(f"hints= maps name patterns to TensorHint, not {hints!r}")
    for pattern in hints:
        if not isinstance(pattern, str) or not fnmatch.filter(checkpoint, pattern):
            raise OptionError(f"no tensor fits the pattern {pattern!r} in hints=")


def _wanted(findings: Sequence[Finding], options: Options) -> list[Task]:
    """What the options ask to measure: a task for each row."""
    tasks = [finding.task for finding in findings if finding.task]
    names = chosen([task.layer for task in tasks], options.layers)
    return [view for task in tasks if task.layer.tensor in names for view in views(task, options)]


def _unfit(task: Task, options: Options) -> LayerRecord | None:
    """The row of a layer that is not to be measured."""
    reason = unfit(task.layer, options)
    return LayerRecord(layer=task.layer, status=reason, measures=None) if reason else None


def _gather(
    checkpoint: Checkpoint,
    findings: Sequence[Finding],
    rows: Mapping[tuple[str, str], LayerRecord | None],
    options: Options,
    engine: str,
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
    )


def _coverage_row(finding: Finding, records: Sequence[LayerRecord]) -> CoverageRow:
    """What became of a tensor: as much as of the row that went best."""
    statuses = [_coverage_status(record) for record in records]
    status = next((word for word in _BEST_FIRST if word in statuses), "skipped")
    reason = finding.reason
    if finding.layer and status != "analysed":
        reason = records[0].status if records else NOT_SELECTED
    return CoverageRow(
        tensor=finding.tensor,
        shape=finding.handle.shape,
        dtype=finding.handle.dtype.name,
        num_params=math.prod(finding.handle.shape),
        status=status,
        rule=finding.rule,
        reason=reason,
        longname=records[0].layer.longname if records else "",
    )


def _coverage_status(record: LayerRecord) -> str:
    if record.status == NOT_MEASURED:
        return "described"
    return "skipped" if record.measures is None else "analysed"
