"""ONNX models: the tensors in their graphs, read from the wire format without a schema.

The `onnx` package is not needed: it would hold the whole model in memory, and a model of more than
two gigabytes not at all. Tensors stay in the file, and are mapped when they are read.
"""

from __future__ import annotations

from pathlib import Path

from wwfunc.checkpoint import Checkpoint

from ..budget import Budget
from ..errors import HeaderError
from ..strict_json import brief
from ..window import Window
from .graph import Graphs
from .protobuf import BYTES, VARINT, Wire, signed

_TEXTS = {2: "producer_name", 3: "producer_version", 4: "domain", 6: "doc_string"}
_NUMBERS = {1: "ir_version", 5: "model_version"}
_GRAPH, _OPERATORS, _PROPERTIES, _TRAINING, _FUNCTIONS = 7, 8, 14, 20, 25
_LONGEST_TEXT = 1_024
_MOST_TEXTS = 4_096


def load_onnx(path: str | Path, *, budget: Budget | None = None) -> Checkpoint:
    """Open one ONNX model; its tensors are mapped when they are read.

    These are its initializers and the tensors in its nodes, in all its graphs and functions, by
    their names; what stands in an inner graph has the names of the node and the attribute before
    its own. Integers that a DequantizeLinear node scales are shown as the numbers they stand for.
    The operators that use a tensor say in `hints` what it is.

    External data are read from files in the same folder, by plain names and without links.

    Raises
    ------
    loaders.errors.NotReadableError, BudgetError, TruncatedError, HeaderError, LayoutError, \
ElementTypeError, UnsupportedError
        See `loaders.errors`; each names the file and, where there is one, the tensor.
    """
    path, budget = Path(path), budget or Budget()
    with Window(path) as window:
        model = _Model(Wire(window, budget), budget)
        model.read()
    graphs = model.graphs
    return Checkpoint(
        graphs.tensors,
        metadata={**model.metadata, **graphs.notes},
        hints=graphs.hints,
        source=str(path),
    )


class _Model:
    """A ModelProto."""

    def __init__(self, wire: Wire, budget: Budget) -> None:
        self.metadata: dict[str, str] = {}
        self.graphs = Graphs(wire, budget)
        self._wire = wire
        self._seen: set[int] = set()
        self._inner = 0

    def read(self) -> None:
        for number, kind, value, stop in self._wire.fields(0, self._wire.size):
            if number in (*_TEXTS, *_NUMBERS, _GRAPH):
                self._once(number, value)
            if number in _NUMBERS and kind == VARINT:
                self.metadata[_NUMBERS[number]] = str(signed(value))
            elif kind == BYTES:
                self._message(number, value, stop)
        if not {1, _GRAPH} <= self._seen:
            raise HeaderError(f"{self._wire.path}: no ONNX model: it has no version or no graph")

    def _once(self, number: int, value: int) -> None:
        """Where a field stands twice, readers differ in which one they take."""
        if number in self._seen:
            raise HeaderError(
                f"{self._wire.path}: the model's field {number} stands twice, again at {value}"
            )
        self._seen.add(number)

    def _message(self, number: int, start: int, stop: int) -> None:
        if number in _TEXTS:
            self.metadata[_TEXTS[number]] = self._text(start, stop)
        elif number == _GRAPH:
            self.graphs.graph(start, stop)
        elif number == _OPERATORS:
            domain, version = self._pair(start, stop)
            self._note(f"opset_import.{domain or 'ai.onnx'}", version)
        elif number == _PROPERTIES:
            self._note(*self._pair(start, stop))
        elif number == _TRAINING:
            self._training(start, stop)
        elif number == _FUNCTIONS:
            self.graphs.function(start, stop, self._prefix("function"))

    def _note(self, key: str, value: str) -> None:
        if key in self.metadata or len(self.metadata) == _MOST_TEXTS:
            raise HeaderError(
                f"{self._wire.path}: the property {brief(key)} stands twice, or there are over "
                f"{_MOST_TEXTS:,}"
            )
        self.metadata[key] = value

    def _training(self, start: int, stop: int) -> None:
        prefix = self._prefix("training")
        for number, kind, value, end in self._wire.fields(start, stop):
            if number in (1, 2) and kind == BYTES:
                part = "initialization" if number == 1 else "algorithm"
                self.graphs.graph(value, end, f"{prefix}{part}.")

    def _prefix(self, word: str) -> str:
        self._inner += 1
        return f"{word}_{self._inner - 1}."

    def _pair(self, start: int, stop: int) -> tuple[str, str]:
        """A key and a value, or a domain and its version."""
        pair = {1: "", 2: ""}
        for number, kind, value, end in self._wire.fields(start, stop):
            if number in pair:
                text = self._text(value, end) if kind == BYTES else str(signed(value))
                pair[number] = text
        return pair[1], pair[2]

    def _text(self, start: int, stop: int) -> str:
        """The start of a text."""
        data = self._wire.octets(start, min(stop, start + 4 * _LONGEST_TEXT))
        return data.decode("utf-8", "backslashreplace")[:_LONGEST_TEXT]
