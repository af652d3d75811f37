"""What a node of an unpickled tree holds, and the way to a node."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from .nodes import Instance, Persistent

_SEARCHED = 10_000
_CONTAINERS = (dict, list, tuple, Instance, Persistent)


def path_to(root: Any, target: Instance) -> str:
    """The dotted way from `root` to `target`, or "" where it is not found among the first nodes."""
    ways: dict[int, tuple[int, Any]] = {id(root): (0, None)}
    queue = deque([root])
    while queue:
        node = queue.popleft()
        if node is target:
            return _joined(ways, id(root), id(node)) or "the root"
        for name, child in _parts(node):
            if type(child) in _CONTAINERS and id(child) not in ways and len(ways) < _SEARCHED:
                ways[id(child)] = id(node), name
                queue.append(child)
    return ""


def _joined(ways: dict[int, tuple[int, Any]], root: int, node: int) -> str:
    names: list[str] = []
    while node != root:
        node, name = ways[node]
        if name is not None:
            names.append(name if type(name) is str else repr(name))
    return ".".join(reversed(names))


def _parts(node: Any) -> Iterator[tuple[Any, Any]]:
    """Everything within a node; a name of None stands for a step that a reader would not see."""
    if type(node) is dict:
        yield from node.items()
    elif type(node) in (list, tuple):
        yield from enumerate(node)
    elif type(node) is Persistent:
        yield None, node.pid
    elif type(node) is Instance:
        yield from ((None, part) for part in (node.args, node.state, node.entries))
        yield from enumerate(node.items or ())
