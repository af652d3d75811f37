"""A checkpoint: named tensors that are read when they are needed, whatever file they come from."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np

from wwfunc.errors import InputError

Kind = Literal["dense", "embedding", "conv1d", "conv2d", "conv3d"]

_DIGEST_ROWS_BYTES = 1 << 24


class Handle(Protocol):
    """A tensor that can be described without being read.

    `key` is equal for two handles exactly when they show the same memory or the same bytes of a
    file, which is how tied tensors are found. `read` may be called from several threads at once
    and returns an array that must not be written to.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def key(self) -> Hashable: ...

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        """The tensor, or those of its `rows` (positions along the first axis)."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayHandle:
    """A handle to an array that is in memory: NumPy's, or one that converts itself to NumPy's."""

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.array.dtype)

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    @property
    def key(self) -> Hashable:
        if isinstance(self.array, np.ndarray):
            start = self.array.__array_interface__["data"][0]
            # The string alone is one for many types of ml_dtypes, the name for both byte orders.
            kind = self.array.dtype.str, self.array.dtype.name
            return start, self.array.shape, self.array.strides, kind
        return id(self.array)

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        view = np.asarray(self.array)[rows] if self.shape else np.asarray(self.array)
        view = view.view()
        view.flags.writeable = False
        return view


@dataclass(frozen=True)
class TensorHint:
    """What a tensor is, said by someone who knows: a loader, or the user.

    `rows` and `cols` are the axes that become the rows and the columns of the weight matrices;
    the axes that are left count the slices. `TensorHint("conv2d", rows=(3,), cols=(2,))` is the
    kernel of a Flax convolution, (height, width, in, out).
    """

    kind: Kind
    rows: tuple[int, ...] = (0,)
    cols: tuple[int, ...] = (1,)


class Checkpoint(Mapping[str, Any]):
    """An immutable, ordered mapping from tensor names to handles.

    As a JAX pytree its leaves are the handles and its structure is the names alone, so that
    `jax.tree.map(f, a.read(), b.read())` works for two files with the same names.

    Parameters
    ----------
    tensors
        Name to handle; after `read()`, or out of `jax.tree.map`, name to array.
    metadata
        Free text that the file carries.
    config
        The model's configuration, where the checkpoint has one (`config.json`).
    hints
        Tensor name, or name pattern (`fnmatch`), to `TensorHint`; the last that fits decides.
    source
        Where it was read from, for messages; None for tensors in memory.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        *,
        metadata: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        hints: Mapping[str, TensorHint] | None = None,
        source: str | None = None,
    ) -> None:
        if not all(isinstance(name, str) for name in tensors):
            raise InputError("the names of a Checkpoint's tensors are text")
        self._tensors = MappingProxyType(dict(tensors))
        self.metadata = MappingProxyType(dict(metadata or {}))
        self.config = MappingProxyType(dict(config or {}))
        self.hints = MappingProxyType(dict(hints or {}))
        self._rank = {key: rank for rank, key in enumerate(self.hints)}
        # A loader gives one hint a tensor: only true patterns are tried one after the other.
        self._patterns = [k for k in self.hints if k not in tensors and set(k) & set("*?[")][::-1]
        self.source = source
        object.__setattr__(self, "_sealed", True)
        register_pytree()

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_sealed", False):
            raise AttributeError(f"a Checkpoint is immutable: {name!r} cannot be set")
        object.__setattr__(self, name, value)

    def __getitem__(self, name: str) -> Any:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    # The values may be arrays, whose equality is an array: two checkpoints compare by identity.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Checkpoint of {len(self)} tensors from {self.source or 'memory'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (
            dict(self._tensors),
            dict(self.metadata),
            dict(self.config),
            dict(self.hints),
            self.source,
        )

    def hint(self, name: str) -> TensorHint | None:
        """The last hint that fits `name`, or None."""
        for pattern in self._patterns:
            if pattern == name or fnmatchcase(name, pattern):
                own = name if self._rank.get(name, -1) > self._rank[pattern] else pattern
                return self.hints[own]
        return self.hints.get(name)

    def with_hints(self, hints: Mapping[str, TensorHint]) -> Checkpoint:
        """The same checkpoint with `hints` on top of its own."""
        kept = {pattern: hint for pattern, hint in self.hints.items() if pattern not in hints}
        return self._with(self._tensors, {**kept, **hints})

    def read(self) -> Checkpoint:
        """The same checkpoint with every tensor read into a NumPy array."""
        arrays = {name: np.array(as_handle(leaf).read()) for name, leaf in self.items()}
        return self._with(arrays, self.hints)

    def digest(self) -> str:
        """SHA-256 over names, element types, shapes and contents, in the order of the names."""
        sha = hashlib.sha256()
        for name in sorted(self):
            handle = as_handle(self[name])
            sha.update(repr((name, handle.dtype.name, handle.shape)).encode())
            for block in _row_blocks(handle):
                stored = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
                sha.update(stored.view(np.uint8).data)
        return sha.hexdigest()

    def _with(self, tensors: Mapping[str, Any], hints: Mapping[str, TensorHint]) -> Checkpoint:
        return Checkpoint(
            tensors, metadata=self.metadata, config=self.config, hints=hints, source=self.source
        )


_registered: list[bool] = []


def register_pytree() -> None:
    """Tell JAX, if somebody has imported it, that a Checkpoint is a pytree of its handles."""
    jax: Any = sys.modules.get("jax")
    if _registered or not hasattr(jax, "tree_util"):
        return
    _registered.append(True)
    key = jax.tree_util.DictKey
    jax.tree_util.register_pytree_with_keys(
        Checkpoint,
        lambda ckpt: ([(key(name), ckpt[name]) for name in sorted(ckpt)], tuple(sorted(ckpt))),
        # The structure is the names alone, sorted: with a path or an order of its own in it, two
        # files of one model would not match.
        lambda names, leaves: Checkpoint(dict(zip(names, leaves, strict=True))),
        lambda ckpt: ([ckpt[name] for name in sorted(ckpt)], tuple(sorted(ckpt))),
    )


def is_handle(leaf: Any) -> bool:
    """Whether `leaf` is a handle, by its class: a tensor's own properties may raise."""
    return all(hasattr(type(leaf), name) for name in ("key", "read"))


def as_handle(leaf: Any) -> Handle:
    """`leaf` itself if it is a handle, else a handle to the array that it is."""
    if is_handle(leaf):
        return leaf
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        raise InputError(f"a Checkpoint holds handles and arrays, not a {type(leaf).__name__}")
    return ArrayHandle(leaf)


def _restore(
    tensors: dict[str, Any],
    metadata: dict[str, str],
    config: dict[str, Any],
    hints: dict[str, TensorHint],
    source: str | None,
) -> Checkpoint:
    return Checkpoint(tensors, metadata=metadata, config=config, hints=hints, source=source)


def _row_blocks(handle: Handle) -> Iterator[np.ndarray]:
    if not handle.shape or not handle.nbytes:
        yield np.atleast_1d(handle.read())
        return
    step = max(1, _DIGEST_ROWS_BYTES * handle.shape[0] // handle.nbytes)
    for start in range(0, handle.shape[0], step):
        yield handle.read(slice(start, start + step))
