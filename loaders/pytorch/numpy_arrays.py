"""NumPy arrays in a pickle: the state of `ndarray` and `dtype`, read and never set."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from wwfunc.dtypes import BY_NUMPY_NAME

from ..errors import ElementTypeError, LayoutError, PickleError
from ..pickles.globals import ARRAY_BUFFERS, ARRAYS, DTYPE, JAX_ARRAYS, SIZE
from ..pickles.nodes import Global, Instance
from ..strict_json import brief
from ..strided import Stored, StridedTensor, check_view

_NUMERIC = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_DIMENSIONS = 32
_BUILT = 5  # version, shape, dtype, Fortran order, bytes
_BUFFERED = (4, 5)  # bytes, dtype, shape, order, and how the axes are permuted
_JAX = 4  # NumPy's function, its arguments, the state, what JAX adds
_NO_NUMBERS = re.compile(r"O8?|[SUa]\d*|[mM]8?(\[.*\])?")


@dataclass(frozen=True, slots=True)
class PickledArray:
    """What the pickle says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    octets: Any
    """What stands for its bytes."""
    axes: tuple[int, ...] | None = None
    """Which axis of the bytes, which are in C order then, becomes which of its own."""


def is_array(node: Instance) -> bool:
    """Whether a node is an array of NumPy or JAX; those of texts and objects hold no weights."""
    if not node.called:
        return False
    if node.function in JAX_ARRAYS:
        return True
    if node.function not in ARRAYS | ARRAY_BUFFERS:
        return False
    element = _parts(node)[1]
    named = type(element) is Instance and element.function == DTYPE and element.args
    kind = element.args[0] if named else None
    return type(kind) is not str or not _NO_NUMBERS.fullmatch(kind)


def pickled_array(node: Instance, where: str) -> PickledArray:
    """The array that a node stands for, or a typed error."""
    if node.function in JAX_ARRAYS:
        node = _of_numpy(node, where)
    shape, element, order, octets, axes = _parts(node)
    dtype = _dtype(element)
    if dtype is None:
        shown = element.args[0] if type(element) is Instance and element.args else element
        raise ElementTypeError(f"{where}: a NumPy array of {brief(shown)}, which is not read")
    known = order in ("C", "F") if axes is None else order == "K" and _permutes(axes, shape)
    if type(shape) is not tuple or not known:
        raise PickleError(f"{where}: the state of a NumPy array is not that of one")
    return PickledArray(shape, dtype, order == "F", octets, axes)


def _of_numpy(node: Instance, where: str) -> Instance:
    """NumPy's part of an array of JAX."""
    function, args, state = node.args[:3] if len(node.args) == _JAX else (None, None, None)
    if type(function) is not Global or function not in ARRAYS or type(args) is not tuple:
        raise PickleError(f"{where}: {brief(function)} makes no NumPy array")
    return Instance(function, args, node.at, True, state=state)


def _permutes(axes: Any, shape: Any) -> bool:
    if type(axes) is not tuple or type(shape) is not tuple or len(axes) > _DIMENSIONS:
        return False
    return all(type(axis) is int for axis in axes) and sorted(axes) == [*range(len(shape))]


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
    axes = range(len(strides)) if array.axes is None else array.axes
    shape, strides = (tuple(sides[axis] for axis in axes) for sides in (array.shape, strides))
    return StridedTensor(stored, name, shape, array.dtype, 0, strides)


def _parts(node: Instance) -> tuple[Any, Any, Any, Any, Any]:
    """Shape, dtype, order, bytes, order of axes; Nones where the node is no array."""
    if node.function in ARRAYS:
        state = node.state if type(node.state) is tuple else ()
        if len(state) != _BUILT:
            return (None,) * 5
        _, shape, dtype, fortran, octets = state
        order = ("F" if fortran else "C") if type(fortran) is bool else None
        return shape, dtype, order, octets, None
    if len(node.args) not in _BUFFERED:
        return (None,) * 5
    octets, dtype, shape, order, *axes = node.args
    return _plain(shape), dtype, order, octets, axes[0] if axes else None


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
