"""Model folders and sharded checkpoints: an index that names its shards, a config beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint

from .budget import Budget
from .errors import ConfigError, NotReadableError, ShardError, UnknownFormatError
from .files import MappedTensor, read_bytes, require_file
from .safetensors import read_header
from .strict_json import brief, parse_object

INDEX_SUFFIX = ".safetensors.index.json"

_PROBES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
)


def load_folder(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open a model folder: its index of shards or its one safetensors file, with config.json.

    Raises
    ------
    UnknownFormatError
        If no weights are found, or several files could be meant.
    """
    folder = Path(path)
    budget = budget or Budget()
    weights = _find_weights(folder)
    if weights.name.endswith(INDEX_SUFFIX):
        return load_index(weights, budget=budget)
    tensors, metadata = read_header(weights, budget)
    config = read_config(folder, budget)
    return Checkpoint(tensors, metadata=metadata, config=config, source=str(folder))


def load_index(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open a sharded checkpoint by its index.

    The headers of all shards are read now, so that damage shows at once; the tensors are mapped
    when they are read. Every shard is a file beside the index: a name with a folder is refused.
    """
    path = Path(path)
    budget = budget or Budget()
    places = _weight_map(path, budget)
    shards = sorted(set(places.values()))
    budget.check("shards", len(shards), path)
    tensors: dict[str, MappedTensor] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        found, notes = _read_shard(path, shard, budget)
        _check_once(tensors, found, path, shard)
        tensors |= found
        metadata |= notes
        budget.check("tensors", len(tensors), path)
    _check_places(places, tensors, path)
    config = read_config(path.parent, budget)
    return Checkpoint(tensors, metadata=metadata, config=config, source=str(path.parent))


def read_config(folder: Path, budget: Budget) -> dict[str, Any]:
    """`config.json` of a model folder as plain JSON, or {} where there is none."""
    path = folder / "config.json"
    if not path.exists():
        return {}
    size = require_file(path)
    budget.check("config_bytes", size, path)
    return parse_object(read_bytes(path, size), path, ConfigError)


def _find_weights(folder: Path) -> Path:
    try:
        names = sorted(os.listdir(folder))
    except OSError as cause:
        raise NotReadableError(f"{folder}: cannot be read: {cause.strerror}") from None
    for name in _PROBES:
        if name in names:
            return folder / name
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) == 1:
        return folder / found[0]
    if not found:
        raise UnknownFormatError(f"{folder}: a folder without safetensors weights")
    raise UnknownFormatError(
        f"{folder}: {len(found)} safetensors files and no index say which is meant "
        f"({', '.join(found[:5])}); give the path of one"
    )


def _weight_map(path: Path, budget: Budget) -> Mapping[str, str]:
    size = require_file(path)
    budget.check("index_bytes", size, path)
    places = parse_object(read_bytes(path, size), path, ShardError).get("weight_map")
    if type(places) is not dict or not places:
        raise ShardError(f"{path}: no weight_map from tensors to files")
    for tensor, shard in places.items():
        _check_name(tensor, shard, path)
    return places


def _check_name(tensor: str, shard: Any, path: Path) -> None:
    plain = (
        type(shard) is str
        and shard.endswith(".safetensors")
        and not set(shard) & set("/\\:\0")
        and not shard.startswith(".")
    )
    if not plain:
        raise ShardError(
            f"{path}: tensor {brief(tensor)} is placed in {brief(shard)}, "
            f"which is not the plain name of a safetensors file beside the index"
        )


def _read_shard(
    index: Path, shard: str, budget: Budget
) -> tuple[dict[str, MappedTensor], dict[str, str]]:
    if not os.path.exists(index.parent / shard):  # Path.exists raises for a name too long
        raise ShardError(f"{index}: the shard {shard!r} is missing")
    return read_header(index.parent / shard, budget)


def _check_once(
    known: Mapping[str, MappedTensor], found: Mapping[str, MappedTensor], index: Path, shard: str
) -> None:
    for name in found.keys() & known.keys():
        raise ShardError(
            f"{index}: tensor {brief(name)} stands in {known[name].path.name!r} and in {shard!r}"
        )


def _check_places(
    places: Mapping[str, str], tensors: Mapping[str, MappedTensor], index: Path
) -> None:
    for name, shard in places.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise ShardError(
                f"{index}: tensor {brief(name)} is not in {shard!r}, where the index has it"
            )
