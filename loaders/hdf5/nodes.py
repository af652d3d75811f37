"""Groups and datasets by their names, from the root of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..budget import Budget
from ..errors import BudgetError, LayoutError, UnsupportedError
from ..files import FileBytes, read_bytes, require_file
from ..inflated import Inflated
from ..strict_json import brief
from .attributes import Attributes
from .headers import LAYOUT, LINK, LINK_INFO, SYMBOL_TABLE, Message, read_messages
from .heaps import GlobalHeaps
from .links import HARD, Link, read_links
from .source import Source, opened
from .storage import Dataset, read_dataset
from .superblock import SIGNATURE, find_root, places

_GROUP_MESSAGES = {LINK_INFO, LINK, SYMBOL_TABLE}

_VISIT, _LEVEL = 64, 8  # what comes of a visit grows with the names that lead to it


class Node:
    """A group or a dataset; its links and attributes are read when they are asked for."""

    def __init__(self, file: File, address: int, where: str, messages: list[Message]) -> None:
        self.address, self.where = address, where
        self._file, self._messages = file, messages
        self._links: dict[str, Link] | None = None
        self._attributes: Attributes | None = None
        self._dataset: Dataset | None = None

    @property
    def is_dataset(self) -> bool:
        return any(message.kind == LAYOUT for message in self._messages)

    @property
    def links(self) -> dict[str, Link]:
        """What a group holds, by name; a dataset holds nothing."""
        if self._links is None:
            source = self._file.source
            self._links = {} if self.is_dataset else read_links(source, self._messages, self.where)
        return self._links

    @property
    def attributes(self) -> Attributes:
        if self._attributes is None:
            file = self._file
            self._attributes = Attributes(file.source, file.heaps, self._messages, self.where)
        return self._attributes

    @property
    def dataset(self) -> Dataset:
        if not self.is_dataset:
            raise LayoutError(f"{self._file.source.path}: {self.where} is no dataset")
        if self._dataset is None:
            self._dataset = read_dataset(self._file.source, self._messages, self.where)
        return self._dataset

    def child(self, name: str) -> Node:
        """What stands under `name`; only a hard link is followed."""
        path = f"{self._file.source.path}: {self.where}"
        link = self.links.get(name)
        if link is None:
            raise LayoutError(f"{path} holds no {brief(name)}")
        if link.kind != HARD:
            raise UnsupportedError(f"{path}: {brief(name)} is {link.words}, which is not followed")
        return self._file.node(link.address, f"{self.where.rstrip('/')}/{name}")

    def at(self, names: Sequence[str]) -> Node:
        """What stands at the end of `names`, each within the one before."""
        found = self
        for name in names:
            found = found.child(name)
        return found

    def walk(self, nesting: int) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Every object below, with the names that lead to it; a group before what it holds.

        An object under several names comes as often as it has names, each time at a cost; under
        itself it is an error.
        """
        source = self._file.source
        waiting: list[tuple[tuple[str, ...], Node, tuple[int, ...]]] = [((), self, ())]
        while waiting:
            names, node, above = waiting.pop()
            source.spend(_VISIT + sum(len(name) + _LEVEL for name in names))
            yield names, node
            if node.address in above:
                raise LayoutError(f"{source.path}: {node.where} is met within itself")
            elif len(above) >= nesting:
                raise BudgetError(f"{source.path}: groups are nested over {nesting} deep")
            below = (*above, node.address)
            children = [((*names, name), node.child(name), below) for name in node.links]
            waiting.extend(reversed(children))


class File:
    """An open HDF5 file; its nodes are known by their addresses."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.heaps = GlobalHeaps(source)
        self._nodes: dict[int, Node] = {}
        self.root = self.node(find_root(source), "/")

    def node(self, address: int, where: str) -> Node:
        """The object whose header is at `address`, under the first name that leads there."""
        if address not in self._nodes:
            where = where if len(where) < 200 else f"{where[:80]}...{where[-80:]}"
            messages = read_messages(self.source, address, where)
            if not any(m.kind == LAYOUT or m.kind in _GROUP_MESSAGES for m in messages):
                raise UnsupportedError(
                    f"{self.source.path}: {where} is neither a group nor a dataset"
                )
            self._nodes[address] = Node(self, address, where, messages)
        return self._nodes[address]


def is_hdf5(path: Path) -> bool:
    """Whether the file at `path` has the signature of HDF5 where it may stand."""
    size = require_file(path)
    length = len(SIGNATURE)
    return size >= length and any(
        read_bytes(path, length, place) == SIGNATURE for place in places(size)
    )


@contextmanager
def open_hdf5(
    path: Path, budget: Budget, stored: FileBytes | Inflated | None = None, spent: int = 0
) -> Iterator[File]:
    """The HDF5 file at `path`, or the one that is `stored` in a part of the file at `path`.

    `spent` counts what the structures of other files of the same model took of the budget.

    Raises
    ------
    CheckpointError
        HeaderError, LayoutError, TruncatedError, UnsupportedError, ElementTypeError or
        BudgetError; each names the file, and the object in it.
    """
    if stored is None:
        stored = FileBytes(path.absolute(), 0, require_file(path))
    with opened(path, stored, budget, spent) as source:
        yield File(source)
