"""`wwfunc.save`: the bridge to the package `loaders`, which knows files."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from wwfunc.opening import loaders_package
from wwfunc.sources import as_checkpoint


def save(
    model: Any,
    path: str | os.PathLike[str],
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write a Checkpoint, or whatever `analyze` takes, to a file: whole or not at all.

    Parameters
    ----------
    model
        A Checkpoint, a path, a mapping or pytree of arrays, a state dict, a module that has one.
    path
        Ends in `.safetensors`, or `.npz` or `.npy` where the tensors fit into those.
    progress
        Called after each tensor with (done, total, name).

    Raises
    ------
    OptionError
        If the path cannot be written to, is a file that the model is read from, or is in the
        folder that the model was opened as.
    InputError
        If there are no named arrays in the model, or numbers and texts beside them.
    OSError
        If the writing fails half way, as on a full disk. What was there stays.
    CheckpointError
        If the format has no place for an element type, an adapter, a name or a text.

    Notes
    -----
    A tensor at a time. Tensors, metadata and element types are kept bit by bit; a configuration,
    hints and the ties between tensors have no place in these files. Quantised and sparse tensors
    of PyTorch are written as the dense numbers that they stand for.

    Examples
    --------
    >>> import tempfile, numpy as np, wwfunc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     wwfunc.save({"layer.weight": np.eye(3)}, f"{folder}/model.safetensors")
    ...     wwfunc.load(f"{folder}/model.safetensors")["layer.weight"].shape
    (3, 3)
    """
    _saving().save(as_checkpoint(model, whole=True), path, progress=progress)


def check_target(model: Any, path: str | os.PathLike[str]) -> None:
    """Raise the OptionError that `save` would raise for this path, before there is work done."""
    _saving().check_target(path, as_checkpoint(model))


def _saving() -> Any:
    return import_module(f"{loaders_package().__name__}.saving")
