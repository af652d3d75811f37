"""Whatever a user hands over, as a Checkpoint: a path, a mapping, a pytree, a model in memory."""

from __future__ import annotations

import fnmatch
import logging
import os
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wwfunc.checkpoint import ArrayHandle, Checkpoint, Handle, TensorHint, is_handle
from wwfunc.dtypes import BY_TORCH_NAME
from wwfunc.errors import InputError, OptionError
from wwfunc.opening import load

logger = logging.getLogger("wwfunc")


def as_checkpoint(model: Any, *, whole: bool = False) -> Checkpoint:
    """`model` as a Checkpoint, without copying a tensor.

    Takes a Checkpoint; a path; a mapping from names to arrays, nested or not; a pytree of arrays
    (Flax params, `nnx.State`, equinox); a PyTorch state dict or a module that has one. Leaves that
    are no arrays are left out with a warning.

    Raises
    ------
    InputError
        If no named arrays are found in it; where `whole`, also if it holds a number or a text.
    """
    if isinstance(model, Checkpoint):
        return model
    if isinstance(model, (str, os.PathLike)):
        return load(model)
    state_dict = getattr(model, "state_dict", None)
    tree = state_dict() if callable(state_dict) and not isinstance(model, Mapping) else model
    tensors: dict[str, Handle] = {}
    for name, handle in _named_handles(tree, whole):
        if name in tensors:
            raise InputError(f"two arrays have the name {name!r} once their keys are joined")
        tensors[name] = handle
    if not tensors:
        raise InputError(
            f"no named arrays in a {type(model).__name__}: give a path, a Checkpoint, "
            f"a mapping or pytree of arrays, or a state dict"
        )
    return Checkpoint(tensors)


def with_hints(
    checkpoints: Sequence[Checkpoint], hints: Mapping[str, TensorHint] | None
) -> list[Checkpoint]:
    """The checkpoints with hints on top of their own; each pattern must fit a tensor in one."""
    if hints is None:
        return list(checkpoints)
    if not isinstance(hints, Mapping):
        raise OptionError(f"hints= maps name patterns to TensorHint, not {hints!r}")
    for pattern in hints:
        if not isinstance(pattern, str) or not any(fnmatch.filter(c, pattern) for c in checkpoints):
            raise OptionError(f"no tensor fits the pattern {pattern!r} in hints=")
    return [checkpoint.with_hints(hints) for checkpoint in checkpoints]


def _named_handles(tree: Any, whole: bool) -> Iterator[tuple[str, Handle]]:
    """(name, handle) of each array in a nested mapping, or in a pytree where JAX is needed."""
    if _is_array(tree):
        raise InputError("an array without a name: give a mapping, such as {'layer': array}")
    if _is_nested_mapping(tree):
        yield from _from_mapping(tree, ())
    else:
        yield from _from_pytree(tree, whole)


def _is_nested_mapping(tree: Any) -> bool:
    if not isinstance(tree, Mapping):
        return False
    return all(
        _is_nested_mapping(leaf) or _is_array(leaf) or leaf is None for leaf in tree.values()
    )


def _from_mapping(tree: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Handle]]:
    for key, leaf in tree.items():
        here = (*path, *map(str, key if isinstance(key, tuple) else (key,)))
        if isinstance(leaf, Mapping):
            yield from _from_mapping(leaf, here)
        elif leaf is not None:
            yield _named(here, leaf)


def _from_pytree(tree: Any, whole: bool) -> Iterator[tuple[str, Handle]]:
    import jax

    try:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    except ValueError as cause:  # keys that cannot be sorted
        raise InputError(f"a {type(tree).__name__} is no pytree: {cause}") from None
    others = [(path, leaf) for path, leaf in leaves if not _is_array(leaf)]
    names = ", ".join(".".join(_key_words(path)) for path, _ in others[:3])
    if whole and not all(callable(leaf) for _, leaf in others):  # activations are no values
        raise InputError(
            f"{len(others)} leaves hold no array and would be lost: {names}; give arrays alone"
        )
    if others:
        logger.warning("%d leaves hold no array and are left out: %s ...", len(others), names)
    for path, leaf in leaves:
        if _is_array(leaf):
            yield _named(_key_words(path), leaf)


def _key_words(path: tuple[Any, ...]) -> list[str]:
    """Keys as words; nnx wraps each variable in one more level, its attribute `value`."""
    words = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
    ]
    wrapped = len(words) > 1 and getattr(path[-1], "name", None) == "value"
    return words[:-1] if wrapped else words


def _is_array(leaf: Any) -> bool:
    return is_handle(leaf) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


def _holds_numbers(leaf: Any) -> bool:
    """Whether NumPy can read it: no shape alone, no sparse matrix, nothing that `jit` traces."""
    jax = sys.modules.get("jax")
    traced = jax is not None and isinstance(leaf, jax.core.Tracer)
    return hasattr(leaf, "nbytes") and not traced


def _is_random_key(leaf: Any) -> bool:
    """Whether it is one of JAX's typed keys, which models carry for dropout; NumPy has no such."""
    return str(getattr(leaf, "dtype", "")).startswith("key<")


def _named(words: Iterable[str], leaf: Any) -> tuple[str, Handle]:
    name = ".".join(words)
    if _is_random_key(leaf):
        import jax

        return name, ArrayHandle(jax.random.key_data(leaf[...]))
    if is_handle(leaf):
        return name, leaf
    if isinstance(leaf, np.ma.MaskedArray):
        raise InputError(f"{name!r} is a masked array: fill or drop what is masked")
    torch_name = _torch_name(leaf)
    if torch_name and torch_name not in _READABLE:
        raise InputError(f"the tensor {name!r} of {leaf.dtype} cannot be read")
    if not torch_name and not _holds_numbers(leaf):
        raise InputError(f"{name!r} is a {type(leaf).__name__}, which holds no array to read")
    return name, TorchHandle(leaf) if torch_name else ArrayHandle(leaf)


def _torch_name(leaf: Any) -> str:
    """`bfloat16` of `torch.bfloat16`; empty for a dtype that is not torch's."""
    prefix, _, name = str(leaf.dtype).rpartition(".")
    return name if prefix == "torch" else ""


_QUANTISED = ("qint8", "quint8", "qint32")
# A type of two elements a byte is one that torch itself can neither convert nor hand over.
_READABLE = {*_QUANTISED, *(name for name, row in BY_TORCH_NAME.items() if row.bits >= 8)}


@dataclass(frozen=True, eq=False)
class TorchHandle:
    """A torch tensor in memory, read through its own methods: torch is not imported here."""

    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype:
        name = _torch_name(self.tensor)
        return np.dtype(np.float32) if name in _QUANTISED else BY_TORCH_NAME[name].dtype

    @property
    def nbytes(self) -> int:
        return int(self.tensor.numel() * self.tensor.element_size())

    @property
    def key(self) -> Hashable:
        strided = str(self.tensor.layout) == "torch.strided"
        start = self.tensor.data_ptr() if strided else 0
        if not start:  # on the meta device there is no memory that could be shared
            return id(self.tensor)
        lazy = self.tensor.is_conj(), self.tensor.is_neg()  # signs that are not in the memory yet
        return start, self.shape, tuple(self.tensor.stride()), self.dtype.name, lazy

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        part = self.tensor.detach()
        if part.is_meta:
            raise InputError("a tensor on the meta device has a shape and no numbers")
        if _torch_name(part) in _QUANTISED:
            part = part.dequantize()
        if str(part.layout) != "torch.strided":
            part = part.to_dense()
        part = (part[rows] if self.shape else part).cpu().resolve_conj().resolve_neg()
        if self.dtype.type.__module__ != "numpy":  # bf16 and fp8: as integers of their width
            torch = sys.modules["torch"]
            part = part.view(torch.int16 if self.dtype.itemsize == 2 else torch.uint8)
        view = np.asarray(part.numpy()).view(self.dtype)
        view.flags.writeable = False
        return view
