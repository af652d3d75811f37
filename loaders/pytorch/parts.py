"""What an unpickled object is made of, and how many tensors stand in each part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..budget import Budget
from ..errors import PickleError
from ..pickles.globals import JIT_LISTS, MAPPINGS, PACKED, SEQUENCES, TYPE_TAG
from ..pickles.nodes import Global, Instance, TupleKey
from ..strict_json import brief
from .rebuild import Tensors

_SCALARS = frozenset((str, int, float, bool, bytes, type(None), Global))
_PLAIN = frozenset((dict, list, tuple))
_SMALL = 16
_TAGS = 8
_SLOTS = 2
_NAMED = 3  # what a look costs that makes a name


class Holdings:
    """The number of tensors within each part of `root`.

    A part that stands in two places counts twice, since its tensors get two names. A part within
    itself is left out where it closes the circle.
    """

    def __init__(self, root: Any, tensors: Tensors, path: Path, budget: Budget) -> None:
        self._tensors, self._path, self._budget = tensors, path, budget
        self._counts: dict[int, int] = {}
        self._kept: dict[int, list[tuple[Any, Any]]] = {}
        self._visited = 0
        self._circles: set[tuple[int, int]] = set()
        self._alive = root  # the counts are by identity
        if not self.is_tensor(root) and not _bare(root):
            self._count(root)

    def is_tensor(self, node: Any) -> bool:
        """Whether a part is a tensor itself."""
        return self._tensors.is_tensor(node)

    def rank(self, node: Any) -> int:
        """How many axes a tensor has, as far as can be told before it is looked up."""
        return self._tensors.rank(node)

    def count(self, node: Any) -> int:
        """The tensors in a part, itself included."""
        return 1 if self.is_tensor(node) else self._counts.get(id(node), 0)

    def children(self, node: Any) -> Iterator[tuple[str, Any]]:
        """The parts of a node that hold tensors, by name."""
        self._visit(_NAMED)
        for key, child in self._with_tensors(node):
            yield self._text(key), child

    def _visit(self, cost: int = 1) -> None:
        """Count a look at a part: its opcodes paid for one, but thousands may share it."""
        self._visited += cost
        if self._visited > self._budget.opcodes:
            self._budget.check("opcodes", self._visited, self._path)

    def _with_tensors(self, node: Any) -> list[tuple[Any, Any]]:
        """Found once for each node: thousands of references may share a part of a million."""
        kept = self._kept.get(id(node))
        if kept is None:
            kept = self._kept[id(node)] = [
                (key, child)
                for key, child in parts(node)
                if self.count(child) and (id(node), id(child)) not in self._circles
            ]
        return kept

    def _text(self, key: Any) -> str:
        if type(key) in (str, int):
            return str(key)
        shown = key.items if type(key) is TupleKey else key
        raise PickleError(f"{self._path}: tensors stand under the key {brief(shown)}, no name")

    def _count(self, root: Any) -> None:
        """Depth first, on a stack of its own: a stranger's tree may be deeper than Python's."""
        limit = self._budget.tensors + 1
        open_nodes = {id(root)}
        stack: list[tuple[Any, Iterator[tuple[Any, Any]]]] = [(root, parts(root))]
        totals = [0]
        while stack:
            node, rest = stack[-1]
            child = self._next(node, rest, totals, open_nodes)
            if child is not None:
                self._budget.check("nesting", len(stack) + 1, self._path)
                open_nodes.add(id(child))
                stack.append((child, parts(child)))
                totals.append(0)
                continue
            stack.pop()
            open_nodes.discard(id(node))
            self._counts[id(node)] = total = min(totals.pop(), limit)
            if totals:
                totals[-1] += total

    def _next(
        self,
        node: Any,
        rest: Iterator[tuple[Any, Any]],
        totals: list[int],
        open_nodes: set[int],
    ) -> Any:
        """The next part that is still to be counted; what is known is added to the total."""
        for _, child in rest:
            self._visit()
            if type(child) in _SCALARS:
                continue
            known = 1 if self.is_tensor(child) else self._counts.get(id(child))
            if known is not None:
                totals[-1] += known
            elif id(child) in open_nodes:
                self._circles.add((id(node), id(child)))
            elif not _bare(child):
                return child
        return None


def parts(node: Any) -> Iterator[tuple[Any, Any]]:
    """The named parts of a node: the entries of a dict, the attributes of an object.

    None stands in the place of a part that is passed over, so that it can be counted.
    """
    for _ in range(_TAGS):
        if type(node) is not Instance or node.function not in JIT_LISTS | {TYPE_TAG}:
            break
        node = node.args[0] if node.args else None
    if type(node) is dict:
        yield from node.items()
    elif type(node) in (list, tuple):
        yield from enumerate(node)
    elif type(node) is Instance:
        yield from _object_parts(node)


def module_state(node: Any) -> dict[Any, Any] | None:
    """The attributes of an `nn.Module`, or None for anything else."""
    state = node.state if type(node) is Instance else None
    if type(state) is dict and "_parameters" in state and "_modules" in state:
        return state
    return None


def _object_parts(node: Instance) -> Iterator[tuple[Any, Any]]:
    module = module_state(node)
    if module is not None:
        yield from _module_parts(module)
        return
    if node.function in MAPPINGS:
        yield from _pairs(node.args[-1] if node.args else None)
    elif not node.called:
        yield from enumerate(node.args)
    elif node.function in SEQUENCES:
        yield from parts(node.args[0] if node.args else None)
    else:
        yield from _argument_parts(node)
    yield from _state_parts(node.state if _has_state(node) else None)
    yield from (node.entries or {}).items()
    yield from enumerate(node.items or ())


def _argument_parts(node: Instance) -> Iterator[tuple[Any, Any]]:
    """What a function would be called with: what it makes of tensors is not known."""
    for place, argument in enumerate(node.args):
        if type(argument) is dict and argument.keys() >= {"_parameters", "_modules"}:
            yield from _module_parts(argument)  # of a module that is made of code, by torch.fx
        else:
            yield f"{node.function}.{place}", argument


def _has_state(node: Instance) -> bool:
    """`OrderedDict` has attributes too, `_metadata` of a state dict for one: none is an entry."""
    return node.function not in MAPPINGS


def _module_parts(state: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """What its `state_dict()` would hold."""
    yield from parts(state["_parameters"])
    passing = state.get("_non_persistent_buffers_set")
    left_out = set()
    for _, name in parts(passing):
        yield None, None
        if type(name) is str:
            left_out.add(name)
    for name, buffer in parts(state.get("_buffers")):
        yield name, None if type(name) is str and name in left_out else buffer
    for name, value in state.items():
        is_packed = type(value) is Instance and value.function == PACKED
        yield name, _unwrapped(value.state) if is_packed else None
    yield from parts(state["_modules"])


def _unwrapped(state: Any) -> Any:
    """What an object of a class in C++ holds: its state comes with the name of the class."""
    named = type(state) is tuple and len(state) == _SLOTS and type(state[1]) is str
    return state[0] if named else state


def _state_parts(state: Any) -> Iterator[tuple[Any, Any]]:
    """Attributes, in two dicts where the class has slots."""
    if type(state) is tuple and len(state) == _SLOTS and _is_slots(state):
        for attributes in state:
            yield from parts(attributes)
    else:
        yield from parts(state)


def _is_slots(state: tuple[Any, ...]) -> bool:
    return type(state[0]) in (dict, type(None)) and type(state[1]) is dict


def _pairs(argument: Any) -> Iterator[tuple[Any, Any]]:
    """The argument of a dict's class: another dict, or pairs, as Python 2 wrote them."""
    if type(argument) is not list:
        yield from parts(argument) if type(argument) is dict else ()
        return
    for pair in argument:
        is_pair = type(pair) in (list, tuple) and len(pair) == 2
        yield (pair[0], pair[1]) if is_pair else (None, None)


def _bare(node: Any) -> bool:
    """Whether a small container holds scalars alone, so that counting it again costs nothing."""
    if type(node) is Instance:
        return node.state is None and not node.entries and not node.items and _bare(node.args)
    if type(node) not in _PLAIN:
        return True
    inner = node.values() if type(node) is dict else node
    return len(node) <= _SMALL and _SCALARS.issuperset(map(type, inner))
