"""Keras's newer weight files (`.weights.h5`): groups by class and number, variables by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wwfunc.checkpoint import Checkpoint

from ..budget import Budget
from ..errors import ShardError, UnknownFormatError
from ..files import FileBytes
from ..hdf5 import Node, open_hdf5
from ..inflated import Inflated
from ..strict_json import brief
from .config import LayerConfig, layers_of
from .layers import Weight, hint, kind_of, meanings
from .tensors import Tensors, Variable, counted, lost_type, named

_VARIABLES = "vars"
_LISTS = {"layers", "_layer_checkpoint_dependencies", "cells"}
_OPTIMISER = "optimizer"
_DIGITS = 10
Place = tuple[str, ...]


@dataclass(slots=True)
class Groups:
    """The variables of each layer by their keys, and the names that layers give of themselves."""

    variables: defaultdict[Place, dict[str, Node]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    names: dict[Place, str] = field(default_factory=dict)

    def add(self, other: Groups, path: Path) -> None:
        """Take over what another file holds; a variable in both is an error."""
        self.names |= other.names
        for place, nodes in other.variables.items():
            for key in nodes.keys() & self.variables[place].keys():
                where = "/".join((*place, _VARIABLES, key))
                raise ShardError(f"{path}: {brief(where)} stands in two files")
            self.variables[place] |= nodes


def load_keras_weights(
    path: str | Path, *, budget: Budget | None = None, dtype: str | None = None
) -> Checkpoint:
    """Open a `.weights.h5` file of Keras 2.12 or later; its tensors are read lazily.

    The file knows variables by their positions in layers. Where the class of a layer is one of
    Keras's own they get the names that it gives them (`dense.kernel`); where it is not, they are
    `my_layer.vars.0`.

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
ElementTypeError, UnsupportedError, UnknownFormatError
        See `loaders.errors`; each names the file and the object in it.
    """
    path, budget = Path(path), budget or Budget()
    tensors = read_weights(path, budget, None, {}, lost_type(dtype))
    return Checkpoint(tensors.handles, hints=tensors.hints, source=str(path))


def read_weights(
    path: Path,
    budget: Budget,
    stored: FileBytes | Inflated | None,
    config: Mapping[str, Any],
    lost: np.dtype | None,
) -> Tensors:
    """The tensors of one weight file, which may lie in another file, named with its config."""
    groups = Groups()
    with open_hdf5(path, budget, stored) as file:
        collect(file.root, groups, path, budget)
        return name_all(groups, config, path, budget, lost)


def collect(root: Node, groups: Groups, path: Path, budget: Budget) -> None:
    """Add the variables of one file; a layer may have more of them in another file."""
    for names, node in root.walk(budget.nesting):
        if not node.is_dataset:
            if names[-1:] == (_VARIABLES,) and "name" in node.attributes:
                groups.names[names[:-1]] = node.attributes.text("name")
            continue
        if _VARIABLES not in names[:-1]:
            raise UnknownFormatError(f"{path}: {node.where} stands in no group of variables")
        at = len(names) - 2 - names[-2::-1].index(_VARIABLES)
        place, key = names[:at], "/".join(names[at + 1 :])
        groups.variables[place][key] = node


def name_all(
    groups: Groups, config: Mapping[str, Any], path: Path, budget: Budget, lost: np.dtype | None
) -> Tensors:
    """Handles to all variables under the names of their layers and in them."""
    layers = layers_of(config)
    variables = (
        variable
        for place, nodes in groups.variables.items()
        for variable in _layer(place, nodes, groups.names, layers)
    )
    return named(counted(variables, path, budget), path, lost)


def _layer(
    place: Place,
    nodes: Mapping[str, Node],
    names: Mapping[Place, str],
    layers: Mapping[str, LayerConfig],
) -> Iterator[Variable]:
    own = names.get(place, "")
    config = layers.get(own)
    is_state = place[:1] == (_OPTIMISER,)
    kind = "" if is_state else kind_of(config, place[-1] if place else "", own)
    shown = place if is_state else _shown(place, names)
    keys = sorted(nodes, key=_position)
    for key, part in zip(keys, _meanings(kind, keys, nodes), strict=True):
        node = nodes[key]
        found = hint(kind, own, part, len(node.dataset.shape), config)
        yield Variable(
            ".".join((*shown, part)),
            ".".join((*place, part)),
            node,
            _is_bfloat16(node, config),
            found,
        )


def _shown(place: Place, names: Mapping[Place, str]) -> Place:
    """The path with the layers' own names, where they have any, and without Keras's lists."""
    ends = (end for end, part in enumerate(place, 1) if part not in _LISTS)
    return tuple(names.get(place[:end], place[end - 1]) for end in ends)


def _position(key: str) -> tuple[bool, int, str]:
    """Numbers by their value, before words: as text `10` would stand before `2`."""
    is_number = key.isascii() and key.isdecimal() and len(key) < _DIGITS
    return not is_number, int(key) if is_number else 0, key


def _meanings(kind: str, keys: Sequence[str], nodes: Mapping[str, Node]) -> Sequence[str]:
    """What the variables are; where their class does not tell, no more than their positions."""
    if list(keys) == [str(number) for number in range(len(keys))]:
        datasets = [nodes[key].dataset for key in keys]
        found = meanings(kind, [Weight(each.shape, each.dtype) for each in datasets])
        if found is not None:
            return found
    return [f"{_VARIABLES}.{key.replace('/', '.')}" for key in keys]


def _is_bfloat16(node: Node, config: LayerConfig | None) -> bool:
    """HDF5 has no such type: Keras marks it in an attribute, and older files in the config."""
    if node.dataset.dtype.kind != "V":
        return False
    if "dtype" in node.attributes:
        return node.attributes.text("dtype") == "bfloat16"
    return config is not None and config.policy == "bfloat16"
