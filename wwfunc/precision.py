"""Which precision a public function computes in: that of its input, without global switches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from wwfunc.dtypes import is_real_float
from wwfunc.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` in 64-bit mode when it is called eagerly with a float64 array.

    Float64 NumPy arrays in, float64 NumPy arrays out: a float64 array of JAX's would turn into
    float32 in the caller's next line, outside of the mode.

    Inside a trace nothing is scoped: there the caller's own setting of `jax_enable_x64` decides,
    and without it JAX has turned float64 into float32 before this function sees it.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _is_eager_float64((args, kwargs)):
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            return jax.device_get(function(*args, **kwargs))

    return call


def real_numbers(value: Any, name: str) -> jax.Array:
    """`value` as an array of JAX's in at least float32; float64 stays where the mode holds it.

    Raises
    ------
    InputError
        If it holds no real numbers.
    """
    given = value if hasattr(value, "dtype") else np.asarray(value)
    kind = np.dtype(given.dtype)
    if isinstance(given, np.ma.MaskedArray) or not (kind.kind in "iub" or is_real_float(kind)):
        raise InputError(f"{name} must hold real numbers, not {type(value).__name__} of {kind}")
    if kind.itemsize > 8:
        raise InputError(f"{name} holds {kind}, which JAX has not; give float64")
    array = jnp.asarray(given)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _is_eager_float64(tree: Any) -> bool:
    if jax.config.read("jax_enable_x64"):
        return False
    leaves = jax.tree.leaves(tree)
    wide = any(getattr(leaf, "dtype", None) == np.float64 and leaf.ndim for leaf in leaves)
    return wide and not any(map(_is_traced, leaves)) and not _is_tracing()


def _is_traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.core.Tracer)


def _is_tracing() -> bool:
    # A float64 constant met inside somebody's jit is no tracer, but what is put there becomes one.
    return _is_traced(jax.device_put(np.float32(0.0)))
