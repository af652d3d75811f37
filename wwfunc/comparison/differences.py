"""What one layer is more than another, and a base with a change in it: computed when read."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Handle
from wwfunc.errors import InputError
from wwfunc.layers.layer import Task
from wwfunc.lowrank import LowRank
from wwfunc.matrices import fold, unfold


@dataclass(frozen=True)
class Computed:
    """A tensor in float64 in the layout of a layer of one model, made with one of another."""

    ours: Task
    theirs: Task

    @property
    def shape(self) -> tuple[int, ...]:
        return self.ours.handle.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64)

    @property
    def nbytes(self) -> int:
        return 8 * math.prod(self.shape)

    @property
    def key(self) -> Hashable:
        return type(self).__name__, self.ours.handle.key, self.theirs.handle.key

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        with np.errstate(all="ignore"):  # not finite is the row's status
            result = self._computed(rows)
        result.flags.writeable = False
        return result

    def _computed(self, rows: slice) -> np.ndarray:
        raise NotImplementedError

    def _other(self, rows: slice) -> np.ndarray:
        return in_layout(self.theirs, self.ours, rows)


class Difference(Computed):
    """The first less the second."""

    def _computed(self, rows: slice) -> np.ndarray:
        result = self.ours.handle.read(rows).astype(np.float64)
        result -= self._other(rows)
        return result


class Merged(Computed):
    """The second, a base, with the first, a low-rank change, added.

    DoRA then brings the weights of each output to a length that it has learnt (Liu et al. 2024,
    arXiv:2402.09353): W' = m (W + D) / ||W + D||, the norm over the inputs of an output. LyCORIS
    has a form with the lengths of inputs.
    """

    def _computed(self, rows: slice) -> np.ndarray:
        change = self.ours.handle
        magnitude = getattr(change, "magnitude", None)
        whole = rows if magnitude is None else slice(None)
        result = change.read(whole).astype(np.float64)
        result += self._other(whole)
        if magnitude is None:
            return result
        axis = self._axis(magnitude)
        others = tuple(a for a in range(result.ndim) if a != axis)
        norm = np.sqrt(np.sum(np.square(result), axis=others, keepdims=True))
        wide = [1] * result.ndim
        wide[axis] = result.shape[axis]
        result *= magnitude.read().astype(np.float64).reshape(wide) / norm
        return np.ascontiguousarray(result[rows])

    def _axis(self, magnitude: Handle) -> int:
        """The axis along which the magnitudes stand: that of the outputs, or of the inputs."""
        change = self.ours.handle
        per_input = bool(getattr(change, "per_input", False))
        axis = int(getattr(change, "transposed", False) != per_input)
        count, sides = math.prod(magnitude.shape), self.shape[axis]
        if count != sides:
            words = "inputs" if per_input else "outputs"
            raise InputError(f"{count} magnitudes for {sides} {words}")
        return axis


class MergedChange(Merged):
    """A base with a change in it, less the base: what DoRA changes all in all."""

    def _computed(self, rows: slice) -> np.ndarray:
        result = super()._computed(rows)
        result -= self._other(rows)
        return result


def change(ours: Task, theirs: Task) -> Handle:
    """The change from the base `theirs` to `ours`, which may be a change itself."""
    if not isinstance(ours.handle, LowRank):
        return Difference(ours, theirs)
    return ours.handle if ours.handle.magnitude is None else MergedChange(ours, theirs)


def merged(ours: Task, theirs: Task) -> Handle:
    """The weights after the change."""
    return Merged(ours, theirs) if isinstance(ours.handle, LowRank) else ours.handle


def in_layout(task: Task, of: Task, rows: slice = slice(None)) -> np.ndarray:
    """A layer's tensor in the layout that a tensor of another model has."""
    axes, others = ((hint.rows, hint.cols) for hint in (task.hint, of.hint))
    if task.handle.shape == of.handle.shape and axes == others:
        return task.handle.read(rows)
    stack = unfold(task.handle.read(), task.hint)
    return fold(stack, of.handle.shape, of.hint)[rows]
