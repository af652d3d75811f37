"""What is measured of a layer that has a base: its change, or base, change and sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wwfunc.comparison.differences import change, merged
from wwfunc.comparison.pairing import Match
from wwfunc.layers.layer import Task
from wwfunc.lowrank import LowRank
from wwfunc.options import Options


def tasks_of(match: Match, options: Options) -> Sequence[Task]:
    """The rows that a layer becomes: itself, or what the options ask for where it has a base."""
    ours, theirs = match.ours, match.theirs
    if isinstance(ours.handle, LowRank) and not options.scale:
        ours = replace(ours, handle=replace(ours.handle, scale=1.0))
    if theirs is None or match.reason:
        return [ours]
    delta = replace(ours, handle=change(ours, theirs), base=theirs)
    if options.peft == "peft_only":
        return [delta]
    whole = replace(ours.layer, lora_rank=None)
    layer = replace(whole, dtype=theirs.layer.dtype)
    base = replace(ours, layer=layer, handle=theirs.handle, hint=theirs.hint)
    after = replace(ours, layer=whole, handle=merged(ours, theirs))
    parts = {"base": base, "delta": delta, "merged": after}
    return [replace(task, layer=replace(task.layer, part=part)) for part, task in parts.items()]
