"""The header of a GGUF file: keys with values, then names, shapes and places of tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..budget import Budget
from ..errors import HeaderError, LayoutError, UnsupportedError
from ..strict_json import brief
from ..window import Window
from .cursor import DIMENSIONS, Cursor

_MOST_KEYS = 2_048
_LONGEST_TEXT = 1_024
_LISTED = 128
_LARGEST = (1 << 63) - 1
_VERSIONS = (2, 3)

_NUMBERS = {
    0: ("u8", "B"),
    1: ("i8", "b"),
    2: ("u16", "H"),
    3: ("i16", "h"),
    4: ("u32", "I"),
    5: ("i32", "i"),
    6: ("f32", "f"),
    7: ("bool", "B"),
    10: ("u64", "Q"),
    11: ("i64", "q"),
    12: ("f64", "d"),
}
_BOOL, _TEXT, _ARRAY = 7, 8, 9
ALIGNMENT = "general.alignment"

Info = tuple[str, tuple[int, ...], int, int]
"""Name, shape in C order, number of the element type, offset from the start of the data."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array that is too long to be listed, or of texts: what is known without reading it."""

    kind: str
    length: int

    def __str__(self) -> str:
        return f"{self.length:,} values of {self.kind}"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the data."""

    swapped: bool
    """Whether the file is big-endian."""
    values: dict[str, Any]
    """Numbers, booleans, texts, lists of numbers, `Array` for what was passed over."""
    infos: list[Info]
    start: int
    """Where the data starts."""


def read_header(window: Window, budget: Budget) -> Header:
    """Parse everything that stands before the data, and check what does not depend on types."""
    order = _order(window)
    cursor = Cursor(window, order, budget)
    n_tensors, n_keys = cursor.unpack(cursor.two)
    budget.check("tensors", n_tensors, window.path)
    if n_keys > _MOST_KEYS:
        raise HeaderError(f"{window.path}: {n_keys:,} keys, more than {_MOST_KEYS:,}")
    values = _values(cursor, n_keys)
    alignment = _alignment(values, window.path)
    infos = list(_infos(cursor, n_tensors, alignment))
    cursor.check()
    start = -(-cursor.position // alignment) * alignment
    return Header(order == ">", values, infos, start)


def _order(window: Window) -> str:
    """The byte order in which the version is a known one."""
    head = window.read(0, 8)
    if head[:4] != b"GGUF":
        raise HeaderError(f"{window.path}: does not start with GGUF")
    for order in "<>":
        (version,) = struct.unpack(f"{order}I", head[4:])
        if version in _VERSIONS:
            return order
    (version,) = struct.unpack("<I", head[4:])
    raise UnsupportedError(f"{window.path}: version {version} of GGUF; 2 and 3 are read")


def _values(cursor: Cursor, count: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text("a key")
        if key in values:
            raise HeaderError(f"{cursor.path}: the key {brief(key)} stands twice")
        (kind,) = cursor.unpack(cursor.half)
        values[key] = _value(cursor, kind, f"key {brief(key)}")
    return values


def _value(cursor: Cursor, kind: int, what: str) -> Any:
    if kind == _TEXT:
        return cut(cursor.octets()[: 4 * _LONGEST_TEXT].decode("utf-8", "backslashreplace"))
    if kind == _ARRAY:
        return _array(cursor, what)
    return _numbers(cursor, kind, 1, what)[0]


def cut(text: str) -> str:
    """The start of a long text: a template or a licence may have hundreds of pages."""
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _array(cursor: Cursor, what: str) -> Any:
    (kind,) = cursor.unpack(cursor.half)
    (length,) = cursor.unpack(cursor.word)
    if kind == _ARRAY:
        raise HeaderError(f"{cursor.path}: {what} is an array of arrays, which GGUF does not use")
    if kind == _TEXT:
        cursor.skip_texts(length, what)
        return Array("text", length)
    if length <= _LISTED:
        return _numbers(cursor, kind, length, what)
    name, code = _number_kind(cursor, kind, what)
    cursor.skip(length * struct.calcsize(f"={code}"), what)
    return Array(name, length)


def _number_kind(cursor: Cursor, kind: int, what: str) -> tuple[str, str]:
    if kind not in _NUMBERS:
        raise HeaderError(f"{cursor.path}: {what} has a value of the unknown type {kind}")
    return _NUMBERS[kind]


def _numbers(cursor: Cursor, kind: int, count: int, what: str) -> list[Any]:
    _, code = _number_kind(cursor, kind, what)
    numbers = list(cursor.unpack(struct.Struct(f"{cursor.order}{count}{code}")))
    if kind != _BOOL:
        return numbers
    if any(number > 1 for number in numbers):
        raise HeaderError(f"{cursor.path}: {what} is neither true nor false but {max(numbers)}")
    return [bool(number) for number in numbers]


def _alignment(values: Mapping[str, Any], path: Path) -> int:
    alignment = values.get(ALIGNMENT, 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise HeaderError(f"{path}: {ALIGNMENT} is {brief(alignment)}, which is no power of two")
    return alignment


def _infos(cursor: Cursor, count: int, alignment: int) -> Iterator[Info]:
    for _ in range(count):
        at = cursor.position
        name = cursor.text("a tensor's name")
        (rank,) = cursor.unpack(cursor.half)
        if rank > DIMENSIONS:
            raise LayoutError(f"{cursor.path}: tensor {brief(name)} at {at} has {rank} dimensions")
        *sides, number, offset = cursor.unpack(cursor.ranked[rank])
        if offset % alignment or max(sides, default=0) > _LARGEST:
            raise LayoutError(
                f"{cursor.path}: tensor {brief(name)} has the shape {sides[::-1]} and the offset "
                f"{offset}, which must be a multiple of {alignment}"
            )
        yield name, tuple(sides[::-1]), number, offset
