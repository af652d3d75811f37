"""Heaps: where HDF5 keeps the names of links and the text of attributes."""

from __future__ import annotations

import struct

from ..errors import HeaderError
from .source import Source, decoded

LONGEST_NAME = 1024
_LOCAL = struct.Struct("<4sB3xQ8xQ")
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<H6xQ")


class LocalHeap:
    """The names of the links in one group of the older form."""

    def __init__(self, source: Source, address: int, where: str) -> None:
        what = f"the names of {where}"
        fields = _LOCAL.unpack(source.read(address, _LOCAL.size, what))
        signature, version, size, start = fields
        if signature != b"HEAP" or version != 0:
            raise HeaderError(f"{source.path}: {what} are not at byte {address}")
        self._source, self._where = source, f"{source.path}: {what}"
        self._data = source.read(start, size, what)

    def name(self, at: int) -> str:
        """The name that starts at `at`; its length counts, for names may lie in each other."""
        end = self._data.find(b"\0", at, at + LONGEST_NAME + 1)
        if end < 0:
            raise HeaderError(f"{self._where}: no name of up to {LONGEST_NAME} bytes at {at}")
        self._source.spend(end - at)
        return decoded(self._data[at:end], self._where)


class GlobalHeaps:
    """The text of attributes, in collections that several objects share."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[int, dict[int, tuple[int, int]]] = {}

    def place(self, collection: int, index: int, where: str) -> tuple[int, int]:
        """Start and size of an object in the collection at that address."""
        if collection not in self._known:
            self._known[collection] = self._objects(collection, where)
        if index not in self._known[collection]:
            raise HeaderError(
                f"{self._source.path}: {where}: no text {index} in the heap at byte {collection}"
            )
        return self._known[collection][index]

    def _objects(self, collection: int, where: str) -> dict[int, tuple[int, int]]:
        what = f"the heap of {where}"
        start = self._source.read(collection, _COLLECTION.size, what)
        signature, version, size = _COLLECTION.unpack(start)
        if signature != b"GCOL" or version != 1:
            raise HeaderError(f"{self._source.path}: {what} is not at byte {collection}")
        self._source.check_inside(collection, size, what)
        objects: dict[int, tuple[int, int]] = {}
        at, end = collection + _COLLECTION.size, collection + size
        while at + _OBJECT.size <= end:
            index, length = _OBJECT.unpack(self._source.read(at, _OBJECT.size, what))
            if index == 0:  # the free space at the end
                break
            at += _OBJECT.size
            if at + length > end or index in objects:
                raise HeaderError(f"{self._source.path}: {what} is damaged at byte {at}")
            objects[index] = at, length
            at += -(-length // 8) * 8
        return objects
