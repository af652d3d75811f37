"""The tables of PyTorch's tar files, in which pickles and raw numbers take turns.

All numbers are little-endian, whatever machine wrote them.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Any

from ..budget import Budget
from ..errors import LayoutError, PickleError, TruncatedError
from ..files import FileBytes
from ..pickles.machine import PickleMachine
from ..pickles.nodes import Persistent
from ..strict_json import brief
from ..tar import Place
from ..window import Window
from .tensors import Storage, claim

_DIMENSIONS = 32
_LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class TarTensor:
    """A line of `tensors`: a view of a storage, which is checked when it is asked for."""

    storage: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class Table:
    """One member of the archive, read from its start to its end."""

    def __init__(self, window: Window, data: mmap.mmap, name: str, place: Place) -> None:
        self.path = window.path
        self._window, self._data, self._name = window, data, name
        self._at, self._end = place[0], place[0] + place[1]

    @property
    def where(self) -> str:
        """The place in the file, for messages."""
        return f"{self.path}: {self._name!r} at byte {self._at}"

    def pickle(self, machine: PickleMachine) -> Any:
        """The pickle that comes next."""
        value, self._at = machine.load(
            self._data, self._at, self._end, f"a pickle in {self._name!r}"
        )
        return value

    def line(self, machine: PickleMachine) -> tuple[Any, Any, Any]:
        """What starts a line: a pickle of a tuple of three.

        It is read, not looked at through the map, which would keep pages of every line in memory.
        """
        where = self.where
        data = self._window.upto(self._at, min(_LONGEST_LINE, self._end - self._at))
        value, length = machine.load(data, what=f"the line of {self._name!r} at byte {self._at}")
        self._at += length
        if type(value) is not tuple or len(value) != 3:
            raise PickleError(f"{where}: no tuple of three but {brief(value)}")
        return value

    def count(self, machine: PickleMachine, budget: Budget) -> int:
        """The number of lines, which comes first."""
        where, value = self.where, self.pickle(machine)
        if type(value) is not int or value < 0:
            raise PickleError(f"{where}: {brief(value)} is no number of lines")
        budget.check("tensors", value, self.path)
        return value

    def numbers(self, form: str) -> tuple[int, ...]:
        """Raw numbers that come next."""
        start = self.skip(struct.calcsize(form))
        return struct.unpack(form, self._window.read(start, struct.calcsize(form)))

    def skip(self, nbytes: int) -> int:
        """Pass over bytes that come next; where they start."""
        if nbytes > self._end - self._at:
            raise TruncatedError(f"{self.where}: {nbytes} bytes; the member ends at {self._end}")
        self._at += nbytes
        return self._at - nbytes

    def finish(self) -> None:
        """Raise LayoutError unless this is the end."""
        if self._at != self._end:
            raise LayoutError(f"{self.where}: {self._end - self._at} bytes follow the last line")


def read_storages(table: Table, machine: PickleMachine, budget: Budget) -> dict[int, Storage]:
    """The storages by number: their bytes stand in the table, views of them behind all."""
    storages: dict[int, Storage] = {}
    for _ in range(table.count(machine, budget)):
        where = table.where
        number, _, kind = table.line(machine)
        (numel,) = table.numbers("<q")
        # A storage of a later format says the same in its persistent id.
        said = claim(Persistent(("storage", kind, str(number), "", numel), 0), where)
        place = FileBytes(table.path.absolute(), table.skip(said.nbytes), said.nbytes)
        storages[_new(number, storages, where)] = Storage(place, said.kind, "<")
    where, views = table.where, table.pickle(machine)
    if type(views) is not list:
        raise PickleError(f"{where}: the views are no list")
    for view in views:
        _add_view(view, storages, where)
    table.finish()
    return storages


def _add_view(view: Any, storages: dict[int, Storage], where: str) -> None:
    if type(view) is not tuple or len(view) != 4 or any(type(part) is not int for part in view):
        raise PickleError(f"{where}: {brief(view)} is no view")
    number, root, offset, numel = view
    whole = storages.get(root)
    if whole is None or not isinstance(whole.stored, FileBytes):
        raise LayoutError(f"{where}: no storage {brief(root)} to view")
    size = whole.kind.itemsize
    if offset < 0 or numel < 0 or (offset + numel) * size > whole.stored.nbytes:
        raise LayoutError(f"{where}: a view of {numel} elements from {offset} leaves its storage")
    place = FileBytes(whole.stored.path, whole.stored.offset + offset * size, numel * size)
    storages[_new(number, storages, where)] = Storage(place, whole.kind, "<")


def read_tensors(
    table: Table, machine: PickleMachine, budget: Budget, storages: dict[int, Storage]
) -> dict[int, TarTensor]:
    """The tensors by number."""
    tensors: dict[int, TarTensor] = {}
    for _ in range(table.count(machine, budget)):
        where = table.where
        number, storage, _ = table.line(machine)
        if type(storage) is not int or storage not in storages:
            raise LayoutError(f"{where}: no storage {brief(storage)} for tensor {brief(number)}")
        if number in storages:
            raise LayoutError(f"{where}: {number} stands for a storage already")
        tensors[_new(number, tensors, where)] = _tensor(table, storage)
    table.finish()
    return tensors


def _tensor(table: Table, storage: int) -> TarTensor:
    where = table.where
    dimensions, _ = table.numbers("<ii")  # the second fills up to eight bytes
    if not 0 <= dimensions <= _DIMENSIONS:
        raise LayoutError(f"{where}: a tensor of {dimensions} dimensions")
    shape = table.numbers(f"<{dimensions}q")
    strides = table.numbers(f"<{dimensions}q")
    return TarTensor(storage, shape, strides, table.numbers("<q")[0])


def _new(number: Any, known: dict[int, Any], where: str) -> int:
    if type(number) is not int:
        raise PickleError(f"{where}: {brief(number)} is no number of a storage or tensor")
    if number in known:
        raise LayoutError(f"{where}: {number} stands twice")
    return number
