"""TensorProto: the name, the shape and the place of the elements of one ONNX tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

from wwfunc.checkpoint import Handle

from ..budget import Budget
from ..errors import HeaderError, LayoutError, UnsupportedError
from ..strict_json import brief
from .external import ExternalFiles
from .protobuf import BYTES, FIXED32, FIXED64, VARINT, Wire, signed
from .tensors import (
    DATA_FIELDS,
    DOUBLES,
    FLOATS,
    RAW,
    Element,
    element_of,
    from_raw,
    from_varints,
    stored_bytes,
    varint_count,
)

_DIMS, _TYPE, _SEGMENT, _NAME, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 13, 14
_SINGLE = {_TYPE, _SEGMENT, _NAME, _LOCATION, *DATA_FIELDS}
_STRING = 8
_DIMENSIONS = 32
_LONGEST = 10  # bytes that a varint takes
_LARGEST = (1 << 63) - 1
_ENTRIES = 16
_KINDS = {
    _TYPE: (VARINT,),
    _LOCATION: (VARINT,),
    FLOATS: (BYTES, FIXED32),
    DOUBLES: (BYTES, FIXED64),
}
_FIXED = (RAW, FLOATS, DOUBLES)


@dataclass(slots=True)
class _Message:
    """The fields of a TensorProto that matter."""

    dims: list[int] = field(default_factory=list)
    external: dict[str, str] = field(default_factory=dict)
    single: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Field number to the value, or the start of the payload, and its end."""


class TensorReader:
    """Makes handles of the tensors in one file."""

    def __init__(self, wire: Wire, budget: Budget) -> None:
        self._wire, self._path = wire, wire.path
        self._absolute = wire.path.absolute()  # a handle outlives a change of folder
        self._external = ExternalFiles(wire.path, budget)

    @property
    def stored(self) -> int:
        """Bytes of the model, and of the files that its tensors were found in so far."""
        return self._wire.size + self._external.nbytes

    def tensor(self, start: int, end: int, name: str = "") -> tuple[str, Handle | None]:
        """The tensor between two bytes, or None where it is of text.

        `name` is for a tensor that a node holds, which has no other name.
        """
        message = self._message(start, end)
        name = name or self._name(message, start)
        where = f"{self._path}: tensor {brief(name)}"
        if _SEGMENT in message.single:
            raise UnsupportedError(f"{where} is a segment of a tensor, which is not read")
        number = message.single.get(_TYPE, (0, 0))[0]
        if number == _STRING:
            return name, None
        element = element_of(number, where)
        shape = tuple(message.dims)
        return name, self._handle(message, name, shape, element, where)

    def _message(self, start: int, end: int) -> _Message:
        message = _Message()
        for number, kind, value, stop in self._wire.fields(start, end):
            if number == _DIMS:
                self._dims(message.dims, kind, value, stop)
            elif number in _SINGLE:
                if kind not in _KINDS.get(number, (BYTES,)) or number in message.single:
                    self._refuse(number, kind, start)
                message.single[number] = value, stop
            elif number == _EXTERNAL:
                self._entry(message.external, kind, value, stop)
        return message

    def _refuse(self, number: int, kind: int, start: int) -> None:
        where = f"{self._path}: the tensor at byte {start}"
        if number in DATA_FIELDS and number != RAW:
            raise UnsupportedError(f"{where} has elements that are not packed, which is not read")
        raise HeaderError(f"{where} has the field {number} twice, or with wire type {kind}")

    def _dims(self, dims: list[int], kind: int, value: int, stop: int) -> None:
        if kind == BYTES:  # packed: as good, though no known writer does it
            if stop - value > _LONGEST * _DIMENSIONS:
                raise LayoutError(f"{self._path}: the dims at byte {value} are over {_DIMENSIONS}")
            sides = self._wire.numbers(value, stop)
        elif kind == VARINT:
            sides = [value]
        else:
            raise HeaderError(f"{self._path}: dims of wire type {kind} end at byte {stop}")
        dims.extend(sides)
        if len(dims) > _DIMENSIONS or max(sides, default=0) > _LARGEST:
            raise LayoutError(
                f"{self._path}: the dims that end at byte {stop} are negative, or over "
                f"{_DIMENSIONS}: {brief([signed(side) for side in dims[:_DIMENSIONS]])}"
            )

    def _entry(self, entries: dict[str, str], kind: int, start: int, end: int) -> None:
        pair = {1: "", 2: ""}
        if kind == BYTES:
            for number, _, value, stop in self._wire.fields(start, end):
                if number in pair:
                    pair[number] = self._wire.text(value, stop)
        if not pair[1] or pair[1] in entries or len(entries) == _ENTRIES:
            raise HeaderError(
                f"{self._path}: external data at byte {start} have an entry without a key, one "
                f"twice, or over {_ENTRIES}"
            )
        entries[pair[1]] = pair[2]

    def _name(self, message: _Message, start: int) -> str:
        name = self._wire.text(*message.single.get(_NAME, (0, 0)))
        if not name:
            raise HeaderError(f"{self._path}: the initializer at byte {start} has no name")
        return name

    def _handle(
        self, message: _Message, name: str, shape: tuple[int, ...], element: Element, where: str
    ) -> Handle:
        nbytes = stored_bytes(element, shape, where)
        present = [number for number in message.single if number in DATA_FIELDS]
        external = message.single.get(_LOCATION, (0, 0))[0] == 1
        if len(present) + external > 1:
            raise LayoutError(f"{where} has its elements in two places")
        if external:
            path, offset = self._external.place(message.external, nbytes, where)
            return from_raw(path, name, (offset, offset + nbytes), shape, element)
        if present:
            place = message.single[present[0]]
        elif not nbytes:
            return from_raw(self._absolute, name, (0, 0), shape, element)
        else:
            raise LayoutError(f"{where} of shape {[*shape]} has no elements in it")
        if present[0] in (RAW, element.field) and present[0] in _FIXED:
            if place[1] - place[0] != nbytes:
                raise LayoutError(
                    f"{where}: {element.dtype.name} of shape {[*shape]} does not take "
                    f"{place[1] - place[0]} bytes"
                )
            return from_raw(self._absolute, name, place, shape, element)
        if present[0] != element.field:
            raise LayoutError(f"{where}: {element.dtype.name} elements in field {present[0]}")
        return self._unpacked_from(place, name, shape, element, where)

    def _unpacked_from(
        self,
        place: tuple[int, int],
        name: str,
        shape: tuple[int, ...],
        element: Element,
        where: str,
    ) -> Handle:
        """A tensor whose elements are varints."""
        length = place[1] - place[0]
        count = varint_count(element, shape)
        if not count <= length <= _LONGEST * count:
            raise LayoutError(f"{where}: {length} bytes are not {count} numbers")
        return from_varints(self._absolute, name, place, shape, element)
