"""NodeProto: the operator, its inputs, and the tensors and graphs in its attributes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import UnsupportedError
from .protobuf import BYTES, VARINT, Wire, signed
from .weights import NUMBERS, OPERATORS

_INPUTS = 6
_LONGEST_WORD = 64
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_WORDS = (_OUTPUT, _NAME, _OPERATOR, _DOMAIN)
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 5, 6, 10, 11
_LISTS = (_TENSORS, _GRAPHS)
_SPARSE = (22, 23)

Place = tuple[int, int]
"""Where a message starts and ends."""


@dataclass(slots=True)
class Node:
    """What matters of a node."""

    label: str
    """Its name, or its operator and its number."""
    operator: str = ""
    """Empty where its inputs do not matter."""
    output: str = ""
    """The first, which is a Constant's tensor."""
    is_constant: bool = False
    inputs: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    tensors: list[tuple[str, Place]] = field(default_factory=list)
    graphs: list[tuple[str, array[int]]] = field(default_factory=list)
    """Name, then starts and ends: what a list holds is not made one object each."""

    def inner(self) -> Iterator[tuple[str, Place]]:
        """The graphs in its attributes, by names."""
        for name, places in self.graphs:
            for at in range(0, len(places), 2):
                numbered = f"{name}.{at // 2}" if len(places) > 2 else name
                yield numbered, (places[at], places[at + 1])


def read_node(wire: Wire, start: int, end: int, index: int) -> Node | None:
    """The node between two bytes; None where it neither holds nor uses a tensor."""
    words: dict[int, Place] = {}
    inputs: list[Place] = []
    attributes = array("Q")
    for number, kind, value, stop in wire.fields(start, end):
        if kind != BYTES:
            continue
        if number == _ATTRIBUTE:
            attributes.extend((value, stop))
        elif number == _INPUT and len(inputs) < _INPUTS:
            inputs.append((value, stop))
        elif number in _WORDS:
            words.setdefault(number, (value, stop))
    operator = _word(wire, words.get(_OPERATOR))
    weighs = operator in OPERATORS and _word(wire, words.get(_DOMAIN)) in _DOMAINS
    if not weighs and not attributes:
        return None
    node = Node(_word(wire, words.get(_NAME)) or f"{operator or 'node'}_{index}")
    node.is_constant = operator == "Constant"
    if _OUTPUT in words:
        node.output = wire.text(*words[_OUTPUT])
    if weighs:
        node.operator = operator
        node.inputs = [wire.text(*place) for place in inputs]
    for at in range(0, len(attributes), 2):
        _attribute(wire, attributes[at], attributes[at + 1], node)
    return node


def _word(wire: Wire, place: Place | None) -> str:
    """A short text; an empty one where there is none, or a long one."""
    if place is None or place[1] - place[0] > _LONGEST_WORD:
        return ""
    return wire.text(*place)


def _attribute(wire: Wire, start: int, end: int, node: Node) -> None:
    name: Place | None = None
    integer: int | None = None
    parts: dict[int, array[int]] = {}
    for number, kind, value, stop in wire.fields(start, end):
        if number == 1 and kind == BYTES:
            name = value, stop
        elif number == 3 and kind == VARINT:
            integer = signed(value)
        elif number in (_TENSOR, _GRAPH, _TENSORS, _GRAPHS) and kind == BYTES:
            parts.setdefault(number, array("Q")).extend((value, stop))
        elif number in _SPARSE:
            refuse_sparse(wire, value)
    if parts or (integer is not None and node.operator):
        word = _word(wire, name) or "attribute"
        if integer is not None and word in NUMBERS:
            node.numbers[word] = integer
        _keep(node, f"{node.label}.{word}", parts)


def _keep(node: Node, name: str, parts: dict[int, array[int]]) -> None:
    for number, places in parts.items():
        if number in (_GRAPH, _GRAPHS):
            node.graphs.append((name, places))
            continue
        for at in range(0, len(places), 2):
            own = node.output if node.is_constant and node.output else name
            numbered = own if number == _TENSOR else f"{name}.{at // 2}"
            node.tensors.append((numbered, (places[at], places[at + 1])))


def refuse_sparse(wire: Wire, start: int) -> None:
    """Raise `UnsupportedError`."""
    raise UnsupportedError(
        f"{wire.path}: the tensor at byte {start} is sparse, which is not read; store it dense"
    )
