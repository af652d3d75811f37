"""Element types and shapes, as HDF5 spells them out bit by bit."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ..errors import ElementTypeError, HeaderError, LayoutError, UnsupportedError
from ..strict_json import brief
from .source import Cursor

INTEGER, FLOAT, STRING, OPAQUE, ENUM, VARIABLE = 0, 1, 3, 5, 8, 9
_NAMES = {
    2: "times",
    3: "text",
    4: "bit fields",
    5: "opaque bytes",
    6: "records (a compound type)",
    7: "references",
    9: "sequences of variable length",
    10: "arrays",
    11: "complex numbers",
}
_HEAD = struct.Struct("<BHBI")  # class and version; 24 bits; size
_INTEGER = struct.Struct("<HH")
_FLOAT = struct.Struct("<HH4BI")
_SIDES, _LARGEST = 32, (1 << 63) - 1

_BOOLEAN = {"FALSE": 0, "TRUE": 1}

# offset, precision, exponent at, its bits, mantissa at, its bits, bias, sign at
_FLOATS: dict[tuple[int, ...], np.dtype] = {
    (0, 16, 10, 5, 0, 10, 15, 15): np.dtype(np.float16),
    (0, 32, 23, 8, 0, 23, 127, 31): np.dtype(np.float32),
    (0, 64, 52, 11, 0, 52, 1023, 63): np.dtype(np.float64),
    (0, 16, 7, 8, 0, 7, 127, 15): np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Datatype:
    """The class of a type, its size, and the bits and properties that say the rest."""

    kind: int
    version: int
    bits: int
    size: int
    rest: bytes

    @property
    def is_text(self) -> bool:
        return self.kind == STRING or (self.kind == VARIABLE and self.bits & 0xF == 1)


def read_datatype(cursor: Cursor) -> Datatype:
    """The type that a message describes, with all that follows of the message."""
    first, low, high, size = cursor.unpack(_HEAD)
    rest = cursor.data[cursor.at :]
    return Datatype(first & 0xF, first >> 4, low | high << 16, size, rest)


def element_type(found: Datatype, where: str) -> np.dtype:
    """NumPy's name of a type, with its byte order; opaque bytes are void.

    Raises
    ------
    ElementTypeError
        If the elements are no numbers, or numbers of a layout that is none of IEEE 754.
    """
    if found.kind == INTEGER:
        return _integer(found, where)
    if found.kind == FLOAT:
        return _float(found, where)
    if found.kind == ENUM:
        return _boolean(found, where)
    if found.kind == OPAQUE and 0 < found.size <= 16:
        return np.dtype((np.void, found.size))
    words = _NAMES.get(found.kind, f"elements of the unknown class {found.kind}")
    raise ElementTypeError(f"{where} holds {words}, which are no numbers")


def _integer(found: Datatype, where: str) -> np.dtype:
    offset, precision = Cursor(found.rest, where).unpack(_INTEGER)
    if found.size not in (1, 2, 4, 8) or (offset, precision) != (0, 8 * found.size):
        raise ElementTypeError(
            f"{where} holds integers of {precision} bits in {found.size} bytes, which are not read"
        )
    sign = "i" if found.bits & 0x08 else "u"
    return np.dtype(f"{'>' if found.bits & 1 else '<'}{sign}{found.size}")


def _float(found: Datatype, where: str) -> np.dtype:
    numbers = Cursor(found.rest, where).unpack(_FLOAT)
    layout = (*numbers, found.bits >> 8 & 0xFF)
    dtype = _FLOATS.get(layout)
    hidden_bit = found.bits >> 4 & 3 == 2
    if dtype is None or dtype.itemsize != found.size or not hidden_bit or found.bits & 0x40:
        raise ElementTypeError(
            f"{where} holds floats of {numbers[3]} exponent and {numbers[5]} mantissa bits in "
            f"{found.size} bytes, which are not read"
        )
    return dtype.newbyteorder(">" if found.bits & 1 else "<")


def _boolean(found: Datatype, where: str) -> np.dtype:
    """h5py writes booleans as an enumeration of bytes, FALSE = 0 and TRUE = 1."""
    if found.bits & 0xFFFF == len(_BOOLEAN):
        cursor = Cursor(found.rest, where)
        base = read_datatype(cursor)
        cursor.take(_INTEGER.size)
        names = [_member(cursor, padded=found.version < 3) for _ in _BOOLEAN]
        is_byte = base.kind == INTEGER and base.size == found.size == 1
        if is_byte and dict(zip(names, cursor.take(2), strict=True)) == _BOOLEAN:
            return np.dtype(np.bool_)
    raise ElementTypeError(f"{where} holds an enumeration, which is no number")


def _member(cursor: Cursor, *, padded: bool) -> str:
    end = cursor.data.find(b"\0", cursor.at)
    length = max(0, end - cursor.at) + 1
    name = cursor.text(length)
    if padded:
        cursor.take(-length % 8)
    return name


def read_shape(cursor: Cursor) -> tuple[int, ...]:
    """The sides that a dataspace message describes."""
    version, rank, _ = cursor.take(3)
    if version == 1:
        cursor.take(5)
    elif version != 2:
        raise HeaderError(f"{cursor.where} has the unknown dataspace version {version}")
    elif cursor.number(1) == 2:
        raise UnsupportedError(f"{cursor.where} has no data (a null dataspace)")
    if rank > _SIDES:
        raise LayoutError(f"{cursor.where} has {rank} dimensions")
    return tuple(cursor.number(8) for _ in range(rank))


def checked_nbytes(shape: tuple[int, ...], itemsize: int, where: str) -> int:
    """Bytes of a tensor; LayoutError where they, or those of its other sides, overflow."""
    if math.prod(side for side in shape if side) * itemsize > _LARGEST:
        raise LayoutError(f"{where}: shape {brief([*shape])} overflows")
    return math.prod(shape) * itemsize
