"""PEFT's adapter folders: `adapter_config.json` beside `adapter_model.safetensors` or `.bin`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint

from ..budget import Budget
from ..errors import AdapterError, ConfigError, NotReadableError, UnsupportedError
from ..files import read_bytes, require_file
from ..safetensors import load_safetensors
from ..strict_json import brief, parse_object
from .config import parse_config, pattern_name
from .names import Pair, find_pairs, is_adapter, model_names, parse
from .pairs import Scale, Scaling, assemble

__all__ = ["is_adapter", "load_peft"]

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""The first that is there is read, as PEFT does."""

_LONE = ("ADALORA", "LOHA", "LOKR", "IA3", "VERA", "OFT", "BOFT", "TRAINABLE_TOKENS")
"""Adapters that are no pairs of factors, but all of whose tensors are known for what they are by
their names: they are left as they are."""


def load_peft(path: str | Path, *, budget: Budget | None = None, **options: Any) -> Checkpoint:
    """Open an adapter folder of PEFT: each pair of factors as the change of the weight it is for.

    The change is a `wwfunc.lowrank.LowRank` under the name that the model has for the weight, such
    as `model.layers.0.self_attn.q_proj.weight`. Tensors of other kinds keep their names, without
    the prefixes of PEFT's wrappers; the configuration is the checkpoint's `config`. `options` go to
    the reader of `adapter_model.bin`.

    Raises
    ------
    loaders.errors.AdapterError
        If factors, ranks and scales do not fit together, or are missing.
    loaders.errors.UnsupportedError
        If the changes are not the products of the factors alone.
    loaders.errors.ConfigError, BudgetError, NotReadableError, or an error of the file of weights
        See `loaders.errors`.
    """
    folder = Path(path)
    budget = budget or Budget()
    return with_config(_open_weights(folder, budget, options), folder, budget)


def with_config(weights: Checkpoint, folder: Path, budget: Budget) -> Checkpoint:
    """The adapter of which `weights` are the tensors and `folder` has the configuration."""
    config = _read_config(folder / CONFIG, budget)
    tensors = model_names(weights, folder)
    if _kind(config, folder) != "LORA":
        return Checkpoint(tensors, metadata=weights.metadata, config=config, source=str(folder))
    if not any(map(parse, tensors)):
        raise AdapterError(f"{folder}: no tensor has the name of a LoRA factor")
    pairs = find_pairs(tensors, folder)
    found = assemble(tensors, pairs, _scaling(config, pairs, folder / CONFIG), folder)
    return Checkpoint(
        found.tensors,
        metadata=weights.metadata,
        config=config,
        hints=found.hints,
        source=str(folder),
    )


def _read_config(path: Path, budget: Budget) -> dict[str, Any]:
    size = require_file(path)
    budget.check("config_bytes", size, path)
    return parse_object(read_bytes(path, size), path, ConfigError, budget)


def _open_weights(folder: Path, budget: Budget, options: dict[str, Any]) -> Checkpoint:
    """The tensors of the folder, as they lie in it; `options` are for those in a pickle."""
    from ..formats import open_file

    names = [name for name in WEIGHTS if os.path.lexists(folder / name)]
    if not names:
        raise NotReadableError(f"{folder}: neither {' nor '.join(WEIGHTS)} is there")
    if names[0] == WEIGHTS[0] and not options:
        return load_safetensors(folder / names[0], budget=budget)
    return open_file(folder / names[0], budget, options)


def _kind(config: Mapping[str, Any], folder: Path) -> str:
    """LORA, or a kind whose tensors are all known by name as factors or as the model's own."""
    kind = config.get("peft_type")
    if type(kind) is not str:
        raise AdapterError(f"{folder / CONFIG}: peft_type is {brief(kind)}, not the kind's name")
    if kind != "LORA" and kind not in _LONE:
        raise UnsupportedError(
            f"{folder}: adapters of the kind {brief(kind)} are not read; those of LoRA are, and "
            f"{', '.join(_LONE)} without their products"
        )
    return kind


def _scaling(config: Mapping[str, Any], pairs: list[Pair], path: Path) -> Scaling:
    if len({pair.adapter for pair in pairs}) > 1:
        raise AdapterError(f"{path}: the tensors are of several adapters, the config is of one")
    modules = {pattern_name(pair.owner) for pair in pairs}
    parsed = parse_config(config, modules, path)

    def scale(pair: Pair, rank: int) -> Scale | None:
        return parsed.scale(pair, rank, pattern_name(pair.owner))

    return scale
