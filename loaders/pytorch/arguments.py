"""The arguments of the calls that rebuild tensors: shapes, scales, element types, layouts."""

from __future__ import annotations

from typing import Any

from ..errors import ElementTypeError, LayoutError, PickleError, UnsupportedError
from ..pickles import globals as names
from ..pickles.nodes import Global, Instance
from ..strict_json import brief
from .sparse import LAYOUTS

_LARGEST = (1 << 63) - 1
_DIMENSIONS = 32


def unsized(value: Any) -> Any:
    """A tuple, whether or not `torch.Size` is called on it."""
    if type(value) is Instance and value.function == names.SIZE and len(value.args) == 1:
        value = value.args[0]
    return tuple(value) if type(value) is list else value


def numbers(value: Any, where: str) -> tuple[Any, ...]:
    """A shape or strides: at most 32 natural numbers."""
    found = unsized(value)
    if type(found) is Instance and found.function in names.JIT_LISTS and found.args:
        found = unsized(found.args[0])
    if type(found) is not tuple:
        raise LayoutError(f"{where}: {brief(value)} is no shape and no strides")
    if len(found) > _DIMENSIONS:
        raise LayoutError(f"{where}: {len(found)} axes")
    if any(type(side) is not int or not 0 <= side <= _LARGEST for side in found):
        raise LayoutError(f"{where}: {brief(found)} are not natural numbers")
    return found


def number(value: Any, where: str) -> float:
    """A scale or a zero point."""
    if type(value) not in (int, float):
        raise PickleError(f"{where}: {brief(value)} is no scale and no zero point")
    return float(value)


def torch_dtype(value: Any, where: str) -> str:
    """The name of an element type."""
    if type(value) is not Global or value.module != "torch":
        raise ElementTypeError(f"{where}: {brief(value)} is no element type")
    return value.name


def marks(metadata: Any, where: str) -> dict[str, bool]:
    """Whether the values are to be conjugated or negated."""
    if metadata is None:
        return {}
    if type(metadata) is not dict or not metadata.keys() <= {"conj", "neg"}:
        raise UnsupportedError(f"{where}: the metadata {brief(metadata)} are not read")
    return {name: value is True for name, value in metadata.items()}


def layout(node: Any, where: str) -> str:
    """The name of a sparse layout."""
    if type(node) is Instance and node.function == names.LAYOUT and len(node.args) == 1:
        node = node.args[0]
    name = str(node) if type(node) is Global else node
    if name not in LAYOUTS:
        raise UnsupportedError(f"{where}: the layout {brief(name)} is not read")
    return str(name)


def in_c_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the strides are those of consecutive elements, the last axis fastest."""
    steps, step = [], 1
    for side in reversed(shape):
        steps.append(step)
        step *= side
    return tuple(reversed(steps)) == strides
