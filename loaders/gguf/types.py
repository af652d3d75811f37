"""The element types of GGUF, and tensors that are stored in blocks of quantised numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wwfunc.dtypes import BY_NUMPY_NAME
from wwfunc.errors import MissingExtraError

from ..errors import ElementTypeError, LayoutError, UnsupportedError
from ..files import FileBytes, MappedTensor

_LARGEST = (1 << 63) - 1
_FLOAT = np.dtype(np.float32)
_PORTION = 1 << 20


@dataclass(frozen=True, slots=True)
class BlockType:
    """Elements that are stored together, `nbytes` for each block of `elements`."""

    name: str
    elements: int
    nbytes: int
    dtype: np.dtype | None = None
    """None where the block has to be decoded."""


def _plain(name: str, dtype: str) -> BlockType:
    element = BY_NUMPY_NAME[dtype]
    return BlockType(name, 1, element.bits // 8, element.dtype)


TYPES: dict[int, BlockType] = {
    0: _plain("F32", "float32"),
    1: _plain("F16", "float16"),
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    10: BlockType("Q2_K", 256, 84),
    11: BlockType("Q3_K", 256, 110),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    16: BlockType("IQ2_XXS", 256, 66),
    17: BlockType("IQ2_XS", 256, 74),
    18: BlockType("IQ3_XXS", 256, 98),
    19: BlockType("IQ1_S", 256, 50),
    20: BlockType("IQ4_NL", 32, 18),
    21: BlockType("IQ3_S", 256, 110),
    22: BlockType("IQ2_S", 256, 82),
    23: BlockType("IQ4_XS", 256, 136),
    24: _plain("I8", "int8"),
    25: _plain("I16", "int16"),
    26: _plain("I32", "int32"),
    27: _plain("I64", "int64"),
    28: _plain("F64", "float64"),
    29: BlockType("IQ1_M", 256, 56),
    30: _plain("BF16", "bfloat16"),
    34: BlockType("TQ1_0", 256, 54),
    35: BlockType("TQ2_0", 256, 66),
    39: BlockType("MXFP4", 32, 17),
    40: BlockType("NVFP4", 64, 36),
}
"""By the number that stands in the file."""

_REFUSED = {
    9: "Q8_1, which holds results of a computation and no weights",
    15: "Q8_K, which holds results of a computation and no weights",
    41: "Q1_0, for which there is no decoder",
    **dict.fromkeys((4, 5, 31, 32, 33, 36, 37, 38), "one that ggml has removed"),
}


def block_type(number: int, where: str) -> BlockType:
    """The element type of a number, or `ElementTypeError`."""
    found = TYPES.get(number)
    if found is None:
        what = _REFUSED.get(number, "unknown")
        raise ElementTypeError(f"{where} has the element type {number}: {what}")
    return found


def stored_bytes(block: BlockType, shape: tuple[int, ...], where: str) -> int:
    """Bytes that a tensor takes; `LayoutError` where its rows are no whole blocks."""
    if math.prod(side for side in shape if side) * block.nbytes > _LARGEST:
        raise LayoutError(f"{where}: shape {[*shape]} overflows")
    row = shape[-1] if shape else 1
    if row % block.elements:
        raise LayoutError(
            f"{where}: rows of {row} elements are no whole {block.name} blocks of {block.elements}"
        )
    return math.prod(shape) // block.elements * block.nbytes


@dataclass(frozen=True, slots=True)
class SwappedTensor:
    """A tensor of a big-endian file, in the machine's own order when it is read."""

    stored: MappedTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype:
        return self.stored.dtype

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes

    @property
    def key(self) -> Hashable:
        return self.stored.key

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        part = self.stored.read(rows)
        # ml_dtypes has no byte orders: the bytes are turned round as integers.
        turned = part.view(np.dtype(f"u{self.dtype.itemsize}")).byteswap().view(self.dtype)
        turned.flags.writeable = False
        return turned


@dataclass(frozen=True, slots=True)
class QuantisedTensor:
    """A tensor in blocks of quantised numbers; the rows that are read become float32."""

    path: Path
    name: str
    offset: int
    shape: tuple[int, ...]
    number: int
    """Its element type, a key of `TYPES`."""

    @property
    def dtype(self) -> np.dtype:
        return _FLOAT

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _FLOAT.itemsize

    @property
    def key(self) -> Hashable:
        return self.path, self.offset, self.shape, self.number

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        if len(self.shape) == 1:  # one row of blocks
            return self._decoded(self._blocks()[None])[0][rows]
        return self._decoded(self._blocks()[rows])

    def _blocks(self) -> np.ndarray:
        """The bytes of the tensor, with those of a row along its last axis."""
        block = TYPES[self.number]
        row = self.shape[-1] // block.elements * block.nbytes
        shape = (*self.shape[:-1], row)
        stored = FileBytes(self.path, self.offset, math.prod(shape))
        return stored.read(f"tensor {self.name!r}").reshape(shape)

    def _decoded(self, blocks: np.ndarray) -> np.ndarray:
        decoded = np.empty((*blocks.shape[:-1], self.shape[-1]), _FLOAT)
        if decoded.size:
            packed = blocks.reshape(-1, TYPES[self.number].nbytes)
            _decode(packed, decoded.reshape(len(packed), -1), self)
        decoded.flags.writeable = False
        return decoded


def _decode(packed: np.ndarray, decoded: np.ndarray, tensor: QuantisedTensor) -> None:
    """Fill `decoded` by portions: the decoders take several times the memory of their result."""
    name = TYPES[tensor.number].name
    where = f"{tensor.path}: tensor {tensor.name!r} is quantised as {name}"
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise MissingExtraError(f"{where}; to read it, pip install 'wwfunc[gguf]'") from None
    if tensor.number not in set(GGMLQuantizationType):
        raise UnsupportedError(f"{where}, which the installed gguf package is too old to decode")
    step = max(1, _PORTION // decoded.shape[1])
    with np.errstate(all="ignore"):  # a block may well hold a scale that is infinite
        for start in range(0, len(packed), step):
            part = slice(start, start + step)
            decoded[part] = dequantize(packed[part], GGMLQuantizationType(tensor.number))
