"""The tensors of an ONNX model: where their elements lie, in whichever of eight fields."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wwfunc.checkpoint import Handle
from wwfunc.dtypes import BY_NUMPY_NAME

from ..errors import ElementTypeError, LayoutError
from ..files import FileBytes, MappedTensor
from ..strided import Stored, StridedTensor
from .protobuf import varints

_LARGEST = (1 << 63) - 1
_PACKED = (2, 4)
_PORTION = 3 << 17  # whole bytes of 2, 4 and 6 bits


@dataclass(frozen=True, slots=True)
class Element:
    """An element type: its dtype in memory, its bits in a file."""

    dtype: np.dtype
    bits: int
    field: int
    """The field of `TensorProto` that may hold it instead of `raw_data`."""


FLOATS, INT32S, INT64S, RAW, DOUBLES, UINT64S = 4, 5, 7, 9, 10, 11
DATA_FIELDS = (FLOATS, INT32S, INT64S, RAW, DOUBLES, UINT64S)
STRING = 8


def _element(dtype: str, field: int, bits: int | None = None) -> Element:
    row = BY_NUMPY_NAME[dtype]
    return Element(row.dtype, bits or row.bits, field)


ELEMENTS: dict[int, Element] = {
    1: _element("float32", FLOATS),
    2: _element("uint8", INT32S),
    3: _element("int8", INT32S),
    4: _element("uint16", INT32S),
    5: _element("int16", INT32S),
    6: _element("int32", INT32S),
    7: _element("int64", INT64S),
    9: _element("bool", INT32S),
    10: _element("float16", INT32S),
    11: _element("float64", DOUBLES),
    12: _element("uint32", UINT64S),
    13: _element("uint64", UINT64S),
    14: _element("complex64", FLOATS),
    15: _element("complex128", DOUBLES),
    16: _element("bfloat16", INT32S),
    17: _element("float8_e4m3fn", INT32S),
    18: _element("float8_e4m3fnuz", INT32S),
    19: _element("float8_e5m2", INT32S),
    20: _element("float8_e5m2fnuz", INT32S),
    21: _element("uint4", INT32S),
    22: _element("int4", INT32S),
    23: _element("float4_e2m1fn", INT32S),
    24: _element("float8_e8m0fnu", INT32S),
    25: _element("uint8", INT32S, 2),
    26: _element("int8", INT32S, 2),
    27: _element("float6_e2m3fn", INT32S),
    28: _element("float6_e3m2fn", INT32S),
}
"""By the number that stands in the file."""


def element_of(number: int, where: str) -> Element:
    """The element type of a number, or `ElementTypeError`."""
    if number not in ELEMENTS:
        raise ElementTypeError(f"{where} has the unknown element type {number}")
    return ELEMENTS[number]


def stored_bytes(element: Element, shape: tuple[int, ...], where: str) -> int:
    """Bytes that a tensor takes in `raw_data`; the last may be filled in part."""
    if math.prod(side for side in shape if side) * element.bits > _LARGEST:
        raise LayoutError(f"{where}: shape {[*shape]} overflows")
    return -(-math.prod(shape) * element.bits // 8)


def varint_count(element: Element, shape: tuple[int, ...]) -> int:
    """Numbers that a tensor takes where they are varints: one an element, or one a packed byte."""
    if element.bits in _PACKED:
        return -(-math.prod(shape) * element.bits // 8)
    return math.prod(shape)


def from_raw(
    path: Path, name: str, place: tuple[int, int], shape: tuple[int, ...], element: Element
) -> Handle:
    """The handle of a tensor whose bytes lie from one place to another."""
    offset, nbytes = place[0], place[1] - place[0]
    if element.bits >= 8:
        return MappedTensor(path, name, offset, shape, element.dtype, nbytes)
    return BitTensor(FileBytes(path, offset, nbytes), name, shape, element.dtype, element.bits)


def from_varints(
    path: Path, name: str, place: tuple[int, int], shape: tuple[int, ...], element: Element
) -> Handle:
    """The handle of a tensor whose elements are varints of whole elements, or of packed bytes."""
    packed = element.bits in _PACKED
    dtype = np.dtype(np.uint8) if packed else element.dtype
    stored = VarintBytes(path, place[0], place[1] - place[0], varint_count(element, shape), dtype)
    if packed:
        return BitTensor(stored, name, shape, element.dtype, element.bits)
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return StridedTensor(stored, name, shape, element.dtype, 0, strides)


@dataclass(frozen=True, slots=True)
class VarintBytes:
    """Elements that are stored as varints; as bytes when they are read."""

    path: Path
    offset: int
    stored: int
    count: int
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    @property
    def key(self) -> Hashable:
        return self.path, self.offset

    def read(self, what: str) -> np.ndarray:
        where = f"{self.path}: {what}"
        packed = FileBytes(self.path, self.offset, self.stored).read(what)
        elements = np.empty(self.count, self._integers())
        end = 0
        for values in varints(packed, where):
            start, end = end, end + len(values)
            if end > self.count:
                break
            elements[start:end] = self._checked(values, where)
        if end != self.count:
            raise LayoutError(f"{where} does not have the {self.count} elements of its shape")
        elements.flags.writeable = False
        return elements.view(np.uint8)

    def _integers(self) -> np.dtype:
        """Floats are stored by their bits."""
        known = self.dtype.kind in "iu"
        return self.dtype if known else np.dtype(f"u{self.dtype.itemsize}")

    def _checked(self, values: np.ndarray, where: str) -> np.ndarray:
        target = np.iinfo(self._integers())
        bits = 1 if self.dtype.kind == "b" else BY_NUMPY_NAME[self.dtype.name].bits
        largest = min(int(target.max), (1 << bits) - 1)
        numbers = values if largest > _LARGEST else values.view(np.int64)
        if numbers.min() < target.min or numbers.max() > largest:
            raise LayoutError(f"{where} has a number that {self.dtype.name} cannot hold")
        return numbers


@dataclass(frozen=True, slots=True)
class BitTensor:
    """A tensor of elements of 2, 4 or 6 bits, the first in the lowest bits of the first byte."""

    stored: Stored
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    bits: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    @property
    def key(self) -> Hashable:
        return self.stored.key, self.shape, self.dtype.name, self.bits

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        packed = self.stored.read(f"tensor {self.name!r}")
        codes = np.empty(math.prod(self.shape), np.uint8)
        step = _PORTION // self.bits * 8
        for start in range(0, len(codes), step):
            part = codes[start : start + step]
            part[:] = self._unpacked(packed[start * self.bits // 8 :], len(part))
        codes.flags.writeable = False
        tensor = codes.view(self.dtype).reshape(self.shape)
        return tensor[rows] if self.shape else tensor

    def _unpacked(self, packed: np.ndarray, count: int) -> np.ndarray:
        octets = packed[: -(-count * self.bits // 8)]
        if 8 % self.bits:
            bits = np.unpackbits(octets, bitorder="little")[: count * self.bits]
            return np.packbits(bits.reshape(count, self.bits), axis=1, bitorder="little")[:, 0]
        places = np.arange(0, 8, self.bits, dtype=np.uint8)
        codes = (octets[:, None] >> places).ravel()[:count]
        codes &= (1 << self.bits) - 1
        if self.bits == 2 and self.dtype.kind == "i":  # NumPy has no 2 bits: the sign is spread
            return np.where(codes > 1, codes | 0xFC, codes)
        return codes
