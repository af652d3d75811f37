"""What the commands share: options from arguments, files to write, a console."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wwfunc.analysis import Analysis
from wwfunc.checkpoint import Checkpoint
from wwfunc.errors import CheckpointError, OptionError
from wwfunc.opening import load
from wwfunc.options import Options
from wwfunc.tables import check_writable, write_table

_OPTIONS = tuple(field.name for field in dataclasses.fields(Options))


def open_model(arguments: argparse.Namespace, path: str | None = None) -> Checkpoint:
    """The checkpoint at the path on the command line, or at another one as it says there."""
    chosen = {} if arguments.key is None else {"key": arguments.key}
    inert = {"inert": True} if arguments.inert else {}
    return load(arguments.path if path is None else path, **chosen, **inert)


def open_models(arguments: argparse.Namespace, paths: Sequence[str]) -> list[Checkpoint]:
    """Several checkpoints: `--key` is for those that hold a part of that name, at least for one."""
    if arguments.key is None:
        return [open_model(arguments, path) for path in paths]
    if not paths:
        raise OptionError("--key chooses a part of a checkpoint, not of a saved analysis")
    models, refusals = [], []
    for path in paths:
        try:
            models.append(open_model(arguments, path))
        except (OptionError, CheckpointError) as refusal:
            refusals.append(refusal)
            without = argparse.Namespace(**{**vars(arguments), "key": None})
            models.append(open_model(without, path))
    if len(refusals) == len(paths):
        raise refusals[0]
    return models


def left_out(*models: Checkpoint) -> list[str]:
    """A line for the parts of a file that hold tensors and were not taken, if there are any."""
    parts = [model.metadata.get("left_out") for model in models]
    return [f"left out: {p}; --key chooses a part, --key '' takes all" for p in parts if p]


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The analysis options that stand on the command line."""
    found = {name: getattr(arguments, name, None) for name in _OPTIONS}
    return {name: value for name, value in found.items() if value is not None}


def check_outputs(outputs: list[str]) -> None:
    """Refuse an output that cannot be written before minutes are spent on its contents."""
    for output in map(Path, outputs):
        check_writable(output)


def write_outputs(analysis: Analysis, outputs: list[str]) -> None:
    """Write every file that was asked for."""
    for output in outputs:
        write_table(analysis, output)


def verdict(analysis: Analysis, rows: int) -> int:
    """0, or 1 with a line that says why there is nothing to show."""
    if rows:
        return 0
    reasons = [record.status for record in analysis.records]
    reasons += [row.reason for row in analysis.coverage if row.reason]
    why = f"; the first reason: {reasons[0]}" if reasons else ""
    print(f"wwfunc: nothing to analyse in {len(analysis.coverage)} tensors{why}", file=sys.stderr)
    return 1
