"""Whether two layers have one shape, whatever the layouts in which they are stored."""

from __future__ import annotations

import math
from dataclasses import replace

from wwfunc.layers.layer import Task
from wwfunc.lowrank import LowRank


def sides(task: Task) -> tuple[int, int, int]:
    """Outputs, inputs and slices of a layer."""
    shape, hint = task.handle.shape, task.hint
    rows, cols = (math.prod(shape[axis] for axis in axes) for axes in (hint.rows, hint.cols))
    return rows, cols, task.layer.rf


def alike(ours: Task, theirs: Task) -> bool:
    """Whether outputs, inputs and the sides of the kernel are the same."""
    if sides(ours) != sides(theirs):
        return False
    ways = zip(_lengths(ours), _lengths(theirs), strict=True)
    return all(a == b or min(len(a), len(b)) < 2 for a, b in ways) and (
        _kernel(ours) == _kernel(theirs) or math.prod(_kernel(ours)) == 1
    )


def partner(ours: Task, theirs: Task) -> tuple[Task, Task] | None:
    """The two in layouts in which they are alike, None where there are none.

    PEFT has one word for how all layers of an adapter are stored, the last one's: it may be wrong.
    """
    for own in (ours, turned(ours)):
        if own is not None and _may_be_stored_so(own, theirs):
            there = _as_adapted(own, theirs)
            if alike(own, there):
                return own, there
    return None


def _may_be_stored_so(ours: Task, theirs: Task) -> bool:
    """A change of a weight of PyTorch's has the very shape of the weight."""
    known = not _is_dense_change(ours) or not theirs.layer.tensor.endswith("weight")
    return known or len(theirs.handle.shape) != 2 or ours.handle.shape == theirs.handle.shape


def turned(task: Task) -> Task | None:
    """A dense low-rank change of a weight that is stored the other way; None for all else."""
    change = task.handle
    if not _is_dense_change(task):
        return None
    assert isinstance(change, LowRank)
    hint = replace(task.hint, rows=task.hint.cols, cols=task.hint.rows)
    handle = replace(change, shape=change.shape[::-1], transposed=not change.transposed)
    return replace(task, handle=handle, hint=hint)


def is_square_change(task: Task) -> bool:
    """Whether the shape does not tell which way a change's weight is stored."""
    return _is_dense_change(task) and len(set(task.handle.shape)) == 1


def size(task: Task) -> str:
    """Outputs by inputs, and the kernel, whatever the layout."""
    rows, cols, _ = sides(task)
    return " x ".join(map(str, (rows, cols, *_kernel(task))))


def _is_dense_change(task: Task) -> bool:
    change = task.handle
    return isinstance(change, LowRank) and len(change.shape) == 2 and task.layer.kind != "embedding"


def _as_adapted(ours: Task, theirs: Task) -> Task:
    """An adapter's configuration says how a weight of PyTorch's is stored, its name does not."""
    adapted = isinstance(ours.handle, LowRank) and ours.handle.transposed
    same = theirs.handle.shape == ours.handle.shape and theirs.layer.tensor.endswith("weight")
    return replace(theirs, hint=ours.hint) if adapted and same else theirs


def _lengths(task: Task) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Along each axis of the outputs, and of the inputs: one where they are flattened."""
    shape, hint = task.handle.shape, task.hint
    rows, cols = (tuple(shape[axis] for axis in axes) for axes in (hint.rows, hint.cols))
    return rows, cols


def _kernel(task: Task) -> tuple[int, ...]:
    axes = {*task.hint.rows, *task.hint.cols}
    return tuple(n for axis, n in enumerate(task.handle.shape) if axis not in axes)
