"""`wwfunc sharpen IN OUT` and `wwfunc smooth IN OUT`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from wwfunc.checkpoint import Checkpoint
from wwfunc.cli import common, show
from wwfunc.cli.text import printable
from wwfunc.layers.find import Finding, find
from wwfunc.saving import check_target, save
from wwfunc.transforms.handles import Change, changes
from wwfunc.transforms.models import sharpen, smooth


def run(arguments: argparse.Namespace) -> int:
    """Change the layers, write the file, print what became of each."""
    model = common.open_model(arguments)
    check_target(model, arguments.out)
    findings = find(model)
    if not any(finding.layer for finding in findings):
        return _nothing(findings)
    changed = _transformed(model, arguments)
    with show.progress_bar(not arguments.quiet) as progress:
        save(changed, arguments.out, progress=progress)
    rows = changes(changed)
    if not arguments.quiet:
        lines = [*_layer_lines(rows), *_other_lines(findings), _summary(rows, arguments)]
        for line in [*lines, *common.left_out(model)]:
            print(printable(line))
    return _verdict(rows, arguments.out)


def _transformed(model: Checkpoint, arguments: argparse.Namespace) -> Checkpoint:
    layers = arguments.layers or ()
    if arguments.transform == "smooth":
        return smooth(model, arguments.keep, layers=layers)
    return sharpen(model, seed=arguments.seed, layers=layers)


def _nothing(findings: Sequence[Finding]) -> int:
    why = f"; the first reason: {findings[0].reason}" if findings else ""
    print(f"wwfunc: no layer in {len(findings)} tensors{why}", file=sys.stderr)
    return 1


def _verdict(rows: Sequence[Change], out: str) -> int:
    """0, or 1 with a line where layers failed and none was changed."""
    failures = [row for row in rows if row.failed]
    if not failures or any(row.number for row in rows):
        return 0
    first = f"{failures[0].layer.longname}: {failures[0].words}"
    print(printable(f"wwfunc: {out} is a copy: no layer changed; {first}"), file=sys.stderr)
    return 1


def _layer_lines(rows: Sequence[Change]) -> list[str]:
    """The layers that changed, then those that did not."""
    changed = [f"{row.layer.longname}: {row.words}" for row in rows if row.number]
    kept = [f"{row.layer.longname}: as it was: {row.words}" for row in rows if not row.number]
    return changed + kept


def _other_lines(findings: Sequence[Finding]) -> list[str]:
    """The tensors that are no layers, counted by the reason."""
    reasons = Counter(finding.reason for finding in findings if not finding.layer)
    return [f"{number} as they were: {why}" for why, number in reasons.most_common()]


def _summary(rows: Sequence[Change], arguments: argparse.Namespace) -> str:
    changed = sum(row.number > 0 for row in rows)
    return f"{changed} of {len(rows)} layers changed, written to {arguments.out}"
