"""The storages of PyTorch files, and tensors that are views of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import ml_dtypes
import numpy as np

from wwfunc.checkpoint import Handle
from wwfunc.dtypes import BY_TORCH_NAME

from ..errors import ElementTypeError, LayoutError, PickleError
from ..pickles.nodes import Blob, Global, Instance, Persistent
from ..strict_json import brief
from ..strided import Stored, StridedTensor, check_view
from .handles import PackedPairs, Recoded, Truth

_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class StorageKind:
    """A class of storages."""

    name: str
    torch: str | None
    """Its element type, by PyTorch's name; None where only the tensors tell."""
    itemsize: int
    packed: int = 1
    """Elements in each item."""


def _kinds() -> Mapping[Global, StorageKind]:
    untyped = StorageKind("UntypedStorage", None, 1)
    found = {
        Global("torch.storage", "UntypedStorage"): untyped,
        Global("torch.storage", "_UntypedStorage"): untyped,
        Global("torch", "UntypedStorage"): untyped,
    }
    for prefix, (torch, packed) in _PREFIXES.items():
        name = f"{prefix}Storage"
        kind = StorageKind(name, torch, BY_TORCH_NAME[torch].bits // 8, packed)
        found |= {Global(module, name): kind for module in ("torch", "torch.cuda")}
    return found


_PREFIXES = {
    "Double": ("float64", 1),
    "Float": ("float32", 1),
    "Half": ("float16", 1),
    "BFloat16": ("bfloat16", 1),
    "Long": ("int64", 1),
    "Int": ("int32", 1),
    "Short": ("int16", 1),
    "Char": ("int8", 1),
    "Byte": ("uint8", 1),
    "Bool": ("bool", 1),
    "ComplexDouble": ("complex128", 1),
    "ComplexFloat": ("complex64", 1),
    "QInt8": ("int8", 1),
    "QUInt8": ("uint8", 1),
    "QInt32": ("int32", 1),
    "QUInt4x2": ("uint8", 2),
    "QUInt2x4": ("uint8", 4),
}
KINDS = _kinds()


@dataclass(frozen=True, slots=True)
class Storage:
    """Stored bytes, what PyTorch calls their class, and their byte order: "<" or ">"."""

    stored: Stored
    kind: StorageKind
    order: Literal["<", ">"]


@dataclass(frozen=True, slots=True)
class StorageClaim:
    """What a pickle says of a storage."""

    kind: StorageKind
    key: str
    numel: int
    view: tuple[str, int, int] | None
    """In legacy files: a name, the first element and the number of elements of a part of it."""

    @property
    def nbytes(self) -> int:
        return self.numel * self.kind.itemsize


class Sources(Protocol):
    """Where a format keeps what its pickle refers to; asked once the pickle has been read."""

    def storage(self, node: Persistent | Instance, where: str) -> Storage:
        """The storage that a persistent id, or a file within the pickle, stands for."""
        ...

    def tensor(self, node: Persistent, where: str) -> Handle | None:
        """The tensor that an id stands for; None where ids are storages."""
        ...

    def octets(self, value: bytes | Blob) -> Stored:
        """Bytes of the pickle itself."""
        ...


def torch_persistent(pid: Any, at: int) -> Any:
    """What stands for a persistent id: a class is itself, its source text is not used."""
    if type(pid) is tuple and len(pid) == 4 and pid[0] == "module" and type(pid[1]) is Global:
        return pid[1]
    return Persistent(pid, at)


def claim(node: Persistent, where: str) -> StorageClaim:
    """The storage that a persistent id names, or a typed error that says what is wrong."""
    pid = node.pid
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise PickleError(f"{where}: the persistent id {brief(pid)} names no storage")
    _, kind, key, location, numel, *view = pid
    if type(kind) is not Global or kind not in KINDS:
        shown = str(kind) if type(kind) is Global else kind
        raise ElementTypeError(f"{where}: a storage of the unknown class {brief(shown)}")
    if type(key) is not str or type(location) not in (str, type(None)):
        raise PickleError(f"{where}: the persistent id {brief(pid)} names no storage")
    if type(numel) is not int or not 0 <= numel <= _LARGEST:
        raise LayoutError(f"{where}: a storage of {brief(numel)} elements")
    return StorageClaim(KINDS[kind], key, numel, _view(view[0] if view else None, where))


def _view(view: Any, where: str) -> tuple[str, int, int] | None:
    if view is None:
        return None
    if type(view) is not tuple or [type(part) for part in view] != [str, int, int]:
        raise PickleError(f"{where}: {brief(view)} is no view of a storage")
    return view


def strided_tensor(
    storage: Storage,
    name: str,
    torch_dtype: str | None,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    where: str,
    *,
    conj: bool = False,
    neg: bool = False,
) -> Handle:
    """A view of a storage, checked against its size; without a dtype, that of the storage."""
    known = torch_dtype or storage.kind.torch
    element = BY_TORCH_NAME.get(known) if known else None
    if element is None:
        raise ElementTypeError(f"{where}: elements of type {brief(known)} are not read")
    dtype = element.dtype
    check_view(shape, strides, offset, storage.stored.nbytes // dtype.itemsize, where)
    if (conj and dtype.kind != "c") or (neg and dtype.kind not in "fc"):
        raise LayoutError(f"{where}: {known} elements marked as conjugated or negated")
    in_file = _in_file(dtype, storage.order)
    view = StridedTensor(storage.stored, name, shape, in_file, offset, strides, conj, neg)
    if element.bits == 4:
        return _pairs(view, dtype, where)
    if dtype.kind == "b":
        return Truth(view)
    return view if in_file == dtype else Recoded(view, dtype)


def _in_file(dtype: np.dtype, order: Literal["<", ">"]) -> np.dtype:
    """What to read as: NumPy knows no other byte order of the types of ml_dtypes."""
    if dtype.kind == "b" or dtype == ml_dtypes.float4_e2m1fn:
        return np.dtype(np.uint8)
    if dtype == ml_dtypes.bfloat16 and order == ">":
        return np.dtype(">u2")
    return dtype.newbyteorder(order) if dtype.itemsize > 1 else dtype


def _pairs(view: StridedTensor, dtype: np.dtype, where: str) -> Handle:
    if not view.shape:
        raise ElementTypeError(f"{where}: a scalar of two packed numbers")
    return PackedPairs(view, dtype)
