"""Checkpoints from files, without any deep-learning framework.

`load(path)` decides by content which reader serves. Nothing in a file is executed or imported,
and everything it claims is checked against its size and a `Budget` before memory is spent on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from wwfunc.checkpoint import Checkpoint

from .budget import Budget
from .errors import NotReadableError, UnknownFormatError
from .folders import INDEX_SUFFIX, load_folder, load_index
from .safetensors import load_safetensors
from .sniff import looks_like

__all__ = ["Budget", "load", "load_folder", "load_index", "load_safetensors"]

LOADABLE = "a safetensors file, an index of safetensors shards, or a model folder with either"


def load(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open a checkpoint, whatever its format, without reading its tensors.

    Parameters
    ----------
    path
        A safetensors file, a `*.safetensors.index.json`, or a model folder.
    budget
        Limits on what the file may ask for; None takes the defaults, which serve real models.

    Returns
    -------
    Checkpoint
        Tensor names to handles that map the file when they are read.

    Raises
    ------
    CheckpointError
        A subclass from `loaders.errors` that says what is wrong, in which file and tensor.

    Examples
    --------
    >>> import loaders
    >>> len(loaders.load("examples/digits.safetensors"))
    18
    """
    if not str(path):
        raise NotReadableError("an empty path")
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises where the path is too long or forbidden
        return load_folder(path, budget=budget)
    if path.name.endswith(INDEX_SUFFIX):
        return load_index(path, budget=budget)
    found = looks_like(path)
    if found != "safetensors":
        raise UnknownFormatError(
            f"{path}: this looks like {found}; what can be loaded is {LOADABLE}"
        )
    return load_safetensors(path, budget=budget)
