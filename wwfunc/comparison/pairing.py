"""Which layer of one model is which layer of another: by their names, never by their places."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from wwfunc.comparison import layouts
from wwfunc.errors import InputError
from wwfunc.layers import names
from wwfunc.layers.find import Finding
from wwfunc.layers.layer import Task
from wwfunc.lowrank import LowRank

_KOHYA = re.compile(r"^(?:lora|lycoris)_(?:(unet|te1?|te2|te3|text_encoder|transformer)_)?(.*)$")
"""Kohya's names begin with the part of a pipeline that the module stands in."""
_BESIDE = re.compile(r"\.lora(\.[^.]+)?$")
"""What is behind the name of a module that has several changes."""
_PARTS = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
_SINGLE_FILE = {
    "model_diffusion_model_": "unet_",
    "cond_stage_model_transformer_": "text_encoder_",
    "conditioner_embedders_0_transformer_": "text_encoder_",
}
"""How the parts of a pipeline begin in a file that holds all of it."""

Named = Mapping[str, Task]
"""Layers by each name that their tensor has: tied ones have several."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A layer of the first model, and what it is in the second."""

    ours: Task
    theirs: Task | None
    reason: str = ""
    """Why the two cannot be compared, or why there is but one."""


@dataclass(frozen=True, kw_only=True)
class Alone:
    """A layer of the second model without one in the first, and why."""

    task: Task
    reason: str


@dataclass(frozen=True, kw_only=True)
class Matching:
    """A match for each layer of the first model, and what is left of the second."""

    matches: tuple[Match, ...]
    rest: tuple[Alone, ...]
    """Layers of the second model that no layer of the first is."""


def matching(ours: Sequence[Finding], theirs: Sequence[Finding]) -> Matching:
    """Match layers by the names of their tensors, then by `longname`.

    Where one model has most of its names behind one prefix that the other has not (`model.`,
    `module.`), they match without it. The names of adapters that have underscores for dots match
    the names of which that makes them, and several changes may be of one layer. Else a name that
    two layers share matches none of them.
    """
    own, other = _named(ours), _named(theirs)
    partners: dict[str, Task] = {}
    for rule in (_by_tensor, _by_longname, _by_prefix, _beside, _by_pipeline, _by_module):
        for name, there in rule(own, other).items():
            partners.setdefault(own[name].layer.tensor, other[there])
    tasks = [finding.task for finding in ours if finding.task]
    found = {task.layer.tensor for task in partners.values()}
    reasons, alone = _reasons(theirs, "other"), _reasons(ours, "first")
    matches = [_match(task, partners.get(task.layer.tensor), reasons) for task in tasks]
    return Matching(
        matches=tuple(_but_square_ones(matches, tasks)),
        rest=tuple(
            Alone(task=finding.task, reason=_why(finding.task, alone))
            for finding in theirs
            if finding.task and finding.tensor not in found
        ),
    )


def check_some(found: Matching, ours: Sequence[Finding], first: str, second: str) -> None:
    """Two models of which no layer has the name of another were not meant."""
    if not found.matches:
        why = f"; {ours[0].tensor!r}: {ours[0].reason}" if ours else ""
        raise InputError(f"{first} has no layer{why}")
    if any(match.theirs for match in found.matches):
        return
    one, count = found.matches[0], len(found.rest)
    there = f"{count} layers" if count else "no layer"
    the_first = f", the first {found.rest[0].task.layer.longname!r}" if count else ""
    raise InputError(
        f"no layer of {first} is one of {second}: {one.ours.layer.longname!r}: {one.reason}; "
        f"{second} has {there}{the_first}"
    )


def _match(ours: Task, theirs: Task | None, reasons: Mapping[str, str]) -> Match:
    if theirs is None:
        return Match(ours=ours, theirs=None, reason=_why(ours, reasons))
    found = layouts.partner(ours, theirs)
    if found:
        return Match(ours=found[0], theirs=found[1])
    here, there = (layouts.size(task) for task in (ours, theirs))
    return Match(ours=ours, theirs=theirs, reason=f"the shapes differ: {here} and {there}")


def _but_square_ones(matches: Sequence[Match], tasks: Sequence[Task]) -> Sequence[Match]:
    """Where a change had to be turned, those whose shape does not tell are left out."""
    pairs = zip(matches, tasks, strict=True)
    wrong = next((m.ours.layer.longname for m, task in pairs if m.ours is not task), None)
    if wrong is None:
        return matches
    reason = f"which side is its input cannot be told: fan_in_fan_out does not hold for {wrong}"
    return [
        replace(match, reason=match.reason or reason)
        if match.theirs and layouts.is_square_change(match.ours)
        else match
        for match in matches
    ]


def _reasons(findings: Sequence[Finding], model: str) -> Mapping[str, str]:
    """Why tensors of a model are no layers, by the names that a layer would have."""
    said = defaultdict(lambda: f"no layer of this name in the {model} model")
    for finding in findings:
        if finding.reason:
            said[_long(finding.tensor)] = f"no layer in the {model} model: {finding.reason}"
    return said


def _why(task: Task, reasons: Mapping[str, str]) -> str:
    if task.layer.longname.endswith(".base_layer"):
        return "the base's own weight, kept beside the adapter"
    return reasons[_long(task.layer.tensor)]


def _named(findings: Sequence[Finding]) -> Named:
    """Layers by the names of their tensors, first names before those of tied ones."""
    known = {finding.handle.key: finding.task for finding in findings if finding.task}
    found = {finding.tensor: finding.task for finding in findings if finding.task}
    for finding in findings:
        task = known.get(finding.handle.key)
        if finding.rule == "tied" and task is not None:
            found[finding.tensor] = task
    return found


def _long(tensor: str) -> str:
    return names.longname(names.dotted(tensor))


def _by_tensor(ours: Named, theirs: Named) -> dict[str, str]:
    return {name: name for name in ours if name in theirs}


def _by_longname(ours: Named, theirs: Named) -> dict[str, str]:
    return _by_key(ours, theirs, _long)


def _beside(ours: Named, theirs: Named) -> dict[str, str]:
    """Changes in one file with each other, or with the weight: `x.lora.weight` is one of `x`."""
    other = _grouped(theirs, _long)
    modules = {name: _BESIDE.sub("", _long(name)) for name in _adapters(ours)}
    found = {name: other.get(module, []) for name, module in modules.items()}
    return {name: there[0] for name, there in found.items() if len(there) == 1}


def _by_pipeline(ours: Named, theirs: Named) -> dict[str, str]:
    """Kohya's names, which have underscores for dots, where the base is a whole pipeline."""
    return _by_key(_kohya(ours), theirs, lambda name: _flat(name, whole=True))


def _by_module(ours: Named, theirs: Named) -> dict[str, str]:
    """The same where the base is one part of it."""
    return _by_key(_kohya(ours), theirs, lambda name: _flat(name, whole=False))


def _adapters(named: Named) -> Named:
    return {name: task for name, task in named.items() if isinstance(task.handle, LowRank)}


def _kohya(named: Named) -> Named:
    return {n: task for n, task in _adapters(named).items() if _KOHYA.match(_long(n))}


def _flat(tensor: str, *, whole: bool) -> str:
    flat = _long(tensor).replace(".", "_")
    for prefix, part in _SINGLE_FILE.items():
        if flat.startswith(prefix):
            flat = part + flat.removeprefix(prefix)
    found = _KOHYA.match(flat)
    if not found:
        return flat
    part, rest = found.groups()
    return f"{_PARTS.get(part, part)}_{rest}" if whole and part else rest


def _by_key(ours: Named, theirs: Named, key: Callable[[str], str]) -> dict[str, str]:
    """Those that share a key with one of the others, and with none of their own."""
    own, other = (_grouped(named, key) for named in (ours, theirs))
    pairs = ((own[word], other.get(word, [])) for word in own)
    return {here[0]: there[0] for here, there in pairs if len(here) == len(there) == 1}


def _grouped(named: Named, key: Callable[[str], str]) -> Mapping[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in named:
        found[key(name)].append(name)
    return found


def _by_prefix(ours: Named, theirs: Named) -> dict[str, str]:
    """By `longname`, without the one prefix that makes most of the names the same."""
    own, other = ({_long(name) for name in named} for named in (ours, theirs))
    here, there = _prefix(own, other), _prefix(other, own)
    (prefix, count), (_, less) = sorted((here, there), key=lambda found: -found[1])
    # Names that are the same as they stand speak against a prefix.
    if count == less or count <= len(own & other) or 2 * count < min(len(own), len(other)):
        return {}
    return _by_key(ours, theirs, lambda name: _long(name).removeprefix(prefix))


def _prefix(longer: set[str], shorter: set[str]) -> tuple[str, int]:
    """What most of the `longer` names have before one of the `shorter`, and how many have it."""
    found: Counter[str] = Counter()
    for name in longer:
        for dot in re.finditer(r"\.", name):
            if name[dot.end() :] in shorter:
                found[name[: dot.end()]] += 1
    best = found.most_common(2)
    tied = len(best) == 2 and best[0][1] == best[1][1]
    return best[0] if best and not tied else ("", 0)
