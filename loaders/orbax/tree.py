"""Orbax folders: a tree of names, and its arrays as zarr, in folders or in an OCDBT store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint

from ..budget import Budget
from ..errors import HeaderError, ShardError
from ..files import read_bytes, require_file
from ..strict_json import brief, parse_object
from ..strided import MemoryBytes
from .folders import TREE, find_item
from .ocdbt import MANIFEST, Value
from .stores import Database, Folders, Store
from .zarr import ZarrTensor, count_chunks, decoded_bytes, open_zarr
from .zarr_metadata import METADATA_NAMES, ZarrArray, parse_zarr

_TEXTS = "_strings.json"
_NO_LEAF = {"None", "Dict", "List", "Tuple", "NamedTuple"}
_LONGEST_METADATA = 1 << 16


def load_orbax(
    path: str | Path, *, budget: Budget | None = None, key: str | None = None
) -> Checkpoint:
    """Open a folder that Orbax wrote: one item, one step, or all of a CheckpointManager's.

    A tensor is named by the keys that lead to it in the tree that was saved, joined with dots.

    Parameters
    ----------
    path
        The folder.
    budget
        Limits on what the files may ask for.
    key
        Which of several steps or items is meant, by the names of their folders: "1000",
        "params", "1000/params".

    Raises
    ------
    AmbiguousError
        If several steps or items are there and `key` does not choose one.
    TruncatedError
        If writing was never finished, or a chunk is missing or cut off.
    ShardError
        If the tree and the arrays do not fit together.
    HeaderError, LayoutError, ElementTypeError, ArchiveError, UnsupportedError, BudgetError
        If the tree, an array's metadata, or the store is malformed, damaged, not read, or asks
        for too much.
    """
    budget = budget or Budget()
    folder = find_item(Path(path).absolute(), key, budget)
    tree = _read(folder / TREE, budget) if os.path.exists(folder / TREE) else None
    store = _store(folder, tree, budget)
    names = dict.fromkeys(store.names(), "") if tree is None else _leaves(tree, folder)
    texts = _texts(folder, [name for name, kind in names.items() if kind == "string"], budget)
    arrays = _arrays(store, [name for name in names if name not in texts], budget)
    budget.check("archive_entries", sum(map(count_chunks, arrays.values())), folder)
    whole = (tree or {}).get("store_array_data_equal_to_fill_value") is True
    tensors = {name: _tensor(name, array, store, whole) for name, array in arrays.items()}
    budget.check_expansion(sum(map(decoded_bytes, arrays.values())), store.stored, folder)
    return Checkpoint(tensors, metadata=texts, source=str(folder))


def _read(path: Path, budget: Budget) -> dict[str, Any]:
    size = require_file(path)
    budget.check("header_bytes", size, path)
    return parse_object(read_bytes(path, size), path, budget=budget)


def _store(folder: Path, tree: dict[str, Any] | None, budget: Budget) -> Store:
    """Where the arrays are: the tree says so, but for old ones."""
    has_manifest = os.path.exists(folder / MANIFEST)
    if (tree or {}).get("use_ocdbt", has_manifest) is not has_manifest:
        there = "is there" if has_manifest else "is missing"
        raise ShardError(f"{folder}: {MANIFEST} {there}, which {TREE} denies")
    return Database(folder, budget) if has_manifest else Folders(folder, budget)


def _leaves(tree: dict[str, Any], folder: Path) -> dict[str, str]:
    """The kind of each leaf of the tree by its name; what is empty is no leaf, as in JAX."""
    entries = tree.get("tree_metadata")
    if type(entries) is not dict:
        raise HeaderError(f"{folder / TREE}: no tree_metadata")
    leaves: dict[str, str] = {}
    for words, entry in entries.items():
        name, kind = _leaf(words, entry, folder)
        if kind in _NO_LEAF:
            continue
        if name in leaves:
            raise HeaderError(f"{folder / TREE}: two leaves are named {brief(name)}")
        leaves[name] = kind
    return leaves


def _leaf(words: str, entry: Any, folder: Path) -> tuple[str, str]:
    """Name and kind of one leaf. Its keys may hold dots: they are not read from `words`."""
    entry = entry if type(entry) is dict else {}
    keys, value = entry.get("key_metadata"), entry.get("value_metadata")
    good = (
        type(keys) is list
        and all(type(key) is dict and type(key.get("key")) is str for key in keys)
        and type(value) is dict
        and type(value.get("value_type")) is str
    )
    if not good:
        raise HeaderError(f"{folder / TREE}: {brief(words)} has no keys or no type")
    return ".".join(key["key"] for key in keys), value["value_type"]


def _texts(folder: Path, names: list[str], budget: Budget) -> dict[str, str]:
    """Leaves that are text."""
    if not names:
        return {}
    texts = _read(folder / _TEXTS, budget)
    for name in names:
        if type(texts.get(name)) is not str:
            raise ShardError(f"{folder / _TEXTS}: no text is named {brief(name)}")
    return {name: texts[name] for name in names}


def _arrays(store: Store, names: list[str], budget: Budget) -> dict[str, ZarrArray]:
    budget.check("tensors", len(names), store.folder)
    known: dict[tuple[str, bytes], ZarrArray] = {}
    arrays, spent = {}, 0
    for name in names:
        file, text = _metadata(store, name)
        spent += len(text)
        budget.check("header_bytes", spent, store.folder)
        if (file, text) not in known:  # arrays of one shape have one text
            path = store.folder / name / file
            known[file, text] = parse_zarr(text, METADATA_NAMES[file], path)
        arrays[name] = known[file, text]
    return arrays


def _metadata(store: Store, name: str) -> tuple[str, bytes]:
    """What an array says of itself, and under which name."""
    found = {file: store.find(f"{name}/{file}") for file in METADATA_NAMES}
    texts = {file: text for file, text in found.items() if text is not None}
    if len(texts) != 1:
        fault = "in two formats" if texts else "not there"
        raise ShardError(f"{store.folder}: the array {brief(name)} is {fault}")
    ((file, text),) = texts.items()
    if text.nbytes > _LONGEST_METADATA:
        raise HeaderError(f"{store.folder}: the metadata of {brief(name)} is {text.nbytes:,} bytes")
    return file, _content(text)


def _content(text: Value) -> bytes:
    """All of a small value, read rather than mapped, which takes longer."""
    if isinstance(text, MemoryBytes):
        return text.data
    return read_bytes(text.path, text.nbytes, text.offset)


def _tensor(name: str, array: ZarrArray, store: Store, whole: bool) -> ZarrTensor:
    return open_zarr(store.folder, name, array, lambda chunk: store.find(f"{name}/{chunk}"), whole)
