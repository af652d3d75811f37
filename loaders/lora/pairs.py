"""Factors that were found by name, put together: checked against each other, given their scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wwfunc.checkpoint import Handle, Kind, TensorHint
from wwfunc.dtypes import is_real_float
from wwfunc.lowrank import LowRank

from ..errors import AdapterError, BudgetError
from ..strict_json import brief
from .names import Pair

LARGEST = 1 << 34
"""Bytes of a change that is formed whole: 262,144 x 16,384 in float32. Two vectors of a megabyte
could ask for terabytes."""

_KINDS: dict[int, Kind] = {2: "dense", 3: "conv1d", 4: "conv2d", 5: "conv3d"}
_TURNED = TensorHint("dense", rows=(1,), cols=(0,))
"""Of a dense layer that stores its input first."""
_HINTS = {kind: TensorHint(kind) for kind in (*_KINDS.values(), "embedding")}


@dataclass(frozen=True, slots=True)
class Scale:
    """What the product of the factors is multiplied by."""

    scale: float
    alpha: float | None = None
    transposed: bool = False
    """Whether the weight is stored with its input first (`fan_in_fan_out`)."""


Scaling = Callable[[Pair, int], Scale | None]
"""From a pair and its rank; None for a pair that cannot be put together."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """The tensors of a checkpoint with pairs in the places of their factors."""

    tensors: dict[str, Any]
    hints: dict[str, TensorHint]


def assemble(
    tensors: Mapping[str, Handle], pairs: Sequence[Pair], scaling: Scaling, path: Path
) -> Assembled:
    """Replace the factors in `tensors` by the changes that they are; the other tensors stay.

    Raises
    ------
    AdapterError
        If factors do not fit together or to their base weight, or two tensors get one name.
    BudgetError
        If a change would be larger than any weight is.
    """
    joined: dict[str, Any] = dict(tensors)
    hints: dict[str, TensorHint] = {}
    names = _Names(pairs, tensors, path)
    for pair in pairs:
        change = _change(pair, tensors, scaling, path)
        if change is not None:
            del joined[pair.names["down"]], joined[pair.names["up"]]
            name = names.give(pair)
            joined[name] = change
            hints.update(_hints(pair, name, change, tensors))
    return Assembled(joined, hints)


def _change(
    pair: Pair, tensors: Mapping[str, Handle], scaling: Scaling, path: Path
) -> LowRank | None:
    """The change, or None where the factors do not say all of it."""
    up, down = tensors[pair.names["up"]], tensors[pair.names["down"]]
    if not (_is_float(up.dtype) and _is_float(down.dtype)) or _grouped(up, down):
        return None
    shape = _product_shape(pair, up, down, path)
    scale = scaling(pair, down.shape[0])
    if scale is None:
        return None
    base = _base(pair, tensors)
    transposed = pair.table or (len(shape) == 2 and _turned(scale, base, shape))
    shape = shape[::-1] if transposed else shape
    if base is not None and base != shape:
        raise AdapterError(
            f"{path}: the change of {brief(pair.module)} is {[*shape]}, its weight {[*base]}"
        )
    magnitude = _magnitude(pair, tensors)
    per_input = magnitude is not None and _per_input(magnitude, up, pair)
    change = LowRank(
        up, down, scale.scale, shape, transposed, scale.alpha, magnitude, per_input=per_input
    )
    _check_size(change, pair, path)
    return change


@lru_cache
def _is_float(dtype: np.dtype) -> bool:
    return is_real_float(dtype)


def _product_shape(pair: Pair, up: Handle, down: Handle, path: Path) -> tuple[int, ...]:
    """The shape of the product, its input after its output.

    A dense layer's factors may have sides of 1 behind them; the layer is a convolution where both
    have them.
    """
    ranks = sorted((len(up.shape), len(down.shape)))
    fault = ""
    if ranks[0] < 2 or ranks[1] not in _KINDS:
        fault = "are neither matrices nor kernels"
    elif 0 in (*up.shape, *down.shape):
        fault = "are empty: were they saved without all their shards?"
    elif up.shape[1] != down.shape[0]:
        fault = "have different ranks"
    elif math.prod(up.shape[2:]) != 1 or (pair.table and ranks[1] > 2):
        fault = "do not have a product"
    if fault:
        shapes = f"{[*up.shape]} and {[*down.shape]}"
        raise AdapterError(f"{path}: the factors of {brief(pair.module)}, {shapes}, {fault}")
    flat = ranks[0] == 2 and math.prod(down.shape[2:]) == 1
    return (up.shape[0], *(down.shape[1:2] if flat else down.shape[1:]))


def _grouped(up: Handle, down: Handle) -> bool:
    """Whether each group of channels has its own part of the ranks: no product of two matrices."""
    if min(len(up.shape), len(down.shape)) < 3 or not up.shape[1]:
        return False
    groups, left = divmod(down.shape[0], up.shape[1])
    return groups > 1 and left == 0 and up.shape[0] % groups == 0


def _turned(scale: Scale, base: tuple[int, ...] | None, shape: tuple[int, ...]) -> bool:
    """Whether the weight is stored input first: the config says so, or the weight is there."""
    return scale.transposed or (base is not None and base != shape and base == shape[::-1])


def _base(pair: Pair, tensors: Mapping[str, Handle]) -> tuple[int, ...] | None:
    """The shape of the weight that is changed, where the file has it and it is not packed."""
    for last in ("base_layer.weight", "weight"):
        base = tensors.get(f"{pair.owner}.{last}")
        if base is not None and _is_float(base.dtype):
            return base.shape
    return None


def _magnitude(pair: Pair, tensors: Mapping[str, Handle]) -> Handle | None:
    name = pair.names.get("magnitude", f"{pair.owner}.dora_scale")
    return tensors.get(name)


def _per_input(magnitude: Handle, up: Handle, pair: Pair) -> bool:
    """LyCORIS's `dora_scale` is (out, 1) or (1, in); PEFT's lengths are always of outputs."""
    own = "magnitude" not in pair.names and len(magnitude.shape) > 1
    return own and magnitude.shape[0] == 1 != up.shape[0]


def _check_size(change: LowRank, pair: Pair, path: Path) -> None:
    nbytes = math.prod(change.shape) * change.dtype.itemsize
    if nbytes > LARGEST:
        raise BudgetError(
            f"{path}: the change of {brief(pair.module)}, {list(change.shape)}, takes {nbytes:,} "
            f"bytes when it is formed; no more than {LARGEST:,} are"
        )


def _hints(
    pair: Pair, name: str, change: LowRank, tensors: Mapping[str, Handle]
) -> Iterator[tuple[str, TensorHint]]:
    turned = change.transposed and not pair.table
    yield (
        name,
        _TURNED if turned else _HINTS["embedding" if pair.table else _KINDS[len(change.shape)]],
    )
    base = f"{pair.owner}.base_layer.weight"
    if pair.table and base in tensors:
        yield base, _HINTS["embedding"]


class _Names:
    """The names of changes: those of the weights, as far as these are free."""

    def __init__(self, pairs: Sequence[Pair], tensors: Mapping[str, Handle], path: Path) -> None:
        self.taken = set(tensors)
        self.several = len({pair.adapter for pair in pairs}) > 1
        self.owners = {pair.owner for pair in pairs}
        self.path = path

    def give(self, pair: Pair) -> str:
        """A name that no other tensor has."""
        own = f"{pair.module}.{self._last(pair)}"
        adapter = [pair.adapter] if self.several and pair.adapter else []
        beside = ".".join([pair.module, "lora", *adapter, "weight"])
        name = beside if self.several or own in self.taken else own
        if name in self.taken:
            raise AdapterError(f"{self.path}: two tensors would be named {brief(name)}")
        self.taken.add(name)
        return name

    def _last(self, pair: Pair) -> str:
        """PyTorch's attention has the factors of its fused projection at the module itself."""
        fused = f"{pair.owner}.base_layer.out_proj" in self.owners
        return "in_proj_weight" if fused else "weight"
