"""OCDBT, the key-value store of TensorStore that Orbax writes to: a B+tree over data files.

The tree is walked here rather than by TensorStore, which takes whatever memory and time a tree
asks for: a node that is reached over many ways, or a compressed table of millions of files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..budget import Budget
from ..errors import HeaderError, LayoutError, TruncatedError, UnsupportedError
from ..files import FileBytes, read_bytes, require_file
from ..strict_json import brief
from ..strided import MemoryBytes
from .ocdbt_encoding import MANIFEST_MAGIC, NODE_MAGIC, NOWHERE, Cursor, read_body

MANIFEST = "manifest.ocdbt"

Value = FileBytes | MemoryBytes


@dataclass(frozen=True)
class KeyValueStore:
    """The newest version of a store: where the value of each key stands."""

    values: dict[bytes, Value]
    stored: int
    """Bytes of the data files together."""


def read_ocdbt(folder: Path, budget: Budget) -> KeyValueStore:
    """Walk the tree of the OCDBT store in `folder`.

    Raises
    ------
    HeaderError, ArchiveError
        If the manifest or a node is malformed or damaged, or a node is reached twice.
    LayoutError, TruncatedError, NotReadableError
        If a data file is named outside the folder, is missing, or is too short.
    UnsupportedError
        If the manifest is split into several files.
    BudgetError
        If the nodes or their entries are too many.
    """
    return _Walk(folder.absolute(), budget).store()


class _File(NamedTuple):
    """A data file: the folder that the names below a node start from, and its whole name."""

    base: bytes
    name: bytes


class _Node(NamedTuple):
    """Where a node stands, how high above the leaves, and how all its keys start."""

    file: _File
    offset: int
    length: int
    height: int
    prefix: bytes


class _Walk:
    def __init__(self, folder: Path, budget: Budget) -> None:
        self._folder, self._budget = folder, budget
        self._values: dict[bytes, Value] = {}
        self._files: dict[bytes, tuple[Path, int]] = {}
        self._seen: set[tuple[bytes, int]] = set()
        self._spent = self._entries = 0

    def store(self) -> KeyValueStore:
        root = self._root()
        waiting = [] if root is None else [root]
        while waiting:
            waiting += self._opened(waiting.pop())
        return KeyValueStore(self._values, sum(size for _, size in self._files.values()))

    def _root(self) -> _Node | None:
        """The root of the newest version that the manifest lists."""
        path = self._folder / MANIFEST
        size = require_file(path)
        self._budget.check("header_bytes", size, path)
        body = self._body(read_bytes(path, size), MANIFEST_MAGIC, str(path))
        body.take(16)  # the name of the store, by chance
        if body.number():
            raise UnsupportedError(f"{path}: a manifest in several files, which is not read")
        body.numbers(2)
        body.take(1)
        if body.number():
            body.take(4)  # the level of the compression
        files = self._table(body, b"")
        count = body.number()
        if not count:
            body.refuse("it lists no version")
        body.numbers(count)
        heights = body.take(count)
        ids, offsets, lengths = (body.numbers(count) for _ in range(3))
        if offsets[-1] == lengths[-1] == NOWHERE:
            return None
        file = _chosen(files, ids[-1], body)
        return _Node(file, offsets[-1], lengths[-1], heights[-1], b"")

    def _opened(self, node: _Node) -> list[_Node]:
        """Read a node: keep the values of a leaf, and return what is below an inner one."""
        path = self._place(node.file, node.offset, node.length)
        where = f"{path}: the OCDBT node at byte {node.offset:,}"
        if (node.file.name, node.offset) in self._seen:
            raise HeaderError(f"{where} is reached twice")
        self._seen.add((node.file.name, node.offset))
        self._spend(node.length)
        body = self._body(read_bytes(path, node.length, node.offset), NODE_MAGIC, where)
        if body.take(1)[0] != node.height:
            body.refuse(f"its height is not {node.height}")
        files = self._table(body, node.file.base)
        count = self._counted(body)
        if not count:
            body.refuse("it has no entries")
        if node.height:
            return self._below(body, files, count, node)
        self._keep(body, files, count, node.prefix)
        return []

    def _below(self, body: Cursor, files: Sequence[_File], count: int, node: _Node) -> list[_Node]:
        """The nodes that an inner node refers to."""
        shared = [0, *body.numbers(count - 1)]
        lengths, common = body.numbers(count), body.numbers(count)
        keys = self._keys(body, shared, lengths)
        places = [body.numbers(count) for _ in range(3)]
        for _ in range(3):
            body.numbers(count)  # statistics
        body.end()
        nodes = []
        for key, length, *place in zip(keys, common, *places, strict=True):
            prefix = node.prefix + key[:length]
            self._spend(len(prefix))
            file = _chosen(files, place[0], body)
            nodes.append(_Node(file, place[1], place[2], node.height - 1, prefix))
        return nodes

    def _keep(self, body: Cursor, files: Sequence[_File], count: int, prefix: bytes) -> None:
        """Note where the values of a leaf stand."""
        shared = [0, *body.numbers(count - 1)]
        keys = self._keys(body, shared, body.numbers(count))
        lengths, kinds = body.numbers(count), body.numbers(count)
        outside = kinds.count(1)
        ids, offsets = iter(body.numbers(outside)), iter(body.numbers(outside))
        for suffix, length, kind in zip(keys, lengths, kinds, strict=True):
            key = prefix + suffix
            if kind > 1 or key in self._values:
                body.refuse(f"the key {brief(key)} stands twice, or its value is of no known kind")
            self._spend(len(prefix))
            if kind:
                file, offset = _chosen(files, next(ids), body), next(offsets)
                value: Value = FileBytes(self._place(file, offset, length), offset, length)
            else:
                value = MemoryBytes(body.take(length))
            self._values[key] = value
        body.end()

    def _table(self, body: Cursor, base: bytes) -> list[_File]:
        """The data files that a node refers to."""
        count = self._counted(body)
        if not count:
            return []
        shared = [0, *body.numbers(count - 1)]
        lengths, bases = body.numbers(count), body.numbers(count)
        names = self._keys(body, shared, lengths)
        self._spend(2 * count * len(base))
        pairs = zip(names, bases, strict=True)
        return [_File(base + name[:length], base + name) for name, length in pairs]

    def _keys(self, body: Cursor, shared: list[int], lengths: list[int]) -> list[bytes]:
        """Keys of which each shares its start with the one before."""
        keys, last = [], b""
        for start, length in zip(shared, lengths, strict=True):
            if start > len(last):
                body.refuse("a key shares more with the one before than that has")
            self._spend(start + length)
            last = last[:start] + body.take(length)
            keys.append(last)
        return keys

    def _place(self, file: _File, offset: int, length: int) -> Path:
        """The path of a data file that has `length` bytes from `offset`."""
        if file.name not in self._files:
            path = self._path(file.name)
            self._files[file.name] = path, require_file(path)
        path, size = self._files[file.name]
        if offset + length > size:
            raise TruncatedError(
                f"{path}: OCDBT refers to {length:,} bytes at byte {offset:,}, "
                f"the file has {size:,}"
            )
        return path

    def _path(self, name: bytes) -> Path:
        text = name.decode("utf-8", "backslashreplace")
        parts = text.split("/")
        if not all(parts) or {".", ".."} & set(parts) or set(text) & set("\\\0:"):
            raise LayoutError(
                f"{self._folder}: OCDBT refers to the file {brief(text)}, "
                f"which is no plain path within the folder"
            )
        return Path(os.path.join(self._folder, *parts))

    def _body(self, data: bytes, magic: int, where: str) -> Cursor:
        body = read_body(data, magic, self._budget.header_bytes, where)
        self._spend(len(body))
        return body

    def _spend(self, nbytes: int) -> None:
        """Count what is read of the store, and the names that come of it."""
        self._spent += nbytes
        if self._spent > self._budget.header_bytes:
            self._budget.check("header_bytes", self._spent, self._folder)

    def _counted(self, body: Cursor) -> int:
        """A number of entries."""
        count = body.number()
        self._entries += count
        self._budget.check("archive_entries", self._entries, self._folder)
        return count


def _chosen(files: Sequence[_File], number: int, body: Cursor) -> _File:
    if number >= len(files):
        body.refuse(f"it refers to file {number} of {len(files)}")
    return files[number]
