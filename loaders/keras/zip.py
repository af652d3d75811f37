"""Keras's `.keras` archives, the same unpacked in a folder, and weights split over files."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from wwfunc.checkpoint import Checkpoint

from ..archive import Member, read_archive
from ..budget import Budget
from ..errors import ConfigError, ShardError, UnsupportedError
from ..files import FileBytes, read_bytes, require_file
from ..hdf5 import open_hdf5
from ..inflated import Inflated, inflate
from ..strict_json import brief, parse_object
from .tensors import lost_type
from .weights_h5 import Groups, collect, name_all, read_weights

WEIGHTS, CONFIG, METADATA = "model.weights.h5", "config.json", "metadata.json"
INDEX_SUFFIX, SHARD_SUFFIX = ".weights.json", ".weights.h5"


def load_keras_zip(
    path: str | Path, *, budget: Budget | None = None, dtype: str | None = None
) -> Checkpoint:
    """Open a `.keras` archive: weights, configuration and version; code in it is not run.

    The weights lie in the archive as they are and are mapped where they do; in an archive that
    was compressed again they are inflated now, within `Budget.free_bytes`.

    Parameters
    ----------
    path
        The archive.
    budget
        Limits on what the file may ask for.
    dtype
        Name of what the file stores as bytes of no type; most often "bfloat16".

    Raises
    ------
    loaders.errors.NotReadableError, ArchiveError, BudgetError, TruncatedError, HeaderError, \
LayoutError, ElementTypeError, UnsupportedError, ConfigError
        See `loaders.errors`; each names the file and the object in it.
    """
    path, budget = Path(path), budget or Budget()
    members = read_archive(path.absolute(), budget)
    if WEIGHTS not in members:
        raise UnsupportedError(f"{path}: {_words(members)}; what is read is {WEIGHTS}")
    documents = {
        name: members[name].content(budget, "config_bytes")
        for name in (CONFIG, METADATA)
        if name in members
    }
    stored = _stored(members[WEIGHTS], budget)
    return _model(path, path, stored, documents, budget, lost_type(dtype))


def load_keras_folder(
    path: str | Path, *, budget: Budget | None = None, dtype: str | None = None
) -> Checkpoint:
    """Open a folder with `model.weights.h5`, `config.json` and `metadata.json`.

    Parameters and errors are those of `load_keras_zip`.
    """
    folder, budget = Path(path), budget or Budget()
    weights = folder / WEIGHTS
    stored = FileBytes(weights.absolute(), 0, require_file(weights))
    documents = {}
    for name in (CONFIG, METADATA):
        if (folder / name).exists():
            size = require_file(folder / name)
            budget.check("config_bytes", size, folder / name)
            documents[name] = read_bytes(folder / name, size)
    return _model(folder, weights, stored, documents, budget, lost_type(dtype))


def load_keras_index(
    path: str | Path, *, budget: Budget | None = None, dtype: str | None = None
) -> Checkpoint:
    """Open weights that `save_weights("x.weights.json", max_shard_size=...)` split over files.

    Every file is one beside the index: a name with a folder is refused. What the index places in
    a file must be there, and nothing else may be.

    Parameters and errors are those of `load_keras_zip`, and `ShardError`.
    """
    path, budget = Path(path), budget or Budget()
    places = _weight_map(path, budget)
    shards = sorted({shard for named in places.values() for shard in named})
    budget.check("shards", len(shards), path)
    groups, spent = Groups(), 0
    with ExitStack() as stack:
        for shard in shards:
            path_of = path.parent / shard
            if not os.path.exists(path_of):  # Path.exists raises for a name too long
                raise ShardError(f"{path}: the shard {shard!r} is missing")
            file = stack.enter_context(open_hdf5(path_of, budget, spent=spent))
            found = Groups()
            collect(file.root, found, path_of, budget)
            _check_places(found, places, shard, path)
            groups.add(found, path)
            spent = file.source.spent
        tensors = name_all(groups, {}, path, budget, lost_type(dtype))
    return Checkpoint(tensors.handles, hints=tensors.hints, source=str(path))


def _words(members: Any) -> str:
    if "model.weights.npz" in members:
        return "a Keras archive with NumPy weights"
    return "a zip archive without Keras weights"


def _stored(member: Member, budget: Budget) -> FileBytes | Inflated:
    if member.deflated:
        return inflate(member, budget)
    return FileBytes(member.path, member.offset, member.nbytes)


def _model(
    source: Path,
    weights: Path,
    stored: FileBytes | Inflated,
    documents: dict[str, bytes],
    budget: Budget,
    lost: np.dtype | None,
) -> Checkpoint:
    parsed = {
        name: parse_object(text, source, ConfigError, budget) for name, text in documents.items()
    }
    config = parsed.get(CONFIG, {})
    notes = parsed.get(METADATA, {})
    tensors = read_weights(weights, budget, stored, config, lost)
    return Checkpoint(
        tensors.handles,
        metadata={name: note for name, note in notes.items() if isinstance(note, str)},
        config=config,
        hints=tensors.hints,
        source=str(source),
    )


def _weight_map(path: Path, budget: Budget) -> dict[str, list[str]]:
    """Group of variables to the files that hold them."""
    size = require_file(path)
    budget.check("index_bytes", size, path)
    places = parse_object(read_bytes(path, size), path, ShardError, budget).get("weight_map")
    if type(places) is not dict:  # an empty one is a model without weights
        raise ShardError(f"{path}: no weight_map from variables to files")
    found = {}
    for group, shards in places.items():
        found[group] = shards if type(shards) is list else [shards]
        for shard in found[group]:
            _check_name(group, shard, path)
    return found


def _check_name(group: str, shard: Any, path: Path) -> None:
    plain = (
        type(shard) is str
        and shard.endswith(SHARD_SUFFIX)
        and not set(shard) & set("/\\:\0")
        and not shard.startswith(".")
    )
    if not plain:
        raise ShardError(
            f"{path}: {brief(group)} is placed in {brief(shard)}, which is not the plain name of "
            f"a {SHARD_SUFFIX} file beside the index"
        )


def _check_places(found: Groups, places: dict[str, list[str]], shard: str, path: Path) -> None:
    """The file holds variables of those groups, and of no others, that the index has in it."""
    held = {f"/{'/'.join((*place, 'vars'))}" for place in found.variables}
    expected = {group for group, shards in places.items() if shard in shards}
    if held != expected:
        odd = min(held ^ expected)
        raise ShardError(f"{path}: {brief(odd)} is not where the index has it, or is not in it")
