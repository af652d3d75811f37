"""The graphs of an ONNX model: their tensors, and what their nodes show these to be."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from wwfunc.checkpoint import Handle, TensorHint
from wwfunc.dtypes import is_narrow_float, is_real_float

from ..budget import Budget
from ..errors import HeaderError
from ..strict_json import brief
from .codes import DequantisedTensor, dequantised
from .fields import TensorReader
from .names import Names
from .nodes import Node, read_node, refuse_sparse
from .protobuf import BYTES, Wire
from .tensors import BitTensor
from .weights import hint_of

_DEEPEST = 60
_PASSING = ("Identity", "Cast", "QuantizeLinear")
_GRAPH_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_FUNCTION_NODE = 7

_Inner = tuple[int, int, str]
"""Start and end of a graph, and what stands before the names of its tensors."""


class Graphs:
    """Collects the tensors of a model's graphs, by names that tell graph from graph."""

    def __init__(self, wire: Wire, budget: Budget) -> None:
        self.tensors: dict[str, Handle] = {}
        self.hints: dict[str, TensorHint] = {}
        self.notes: dict[str, str] = {}
        """Tensors of text, which are no numbers."""
        self._wire, self._budget, self._path = wire, budget, wire.path
        self._reader = TensorReader(wire, budget)
        self._names = Names()
        self._nbytes = self._saved = 0

    def graph(self, start: int, end: int, prefix: str = "") -> None:
        """Collect from a GraphProto, and from the graphs in it."""
        self._run(self._graph(start, end, prefix))

    def function(self, start: int, end: int, prefix: str) -> None:
        """Collect from a FunctionProto, which has tensors in its nodes alone."""
        nodes = array("Q")
        for number, kind, value, stop in self._wire.fields(start, end):
            if number == _FUNCTION_NODE and kind == BYTES:
                nodes.extend((value, stop))
        self._run(self._nodes(nodes, prefix))

    def _run(self, graph: Iterator[_Inner]) -> None:
        """Walk a graph; where it comes to an inner one, walk that first. Nothing calls itself."""
        walks = [graph]
        self._names.enter()
        while walks:
            inner = next(walks[-1], None)
            if inner is None:
                walks.pop()
                self._names.leave()
            elif len(walks) == _DEEPEST:
                raise HeaderError(f"{self._path}: over {_DEEPEST} graphs within graphs")
            else:
                walks.append(self._graph(*inner))
                self._names.enter()

    def _graph(self, start: int, end: int, prefix: str) -> Iterator[_Inner]:
        nodes = array("Q")
        for number, kind, value, stop in self._wire.fields(start, end):
            if number == _GRAPH_NODE and kind == BYTES:
                nodes.extend((value, stop))
            elif number == _INITIALIZER and kind == BYTES:
                self._add(*self._reader.tensor(value, stop), prefix)
            elif number == _SPARSE:
                refuse_sparse(self._wire, value)
        yield from self._nodes(nodes, prefix)

    def _nodes(self, places: array[int], prefix: str) -> Iterator[_Inner]:
        """Collect from nodes; the graphs in them are given back."""
        for at in range(0, len(places), 2):
            node = read_node(self._wire, places[at], places[at + 1], at // 2)
            if node is None:
                continue
            for name, place in node.tensors:
                self._add(*self._reader.tensor(*place, name), prefix)
            for name, (start, end) in node.inner():
                yield start, end, f"{prefix}{name}."
            if node.operator:
                self._use(node, prefix)

    def _add(self, name: str, handle: Handle | None, prefix: str) -> None:
        full = prefix + name
        self._wire.spend(len(prefix))
        if full in self.tensors or full in self.notes:
            raise HeaderError(f"{self._path}: two tensors are named {brief(full)}")
        self._budget.check("tensors", len(self.tensors) + len(self.notes) + 1, self._path)
        if handle is None:
            self.notes[full] = "a tensor of text, which is not read"
        else:
            self._count(handle.nbytes)
            self.tensors[full] = handle
            self._names.say(name, full)

    def _count(self, nbytes: int, saved: int = 0) -> None:
        """Count a tensor; `saved` are bytes that its packed codes take less than one each.

        A model in codes of four bits takes eight times its size, and is no attack.
        """
        self._nbytes += nbytes
        self._saved += saved
        stored = self._reader.stored + self._saved
        self._budget.check_expansion(self._nbytes, stored, self._path)

    def _use(self, node: Node, prefix: str) -> None:
        """What a node shows its inputs to be, and what it passes on."""
        names = [self._names.get(name) for name in node.inputs]
        if not any(names):
            return
        if node.operator == "DequantizeLinear":
            self._dequantise(names, node, prefix)
        elif names[0] and (node.operator in _PASSING or self._is_transposed(node, names[0])):
            self._names.say(node.output, names[0])
        for place, name in enumerate(names):
            if name and name not in self.hints:
                hint = hint_of(node.operator, place, len(self.tensors[name].shape), node.numbers)
                if hint:
                    self.hints[name] = hint

    def _is_transposed(self, node: Node, name: str) -> bool:
        """A spectrum does not change when a matrix is transposed."""
        return node.operator == "Transpose" and len(self.tensors[name].shape) == 2

    def _dequantise(self, names: list[str | None], node: Node, prefix: str) -> None:
        """Codes that a node turns into numbers are those numbers from here on."""
        codes, scale, zero, *_ = [*names, None, None, None]
        if codes is None or scale is None or (zero is None and any(node.inputs[2:3])):
            return
        before = self.tensors[codes]
        stored = before.codes if isinstance(before, DequantisedTensor) else before
        made = dequantised(
            stored,
            self.tensors[scale],
            self.tensors[zero] if zero else None,
            node.numbers.get("axis", 1),
            node.numbers.get("block_size", 0),
        )
        if made is None or not _is_codes(stored) or made == before:
            self._names.say(node.output, codes)
        elif before is stored:
            packed = stored.stored.nbytes if isinstance(stored, BitTensor) else stored.nbytes
            self._count(made.nbytes - stored.nbytes, max(0, stored.nbytes - packed))
            self.tensors[codes] = made
            self._names.say(node.output, codes)
        else:  # the same codes with another scale
            self._add(node.output, made, prefix)


def _is_codes(handle: Handle) -> bool:
    return not is_real_float(handle.dtype) or is_narrow_float(handle.dtype)
