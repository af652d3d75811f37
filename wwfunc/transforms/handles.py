"""Layers that are computed when they are read, and what became of them."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wwfunc import matrices
from wwfunc.checkpoint import Checkpoint
from wwfunc.dtypes import is_narrow_float
from wwfunc.errors import InputError
from wwfunc.layers.find import find
from wwfunc.layers.layer import Layer, Task
from wwfunc.lowrank import LowRank
from wwfunc.sources import as_checkpoint


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one layer."""

    layer: Layer
    number: int
    """Singular values taken out, or elements set to zero; 0 where the layer stayed as it was."""
    words: str
    """What was done, or why nothing was."""
    failed: bool = False
    """Whether the transform could not be applied: NaN in the weights, nothing would be left ..."""


class Transform(Protocol):
    """What is done to each layer: hashable, picklable, and printed into the metadata."""

    def apply(self, stack: np.ndarray, layer: Layer, scale: float) -> tuple[np.ndarray, Change]:
        """The new stack (k, n, m) and what was done; InputError where nothing can be done."""
        ...


class TransformedHandle:
    """A handle to a layer's tensor after a transform, which is computed when it is read.

    The result is held no longer than by who reads it: a tensor at a time.
    """

    def __init__(
        self, task: Task, transform: Transform, step: int, change: Change | None = None
    ) -> None:
        self._task, self._transform, self._change = task, transform, change
        self.step = step
        """Which transform of the model it was, counted from 1."""
        self._last: weakref.ref[np.ndarray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TransformedHandle, (self._task, self._transform, self.step, self._change)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._task.handle.shape

    @property
    def dtype(self) -> np.dtype:
        return self._task.handle.dtype

    @property
    def nbytes(self) -> int:
        return self._task.handle.nbytes

    @property
    def key(self) -> Hashable:
        """Sharpening shuffles by the layer's name, so that the name belongs to it."""
        name = self._task.layer.longname
        return self._transform, self._task.hint, name, self._task.handle.key

    @property
    def change(self) -> Change:
        """What became of the layer; the tensor is computed for it if nobody has read it yet."""
        if self._change is None:
            self.read()
        assert self._change is not None
        return self._change

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        if self._change is None or self._change.number:
            tensor = self._last() if self._last else None
            tensor = self._computed() if tensor is None else tensor
            if tensor is not None:
                view = tensor[rows]
                view.flags.writeable = False
                return view
        return self._task.handle.read(rows)

    def _computed(self) -> np.ndarray | None:
        """The new tensor, or None where the layer stays as it was."""
        task = self._task
        stack = matrices.unfold(task.handle.read(), task.hint)
        try:
            found, change = self._transform.apply(stack, task.layer, task.scale)
        except InputError as cause:
            change = Change(layer=task.layer, number=0, words=str(cause), failed=True)
        self._change = change
        if not change.number:
            return None
        tensor = np.array(matrices.fold(found, self.shape, task.hint), order="C")
        self._last = weakref.ref(tensor)
        return tensor


def latest(handles: Iterable[Any]) -> int:
    """The `step` of the transform that came last, 0 where none did."""
    return max((one.step for one in handles if isinstance(one, TransformedHandle)), default=0)


def changes(model: Checkpoint) -> tuple[Change, ...]:
    """What the latest transform did to each layer of `model`, in natural order of the names.

    Parameters
    ----------
    model
        A Checkpoint that `smooth` or `sharpen` returned.

    Returns
    -------
    tuple of Change
        `.layer`, `.number` (singular values taken out, or elements set to zero; 0 where the layer
        stayed as it was), `.words`: what was done, or why nothing was, and `.failed`.

    Notes
    -----
    Computes the layers that have not been read yet; `save` reads them all.

    Examples
    --------
    >>> import wwfunc
    >>> wwfunc.changes(wwfunc.smooth("examples/digits.safetensors", -1))[0].words
    'kept 8 of 9 singular values'
    """
    checkpoint = as_checkpoint(model)
    step = latest(checkpoint.values())
    tasks = [finding.task for finding in find(checkpoint) if finding.task]
    return tuple(_change(task, step) for task in tasks)


def _change(task: Task, step: int) -> Change:
    if isinstance(task.handle, TransformedHandle) and task.handle.step == step:
        return task.handle.change
    words = refusal(task) or ("not selected" if step else "not transformed")
    return Change(layer=task.layer, number=0, words=words)


def refusal(task: Task) -> str | None:
    """Why no transform is for this layer, whatever its numbers are."""
    if isinstance(task.handle, LowRank):
        return "a low-rank change by an adapter: transform the weight that it is merged into"
    if is_narrow_float(task.handle.dtype):
        return f"{task.layer.dtype} elements are too coarse for it"
    return None if task.layer.num_evals else "an empty tensor"
