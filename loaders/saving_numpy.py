"""Writing NumPy's files: a lone array (.npy), and an archive of them (.npz), not deflated."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from wwfunc.checkpoint import Handle
from wwfunc.errors import OptionError

from .blocks import stored_blocks
from .errors import ElementTypeError, HeaderError
from .saving import Progress, Writer, write_each
from .strict_json import brief

_KINDS = "biufcSU"
_LONGEST_NAME = (1 << 16) - 1


def numpy_writer(target: Path) -> Writer:
    """The writer for the suffix of `target`."""
    return _npy if target.suffix.lower() == ".npy" else _npz


def _npy(
    tensors: Mapping[str, Handle], metadata: Mapping[str, str], target: Path
) -> Callable[[Path, Progress], None]:
    if len(tensors) != 1:
        raise OptionError(f"{target}: .npy takes one array, not {len(tensors)}; write .npz")
    _check_types(tensors, target)

    def write(beside: Path, progress: Progress) -> None:
        with open(beside, "wb") as file:
            write_each(tensors, lambda _, tensor: _write_array(file, tensor), progress, target)

    return write


def _npz(
    tensors: Mapping[str, Handle], metadata: Mapping[str, str], target: Path
) -> Callable[[Path, Progress], None]:
    _check_types(tensors, target)
    for name in tensors:
        if not _is_plain(name):
            raise HeaderError(f"{target}: {brief(name)} is no name for an entry of an archive")

    def write(beside: Path, progress: Progress) -> None:
        with zipfile.ZipFile(beside, "w") as archive:

            def append(name: str, tensor: np.ndarray) -> None:
                entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980: equal tensors give equal files
                with archive.open(entry, "w", force_zip64=True) as file:
                    _write_array(file, tensor)

            write_each(tensors, append, progress, target)

    return write


def _is_plain(name: str) -> bool:
    """Whether it is the name of an entry that our loader takes, and that unpacks into a folder."""
    parts = f"{name}.npy".split("/")
    if not name.isprintable() or "\\" in name or not all(parts) or {".", ".."} & set(parts):
        return False
    return len(f"{name}.npy".encode()) <= _LONGEST_NAME


def _check_types(tensors: Mapping[str, Handle], target: Path) -> None:
    for name, handle in tensors.items():
        if handle.dtype.type.__module__ != "numpy" or handle.dtype.kind not in _KINDS:
            raise ElementTypeError(
                f"{target}: tensor {brief(name)}: NumPy's format has no {handle.dtype.name}; "
                "write .safetensors"
            )


def _write_array(file: IO[bytes], tensor: np.ndarray) -> None:
    header = {"descr": tensor.dtype.str, "fortran_order": False, "shape": tensor.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in stored_blocks(tensor, tensor.dtype):
        file.write(block)
