"""Flax's msgpack files: nested dictionaries whose leaves are arrays in extensions of msgpack.

What is read of a file are its keys and headers; its arrays are mapped when they are read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wwfunc.checkpoint import ArrayHandle, Checkpoint, Handle

from ..budget import Budget
from ..errors import ElementTypeError, HeaderError, LayoutError
from ..files import MappedTensor
from ..strict_json import brief
from .chunked import ChunkedTensor
from .scan import DIMENSIONS, LONGEST_NAME, Payload, Unread, scan

_CHUNKED = "__msgpack_chunked_array__"


def load_flax_msgpack(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open a file that Flax wrote with `to_bytes` or `msgpack_serialize`.

    A tensor is named by the keys that lead to it, joined with dots; places in a list count as
    keys. Where keys with dots in them give several the same name, these are joined with slashes.
    Numbers are tensors without axes, texts are metadata, and None is nothing, as in JAX; arrays of
    text, dates or NumPy's longdouble beside others are named in the metadata.

    Raises
    ------
    HeaderError
        If the file is not one msgpack dictionary with text keys, or if two tensors share a name.
    TruncatedError, LayoutError, ElementTypeError
        If an array is cut off, does not have the size of its shape, or is of an unknown type.
    BudgetError
        If the structure is too large or too deep, or the tensors are too many.
    """
    path, budget = Path(path).absolute(), budget or Budget()
    tensors: dict[str, Handle] = {}
    texts: dict[str, str] = {}
    unread: dict[str, str] = {}
    for name, value in _unique(scan(path, budget), path, budget).items():
        if type(value) is Unread:
            unread[name] = value.words
        elif type(value) is str:
            texts[name] = value
        elif value is not None:
            tensors[name] = _tensor(name, value, path)
    if unread and not tensors:
        name, words = next(iter(unread.items()))
        raise ElementTypeError(f"{path}: array {brief(name)} holds {words}, which are not read")
    texts |= {name: f"an array of {words}, which is not read" for name, words in unread.items()}
    return Checkpoint(tensors, metadata=texts, source=str(path))


def _unique(tree: dict[str, Any], path: Path, budget: Budget) -> dict[str, Any]:
    """The leaves by their names; HeaderError where slashes cannot keep two apart either."""
    leaves = list(_named(tree, path, budget))
    count = Counter(name for name, _ in leaves)
    if len(count) < len(leaves):
        slashed = _named(tree, path, budget, "/")
        leaves = [
            (name if count[name] == 1 else other, value)
            for (name, value), (other, _) in zip(leaves, slashed, strict=True)
        ]
    found: dict[str, Any] = {}
    for name, value in leaves:
        if name in found:
            raise HeaderError(f"{path}: two values are named {brief(name)}")
        found[name] = value
    return found


def _named(
    tree: dict[str, Any], path: Path, budget: Budget, mark: str = "."
) -> Iterator[tuple[str, Any]]:
    """The leaves with their names: the keys that lead to them, with a mark between them."""
    stack, spent = [("", iter(tree.items()))], 0
    while stack:
        prefix, items = stack[-1]
        key, value = next(items, (None, None))
        if key is None:
            stack.pop()
            continue
        name = prefix + key
        spent += len(name)
        budget.check("index_bytes", spent, path)
        if len(name) > LONGEST_NAME:
            raise HeaderError(f"{path}: a name of {len(name):,} characters: {brief(name)}")
        if type(value) is list:
            value = {str(place): item for place, item in enumerate(value)}
        if type(value) is dict and _CHUNKED not in value:
            stack.append((name + mark, iter(value.items())))
        else:
            yield name, value


def _tensor(name: str, value: Any, path: Path) -> Handle:
    if type(value) is dict:
        return _joined(name, value, path)
    if type(value) is Payload:
        return _mapped(name, value, path)
    return ArrayHandle(np.asarray(value))


def _mapped(name: str, payload: Payload, path: Path) -> MappedTensor:
    offset, shape, dtype, nbytes = payload
    return MappedTensor(path, name, offset, shape, dtype, nbytes)


def _joined(name: str, parts: dict[str, Any], path: Path) -> ChunkedTensor:
    """An array of more than a gigabyte, which Flax cuts into flat pieces."""
    where = f"{path}: the chunked array {brief(name)}"
    shape = _sequence(parts.get("shape"), int, where)
    pieces = _sequence(parts.get("chunks"), Payload, where)
    if parts[_CHUNKED] is not True or len(parts) != 3 or not pieces:
        raise HeaderError(f"{where} is not made of a shape and chunks")
    dtype, elements = pieces[0].dtype, sum(piece.shape[0] for piece in pieces if piece.shape)
    if any(piece.dtype != dtype or len(piece.shape) != 1 for piece in pieces):
        raise LayoutError(f"{where} has chunks of several types or with several axes")
    if len(shape) > DIMENSIONS or min(shape, default=0) < 0 or math.prod(shape) != elements:
        raise LayoutError(f"{where}: {elements:,} elements do not fill shape {brief([*shape])}")
    return ChunkedTensor(tuple(_mapped(name, piece, path) for piece in pieces), shape, dtype)


def _sequence(places: Any, kind: type, where: str) -> tuple[Any, ...]:
    """The values of {"0": ..., "1": ...}, which is how Flax writes a tuple."""
    good = (
        type(places) is dict
        and list(places) == [str(place) for place in range(len(places))]
        and all(type(item) is kind for item in places.values())
    )
    if not good:
        raise HeaderError(f"{where} is not made of a shape and chunks")
    return tuple(places.values())
