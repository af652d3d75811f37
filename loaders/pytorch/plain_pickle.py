"""Plain pickles of a state dict: in `pickle.dump` every storage is a legacy file in bytes."""

from __future__ import annotations

from pathlib import Path

from wwfunc.checkpoint import Checkpoint

from ..budget import Budget
from .legacy import LegacyStorages, mapped
from .tree import open_tree


def load_pickle(
    path: str | Path,
    *,
    key: str | None = None,
    inert: bool = False,
    budget: Budget | None = None,
) -> Checkpoint:
    """Open a pickle of protocol 0 to 5 that holds PyTorch tensors or NumPy arrays.

    Parameters
    ----------
    path
        The file.
    key
        Dotted path to the part that holds the model, where the file has several.
    inert
        Keep what an unknown function would return as an opaque object, rather than refuse it.
    budget
        Limits on what the file may ask for.

    Raises
    ------
    loaders.errors.NotReadableError, PickleError, UnsafeGlobalError, BudgetError, TruncatedError, \
LayoutError, ElementTypeError, UnsupportedError, AmbiguousError
        See `loaders.errors`; each names the file and the tensor, storage or byte.
    """
    path, budget = Path(path), budget or Budget()
    with mapped(path) as data:
        storages = LegacyStorages(path, data, budget, inert)
        root = storages.machine.load_whole(data)
        spent = storages.machine.spent
        return open_tree(root, storages, path, budget, key, len(data), spent=spent)
