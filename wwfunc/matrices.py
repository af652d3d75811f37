"""Tensors as stacks of weight matrices (k, n, m) with n >= m, and back."""

from __future__ import annotations

import math

import numpy as np

from wwfunc.checkpoint import TensorHint


def unfold(tensor: np.ndarray, hint: TensorHint) -> np.ndarray:
    """A view of `tensor` as a stack (k, n, m), n >= m, where its memory allows a view.

    The axes that the hint names become rows and columns; those that are left count the k slices.
    """
    slices = _slice_axes(tensor.ndim, hint)
    ordered = tensor.transpose(*slices, *hint.rows, *hint.cols)
    rows, cols = _sides(tensor.shape, hint)
    stack = (
        ordered.reshape(-1, rows, cols) if tensor.size else np.empty((0, rows, cols), tensor.dtype)
    )
    return stack if rows >= cols else stack.swapaxes(1, 2)


def fold(stack: np.ndarray, shape: tuple[int, ...], hint: TensorHint) -> np.ndarray:
    """The tensor of `shape` whose `unfold` is `stack`."""
    slices = _slice_axes(len(shape), hint)
    order = (*slices, *hint.rows, *hint.cols)
    rows, cols = _sides(shape, hint)
    oriented = stack if rows >= cols else stack.swapaxes(1, 2)
    return oriented.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def _slice_axes(ndim: int, hint: TensorHint) -> tuple[int, ...]:
    return tuple(axis for axis in range(ndim) if axis not in (*hint.rows, *hint.cols))


def _sides(shape: tuple[int, ...], hint: TensorHint) -> tuple[int, int]:
    rows = math.prod(shape[axis] for axis in hint.rows)
    cols = math.prod(shape[axis] for axis in hint.cols)
    return rows, cols
