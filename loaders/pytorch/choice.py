"""Which part of a saved object is the model; where it could be several, the user says which."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AmbiguousError, PickleError
from ..pickles.globals import MAPPINGS
from ..pickles.nodes import Instance
from ..strict_json import brief
from .parts import Holdings, module_state, parts

_MODELS = """
state_dict model_state_dict model_state model_dict model module net network net_state_dict
weights params params_ema param parameters ema ema_state_dict ema_model ema_params model_ema
state_dict_ema model_ema_state_dict ema_model_state_dict ema_weights ema_net net_ema
"""
_MODEL_NAMES = frozenset(_MODELS.split())
_PARTS = """
generator discriminator encoder decoder actor critic policy teacher student backbone
generator_ema g_ema net_g net_d netg netd net_g_ema g d
"""
_PART_NAMES = frozenset(_PARTS.split())
"""Names of models, and as often of a model's own parts: they count at the top alone."""

_TRAINING = re.compile(
    r"(optim|lr_sched|sched|(grad_|loss_)?scaler|rng|callback|hyper_param)\w*|amp|loops"
    r"|\w+_(optimi[sz]ers?|optim|scheduler|rng)(_states?|_state_dicts?)?",
    re.IGNORECASE,
)
_OPTIMISER = frozenset(("state", "param_groups"))
_LONGEST_NAME = 100
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """The part that is the model."""

    node: Any
    trail: tuple[Any, ...]
    """What it stands in, from the root."""
    left_out: tuple[tuple[str, int], ...]
    """What else holds tensors, and how many."""
    skipped: frozenset[str] = frozenset()
    """The parts of the node itself that are no model."""


def find(root: Any, key: str | None, holdings: Holdings, path: Path) -> Any:
    """The part of `root` under a dotted key; a name with dots in it is tried as one."""
    node, rest = root, key or ""
    while rest:
        children = [] if holdings.is_tensor(node) else [*holdings.children(node)]
        fits = [(n, c) for n, c in children if rest == n or rest.startswith(f"{n}.")]
        if not fits:
            listed = _listed([(name, holdings.count(child)) for name, child in children])
            raise AmbiguousError(
                f"{path}: no tensors stand under key={brief(key)}; where {brief(rest)} should be "
                f"there are {listed}"
            )
        name, node = max(fits, key=lambda fit: len(fit[0]))
        rest = rest[len(name) + 1 :]
    return node


def choose(root: Any, holdings: Holdings, path: Path, key: str | None) -> Choice:
    """The model within `root`, which a key has led to, or which is all of it for the key ""."""
    if not holdings.count(root):
        raise PickleError(f"{path}: the pickle holds no tensors")
    node, trail, top, whole = root, [root], key is None, key == ""
    left_out: list[tuple[str, int]] = []
    while not whole and _unwraps(node, holdings):
        children = [*holdings.children(node)]
        if key is not None and all(_is_optimiser(child) for _, child in children):
            break  # they have been asked for
        step = _Step(children, holdings, top)
        chosen = step.chosen(path)
        if chosen is None:
            return Choice(node, tuple(trail), (*left_out, *step.training), step.skipped)
        left_out += [(name, count) for name, count in step.counts if name != chosen]
        node, top = step.nodes[chosen], False
        trail.append(node)
    return Choice(node, tuple(trail), tuple(left_out))


def _unwraps(node: Any, holdings: Holdings) -> bool:
    """Whether a node is a mere container: the parts of an object are those of the model."""
    if type(node) is Instance:
        is_mapping = node.function in MAPPINGS or bool(node.entries)
        return is_mapping and module_state(node) is None and not holdings.is_tensor(node)
    return type(node) in (dict, list, tuple)


class _Step:
    """One container that holds tensors, and the choice among its parts."""

    def __init__(self, children: list[tuple[str, Any]], holdings: Holdings, top: bool) -> None:
        self.nodes = dict(children)
        self.counts = [(name, holdings.count(child)) for name, child in children]
        self._top = top
        tensors = {name for name, child in children if holdings.is_tensor(child)}
        self.skipped = frozenset(
            name
            for name, child in children
            if name not in tensors and (_is_training(name) or _is_optimiser(child))
        )
        self.training = tuple((n, count) for n, count in self.counts if n in self.skipped)
        self._inner = [n for n, _ in children if n not in tensors and n not in self.skipped]
        self._tensors = tensors
        self._direct = any(
            holdings.rank(self.nodes[name]) and not _is_training(name) for name in tensors
        )

    def chosen(self, path: Path) -> str | None:
        """The name of the part that holds the model; None for all of them together."""
        known = _MODEL_NAMES | _PART_NAMES if self._top else _MODEL_NAMES
        candidates = self._distinct([n for n in self._inner if n.lower() in known])
        alone = len(candidates) == 1 and (
            candidates[0].lower() in _MODEL_NAMES or len(self._inner) == 1
        )
        if candidates and not alone and not (self._direct and len(candidates) == 1):
            raise self._ambiguous(self._inner, path)
        if candidates:
            return None if self._direct else candidates[0]
        if not self._inner and not self._tensors:
            raise self._ambiguous([*self.nodes], path)
        return self._inner[0] if self._only_part() else None

    def _only_part(self) -> bool:
        return self._top and len(self._inner) == 1 and not self._tensors

    def _distinct(self, candidates: list[str]) -> list[str]:
        """Two names of one object are one candidate."""
        return [*{id(self.nodes[name]): name for name in reversed(candidates)}.values()]

    def _ambiguous(self, names: list[str], path: Path) -> AmbiguousError:
        listed = _listed([(name, count) for name, count in self.counts if name in names])
        return AmbiguousError(
            f"{path}: which part is the model? There are {listed}; choose by "
            "load(path, key=...), all of them by key=''"
        )


def _is_optimiser(node: Any) -> bool:
    """Whether a part is what `Optimizer.state_dict()` returns, under whatever name."""
    if type(node) is Instance and node.function in MAPPINGS:
        node = {key: value for key, value in parts(node) if key in _OPTIMISER}
    return type(node) is dict and node.keys() >= _OPTIMISER


def _is_training(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and _TRAINING.fullmatch(name) is not None


def _listed(counts: list[tuple[str, int]]) -> str:
    shown = [f"{brief(name)} ({count:,} tensors)" for name, count in counts[:_LISTED]]
    more = len(counts) - _LISTED
    return ", ".join(shown + [f"{more} more"] * (more > 0)) or "none"
