"""Folders that hold a model: which of its files are the weights, with the config beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint

from .budget import Budget
from .errors import ConfigError, NotReadableError, UnknownFormatError, UnsupportedError
from .files import read_bytes, require_file
from .strict_json import parse_object

_PROBES = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors\.index\.json",
        r"model\.safetensors",
        r"model(\.\w+)?\.safetensors\.index(\.\w+)?\.json",
        r"model\.\w+\.safetensors",
        r"diffusion_pytorch_model(\.\w+)?\.safetensors\.index(\.\w+)?\.json",
        r"diffusion_pytorch_model(\.\w+)?\.safetensors",
        r"[^.].*\.safetensors",
        r"pytorch_model(\.\w+)?\.bin\.index(\.\w+)?\.json",
        r"(diffusion_)?pytorch_model(\.\w+)?\.bin",
        r"flax_model\.msgpack",
        r"tf_model\.h5",
        r"[^.].*\.(pt|pth|bin|ckpt)",
        r"[^.].*\.(keras|h5|hdf5)",
        r"[^.].*\.(msgpack|npz|gguf|onnx)",
    )
)
"""Names of weights files, the one that is meant first; of several that fit one, none is."""

_ORBAX = {"_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"}
_ZARR = {".zarray", "zarr.json"}
_UNFINISHED = ".orbax-checkpoint-tmp"
_LOOK = 64
"""Folders in a folder that are looked into."""
_UNREAD = {
    ".metadata": "a distributed PyTorch checkpoint (DCP); save it with dcp_to_torch_save",
    "saved_model.pb": "a TensorFlow SavedModel; save its weights as .keras or .h5",
}


def detect_folder(folder: Path) -> str:
    """The name in `FORMATS` of the folder: an adapter, Orbax, Keras, or else a model folder.

    Raises
    ------
    UnsupportedError
        If it is a known kind of checkpoint that is not read.
    """
    names = set(_names(folder))
    if "adapter_config.json" in names and any(n.startswith("adapter_model.") for n in names):
        return "peft"
    if _is_orbax(folder, names):
        return "orbax"
    if {"config.json", "metadata.json", "model.weights.h5"} <= names:
        return "keras-folder"
    for name, words in _UNREAD.items():
        if name in names:
            raise UnsupportedError(f"{folder}: {words}")
    if any(
        re.fullmatch(r"consolidated\.\d+\.pth", name) for name in names - {"consolidated.00.pth"}
    ):
        raise UnsupportedError(f"{folder}: shards of a tensor-parallel model, which are not joined")
    return "model-folder"


def load_folder(path: str | Path, *, budget: Budget | None = None, **options: Any) -> Checkpoint:
    """Open a model folder: its index of shards or its one weights file, with config.json.

    Of several formats of the same weights safetensors comes first. `options` go to the reader of
    the file that is found.

    Raises
    ------
    UnknownFormatError
        If no weights are found, or several files could be meant.
    """
    from .formats import open_file

    folder = Path(path)
    budget = budget or Budget()
    weights = _find_weights(folder)
    require_file(weights)
    found = open_file(weights, budget, options)
    config = {**found.config, **read_config(folder, budget)}
    return Checkpoint(
        found, metadata=found.metadata, config=config, hints=found.hints, source=str(folder)
    )


def read_config(folder: Path, budget: Budget) -> dict[str, Any]:
    """`config.json` of a model folder as plain JSON, or {} where there is none."""
    path = folder / "config.json"
    if not path.exists():
        return {}
    size = require_file(path)
    budget.check("config_bytes", size, path)
    return parse_object(read_bytes(path, size), path, ConfigError, budget, constants=True)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as cause:
        raise NotReadableError(f"{folder}: cannot be read: {cause.strerror}") from None


def _is_orbax(folder: Path, names: Iterable[str], depth: int = 2) -> bool:
    """Whether it is one item, or holds the steps of a run, or arrays of zarr without a tree."""
    if _ORBAX & set(names) or _UNFINISHED in folder.name:
        return True
    inside = [folder / name for name in sorted(names)[:_LOOK] if (folder / name).is_dir()]
    return any(
        _ZARR & set(found) or (depth > 0 and _is_orbax(place, found, depth - 1))
        for place in inside
        for found in [_names(place)]
    )


def _find_weights(folder: Path) -> Path:
    names = _names(folder)
    for probe in _PROBES:
        found = [name for name in names if probe.fullmatch(name)]
        if len(found) == 1:
            return folder / found[0]
        if found:
            raise UnknownFormatError(
                f"{folder}: {len(found)} weights files and no index say which is meant "
                f"({', '.join(found[:5])}); give the path of one"
            )
    raise UnknownFormatError(f"{folder}: a folder without weights")
