"""What an adapter's configuration says of its ranks and scales; what cannot be read is refused.

PEFT keeps it in `adapter_config.json`, diffusers in the metadata of the file of weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import AdapterError, UnsupportedError
from ..strict_json import brief
from .names import Pair
from .pairs import Scale
from .patterns import Pattern, compile_all

T = TypeVar("T")

_LARGEST = 1e12
"""Of a rank or an alpha: what is larger is no choice that somebody made."""

_MOVED = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Initialisations that also change the base weight: the product alone is not the change."""
_OTHER_PRODUCTS = (
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
    "enable_lora",
    "layer_replication",
)
"""Options under which the change is not the product of the two factors, or is of another module."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Rank and scale of each module."""

    path: Path
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    patterns: Mapping[str, Pattern]
    root: bool
    """Whether the scale is alpha / sqrt(rank) (rsLoRA) instead of alpha / rank."""
    transposed: bool
    dora: bool
    owners: frozenset[str]
    """Modules of which a parameter is changed, not the module: experts, mostly."""

    def scale(self, pair: Pair, rank: int, module: str) -> Scale | None:
        """The scale of a pair of this rank; None where its product is not the change."""
        if self.owners and not self.owners.isdisjoint(_endings(module)):
            return None
        asked = _first(self.ranks, self.patterns, module, self.rank)
        if asked != rank:
            raise AdapterError(
                f"{self.path}: {brief(module)} has factors of rank {rank}, the config says {asked}"
            )
        if self.dora and "magnitude" not in pair.names:
            raise AdapterError(f"{self.path}: {brief(module)} lacks its lora_magnitude_vector")
        alpha = _first(self.alphas, self.patterns, module, self.alpha)
        scale = alpha / (math.sqrt(rank) if self.root else rank)
        return Scale(scale, alpha, self.transposed and not pair.table)


def pattern_name(owner: str) -> str:
    """The module that patterns are matched with: the one that was there before PEFT wrapped it."""
    return owner.partition(".base_layer")[0]


def parse_config(config: Mapping[str, Any], modules: Collection[str], path: Path) -> AdapterConfig:
    """The configuration of an adapter that changes `modules`.

    Raises
    ------
    AdapterError
        If ranks, alphas or patterns are not what they can be.
    UnsupportedError
        If the changes are not the scaled products of their factors.
    BudgetError
        If the patterns would take too long to match.
    """
    _check_product(config, path)
    ranks = _table(config, "rank_pattern", path)
    alphas = _table(config, "alpha_pattern", path)
    return AdapterConfig(
        path=path,
        rank=_rank(config.get("r"), "r", path),
        alpha=_alpha(config.get("lora_alpha"), "lora_alpha", path),
        ranks={
            key: _rank(value, f"rank_pattern {brief(key)}", path) for key, value in ranks.items()
        },
        alphas={
            key: _alpha(value, f"alpha_pattern {brief(key)}", path) for key, value in alphas.items()
        },
        patterns=compile_all([*ranks, *(alphas.keys() - ranks.keys())], modules, path),
        root=_flag(config, "use_rslora", path),
        transposed=_flag(config, "fan_in_fan_out", path),
        dora=_flag(config, "use_dora", path),
        owners=_owners(config, path),
    )


def _check_product(config: Mapping[str, Any], path: Path) -> None:
    start = config.get("init_lora_weights")
    if type(start) is str and start.lower().startswith(_MOVED):
        raise UnsupportedError(
            f"{path}: init_lora_weights is {brief(start)}, which also changes the base weights: "
            f"convert the adapter first (save_pretrained with "
            f"path_initial_model_for_weight_conversion)"
        )
    for option in _OTHER_PRODUCTS:
        if config.get(option):
            raise UnsupportedError(
                f"{path}: with {option} the changes are not the products of their factors"
            )


def _first(table: Mapping[str, T], patterns: Mapping[str, Pattern], module: str, default: T) -> T:
    return next((value for key, value in table.items() if patterns[key].matches(module)), default)


def _rank(value: Any, what: str, path: Path) -> int:
    if type(value) is not int or not 0 < value < _LARGEST:
        raise AdapterError(f"{path}: {what} is {brief(value)}, not a positive whole number")
    return value


def _alpha(value: Any, what: str, path: Path) -> float:
    if type(value) not in (int, float) or not 0 < abs(value) < _LARGEST:
        raise AdapterError(f"{path}: {what} is {brief(value)}, not a number other than 0")
    return float(value)


def _flag(config: Mapping[str, Any], name: str, path: Path) -> bool:
    value = config.get(name)
    if value is not None and type(value) is not bool:
        raise AdapterError(f"{path}: {name} is {brief(value)}, neither true nor false")
    return bool(value)


def _table(config: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    table = config.get(name) or {}
    if type(table) is not dict:
        raise AdapterError(f"{path}: {name} is {brief(table)}, not a mapping")
    return table


def _owners(config: Mapping[str, Any], path: Path) -> frozenset[str]:
    names = config.get("target_parameters") or []
    if type(names) is not list or not all(type(name) is str for name in names):
        raise AdapterError(f"{path}: target_parameters is {brief(names)}, not a list of names")
    return frozenset(name.rpartition(".")[0] for name in names)


def _endings(module: str) -> Iterator[str]:
    """The name, what stands behind each of its dots, and nothing."""
    yield module
    place = module.find(".")
    while place >= 0:
        yield module[place + 1 :]
        place = module.find(".", place + 1)
    yield ""
