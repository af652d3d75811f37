"""Files of `torch.save` from before PyTorch 1.6, and storages that a pickle holds as such files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint, Handle

from ..budget import Budget
from ..errors import NotReadableError, PickleError, TruncatedError
from ..files import FileBytes, require_file
from ..pickles.byte_strings import bytes_of
from ..pickles.machine import PickleMachine
from ..pickles.nodes import Blob, Instance, Persistent
from ..strided import MemoryBytes, Stored
from .legacy_file import Data, LegacyFile
from .tensors import Storage, torch_persistent
from .tree import open_tree


def load_torch_legacy(
    path: str | Path,
    *,
    key: str | None = None,
    inert: bool = False,
    budget: Budget | None = None,
) -> Checkpoint:
    """Open a file of `torch.save` in the format before PyTorch 1.6, still written on request.

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
        root = storages.read(0, len(data))
        spent = storages.machine.spent
        return open_tree(root, storages, path, budget, key, len(data), spent=spent)


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, in memory only where they are looked at."""
    if not require_file(path):
        raise TruncatedError(f"{path}: the file is empty")
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as cause:
        raise NotReadableError(f"{path}: cannot be mapped: {cause}") from None
    with data:
        yield data


class LegacyStorages:
    """The storages of a legacy file, and those that a pickle holds as legacy files in bytes."""

    def __init__(self, path: Path, data: mmap.mmap, budget: Budget, inert: bool) -> None:
        self.machine = PickleMachine(path, budget, inert=inert, persistent=self._persistent)
        self._path = path
        self._data = data
        self._file = self._reading = LegacyFile(path, data)
        self._nested: dict[Instance, Storage] = {}

    def read(self, start: int, end: int) -> Any:
        """The object of the legacy file that is `data[start:end]`."""
        return self._file.read(self.machine, start, end)

    def storage(self, node: Persistent | Instance, where: str) -> Storage:
        """The storage that a node of the object stands for."""
        if isinstance(node, Persistent):
            return self._file.storage(node, where)
        if node not in self._nested:
            self._nested[node] = self._read_nested(node, where)
        return self._nested[node]

    def tensor(self, node: Persistent, where: str) -> Handle | None:
        """None: what a pickle refers to here are storages alone."""
        return None

    def octets(self, value: bytes | Blob) -> Stored:
        """Bytes of the pickle itself."""
        if isinstance(value, Blob):
            return FileBytes(self._path.absolute(), value.start, value.nbytes)
        return MemoryBytes(value)

    def _persistent(self, identity: Any, at: int) -> Any:
        node = torch_persistent(identity, at)
        if isinstance(node, Persistent):
            self._reading.meet(node)
        return node

    def _read_nested(self, node: Instance, where: str) -> Storage:
        data, start, end = self._payload(node, where)
        self._reading = LegacyFile(self._path, data)
        root = self._reading.read(self.machine, start, end)
        self._release()
        if not isinstance(root, Persistent):  # one level: what `pickle.dump` writes is a storage
            raise PickleError(f"{where}: the PyTorch file within the pickle is no storage")
        return self._reading.storage(root, where)

    def _release(self) -> None:
        """Forget the pages around what was read: files within a file may lie far apart."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)

    def _payload(self, node: Instance, where: str) -> tuple[Data, int, int]:
        payload = bytes_of(node.args[0]) if len(node.args) == 1 else None
        if isinstance(payload, Blob):
            return self._data, payload.start, payload.start + payload.nbytes
        if payload is not None:
            return payload, 0, len(payload)
        raise PickleError(f"{where}: {node.function} needs the bytes of a file")
