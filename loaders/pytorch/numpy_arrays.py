"""NumPy arrays in a pickle: the state of `ndarray` and `dtype`, read and never set."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from wwfunc.dtypes import BY_NUMPY_NAME

from ..errors import ElementTypeError, LayoutError, PickleError
from ..pickles.byte_strings import bytes_of
from ..pickles.nodes import Blob, Global, Instance
from ..strict_json import brief
from ..strided import Stored, StridedTensor, check_view
from .globals import ARRAY_BUFFERS, ARRAYS, DTYPE, SIZE

_NUMERIC = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_DIMENSIONS = 32
_BUILT = 5  # version, shape, dtype, Fortran order, bytes
_BUFFERED = 4  # bytes, dtype, shape, order


@dataclass(frozen=True, slots=True)
class PickledArray:
    """What the pickle says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    octets: bytes | Blob


def is_array(node: Instance) -> bool:
    """Whether a node is a NumPy array of numbers; others hold no weights."""
    if not node.called or node.function not in ARRAYS | ARRAY_BUFFERS:
        return False
    return _dtype(_parts(node)[1]) is not None


def pickled_array(node: Instance, where: str) -> PickledArray:
    """The array that a node stands for, or a typed error."""
    shape, element, fortran, octets = _parts(node)
    dtype, octets = _dtype(element), bytes_of(octets)
    if dtype is None:
        raise ElementTypeError(f"{where}: a NumPy array of {brief(element)}, which is not read")
    if type(shape) is not tuple or octets is None or type(fortran) is not bool:
        raise PickleError(f"{where}: the state of a NumPy array is not that of one")
    return PickledArray(shape, dtype, fortran, octets)


def array_tensor(array: PickledArray, stored: Stored, name: str, where: str) -> StridedTensor:
    """The array as a view of its bytes, which it fills."""
    strides = _strides(array.shape, array.fortran, where)
    if math.prod(array.shape) * array.dtype.itemsize != stored.nbytes:
        raise LayoutError(
            f"{where}: {array.dtype.name} of shape {[*array.shape]} does not take "
            f"{stored.nbytes} bytes"
        )
    elements = stored.nbytes // array.dtype.itemsize
    check_view(array.shape, strides, 0, elements, where)
    return StridedTensor(stored, name, array.shape, array.dtype, 0, strides)


def _parts(node: Instance) -> tuple[Any, Any, Any, Any]:
    """Shape, dtype, whether in Fortran order, bytes; Nones where the node is no array."""
    if node.function in ARRAYS:
        state = node.state if type(node.state) is tuple else ()
        return state[1:] if len(state) == _BUILT else (None,) * 4
    if len(node.args) != _BUFFERED:
        return None, None, None, None
    octets, dtype, shape, order = node.args
    return _plain(shape), dtype, order == "F", octets


def _plain(shape: Any) -> Any:
    if type(shape) is Instance and shape.function == SIZE and len(shape.args) == 1:
        return shape.args[0]
    return shape


def _dtype(node: Any) -> np.dtype | None:
    """A dtype of the fixed list, with its byte order."""
    if type(node) is not Instance or node.function != DTYPE or not node.args:
        return None
    kind, state = node.args[0], node.state if type(node.state) is tuple else ()
    if type(kind) is Global and kind.module == "ml_dtypes" and kind.name in BY_NUMPY_NAME:
        return BY_NUMPY_NAME[kind.name].dtype
    if type(kind) is not str or not _NUMERIC.fullmatch(kind):
        return None
    order = state[1] if len(state) > 1 else "|"
    return np.dtype((">" if order == ">" else "<") + kind)


def _strides(shape: tuple[int, ...], fortran: bool, where: str) -> tuple[int, ...]:
    if len(shape) > _DIMENSIONS or not all(type(side) is int and side >= 0 for side in shape):
        raise LayoutError(f"{where}: the shape {brief(shape)} is not of natural numbers")
    steps = [1]
    for side in shape[:-1] if fortran else shape[:0:-1]:
        steps.append(min(steps[-1] * max(side, 1), 1 << 63))
    steps = steps[: len(shape)]
    return tuple(steps if fortran else reversed(steps))
