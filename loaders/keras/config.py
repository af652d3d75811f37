"""What a Keras model's configuration says of its layers, read as JSON and never brought to life."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 256


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """One layer: its class in Keras's own spelling of names, and what shapes its weights."""

    kind: str
    """`Conv2DTranspose` is "conv2d_transpose"; empty for a class that is not Keras's own."""
    policy: str = ""
    """The name of its element types: "bfloat16", "mixed_float16", "int8_from_float32"."""
    equation: str = ""
    """Of an `EinsumDense`."""
    ordering: str = ""
    """`dim_ordering` of Keras 1, "th" or "tf"."""


def layers_of(config: Mapping[str, Any]) -> dict[str, LayerConfig]:
    """The layers by name; a name that layers of several classes share tells nothing."""
    found: dict[str, LayerConfig] = {}
    shared: set[str] = set()
    for entry in _entries(config):
        name = entry["config"]["name"]
        layer = _layer(entry)
        if found.setdefault(name, layer) != layer:
            shared.add(name)
    return {name: layer for name, layer in found.items() if name not in shared}


def snake_case(name: str) -> str:
    """The name of a class as Keras writes it in paths.

    >>> snake_case("Conv2DTranspose"), snake_case("MultiHeadAttention")
    ('conv2d_transpose', 'multi_head_attention')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document that describes a layer with a name."""
    for value in _objects(config):
        inner = value.get("config")
        named = type(inner) is dict and type(inner.get("name")) is str
        if named and type(value.get("class_name")) is str:
            yield value


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _layer(entry: Mapping[str, Any]) -> LayerConfig:
    inner = entry["config"]
    own = not entry.get("registered_name") and len(entry["class_name"]) < _LONGEST
    return LayerConfig(
        snake_case(entry["class_name"]) if own else "",
        _policy(inner.get("dtype")),
        _text(inner.get("equation")),
        _text(inner.get("dim_ordering")),
    )


def _policy(dtype: Any) -> str:
    """A policy is written as its name, or as an object with the name in its own configuration."""
    if isinstance(dtype, dict) and isinstance(dtype.get("config"), dict):
        return _text(dtype["config"].get("name"))
    return _text(dtype)


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < _LONGEST else ""
