"""The layout of PyTorch's legacy files: five pickles in a row, then the storages.

The fourth pickle is the object, which refers to the storages, the fifth is their order. How long
a storage is, and so where the next one starts, is known once the object has been read.
"""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import IO, Any

from ..errors import LayoutError, NotReadableError, PickleError, TruncatedError, UnsupportedError
from ..files import FileBytes
from ..pickles.machine import PickleMachine
from ..pickles.nodes import Persistent
from ..strict_json import brief
from ..strided import MemoryBytes, Stored
from .tensors import Storage, StorageClaim, claim

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = 8  # bytes of the number of elements that stands before them

Data = bytes | mmap.mmap


class LegacyFile:
    """One legacy file: all of a file, or bytes within a pickle.

    Its storages are little-endian whatever machine wrote it. `little_endian` in the file is the
    order of that machine, which PyTorch does not ask for either.
    """

    def __init__(self, path: Path, data: Data) -> None:
        self._path = path
        self._data = data
        self._claims: dict[str, StorageClaim] = {}
        self._places: dict[str, int] = {}

    def read(self, machine: PickleMachine, start: int, end: int) -> Any:
        """The object of the file in `data[start:end]`; its storages can be had then."""
        at = self._preamble(machine, start, end)
        root, at = machine.load(self._data, at, end, "the object")
        keys, at = machine.load(self._data, at, end, "the list of storages")
        self._place(self._checked(keys), at, end)
        return root

    def meet(self, node: Persistent) -> None:
        """Take note of a storage while the object is being read."""
        where = f"{self._path}: the object at byte {node.at}"
        found = claim(node, where)
        first = self._claims.setdefault(found.key, found)
        untyped = None in (first.kind.torch, found.kind.torch)
        if first.nbytes != found.nbytes or (first.kind != found.kind and not untyped):
            raise LayoutError(
                f"{where}: storage {brief(found.key)} has {found.numel} elements of "
                f"{found.kind.name}, before it had {first.numel} of {first.kind.name}"
            )

    def storage(self, node: Persistent, where: str) -> Storage:
        """The storage, or the view of one, that a node of the object stands for."""
        found = claim(node, where)
        if found.key not in self._places:
            raise LayoutError(f"{where}: the file has no storage {brief(found.key)}")
        offset, numel = _window(found, where)
        size = found.kind.itemsize
        stored = self._octets(self._places[found.key] + offset * size, numel * size)
        return Storage(stored, found.kind, "<")

    def _octets(self, place: int, nbytes: int) -> Stored:
        if isinstance(self._data, bytes):
            return MemoryBytes(self._data[place : place + nbytes])
        return FileBytes(self._path.absolute(), place, nbytes)

    def _preamble(self, machine: PickleMachine, start: int, end: int) -> int:
        magic, at = machine.load(self._data, start, end, "the magic number")
        if type(magic) is not int or magic != _MAGIC:
            raise PickleError(f"{self._path}: no legacy PyTorch file starts at byte {start}")
        version, at = machine.load(self._data, at, end, "the protocol version")
        if type(version) is not int or version != _VERSION:
            raise UnsupportedError(
                f"{self._path}: a legacy file of protocol version {brief(version)}; "
                f"{_VERSION} is read"
            )
        system, at = machine.load(self._data, at, end, "the system information")
        if type(system) is not dict:
            raise PickleError(f"{self._path}: the system information is no dict")
        return at

    def _checked(self, keys: Any) -> list[str]:
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise PickleError(f"{self._path}: the list of storages is no list of texts")
        odd = set(keys) ^ self._claims.keys()
        if odd:
            raise LayoutError(
                f"{self._path}: storage {brief(min(odd))} stands either in the object or in the "
                f"list of storages, not in both"
            )
        if len(keys) != len(self._claims):
            raise LayoutError(f"{self._path}: the list of storages names one twice")
        return keys

    def _place(self, keys: list[str], at: int, end: int) -> None:
        with self._stream() as stream:
            for key in keys:
                known = self._claims[key]
                where = f"{self._path}: storage {brief(key)} at byte {at}"
                if at + _COUNT + known.nbytes > end:
                    raise TruncatedError(f"{where} of {known.nbytes} bytes; the data ends at {end}")
                stream.seek(at)
                numel = int.from_bytes(stream.read(_COUNT), "little", signed=True)
                if numel != known.numel:
                    raise LayoutError(f"{where} has {numel} elements, in the object {known.numel}")
                self._places[key] = at + _COUNT
                at += _COUNT + known.nbytes
        if at != end:
            raise LayoutError(f"{self._path}: {end - at} bytes follow the last storage")

    def _stream(self) -> IO[bytes]:
        """The data, not through the map: each look at it would keep pages of it in memory."""
        if isinstance(self._data, bytes):
            return io.BytesIO(self._data)
        try:
            return open(self._path, "rb", buffering=0)
        except OSError as cause:
            raise NotReadableError(f"{self._path}: cannot be read: {cause.strerror}") from None


def _window(found: StorageClaim, where: str) -> tuple[int, int]:
    """First element and number of elements of what a claim shows of its storage."""
    if found.view is None:
        return 0, found.numel
    _, offset, numel = found.view
    if offset < 0 or numel < 0 or offset + numel > found.numel:
        raise LayoutError(
            f"{where}: a view of {numel} elements from {offset}, in storage {brief(found.key)} "
            f"of {found.numel}"
        )
    return offset, numel
