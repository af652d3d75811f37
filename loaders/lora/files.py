"""Adapters in one file: those of kohya and diffusers, and checkpoints with factors among them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint, Handle

from ..budget import Budget
from ..errors import AdapterError
from ..safetensors import load_safetensors
from ..strict_json import brief, parse_object
from .config import AdapterConfig, parse_config, pattern_name
from .names import Pair, find_pairs, model_names
from .pairs import Scale, assemble
from .peft import CONFIG, WEIGHTS, with_config
from .scalars import read_numbers

_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps the configurations of the adapters in a file."""


def load_lora(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open a safetensors file with pairs of low-rank factors, each as the change that it is.

    The scale of a change is alpha / rank. Alpha is a tensor beside the factors, or stands in the
    configuration that diffusers writes into the metadata; where there is none, or it is 0, it is
    the rank, as it is for those who trained the adapter. Tensors of other kinds stay.

    An `adapter_model.safetensors` with its `adapter_config.json` beside it is read with it, as
    `load_peft` reads the folder.

    Raises
    ------
    loaders.errors.AdapterError
        If factors, ranks and scales do not fit together, or are missing.
    loaders.errors.UnsupportedError
        If the metadata tell of changes that are not the products of the factors alone.
    loaders.errors.BudgetError, HeaderError, LayoutError, TruncatedError, and others
        See `load_safetensors`.
    """
    path = Path(path)
    budget = budget or Budget()
    return with_changes(load_safetensors(path, budget=budget), path, budget)


def with_changes(checkpoint: Checkpoint, path: Path, budget: Budget) -> Checkpoint:
    """The checkpoint read from `path` with changes in the places of its pairs of factors."""
    if path.name in WEIGHTS and os.path.lexists(path.with_name(CONFIG)):
        return with_config(checkpoint, path.parent, budget)
    tensors = model_names(checkpoint, path)
    pairs = find_pairs(tensors, path)
    configs = _configs(checkpoint.metadata, pairs, path, budget)
    alphas = _alphas(pairs, tensors, path)

    def scale(pair: Pair, rank: int) -> Scale | None:
        component, _, module = pair.module.partition(".")
        alpha = alphas.get((pair.owner, pair.adapter))
        if component not in configs:
            return Scale((alpha or rank) / rank, alpha)
        if alpha is not None:
            raise AdapterError(
                f"{path}: {brief(pair.module)} has an alpha, and one in the metadata"
            )
        return configs[component].scale(pair, rank, pattern_name(module))

    found = assemble(tensors, pairs, scale, path)
    return Checkpoint(
        found.tensors,
        metadata=checkpoint.metadata,
        config=checkpoint.config,
        hints={**checkpoint.hints, **found.hints},
        source=checkpoint.source,
    )


def _configs(
    metadata: Mapping[str, str], pairs: Iterable[Pair], path: Path, budget: Budget
) -> dict[str, AdapterConfig]:
    """The configurations in the metadata by the part of the model that they are for, as "unet"."""
    if _METADATA not in metadata:
        return {}
    text = metadata[_METADATA].encode()
    budget.check("config_bytes", len(text), path)
    flat = parse_object(text, path, AdapterError, budget)
    tables: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in flat.items():
        component, _, option = name.partition(".")
        tables[component][option] = value
    modules: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        component, _, module = pair.module.partition(".")
        modules[component].add(pattern_name(module))
    used = tables.keys() & modules.keys()
    return {name: parse_config(tables[name], modules[name], path) for name in sorted(used)}


def _alphas(
    pairs: Iterable[Pair], tensors: Mapping[str, Handle], path: Path
) -> dict[tuple[str, str], float]:
    """The alphas that stand beside the factors as tensors of one number; those of 0 are none."""
    names = {
        (pair.owner, pair.adapter): name
        for pair in pairs
        for name in pair.alphas()
        if name in tensors
    }
    numbers = read_numbers({name: tensors[name] for name in names.values()}, path)
    return {owner: numbers[name] for owner, name in names.items() if numbers[name]}
