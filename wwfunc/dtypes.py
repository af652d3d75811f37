"""The one table of tensor element types: what formats call them, what NumPy calls them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ElementType:
    """One element type: its safetensors and PyTorch names, its NumPy dtype, its stored width."""

    safetensors: str
    torch: str
    dtype: np.dtype
    bits: int

    def stored_bytes(self, shape: tuple[int, ...]) -> int | None:
        """Bytes that `shape` takes on disk, or None where it does not fill whole bytes."""
        bits = math.prod(shape) * self.bits
        return None if bits % 8 else bits // 8


def _row(safetensors: str, torch: str, scalar: npt.DTypeLike, bits: int) -> ElementType:
    return ElementType(safetensors, torch, np.dtype(scalar).newbyteorder("<"), bits)


ELEMENT_TYPES = (
    _row("BOOL", "bool", np.bool_, 8),
    _row("U8", "uint8", np.uint8, 8),
    _row("I8", "int8", np.int8, 8),
    _row("U16", "uint16", np.uint16, 16),
    _row("I16", "int16", np.int16, 16),
    _row("U32", "uint32", np.uint32, 32),
    _row("I32", "int32", np.int32, 32),
    _row("U64", "uint64", np.uint64, 64),
    _row("I64", "int64", np.int64, 64),
    _row("F4", "float4_e2m1fn_x2", ml_dtypes.float4_e2m1fn, 4),
    _row("F6_E2M3", "", ml_dtypes.float6_e2m3fn, 6),
    _row("F6_E3M2", "", ml_dtypes.float6_e3m2fn, 6),
    _row("F8_E4M3", "float8_e4m3fn", ml_dtypes.float8_e4m3fn, 8),
    _row("F8_E5M2", "float8_e5m2", ml_dtypes.float8_e5m2, 8),
    _row("F8_E8M0", "float8_e8m0fnu", ml_dtypes.float8_e8m0fnu, 8),
    _row("F8_E4M3FNUZ", "float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8),
    _row("F8_E5M2FNUZ", "float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8),
    _row("F16", "float16", np.float16, 16),
    _row("BF16", "bfloat16", ml_dtypes.bfloat16, 16),
    _row("F32", "float32", np.float32, 32),
    _row("F64", "float64", np.float64, 64),
    _row("C64", "complex64", np.complex64, 64),
    _row("", "complex128", np.complex128, 128),
    _row("", "", ml_dtypes.int4, 4),
    _row("", "", ml_dtypes.uint4, 4),
    _row("", "", ml_dtypes.float8_e3m4, 8),
    _row("", "", ml_dtypes.float8_e4m3, 8),
    _row("", "", ml_dtypes.float8_e4m3b11fnuz, 8),
)

BY_SAFETENSORS_NAME = {row.safetensors: row for row in ELEMENT_TYPES if row.safetensors}
BY_TORCH_NAME = {row.torch: row for row in ELEMENT_TYPES if row.torch}
BY_NUMPY_NAME = {row.dtype.name: row for row in ELEMENT_TYPES}


def is_real_float(dtype: np.dtype) -> bool:
    """Whether `dtype` holds real floating-point numbers, those of ml_dtypes included."""
    if dtype.kind not in "fV":
        return False
    try:
        return bool(ml_dtypes.finfo(dtype))
    except ValueError:  # a void or structured dtype
        return False


def is_narrow_float(dtype: np.dtype) -> bool:
    """Whether `dtype` is a float of at most 8 bits, as quantised checkpoints store."""
    return is_real_float(dtype) and dtype.itemsize == 1
