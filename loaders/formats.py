"""The formats: what each is called, and which function of which module opens it.

A reader is imported when a file asks for it: each format costs only those who have one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint
from wwfunc.errors import OptionError

from .budget import Budget
from .errors import NotReadableError
from .folders import detect_folder
from .sniff import detect_file


@dataclass(frozen=True)
class Format:
    """One kind of file or folder."""

    words: str
    """What it is, for messages."""
    reader: str
    """`module.function` in this package."""
    options: frozenset[str] = field(default=frozenset())
    """What the function takes besides the path and the budget."""

    def load(self, path: Path, budget: Budget | None, options: dict[str, Any]) -> Checkpoint:
        """Open `path` by the reader of this format."""
        for name in options.keys() - self.options:
            raise OptionError(f"{path}: {self.words} has no option {name!r}{self._known()}")
        return self.function(path, budget=budget, **options)

    @property
    def function(self) -> Callable[..., Checkpoint]:
        """The reader, imported now."""
        module, _, name = self.reader.rpartition(".")
        function: Callable[..., Checkpoint] = getattr(
            import_module(f".{module}", __package__), name
        )
        return function

    def _known(self) -> str:
        return f"; it has {', '.join(sorted(self.options))}" if self.options else ""


_PICKLED = frozenset({"key", "inert"})
_ZIPPED = _PICKLED | {"check_crc"}
_TYPED = frozenset({"dtype"})


def detect(path: str | Path, *, budget: Budget | None = None) -> str:
    """The name of the format of the file or folder at `path`, a key of `FORMATS`.

    Raises
    ------
    loaders.errors.UnknownFormatError, UnsupportedError, NotReadableError
        If it is none of them; the message says what it looks like.

    Examples
    --------
    >>> import loaders
    >>> loaders.detect("examples/digits.safetensors")
    'safetensors'
    """
    if not str(path):
        raise NotReadableError("an empty path")
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises where the path is too long or forbidden
        return detect_folder(path)
    return detect_file(path, budget or Budget())


def open_file(
    path: Path, budget: Budget | None = None, options: dict[str, Any] | None = None
) -> Checkpoint:
    """Open a file or folder as it lies, its low-rank factors too."""
    return FORMATS[detect(path, budget=budget)].load(path, budget, options or {})


FORMATS: dict[str, Format] = {
    "safetensors": Format("a safetensors file", "safetensors.load_safetensors"),
    "shards": Format("an index of shards", "shards.load_shards", _ZIPPED | _TYPED),
    "model-folder": Format("a model folder", "folders.load_folder", _ZIPPED | _TYPED),
    "torch-zip": Format("a PyTorch file", "pytorch.zip.load_torch_zip", _ZIPPED),
    "torchscript": Format("a TorchScript file", "pytorch.zip.load_torch_zip", _ZIPPED),
    "torch-legacy": Format(
        "a PyTorch file of the legacy format", "pytorch.legacy.load_torch_legacy", _PICKLED
    ),
    "torch-tar": Format("a PyTorch tar file", "pytorch.tar.load_torch_tar", _PICKLED),
    "pickle": Format("a Python pickle", "pytorch.plain_pickle.load_pickle", _PICKLED),
    "keras-h5": Format("a Keras HDF5 file", "keras.h5.load_keras_h5", _TYPED),
    "keras-weights": Format("a Keras weights file", "keras.weights_h5.load_keras_weights", _TYPED),
    "keras-zip": Format("a .keras file", "keras.zip.load_keras_zip", _TYPED),
    "keras-folder": Format("an unpacked .keras folder", "keras.zip.load_keras_folder", _TYPED),
    "keras-shards": Format("an index of Keras shards", "keras.zip.load_keras_index", _TYPED),
    "peft": Format("a PEFT adapter folder", "lora.peft.load_peft", _ZIPPED),
    "flax-msgpack": Format("a Flax msgpack file", "flax.msgpack.load_flax_msgpack"),
    "orbax": Format("an Orbax folder", "orbax.tree.load_orbax", frozenset({"key"})),
    "npz": Format("a NumPy file", "npz.load_npz", _TYPED),
    "gguf": Format("a GGUF file", "gguf.file.load_gguf"),
    "onnx": Format("an ONNX model", "onnx.model.load_onnx"),
}
"""By the name that `detect` gives."""
