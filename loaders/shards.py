"""Sharded checkpoints: an index that says which file beside it holds which tensor."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint

from .budget import Budget
from .errors import BudgetError, ShardError
from .files import read_bytes, require_file
from .folders import read_config
from .strict_json import brief, parse_object

logger = logging.getLogger("wwfunc")

_TOGETHER = 4
_MOST_NOTES = 10_000
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


def load_shards(path: str | Path, *, budget: Budget | None = None, **options: Any) -> Checkpoint:
    """Open a sharded checkpoint by its index, `*.safetensors.index.json` or `*.bin.index.json`.

    The headers of all shards are read now, so that damage shows at once; the tensors are mapped
    when they are read. Every shard is a file beside the index: a name with a folder is refused.
    `options` go to the reader of the shards.

    Raises
    ------
    ShardError
        If index and shards do not fit together: a shard missing, a tensor twice or nowhere.
    """
    path = Path(path)
    budget = budget or Budget()
    places, total = _read_index(path, budget)
    shards = sorted(set(places.values()))
    budget.check("shards", len(shards), path)
    share = _share(budget, len(shards))
    homes: dict[str, str] = {}
    tensors: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        found = _open_shard(path, shard, share, options)
        _check_once(homes, found, path, shard)
        homes |= dict.fromkeys(found, shard)
        tensors |= found
        metadata |= found.metadata
        if len(metadata) > _MOST_NOTES:
            raise ShardError(f"{path}: over {_MOST_NOTES:,} texts in the metadata of the shards")
        budget.check("tensors", len(tensors), path)
    _check_places(places, homes, path)
    _compare_size(total, tensors, path)
    config = read_config(path.parent, budget)
    return Checkpoint(tensors, metadata=metadata, config=config, source=str(path.parent))


def _read_index(path: Path, budget: Budget) -> tuple[Mapping[str, str], Any]:
    """Where each tensor is, and what the index says of their size together."""
    size = require_file(path)
    budget.check("index_bytes", size, path)
    index = parse_object(read_bytes(path, size), path, ShardError, budget)
    places, notes = index.get("weight_map"), index.get("metadata")
    if type(places) is not dict or not places:
        raise ShardError(f"{path}: no weight_map from tensors to files")
    for tensor, shard in places.items():
        _check_name(tensor, shard, path)
    return places, notes.get("total_size") if type(notes) is dict else None


def _check_name(tensor: str, shard: Any, path: Path) -> None:
    plain = (
        type(shard) is str
        and shard.endswith(_SUFFIXES)
        and not set(shard) & set("/\\:\0")
        and not shard.startswith(".")
    )
    if not plain:
        raise ShardError(
            f"{path}: tensor {brief(tensor)} is placed in {brief(shard)}, "
            f"which is not the plain name of a weights file beside the index"
        )


def _share(budget: Budget, shards: int) -> Budget:
    """What one shard may ask for, so that all of them stay within a few times one file's limits."""
    items, opcodes = (
        min(limit, _TOGETHER * limit // shards) for limit in (budget.json_items, budget.opcodes)
    )
    return replace(budget, json_items=items, opcodes=opcodes)


def _open_shard(index: Path, shard: str, share: Budget, options: dict[str, Any]) -> Checkpoint:
    from .formats import open_file

    if not os.path.exists(index.parent / shard):  # Path.exists raises for a name too long
        raise ShardError(f"{index}: the shard {shard!r} is missing")
    require_file(index.parent / shard)
    try:
        return open_file(index.parent / shard, share, options)
    except BudgetError as cause:
        raise BudgetError(
            f"{index}: all shards together may ask for {_TOGETHER} times the budget of one file, "
            f"each for an equal share: {cause}"
        ) from None


def _check_once(homes: Mapping[str, str], found: Checkpoint, index: Path, shard: str) -> None:
    for name in found:
        if name in homes:
            raise ShardError(
                f"{index}: tensor {brief(name)} stands in {homes[name]!r} and in {shard!r}"
            )


def _check_places(places: Mapping[str, str], homes: Mapping[str, str], index: Path) -> None:
    for name, shard in places.items():
        if homes.get(name) != shard:
            raise ShardError(
                f"{index}: tensor {brief(name)} is not in {shard!r}, where the index has it"
            )


def _compare_size(total: Any, tensors: Mapping[str, Any], index: Path) -> None:
    """Writers disagree on tied tensors, so that another size is no error; it may be a mix-up."""
    found = sum(handle.nbytes for handle in tensors.values())
    if type(total) in (int, float) and total != found:
        logger.warning("%s: total_size is %s, the shards hold %s bytes", index, total, found)
