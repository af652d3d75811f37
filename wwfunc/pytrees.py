"""What JAX must know of our classes: records are pytrees of arrays, a Checkpoint one of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, dataclass_transform

import jax

from wwfunc.checkpoint import Checkpoint

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass whose fields are the leaves of a pytree."""
    frozen = dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
    names = [field.name for field in dataclasses.fields(frozen)]  # type: ignore[arg-type]
    return jax.tree_util.register_dataclass(frozen, data_fields=names, meta_fields=[])


def _flatten(checkpoint: Checkpoint) -> tuple[Sequence[Any], tuple[str, ...]]:
    return tuple(checkpoint.values()), tuple(checkpoint)


def _flatten_with_keys(checkpoint: Checkpoint) -> tuple[Sequence[Any], tuple[str, ...]]:
    leaves = [(jax.tree_util.DictKey(name), leaf) for name, leaf in checkpoint.items()]
    return leaves, tuple(checkpoint)


def _unflatten(names: tuple[str, ...], leaves: Iterable[Any]) -> Checkpoint:
    return Checkpoint(dict(zip(names, leaves, strict=True)))


# The structure holds the names alone: with a path or metadata in it, two files would never match.
jax.tree_util.register_pytree_with_keys(Checkpoint, _flatten_with_keys, _unflatten, _flatten)
