"""Random keys: one that a user hands over, and those of layers."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp

from wwfunc.errors import InputError
from wwfunc.layers.layer import Layer
from wwfunc.pytrees import Array


def layer_key(layer: Layer, seed: int) -> Array:
    """A random key of the layer's own: other layers, threads and their order do not change it."""
    name = f"{layer.longname}\0{layer.part}".encode("utf-8", "surrogatepass")
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name))


def check_key(key: Any) -> Array:
    """A random key of JAX's, of the new style or the old.

    Raises
    ------
    InputError
        If it is no key, or more than one.
    """
    try:
        typed = isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        one = key if typed else jax.random.wrap_key_data(jnp.asarray(key))
    except (TypeError, ValueError):
        one = None
    if one is None or one.ndim:
        shape = f" of shape {key.shape}" if hasattr(key, "shape") else ""
        kind = f"{key.dtype} array{shape}" if hasattr(key, "dtype") else repr(key)
        raise InputError(f"key is one random key, as jax.random.key(0) is, not {kind}")
    return one
