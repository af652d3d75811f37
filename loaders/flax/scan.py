"""The structure of a msgpack file, scanned without its arrays.

The `msgpack` package copies every array into memory and hands it to Python as it goes; here the
keys and headers are read, and of an array no more than where its elements stand.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from wwfunc.dtypes import BY_NUMPY_NAME

from ..budget import Budget
from ..errors import ElementTypeError, HeaderError, LayoutError, TruncatedError
from ..files import require_file
from ..strict_json import brief

DIMENSIONS = 32
LONGEST_NAME = 4_096
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_UNREAD = {
    re.compile(r"(str|bytes)[0-9]{1,9}"): "text",
    re.compile(r"datetime64(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?"): "dates",
    re.compile(r"timedelta64(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?"): "spans of time",
    re.compile(r"longdouble|clongdouble|float(80|96|128)|complex(160|192|256)"): (
        "numbers of NumPy's longdouble"
    ),
}
"""What NumPy calls the element types that no weight is made of."""
_WINDOW = 1 << 14
_LARGEST = (1 << 63) - 1
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xCA + place: struct.Struct(">" + code) for place, code in enumerate("fdBHIQbhiq")}
_SIZED = {
    **{0xC4 + place: ("bytes", 1 << place) for place in range(3)},
    **{0xC7 + place: ("extension", 1 << place) for place in range(3)},
    **{0xD9 + place: ("text", 1 << place) for place in range(3)},
    **{0xDC + place: ("list", 2 << place) for place in range(2)},
    **{0xDE + place: ("dictionary", 2 << place) for place in range(2)},
}


class Payload(NamedTuple):
    """Where the elements of an array stand."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int


class Unread(NamedTuple):
    """Stands for an array of what is no number."""

    words: str


def scan(path: Path, budget: Budget) -> dict[str, Any]:
    """The one dictionary that the file holds: dictionaries, lists, numbers, texts, `Payload`s.

    Raises
    ------
    HeaderError, TruncatedError, LayoutError, ElementTypeError, BudgetError
        With the byte at which the file is not what Flax writes.
    """
    size = require_file(path)
    with open(path, "rb", buffering=0) as file:
        return _Scanner(path, file, size, budget).tree()


def _unread(name: str) -> str | None:
    return next((words for kind, words in _UNREAD.items() if kind.fullmatch(name)), None)


class _Open(NamedTuple):
    """A container of which `left` entries are still to come."""

    into: dict[str, Any] | list[Any]
    left: Iterator[int]


class _Scanner:
    """Reads the structure of the file and skips the elements of its arrays."""

    def __init__(self, path: Path, file: BinaryIO, size: int, budget: Budget) -> None:
        self._path, self._file, self._size, self._budget = path, file, size, budget
        self._base, self._at, self._window = 0, 0, b""
        self._structure = self._values = self._containers = 0

    def tree(self) -> dict[str, Any]:
        """The one dictionary that the file holds."""
        root = self._value()
        if type(root) is not _Open or type(root.into) is not dict:
            raise HeaderError(f"{self._path}: the file holds no dictionary but {brief(root)}")
        stack = [root]
        while stack:
            self._fill(stack)
        if self._position != self._size:
            self._refuse(f"{self._size - self._position:,} bytes follow the dictionary")
        return root.into

    def _fill(self, stack: list[_Open]) -> None:
        """Read entries of the innermost container until it is full or another one opens."""
        into, left = stack[-1]
        for _ in left:
            key = self._key(into) if isinstance(into, dict) else ""
            value = self._value()
            item = value.into if type(value) is _Open else value
            if isinstance(into, dict):
                into[key] = item
            else:
                into.append(item)
            if type(value) is _Open:
                stack.append(value)
                self._budget.check("nesting", len(stack), self._path)
                return
        stack.pop()

    def _key(self, known: dict[str, Any]) -> str:
        kind, length = self._token()
        if kind != "text":
            self._refuse(f"a key is no text but a {kind}")
        key = self._text(length)
        if key in known:
            self._refuse(f"the key {brief(key)} stands twice")
        return key

    def _value(self) -> Any:
        kind, value = self._token()
        if kind in ("dictionary", "list"):
            return self._container(kind, value)
        self._values = self._counted(self._values + 1)
        match kind:
            case "text":
                return self._text(value)
            case "bytes":
                return self._payload((value,), np.dtype(np.uint8), value)
            case "extension":
                return self._extension(value)
        return value

    def _container(self, kind: str, length: int) -> _Open:
        self._containers = self._counted(self._containers + 1)
        if length > self._size - self._position:
            self._cut(f"a {kind} of {length:,} entries")
        return _Open({} if kind == "dictionary" else [], iter(range(length)))

    def _extension(self, length: int) -> Any:
        code, end = self._take(1)[0], self._position + length
        if end > self._size:
            self._cut(f"an extension of {length:,} bytes")
        if code in (_ARRAY, _SCALAR):
            value: Any = self._array()
        elif code == _COMPLEX:
            value = self._complex()
        else:
            self._refuse(f"the extension {code} is none of Flax's")
        if self._position != end:
            self._refuse(f"an extension ends {self._position - end:+,} bytes from its end")
        return value

    def _array(self) -> Payload | Unread:
        """(shape, name of the element type, elements), again in msgpack."""
        self._expect("list", 3)
        shape = tuple(self._side() for _ in range(self._expect("list")))
        element = BY_NUMPY_NAME.get(name := self._name())
        if element is None and (words := _unread(name)):
            self._skip(self._expect("bytes"))
            return Unread(words)
        if element is None:
            raise ElementTypeError(
                f"{self._path}: byte {self._position:,}: the unknown element type {brief(name)}"
            )
        return self._payload(shape, element.dtype, self._expect("bytes"))

    def _payload(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> Payload:
        asked = math.prod(shape) * dtype.itemsize
        if math.prod(side for side in shape if side) * dtype.itemsize > _LARGEST or asked != nbytes:
            raise LayoutError(
                f"{self._path}: byte {self._position:,}: {dtype.name} of shape "
                f"{brief([*shape])} does not take {nbytes:,} bytes"
            )
        start = self._position
        self._skip(nbytes)
        return Payload(start, shape, dtype, nbytes)

    def _skip(self, nbytes: int) -> None:
        if self._position + nbytes > self._size:
            self._cut(f"{nbytes:,} bytes of elements")
        self._at += nbytes

    def _complex(self) -> complex:
        self._expect("list", 2)
        parts = [self._token() for _ in range(2)]
        if any(kind != "number" for kind, _ in parts):
            self._refuse("a complex number is no pair of numbers")
        return complex(parts[0][1], parts[1][1])

    def _side(self) -> int:
        kind, value = self._token()
        if kind != "number" or type(value) is not int or not 0 <= value <= _LARGEST:
            self._refuse(f"a shape holds {brief(value)}")
        return value

    def _name(self) -> str:
        kind, length = self._token()
        if kind != "text" or length > LONGEST_NAME:
            self._refuse("an array has no name of its element type")
        return self._text(length)

    def _expect(self, kind: str, length: int | None = None) -> int:
        found, value = self._token()
        longest = DIMENSIONS if kind == "list" else value
        if found != kind or value != (value if length is None else length) or value > longest:
            self._refuse(f"a {found} stands where Flax writes another {kind}")
        return value

    def _token(self) -> tuple[str, Any]:
        """What stands next: its kind, and its value or its length."""
        code = self._take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return "number", code if code < 0x80 else code - 0x100
        if code < 0xC0:
            fixed = code & (0x1F if code >= 0xA0 else 0x0F)
            return ("dictionary", "list", "text", "text")[(code >> 4) - 8], fixed
        if code in _CONSTANTS:
            return "constant", _CONSTANTS[code]
        if code in _NUMBERS:
            number = _NUMBERS[code]
            return "number", number.unpack(self._take(number.size))[0]
        if code in _SIZED:
            kind, width = _SIZED[code]
            return kind, int.from_bytes(self._take(width), "big")
        if code == 0xC1:
            self._refuse("the code 0xc1 means nothing in msgpack")
        return "extension", 1 << (code - 0xD4)

    def _text(self, length: int) -> str:
        if length > self._size - self._position:
            self._cut(f"a text of {length:,} bytes")
        raw = self._take(length)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(f"the text {brief(raw)} is not UTF-8")

    @property
    def _position(self) -> int:
        return self._base + self._at

    def _take(self, size: int) -> bytes:
        self._structure += size
        if self._structure > self._budget.header_bytes:
            self._budget.check("header_bytes", self._structure, self._path)
        if self._at + size > len(self._window):
            self._base, self._at = self._position, 0
            self._window = os.pread(self._file.fileno(), max(size, _WINDOW), self._base)
            if len(self._window) < size:
                self._cut(f"{size:,} bytes")
        self._at += size
        return self._window[self._at - size : self._at]

    def _counted(self, count: int) -> int:
        if count > self._budget.tensors:
            self._budget.check("tensors", count, self._path)
        return count

    def _cut(self, what: str) -> NoReturn:
        raise TruncatedError(
            f"{self._path}: {what} should follow byte {self._position:,}, "
            f"the file has {self._size:,}"
        )

    def _refuse(self, what: str) -> NoReturn:
        raise HeaderError(f"{self._path}: byte {self._position:,}: {what}")
