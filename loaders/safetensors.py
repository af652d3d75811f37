"""safetensors: u64 header length, a JSON header, then the tensors without holes.

The header is parsed here rather than by the `safetensors` library, whose NumPy side cannot return
bf16, fp8 or fp4 and whose errors are not of one type.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint
from wwfunc.dtypes import BY_SAFETENSORS_NAME, ElementType

from .budget import Budget
from .errors import ElementTypeError, HeaderError, LayoutError, TruncatedError
from .files import MappedTensor, read_bytes, require_file
from .strict_json import brief, parse_object

LENGTH_BYTES = 8
_LARGEST = (1 << 63) - 1
_DIMENSIONS = 32


def load_safetensors(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open one safetensors file; its tensors are mapped when they are read.

    Raises
    ------
    loaders.errors.NotReadableError, BudgetError, TruncatedError, HeaderError, LayoutError, \
ElementTypeError
        See `loaders.errors`; each names the file and, where there is one, the tensor.
    """
    path = Path(path)
    tensors, metadata = read_header(path, budget or Budget())
    return Checkpoint(tensors, metadata=metadata, source=str(path))


def read_header(path: Path, budget: Budget) -> tuple[dict[str, MappedTensor], dict[str, str]]:
    """The tensors and the metadata that a file's header declares, checked against its size."""
    size = require_file(path)
    if size < LENGTH_BYTES:
        raise TruncatedError(f"{path}: {size} bytes are too few for a safetensors file")
    (length,) = struct.unpack("<Q", read_bytes(path, LENGTH_BYTES))
    budget.check("header_bytes", length, path)
    if length > size - LENGTH_BYTES:
        raise TruncatedError(f"{path}: the header claims {length} bytes, the file has {size}")
    header = parse_object(read_bytes(path, length, LENGTH_BYTES), path, budget=budget)
    metadata = _metadata(header.pop("__metadata__", {}), path)
    budget.check("tensors", len(header), path)
    start = LENGTH_BYTES + length
    path = path.absolute()  # a handle outlives a change of folder
    # Popping frees each entry: the worst header would need twice the memory otherwise.
    tensors = {name: _tensor(name, header.pop(name), path, start) for name in list(header)}
    _check_layout(tensors, path, start, size)
    return tensors, metadata


def _metadata(metadata: Any, path: Path) -> dict[str, str]:
    if metadata is None:
        return {}
    good = type(metadata) is dict and all(type(value) is str for value in metadata.values())
    if not good:
        raise HeaderError(f"{path}: __metadata__ is not a mapping from text to text")
    return metadata


def _tensor(name: str, entry: Any, path: Path, start: int) -> MappedTensor:
    where = f"{path}: tensor {brief(name)}"
    if type(entry) is not dict or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise HeaderError(f"{where} lacks dtype, shape or data_offsets")
    element = BY_SAFETENSORS_NAME.get(entry["dtype"]) if type(entry["dtype"]) is str else None
    if element is None:
        raise ElementTypeError(f"{where} has the unknown element type {brief(entry['dtype'])}")
    shape = _naturals(entry["shape"], f"{where}: shape")
    offsets = _naturals(entry["data_offsets"], f"{where}: data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise LayoutError(f"{where}: data_offsets {brief([*offsets])} are not a start and an end")
    _check_size(element, shape, offsets[1] - offsets[0], where)
    return MappedTensor(
        path, name, start + offsets[0], shape, element.dtype, offsets[1] - offsets[0]
    )


def _naturals(values: Any, where: str) -> tuple[int, ...]:
    if type(values) is not list or not all(
        type(value) is int and 0 <= value <= _LARGEST for value in values
    ):
        raise HeaderError(f"{where} {brief(values)} is not a list of natural numbers")
    return tuple(values)


def _check_size(element: ElementType, shape: tuple[int, ...], stored: int, where: str) -> None:
    if len(shape) > _DIMENSIONS:
        raise LayoutError(f"{where}: a shape of {len(shape)} dimensions")
    if math.prod(side for side in shape if side) * element.bits > _LARGEST:
        raise LayoutError(f"{where}: shape {[*shape]} overflows")
    if element.bits == 6:
        raise ElementTypeError(f"{where}: {element.safetensors} has no defined packing")
    if element.stored_bytes(shape) != stored:
        raise LayoutError(
            f"{where}: {element.safetensors} of shape {list(shape)} does not take {stored} bytes"
        )


def _check_layout(tensors: Mapping[str, MappedTensor], path: Path, start: int, size: int) -> None:
    """The tensors fill the file from the header to its end, without overlap and without a hole."""
    position = start
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.offset + t.stored_nbytes)):
        if tensor.offset != position:
            fault = (
                "overlaps the one before" if tensor.offset < position else "leaves a hole before it"
            )
            raise LayoutError(
                f"{path}: tensor {brief(tensor.name)} {fault}, at byte {tensor.offset}"
            )
        position += tensor.stored_nbytes
        if position > size:
            raise TruncatedError(
                f"{path}: tensor {brief(tensor.name)} ends at byte {position}, the file at {size}"
            )
    if position != size:
        raise LayoutError(f"{path}: {size - position} bytes follow the last tensor")
