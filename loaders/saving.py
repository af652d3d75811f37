"""Writing a checkpoint: safetensors, or a NumPy file where the tensors fit into one.

safetensors is written here rather than by the `safetensors` library, which takes all tensors in
memory at once.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wwfunc.checkpoint import Checkpoint, Handle, as_handle
from wwfunc.dtypes import BY_NUMPY_NAME, ElementType
from wwfunc.errors import OptionError
from wwfunc.files import output_path, write_atomically
from wwfunc.lowrank import LowRank

from .blocks import stored_blocks
from .errors import ElementTypeError, HeaderError, UnsupportedError
from .strict_json import brief

Progress = Callable[[int, int, str], None]
"""Called with the tensors written, the tensors in all, and the name of the one just written."""

Writer = Callable[[Mapping[str, Handle], Mapping[str, str], Path], Callable[[Path, Progress], None]]
"""Checks names and element types, and returns what writes the file."""

SUFFIXES = (".safetensors", ".npz", ".npy")
_ALIGNMENT = 8
_LONGEST_HEADER = 100_000_000  # what the `safetensors` library reads


def save(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, progress: Progress | None = None
) -> None:
    """Write `checkpoint` to a file, whole or not at all, a tensor at a time.

    Parameters
    ----------
    checkpoint
        What to write; each tensor is read once, and tied ones once for all their names.
    path
        The file; its suffix says the format. `.safetensors` takes metadata and every element type
        that the format has; `.npz` takes NumPy's own types and no metadata, `.npy` one array.
    progress
        Called after each tensor with (done, total, name).

    Raises
    ------
    wwfunc.OptionError
        If the suffix is another one, the path cannot be written to, or it is a file that the
        checkpoint reads from, or in the folder that the checkpoint was opened as.
    ElementTypeError, UnsupportedError, HeaderError
        If the format has no place for an element type, an adapter, a name or a text. Nothing is
        written then.
    OSError
        If the writing fails half way, as on a full disk. What was there stays.

    Notes
    -----
    Configuration and hints have no place in these files. Memory: about one tensor, none for those
    that are mapped from a file; and what a handle takes that computes its tensor.

    Examples
    --------
    >>> import tempfile, loaders.saving
    >>> checkpoint = loaders.load("examples/digits.safetensors")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaders.saving.save(checkpoint, f"{folder}/copy.safetensors")
    ...     loaders.load(f"{folder}/copy.safetensors").digest() == checkpoint.digest()
    True
    """
    target = check_target(path, checkpoint)
    tensors = {name: as_handle(leaf) for name, leaf in checkpoint.items()}
    _check_tensors(tensors, target)
    write = _writer(target)(tensors, checkpoint.metadata, target)
    write_atomically(target, lambda beside: write(beside, progress or _silent))


def check_target(path: str | os.PathLike[str], checkpoint: Checkpoint) -> Path:
    """Raise the OptionError that `save` would raise for this path."""
    target = output_path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"{target}: what is written is {', '.join(SUFFIXES)}; name a file that ends so, "
            f"{target.with_suffix('.safetensors').name if target.name else 'x.safetensors'!r} "
            "for instance"
        )
    if target.exists() and any(os.path.samefile(target, own) for own in _inputs(checkpoint)):
        raise OptionError(f"{target}: the checkpoint is read from this file; name another one")
    if _is_in_source(target, checkpoint):
        raise OptionError(
            f"{target}: the checkpoint was opened as the folder {checkpoint.source}, and one more "
            "file could change what that holds; write to another folder"
        )
    return target


def in_file_order(tensors: Mapping[str, Handle]) -> list[str]:
    """Names in the order of the data: wide elements first, so that all are aligned; tied together.

    PyTorch maps a tensor only where its offset is a multiple of its element's size.
    """
    first: dict[Hashable, int] = {}
    for place, handle in enumerate(tensors.values()):
        first.setdefault(handle.key, place)
    return sorted(
        tensors, key=lambda name: (-tensors[name].dtype.itemsize, first[tensors[name].key])
    )


def write_each(
    tensors: Mapping[str, Handle],
    write: Callable[[str, np.ndarray], None],
    progress: Progress,
    target: Path,
) -> None:
    """Read each tensor once, also under several names in a row, and never hold two at a time."""
    key: Hashable = None
    tensor: np.ndarray | None = None
    for done, (name, handle) in enumerate(tensors.items(), 1):
        if tensor is None or handle.key != key or not handle.nbytes:
            tensor = None  # let go of the last one before the next is computed
            key, tensor = handle.key, handle.read()
        _check_read(name, tensor, handle, target)
        write(name, tensor)
        progress(done, len(tensors), name)


def _check_read(name: str, tensor: np.ndarray, handle: Handle, target: Path) -> None:
    """A handle's word has been checked, and may be in a header already: it must read that."""
    if tensor.shape != handle.shape or tensor.dtype.name != handle.dtype.name:
        raise HeaderError(
            f"{target}: tensor {brief(name)} was read as {tensor.dtype.name} of shape "
            f"{list(tensor.shape)}, not as what it is said to be"
        )


def _silent(done: int, total: int, name: str) -> None:
    pass


def _writer(target: Path) -> Writer:
    if target.suffix.lower() == ".safetensors":
        return _safetensors
    from .saving_numpy import numpy_writer  # zipfile, for those who write an archive

    return numpy_writer(target)


def _inputs(checkpoint: Checkpoint) -> Iterator[Path]:
    """Every file that is known to be read from, and that exists."""
    keys = [as_handle(leaf).key for leaf in checkpoint.values()]
    named = {Path(checkpoint.source)} if checkpoint.source else set()
    yield from (path for path in named | set(_paths(keys)) if os.path.exists(path))


def _is_in_source(target: Path, checkpoint: Checkpoint) -> bool:
    """Whether the target, or the file that it links to, is in the folder that was opened."""
    folders = {target.parent, Path(os.path.realpath(target)).parent}
    return os.path.isdir(checkpoint.source or "") and any(
        os.path.samefile(str(checkpoint.source), folder) for folder in folders
    )


def _paths(key: Iterable[Any]) -> Iterator[Path]:
    """The paths in the nested keys of handles."""
    for part in key:
        if isinstance(part, Path):
            yield part
        elif isinstance(part, (tuple, list)):
            yield from _paths(part)


def _check_tensors(tensors: Mapping[str, Handle], target: Path) -> None:
    for name, handle in tensors.items():
        if isinstance(handle, LowRank):
            raise UnsupportedError(
                f"{target}: {brief(name)} is a low-rank change by an adapter, which would become "
                "a dense weight; save(checkpoint.read(), path) if that is meant"
            )


# safetensors ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """How a tensor is stored, and where it starts and ends behind the header."""

    element: ElementType
    shape: tuple[int, ...]
    start: int
    end: int


def _safetensors(
    tensors: Mapping[str, Handle], metadata: Mapping[str, str], target: Path
) -> Callable[[Path, Progress], None]:
    ordered = {name: tensors[name] for name in in_file_order(tensors)}
    places = _placed(ordered, target)
    header = _header({name: places[name] for name in tensors}, metadata, target)

    def write(beside: Path, progress: Progress) -> None:
        with open(beside, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)

            def append(name: str, tensor: np.ndarray) -> None:
                for block in _blocks(tensor, places[name].element):
                    file.write(block)

            write_each(ordered, append, progress, target)

    return write


def _placed(ordered: Mapping[str, Handle], target: Path) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    start = 0
    for name, handle in ordered.items():
        element = BY_NUMPY_NAME.get(handle.dtype.name)
        size = element.stored_bytes(handle.shape) if element else None
        if element is None or not element.safetensors or element.bits == 6:
            raise ElementTypeError(
                f"{target}: tensor {brief(name)}: safetensors has no {handle.dtype.name}"
            )
        if size is None:
            raise ElementTypeError(
                f"{target}: tensor {brief(name)}: {handle.dtype.name} of shape "
                f"{list(handle.shape)} does not fill whole bytes"
            )
        places[name] = _Place(element, handle.shape, start, start + size)
        start += size
    return places


def _header(places: Mapping[str, _Place], metadata: Mapping[str, str], target: Path) -> bytes:
    if "__metadata__" in places:
        raise HeaderError(f"{target}: '__metadata__' is no name that a tensor can have")
    if not all(isinstance(text, str) for item in metadata.items() for text in item):
        raise HeaderError(f"{target}: the metadata are not all text")
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, place in places.items():
        entries[name] = {
            "dtype": place.element.safetensors,
            "shape": list(place.shape),
            "data_offsets": [place.start, place.end],
        }
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as cause:
        raise HeaderError(f"{target}: {brief(cause.object[cause.start])} is no Unicode") from None
    header = text + b" " * (-len(text) % _ALIGNMENT)
    if len(header) > _LONGEST_HEADER:
        raise HeaderError(
            f"{target}: names and metadata take {len(header):,} bytes, and a header has "
            f"{_LONGEST_HEADER:,} at most"
        )
    return header


def _blocks(tensor: np.ndarray, element: ElementType) -> Iterable[memoryview]:
    if element.bits != 4:
        return stored_blocks(tensor, element.dtype)
    octets = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    return [(octets[::2] & 0xF | octets[1::2] << 4).data]  # the first in the low half
