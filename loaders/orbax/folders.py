"""The folders of Orbax: steps, the items of a step, and what was never finished."""

from __future__ import annotations

import os
from pathlib import Path

from ..budget import Budget
from ..errors import AmbiguousError, NotReadableError, TruncatedError, UnknownFormatError
from ..strict_json import brief
from .ocdbt import MANIFEST
from .stores import has_array

TREE = "_METADATA"
_LATER = "_sharding"
_UNFINISHED = ".orbax-checkpoint-tmp"


def find_item(folder: Path, key: str | None, budget: Budget) -> Path:
    """The folder below `folder` that holds the tree: a step or an item is chosen by `key`.

    Raises
    ------
    AmbiguousError
        If there are several and `key` is none of them.
    TruncatedError
        If the folder has the name of one that was never finished.
    UnknownFormatError
        If nothing of Orbax is there.
    """
    wanted = key.split("/") if key else []
    while not _is_item(folder) and not _is_bare(folder, budget):
        found = sorted(_below(folder, budget), key=lambda name: (len(name), name))
        if not found:
            _check_finished(folder)
            raise UnknownFormatError(f"{folder}: no {TREE} and no {MANIFEST}, here or below")
        name = wanted.pop(0) if wanted else found[0] if len(found) == 1 else None
        if name not in found:
            chosen = "" if name is None else f", and {name!r} is none of them"
            raise AmbiguousError(
                f"{folder}: {len(found)} steps or items{chosen}; choose one: "
                f"load(path, key=...) with {brief(found)}"
            )
        folder /= name
    if wanted:
        raise AmbiguousError(f"{folder}: nothing is left to choose by key={key!r}")
    _check_finished(folder)
    return folder


def _is_item(folder: Path) -> bool:
    return os.path.exists(folder / TREE) or os.path.exists(folder / MANIFEST)


def _is_bare(folder: Path, budget: Budget) -> bool:
    """Whether arrays stand there without a tree, as in the first versions of Orbax.

    Later ones write the tree last, when all arrays are there.
    """
    if os.path.exists(folder / _LATER):
        return False
    return any(has_array(folder / name) for name in _folders(folder, budget))


def _below(folder: Path, budget: Budget) -> list[str]:
    """Items in the folder, and steps that hold items; what was never finished is neither."""
    names = [name for name in _folders(folder, budget) if _UNFINISHED not in name]
    return [
        name
        for name in names
        if _is_item(folder / name)
        or any(_is_item(folder / name / item) for item in _folders(folder / name, budget))
    ]


def _folders(folder: Path, budget: Budget) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError as cause:
        raise NotReadableError(f"{folder}: cannot be read: {cause.strerror}") from None
    budget.check("shards", len(names), folder)
    return names


def _check_finished(folder: Path) -> None:
    if _UNFINISHED in folder.name or _UNFINISHED in folder.parent.name:
        raise TruncatedError(f"{folder}: Orbax never finished writing this folder")
