"""What JAX must know of our classes: records are pytrees of arrays, a Checkpoint of handles."""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

import jax
import numpy as np

from wwfunc.checkpoint import register_pytree

T = TypeVar("T")

Array = jax.Array | np.ndarray
"""Records hold JAX's arrays or, on the host, NumPy's."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass whose fields are the leaves of a pytree."""
    frozen = dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
    # mypy does not know that what the decorator returns is a dataclass.
    names = [field.name for field in dataclasses.fields(frozen)]  # type: ignore[arg-type]
    return jax.tree_util.register_dataclass(frozen, data_fields=names, meta_fields=[])


register_pytree()
