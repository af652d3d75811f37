"""PyTorch files of version 0.1.9 and before: a tar archive of storages, tensors and a pickle."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint, Handle

from ..budget import Budget
from ..errors import ArchiveError, LayoutError, PickleError
from ..files import FileBytes
from ..pickles.machine import PickleMachine
from ..pickles.nodes import Blob, Global, Instance, Persistent
from ..strict_json import brief
from ..strided import MemoryBytes, Stored
from ..tar import Place, read_tar
from ..window import Window
from .legacy import mapped
from .tar_tables import Table, read_storages, read_tensors
from .tensors import Storage, strided_tensor
from .tree import open_tree

_NEEDED = frozenset(("pickle", "storages", "tensors"))
_KNOWN = _NEEDED | {"sys_info"}


def load_torch_tar(
    path: str | Path,
    *,
    key: str | None = None,
    inert: bool = False,
    budget: Budget | None = None,
) -> Checkpoint:
    """Open a tar file of `torch.save` from PyTorch 0.1.9 or before.

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
    loaders.errors.NotReadableError, ArchiveError, PickleError, UnsafeGlobalError, BudgetError, \
TruncatedError, LayoutError, ElementTypeError, UnsupportedError, AmbiguousError
        See `loaders.errors`; each names the file and the tensor, storage or byte.
    """
    path, budget = Path(path), budget or Budget()
    with mapped(path) as data, Window(path) as window:
        places = _members(path, data)
        machine = PickleMachine(path, budget, inert=inert, persistent=_persistent)
        storages = Table(window, data, "storages", places["storages"])
        tensors = Table(window, data, "tensors", places["tensors"])
        contents = TarContents(path, storages, tensors, machine, budget)
        start, length = places["pickle"]
        root = machine.load_whole(data, start, start + length, "the member 'pickle'")
        return open_tree(root, contents, path, budget, key, len(data), spent=machine.spent)


def _members(path: Path, data: mmap.mmap) -> Mapping[str, Place]:
    places = read_tar(path, data)
    odd = sorted(places.keys() - _KNOWN)
    if odd:
        raise ArchiveError(f"{path}: {brief(odd[0])} is no member of a PyTorch file")
    missing = sorted(_NEEDED - places.keys())
    if missing:
        raise ArchiveError(f"{path}: the archive has no member {missing[0]!r}")
    return places


def _persistent(identity: Any, at: int) -> Any:
    """A class that comes with its source text is the class; what else is named is a number."""
    if type(identity) is tuple and len(identity) == 3 and type(identity[0]) is Global:
        return identity[0]
    return Persistent(identity, at)


class TarContents:
    """The storages and tensors of a tar file, by the numbers that stand for them."""

    def __init__(
        self, path: Path, storages: Table, tensors: Table, machine: PickleMachine, budget: Budget
    ) -> None:
        self._path = path
        self._storages = read_storages(storages, machine, budget)
        self._tensors = read_tensors(tensors, machine, budget, self._storages)

    def storage(self, node: Persistent | Instance, where: str) -> Storage:
        """The storage that a number in the pickle stands for."""
        found = self._storages.get(_number(node, where))
        if found is None:
            raise LayoutError(f"{where}: the file has no such storage")
        return found

    def tensor(self, node: Persistent, where: str) -> Handle | None:
        """The tensor that a number in the pickle stands for; None where it is a storage's."""
        number = _number(node, where)
        if number in self._storages:
            return None
        if number not in self._tensors:
            raise LayoutError(f"{where}: the file has no tensor {number}")
        entry = self._tensors[number]
        storage = self._storages[entry.storage]
        view = entry.offset, entry.shape, entry.strides
        return strided_tensor(storage, str(number), storage.kind.torch, *view, where)

    def octets(self, value: bytes | Blob) -> Stored:
        """Bytes of the pickle itself."""
        if isinstance(value, Blob):
            return FileBytes(self._path.absolute(), value.start, value.nbytes)
        return MemoryBytes(value)


def _number(node: Persistent | Instance, where: str) -> int:
    """Writers of that time named a thing by its number or by the digits of it."""
    found = node.pid if isinstance(node, Persistent) else None
    if type(found) is str and found.isdecimal() and len(found) <= 20:
        return int(found)
    if type(found) is not int:
        raise PickleError(f"{where}: {brief(found)} is no number of a storage or tensor")
    return found
