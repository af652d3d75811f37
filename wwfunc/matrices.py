"""Tensors as stacks of weight matrices (k, n, m) with n >= m, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from wwfunc.checkpoint import TensorHint
from wwfunc.dtypes import is_real_float
from wwfunc.errors import InputError


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


def as_stack(W: Any, verb: str) -> Float[np.ndarray, "k n m"]:
    """W on the host, as a stack of slices in its own type; InputError where it is none."""
    import jax  # describing a model does without it

    if isinstance(W, jax.core.Tracer):
        raise InputError(f"{verb} works on arrays with values, not under jit, vmap or grad")
    array = np.asarray(W)
    if isinstance(W, np.ma.MaskedArray) or not is_real_float(array.dtype):
        raise InputError(f"{verb} takes real floats, not {type(W).__name__} of {array.dtype}")
    if array.ndim not in (2, 3):
        raise InputError(
            f"{verb} takes a matrix (n, m) or a stack (k, n, m), not an array of shape "
            f"{array.shape}"
        )
    return array if array.ndim == 3 else array[None]


def _slice_axes(ndim: int, hint: TensorHint) -> tuple[int, ...]:
    return tuple(axis for axis in range(ndim) if axis not in (*hint.rows, *hint.cols))


def _sides(shape: tuple[int, ...], hint: TensorHint) -> tuple[int, int]:
    rows = math.prod(shape[axis] for axis in hint.rows)
    cols = math.prod(shape[axis] for axis in hint.cols)
    return rows, cols
