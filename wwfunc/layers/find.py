"""Which tensors of a checkpoint are layers: one finding a tensor, none left out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import get_args

from wwfunc.checkpoint import Checkpoint, Handle, Kind, TensorHint, as_handle
from wwfunc.errors import OptionError
from wwfunc.layers import names
from wwfunc.layers.coverage import CoverageRow
from wwfunc.layers.layer import Layer, Task
from wwfunc.layers.rules import Facts, Skip, judge, unreadable
from wwfunc.lowrank import LowRank


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one tensor turned out to be: a layer, or skipped for a reason."""

    tensor: str
    handle: Handle
    rule: str
    reason: str = ""
    task: Task | None = None
    """How to measure the layer; None where the tensor is none."""

    @property
    def layer(self) -> Layer | None:
        return self.task.layer if self.task else None


def coverage_row(finding: Finding, status: str, reason: str, longname: str) -> CoverageRow:
    """What became of a tensor."""
    return CoverageRow(
        tensor=finding.tensor,
        shape=finding.handle.shape,
        dtype=finding.handle.dtype.name,
        num_params=math.prod(finding.handle.shape),
        status=status,
        rule=finding.rule,
        reason=reason,
        longname=longname,
    )


def find(checkpoint: Checkpoint) -> list[Finding]:
    """One finding for each tensor, in natural order of the names."""
    ordered = sorted(checkpoint, key=names.natural_key)
    handles = {name: as_handle(checkpoint[name]) for name in ordered}
    siblings, uncles = _families(ordered)
    first_name: dict[Hashable, str] = {}
    findings: list[Finding] = []
    next_id = 1
    for name in ordered:
        handle = handles[name]
        plain = names.dotted(name)
        module = plain.rpartition(".")[0]
        facts = Facts(
            tensor=name,
            name=plain,
            shape=handle.shape,
            dtype=handle.dtype,
            siblings=siblings[module],
            uncles=uncles[module.rpartition(".")[0]],
        )
        verdict, rule = _verdict(checkpoint, facts)
        verdict, rule = _once(verdict, rule, handle, name, first_name)
        findings.append(_finding(facts, handle, verdict, rule, next_id))
        next_id += isinstance(verdict, TensorHint) or verdict.weight
    return findings


def _families(
    ordered: list[str],
) -> tuple[Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]]:
    """The tensors in each module, and the modules in each module, by last part of the name."""
    tensors: defaultdict[str, set[str]] = defaultdict(set)
    modules: defaultdict[str, set[str]] = defaultdict(set)
    for name in ordered:
        module, _, last = names.dotted(name).rpartition(".")
        tensors[module].add(last)
        parent, _, own = module.rpartition(".")
        modules[parent].add(own.lower())
    return (
        {module: frozenset(found) for module, found in tensors.items()},
        {module: frozenset(found) for module, found in modules.items()},
    )


def _verdict(checkpoint: Checkpoint, facts: Facts) -> tuple[TensorHint | Skip, str]:
    hint = checkpoint.hint(facts.tensor)
    if hint is None or unreadable(facts):
        return judge(facts)
    if not isinstance(hint, TensorHint) or hint.kind not in get_args(Kind):
        raise OptionError(
            f"the hint for {facts.tensor!r} is {hint!r}, not a TensorHint of a kind among "
            f"{', '.join(get_args(Kind))}"
        )
    if not _fits(hint, len(facts.shape)):
        raise OptionError(
            f"the hint for {facts.tensor!r} names rows {hint.rows} and columns {hint.cols}, "
            f"which are no distinct axes of the shape {facts.shape}"
        )
    return hint, "hint"


def _fits(hint: TensorHint, ndim: int) -> bool:
    """Whether rows and columns are distinct axes, at least one of each."""
    if not (isinstance(hint.rows, tuple) and isinstance(hint.cols, tuple)):
        return False
    axes = (*hint.rows, *hint.cols)
    whole = all(type(axis) is int and 0 <= axis < ndim for axis in axes)
    return whole and len(set(axes)) == len(axes) and bool(hint.rows) and bool(hint.cols)


def _once(
    verdict: TensorHint | Skip, rule: str, handle: Handle, name: str, seen: dict[Hashable, str]
) -> tuple[TensorHint | Skip, str]:
    """A tied tensor is a layer under the first of its names alone."""
    if not isinstance(verdict, TensorHint) or not handle.nbytes:
        return verdict, rule
    first = seen.setdefault(handle.key, name)
    if first == name:
        return verdict, rule
    return Skip(f"the same tensor as {first!r}", weight=True), "tied"


def _finding(
    facts: Facts, handle: Handle, verdict: TensorHint | Skip, rule: str, layer_id: int
) -> Finding:
    if isinstance(verdict, Skip):
        return Finding(tensor=facts.tensor, handle=handle, rule=rule, reason=verdict.reason)
    task = Task(layer=_layer(facts, handle, verdict, rule, layer_id), handle=handle, hint=verdict)
    return Finding(tensor=facts.tensor, handle=handle, rule=rule, task=task)


def _layer(facts: Facts, handle: Handle, hint: TensorHint, rule: str, layer_id: int) -> Layer:
    rows = math.prod(facts.shape[axis] for axis in hint.rows)
    cols = math.prod(facts.shape[axis] for axis in hint.cols)
    size = math.prod(facts.shape)
    longname = names.longname(facts.name)
    return Layer(
        layer_id=layer_id,
        longname=longname,
        tensor=facts.tensor,
        kind=hint.kind,
        block=names.block(longname),
        role=names.role(longname),
        dtype=facts.dtype.name,
        rule=rule,
        N=max(rows, cols),
        M=min(rows, cols),
        rf=size // (rows * cols) if size else 0,
        num_params=size,
        lora_rank=handle.rank if isinstance(handle, LowRank) else None,
    )
