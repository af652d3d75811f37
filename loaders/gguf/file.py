"""GGUF, the format of llama.cpp: a header of keys, then tensors at aligned places.

The header is parsed here: the reader of the `gguf` package walks whatever length a file claims.
Its decoders of quantised blocks are used, once such a tensor is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint, Handle, TensorHint

from ..budget import Budget
from ..errors import HeaderError, LayoutError, TruncatedError, UnsupportedError
from ..files import MappedTensor
from ..strict_json import brief
from ..window import Window
from .header import Array, Header, Info, cut, read_header
from .types import QuantisedTensor, SwappedTensor, block_type, stored_bytes

_TABLES = re.compile(
    r"(\w+\.)*(token_types|(token|position|per_layer_token)_embd|attn_rel_b)\.weight"
)
_STACKS = re.compile(r"(blk\.\d+\.attn_[kv]_b|altup_(unembd_)?proj)\.weight")


def load_gguf(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open one GGUF file of version 2 or 3; its tensors are mapped when they are read.

    Shapes are in C order: (out, in), as NumPy and PyTorch have them, the reverse of what the file
    says. A tensor in quantised blocks becomes float32 when it is read, which takes the `gguf`
    package (`pip install 'wwfunc[gguf]'`). Keys and values of the header are `metadata`, as short
    text; the numbers of the architecture are `config`.

    Raises
    ------
    loaders.errors.NotReadableError, BudgetError, TruncatedError, HeaderError, LayoutError, \
ElementTypeError, UnsupportedError
        See `loaders.errors`; each names the file and, where there is one, the tensor.
    """
    path = Path(path)
    with Window(path) as window:
        header = read_header(window, budget or Budget())
    return Checkpoint(
        tensors := _tensors(header, window),
        metadata={key: cut(str(value)) for key, value in header.values.items()},
        config=_config(header.values),
        hints=_hints(tensors),
        source=str(path),
    )


def _tensors(header: Header, window: Window) -> dict[str, Handle]:
    absolute = window.path.absolute()  # a handle outlives a change of folder
    tensors: dict[str, Handle] = {}
    ends: list[tuple[int, int]] = []
    header.infos.reverse()
    while header.infos:  # popped: a header with very many is not held twice
        info = header.infos.pop()
        name = info[0]
        if name in tensors:
            raise HeaderError(f"{window.path}: two tensors are named {brief(name)}")
        tensors[name], nbytes = _tensor(info, absolute, header, window)
        if nbytes:
            ends.append((header.start + info[3], nbytes))
    _check_apart(ends, window.path)
    return tensors


def _tensor(info: Info, path: Path, header: Header, window: Window) -> tuple[Handle, int]:
    name, shape, number, offset = info
    where = f"{window.path}: tensor {brief(name)}"
    block = block_type(number, where)
    nbytes = stored_bytes(block, shape, where)
    start = header.start + offset
    if nbytes and start + nbytes > window.size:
        raise TruncatedError(f"{where} ends at byte {start + nbytes}, the file at {window.size}")
    if block.dtype is None:
        if header.swapped:
            raise UnsupportedError(
                f"{where} is {block.name} in a big-endian file, which is not read"
            )
        return QuantisedTensor(path, name, start, shape, number), nbytes
    plain = MappedTensor(path, name, start, shape, block.dtype, nbytes)
    return SwappedTensor(plain) if header.swapped else plain, nbytes


def _check_apart(places: list[tuple[int, int]], path: Path) -> None:
    end = 0
    for start, nbytes in sorted(places):
        if start < end:
            raise LayoutError(f"{path}: two tensors overlap at byte {start}")
        end = start + nbytes


def _config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The name of the architecture, and what stands under it."""
    architecture = values.get("general.architecture", "")
    prefix = f"{architecture}."
    return {
        key: value
        for key, value in values.items()
        if key == "general.architecture"
        or (key.startswith(prefix) and architecture and not isinstance(value, Array))
    }


def _hints(tensors: Mapping[str, Handle]) -> dict[str, TensorHint]:
    """What llama.cpp's names say beyond the rules: tables, and matrices of heads in one tensor."""
    hints: dict[str, TensorHint] = {}
    for name, handle in tensors.items():
        if len(handle.shape) == 2 and _TABLES.fullmatch(name):
            hints[name] = TensorHint("embedding")
        elif len(handle.shape) == 3 and _STACKS.fullmatch(name):
            hints[name] = TensorHint("dense", rows=(1,), cols=(2,))
    return hints
