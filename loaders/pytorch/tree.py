"""From the object that was saved to named tensors: which part of it is the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wwfunc.checkpoint import Checkpoint, Handle

from ..budget import Budget
from ..errors import PickleError
from ..pickles.globals import MAPPINGS
from ..pickles.nodes import Instance
from ..strict_json import brief
from .choice import Choice, choose, find
from .parts import Holdings, parts
from .rebuild import Tensors
from .tensors import Sources

_SURROGATES = re.compile("[\ud800-\udfff]")
_UNITS_PER_NAME = 16
_METADATA = 32
_LONGEST_VALUE = 200


def open_tree(
    root: Any,
    sources: Sources,
    path: Path,
    budget: Budget,
    key: str | None,
    stored: int,
    *,
    spent: int = 0,
) -> Checkpoint:
    """The checkpoint that the object `root` of a file of `stored` bytes is.

    `spent` is what the pickle has taken of `Budget.opcodes`: names of tensors count too.
    """
    tensors = Tensors(path.absolute(), sources, budget, stored)
    found, metadata = named_tensors(root, tensors, path, budget, key, spent=spent)
    return Checkpoint(found, metadata=metadata, source=str(path))


def named_tensors(
    root: Any,
    tensors: Tensors,
    path: Path,
    budget: Budget,
    key: str | None,
    *,
    spent: int = 0,
) -> tuple[dict[str, Handle], dict[str, str]]:
    """The tensors of the model within `root` by name, and what the file says beside them.

    Raises
    ------
    loaders.errors.PickleError, AmbiguousError, BudgetError
        If there is no tensor, if several parts could be the model, if names collide.
    """
    holdings = Holdings(root, tensors, path, budget)
    choice = choose(find(root, key, holdings, path), holdings, path, key)
    count = holdings.count(choice.node)
    budget.check("tensors", count, path)
    budget.check("opcodes", spent + _UNITS_PER_NAME * count, path)
    found: dict[str, Handle] = {}
    length = 0
    for name, node in _walk(choice, holdings):
        if name in found:
            raise PickleError(f"{path}: two tensors have the name {brief(name)}")
        if not _is_text(name):
            raise PickleError(f"{path}: the name {brief(name)} is no text: half a surrogate pair")
        length += len(name)
        budget.check("header_bytes", length, path)
        found[name] = tensors.handle(node, name)
    return found, _metadata(choice)


def _walk(choice: Choice, holdings: Holdings) -> Iterator[tuple[str, Any]]:
    """The tensors of the chosen part, each with the names on its way joined by dots."""
    if holdings.is_tensor(choice.node):
        yield "tensor", choice.node
        return
    top = ((n, c) for n, c in holdings.children(choice.node) if n not in choice.skipped)
    stack: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", top)]
    while stack:
        prefix, rest = stack[-1]
        name, child = next(rest, (None, None))
        if name is None:
            stack.pop()
        elif holdings.is_tensor(child):
            yield prefix + name, child
        else:
            stack.append((f"{prefix}{name}.", holdings.children(child)))


def _metadata(choice: Choice) -> dict[str, str]:
    """The short scalars on the way to the model, and what else the file holds."""
    found: dict[str, str] = {}
    for node in choice.trail:
        for key, value in parts(node) if _is_mapping(node) else ():
            if len(found) < _METADATA and _is_short(value) and type(key) is str and _is_text(key):
                found.setdefault(key[:_LONGEST_VALUE], str(value))
    if choice.left_out:
        left_out = (f"{name} ({count:,} tensors)" for name, count in choice.left_out[:_METADATA])
        found["left_out"] = ", ".join(left_out)[: 10 * _LONGEST_VALUE]
    return found


def _is_mapping(node: Any) -> bool:
    return type(node) is dict or (type(node) is Instance and node.function in MAPPINGS)


def _is_text(name: str) -> bool:
    return name.isascii() or not _SURROGATES.search(name)


def _is_short(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= _LONGEST_VALUE and _is_text(value)
    if type(value) is int:
        return value.bit_length() <= _LONGEST_VALUE
    return type(value) in (float, bool)
