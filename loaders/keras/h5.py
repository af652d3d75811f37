"""Keras's legacy HDF5 files: whole models and weights, of Keras 1, 2 and 3."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wwfunc.checkpoint import Checkpoint, TensorHint

from ..budget import Budget
from ..errors import ConfigError, HeaderError, LayoutError, UnknownFormatError
from ..hdf5 import Node, open_hdf5
from ..strict_json import brief, parse_object
from .config import LayerConfig, layers_of
from .layers import hint, kind_of
from .tensors import Variable, counted, lost_type, named

Layout = Literal["keras-h5", "keras-weights"]

_TOP_LEVEL = "top_level_model_weights"
_NOTES = ("keras_version", "backend")
_OLD_PARTS = {"W": "kernel", "b": "bias"}


def layout_of(path: str | Path, budget: Budget | None = None) -> Layout:
    """Which of Keras's two layouts the HDF5 file at `path` has.

    Raises
    ------
    UnknownFormatError
        If it has neither.
    """
    path, budget = Path(path), budget or Budget()
    with open_hdf5(path, budget) as file:
        root = file.root
        if "model_weights" in root.links or _has_list(root, "layer_names"):
            return "keras-h5"
        if any("vars" in names for names, _ in root.walk(budget.nesting)):
            return "keras-weights"
    raise UnknownFormatError(f"{path}: an HDF5 file, but not of Keras: no layer_names, no vars")


def load_keras_h5(
    path: str | Path, *, budget: Budget | None = None, dtype: str | None = None
) -> Checkpoint:
    """Open a legacy Keras file (`model.save("x.h5")`, `save_weights`); tensors are read lazily.

    Names are those of the variables: `dense.kernel`, `attention.query.bias`. The state of an
    optimiser stands under `optimizer.`. The model's configuration is read as JSON.

    Parameters
    ----------
    path
        The file.
    budget
        Limits on what the file may ask for.
    dtype
        Name of what the file stores as bytes of no type; most often "bfloat16".

    Raises
    ------
    loaders.errors.NotReadableError, BudgetError, TruncatedError, HeaderError, LayoutError, \
ElementTypeError, UnsupportedError, ConfigError
        See `loaders.errors`; each names the file and the object in it.
    """
    path, budget, lost = Path(path), budget or Budget(), lost_type(dtype)
    with open_hdf5(path, budget) as file:
        root = file.root
        weights = root.child("model_weights") if "model_weights" in root.links else root
        config = _config(root, path, budget)
        layers = layers_of(config)
        variables = counted(_variables(root, weights, layers, path, budget), path, budget)
        _check_complete(weights, variables, path, budget)
        tensors = named(variables, path, lost)
        metadata = {**_metadata(weights), **_metadata(root)}
    return Checkpoint(
        tensors.handles, metadata=metadata, config=config, hints=tensors.hints, source=str(path)
    )


def _variables(
    root: Node, weights: Node, layers: Mapping[str, LayerConfig], path: Path, budget: Budget
) -> Iterator[Variable]:
    yield from _model(weights, layers, path, budget)
    if "optimizer_weights" in root.links:
        yield from _optimiser(root.child("optimizer_weights"), layers, path, budget)


def _model(
    weights: Node, layers: Mapping[str, LayerConfig], path: Path, budget: Budget
) -> Iterator[Variable]:
    names = _list(weights, "layer_names", path, budget)
    if _TOP_LEVEL in weights.links and _TOP_LEVEL not in names:
        names.append(_TOP_LEVEL)
    if len(set(names)) != len(names):
        raise LayoutError(f"{path}: {weights.where} lists a layer twice")
    for layer in names:
        node = weights.at(_parts(layer, path))
        for listed in _list(node, "weight_names", path, budget):
            parts = _parts(listed, path)
            place = parts if layer == _TOP_LEVEL else [*layer.split("/"), *parts]
            yield _variable(layer, listed, place, node.at(parts), layers)


def _variable(
    layer: str,
    listed: str,
    place: Sequence[str],
    node: Node,
    layers: Mapping[str, LayerConfig],
) -> Variable:
    own = [] if layer == _TOP_LEVEL else layer.split("/")
    parts = _without_layer(own, re.sub(r":\d+$", "", listed).split("/"))
    config = next((layers[part] for part in reversed(place) if part in layers), None)
    module = parts[-2] if len(parts) > 1 else ""
    kind = kind_of(config, own[-1] if own else "", module)
    rank = len(node.dataset.shape)
    parts[-1], found = _old_part(parts[-1], kind, config, rank)
    found = found or hint(kind, module, parts[-1], rank, config)
    full = ".".join([*own, *listed.split("/")])
    return Variable(".".join(parts), full, node, _is_bfloat16(config, layers), found)


def _without_layer(own: list[str], parts: list[str]) -> list[str]:
    """The layer's name and what follows it; variables of Keras 1 have both in one part."""
    size = len(own)
    prefix = f"{'/'.join(own)}_"
    if len(parts) == 1 and own and parts[0].startswith(prefix):
        return [*own, parts[0].removeprefix(prefix)]
    for start in range(len(parts) - size):
        if own and parts[start : start + size] == own:
            return parts[start:]
    return own + parts


def _old_part(
    part: str, kind: str, config: LayerConfig | None, rank: int
) -> tuple[str, TensorHint | None]:
    """The new name of a variable of Keras 1; a kernel's axes depend on its layer's ordering."""
    if part not in _OLD_PARTS:
        return part, None
    if part == "W" and kind == "embedding":
        return "embeddings", None
    if part == "b" or rank == 2:
        return _OLD_PARTS[part], None
    ordering = config.ordering if config else ""
    if kind != "convolution2d" or rank != 4 or ordering not in ("th", "tf"):
        return part, None
    axes = ((0,), (1,)) if ordering == "th" else ((3,), (2,))
    return "kernel", TensorHint("conv2d", *axes)


def _is_bfloat16(config: LayerConfig | None, layers: Mapping[str, LayerConfig]) -> bool:
    """Whether a layer keeps its variables as bfloat16; of an optimiser, whether any layer does."""
    if config is not None:
        return config.policy == "bfloat16"
    return any(layer.policy == "bfloat16" for layer in layers.values())


def _optimiser(
    state: Node, layers: Mapping[str, LayerConfig], path: Path, budget: Budget
) -> Iterator[Variable]:
    for listed in _list(state, "weight_names", path, budget):
        name = re.sub(r":\d+$", "", listed).replace("/", ".")
        node = state.at(_parts(listed, path))
        full = f"optimizer.{listed.replace('/', '.')}"
        yield Variable(f"optimizer.{name}", full, node, _is_bfloat16(None, layers))


def _check_complete(
    weights: Node, variables: Sequence[Variable], path: Path, budget: Budget
) -> None:
    """Every dataset among the weights is a variable of a layer that is listed."""
    known = {variable.node.address for variable in variables}
    for _, node in weights.walk(budget.nesting):
        if node.is_dataset and node.address not in known:
            raise LayoutError(f"{path}: {node.where} is listed as a weight of no layer")


def _parts(name: str, path: Path) -> list[str]:
    """The parts of a path within a group; it may not start from the root."""
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts):
        raise LayoutError(f"{path}: {brief(name)} is no path within a group")
    return parts


def _has_list(node: Node, name: str) -> bool:
    return name in node.attributes or f"{name}0" in node.attributes


def _list(node: Node, name: str, path: Path, budget: Budget) -> list[str]:
    """A list of names; one too long for an attribute is split into `name0`, `name1` and on."""
    if name in node.attributes:
        return node.attributes.texts(name)
    if not _has_list(node, name) and node.links:
        raise HeaderError(f"{path}: {node.where} has no {name}")
    found: list[str] = []
    part = 0
    while f"{name}{part}" in node.attributes:
        found += node.attributes.texts(f"{name}{part}")
        budget.check("tensors", len(found), path)
        part += 1
    return found


def _config(root: Node, path: Path, budget: Budget) -> dict[str, Any]:
    if "model_config" not in root.attributes:
        return {}
    text = root.attributes.text("model_config", "config_bytes")
    return parse_object(text.encode(), path, ConfigError, budget)


def _metadata(node: Node) -> dict[str, str]:
    return {name: node.attributes.text(name) for name in _NOTES if name in node.attributes}
