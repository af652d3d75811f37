"""How large a change of a layer is beside what it changes."""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Float, Int

from wwfunc import host
from wwfunc.comparison.differences import in_layout
from wwfunc.comparison.intruders import intruder_dimensions
from wwfunc.comparison.layouts import sides
from wwfunc.layers.layer import Task
from wwfunc.lowrank import LowRank
from wwfunc.matrices import unfold
from wwfunc.pytrees import Array, record

_BLOCK_ELEMENTS = 1 << 21


@record
class ChangeFromBase:
    """A change of a layer beside its base."""

    relative: Float[Array, ""]
    """Frobenius norm of the change over that of the base; NaN where the base is zero."""
    num_intruders: Int[Array, ""]
    """Intruder dimensions of all slices; -1 where they were not asked for."""


def change_of(task: Task, intruders: bool) -> ChangeFromBase:
    """Of a task whose handle is the change, and whose `base` is the layer that is changed."""
    assert task.base is not None
    base = _slices(in_layout(task.base, task), task)
    with np.errstate(all="ignore"):
        before = norm(base)
        finite = 0 < before < np.inf
        relative = _size(task) / before if finite else np.nan
        count = _intruders(base, task) if intruders and math.isfinite(before) else -1
    return ChangeFromBase(relative=np.asarray(relative), num_intruders=np.asarray(count, np.int32))


def norm(stack: Float[np.ndarray, "k n m"]) -> float:
    """Frobenius norm of all slices, by blocks of rows: nothing of the size of W is made."""
    step = max(1, _BLOCK_ELEMENTS // max(1, stack.shape[2]))
    total = largest = 0.0
    for index, start in itertools.product(range(len(stack)), range(0, stack.shape[1], step)):
        block = np.abs(stack[index, start : start + step].astype(np.float64))
        top = float(block.max(initial=0.0))
        if top > largest:  # over the largest element, so that no square leaves the range
            total, largest = total * (largest / top) ** 2, top
        if largest:
            total += float(np.sum(np.square(block / largest)))
    return largest * math.sqrt(total)


def _size(task: Task) -> float:
    """Frobenius norm of the change; that of a product follows from its r x r core."""
    if not isinstance(task.handle, LowRank) or task.index is not None:
        return norm(_slices(task.handle.read(), task))
    return math.sqrt(float(np.sum(host.low_rank(*task.handle.factors()))))


def _intruders(base: Float[np.ndarray, "k n m"], task: Task) -> int:
    """Over the slices; left vectors are those of the outputs, which are a table's columns."""
    after = base.astype(np.float64) + _slices(task.handle.read(), task)
    if not np.isfinite(after).all():
        return -1
    turned = (sides(task)[0] != base.shape[1]) != (task.layer.kind == "embedding")
    pairs = zip(base, after, strict=True)
    return sum(
        intruder_dimensions(a.T, b.T) if turned else intruder_dimensions(a, b) for a, b in pairs
    )


def _slices(tensor: np.ndarray, task: Task) -> np.ndarray:
    stack = unfold(tensor, task.hint)
    return stack if task.index is None else stack[task.index : task.index + 1]
