"""Checkpoints from files, without any deep-learning framework.

`load(path)` decides by content which reader serves. Nothing in a file is executed or imported,
and everything it claims is checked against its size and a `Budget` before memory is spent on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint

from .budget import Budget
from .formats import FORMATS, detect
from .lora.names import is_adapter

_READERS = {format.reader.rpartition(".")[2]: format for format in FORMATS.values()}

__all__ = [
    "FORMATS",
    "Budget",
    "detect",
    "load",
    "load_flax_msgpack",
    "load_folder",
    "load_gguf",
    "load_keras_folder",
    "load_keras_h5",
    "load_keras_index",
    "load_keras_weights",
    "load_keras_zip",
    "load_lora",
    "load_npz",
    "load_onnx",
    "load_orbax",
    "load_peft",
    "load_pickle",
    "load_safetensors",
    "load_shards",
    "load_torch_legacy",
    "load_torch_tar",
    "load_torch_zip",
]


def load(path: str | Path, *, budget: Budget | None = None, **options: Any) -> Checkpoint:
    """Open a checkpoint, whatever its format, without reading its tensors.

    Parameters
    ----------
    path
        A file or folder of any of the `FORMATS`.
    budget
        Limits on what the file may ask for; None takes the defaults, which serve real models.
    options
        What the reader of the format takes: `key="ema"` chooses among several models in one
        PyTorch file, `inert=True` keeps unknown objects of a pickle as descriptions,
        `check_crc=True` reads all of an archive to compare its checksums.

    Returns
    -------
    Checkpoint
        Tensor names to handles that map the file when they are read.

    Raises
    ------
    CheckpointError
        A subclass from `loaders.errors` that says what is wrong, in which file and tensor.
    wwfunc.OptionError
        If the format has no such option.

    Examples
    --------
    >>> import loaders
    >>> len(loaders.load("examples/digits.safetensors"))
    18
    """
    name = detect(path, budget=budget)
    path = Path(path)
    found = FORMATS[name].load(path, budget, options)
    if name == "peft" or not is_adapter(found):
        return found
    from .lora.files import with_changes  # most checkpoints hold no adapter

    return with_changes(found, path, budget or Budget())


def __getattr__(name: str) -> Any:
    if name in _READERS:
        return _READERS[name].function
    if name == "load_lora":
        from .lora.files import load_lora

        return load_lora
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
