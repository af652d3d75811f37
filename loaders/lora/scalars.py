"""Tensors of one number that must be known when a file is opened: the alphas of adapters."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from wwfunc.checkpoint import Handle
from wwfunc.dtypes import is_real_float

from ..errors import AdapterError, NotReadableError, TruncatedError
from ..files import MappedTensor
from ..strict_json import brief


def read_numbers(tensors: Mapping[str, Handle], path: Path) -> dict[str, float]:
    """The value of each tensor.

    Raises
    ------
    AdapterError
        If one has more than one element, or is no finite real number.
    """
    for name, tensor in tensors.items():
        real = tensor.dtype.kind in "iu" or is_real_float(tensor.dtype)
        if math.prod(tensor.shape) != 1 or not real:
            raise AdapterError(
                f"{path}: {brief(name)} is {tensor.dtype.name} of shape {[*tensor.shape]}, "
                f"not one real number"
            )
    values = {name: float(array.reshape(())) for name, array in _arrays(tensors)}
    for name, value in values.items():
        if not math.isfinite(value):
            raise AdapterError(f"{path}: {brief(name)} is {value}")
    return values


def _arrays(tensors: Mapping[str, Handle]) -> Iterator[tuple[str, np.ndarray]]:
    mapped: defaultdict[Path, dict[str, MappedTensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if isinstance(tensor, MappedTensor):
            mapped[tensor.path][name] = tensor
        else:
            yield name, np.asarray(tensor.read())
    for path, found in mapped.items():
        yield from _from_file(path, found)


def _from_file(path: Path, tensors: Mapping[str, MappedTensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Read at their offsets: to map each of many thousands would take seconds."""
    try:
        with open(path, "rb", buffering=0) as file:
            for name, tensor in tensors.items():
                octets = os.pread(file.fileno(), tensor.nbytes, tensor.offset)
                if len(octets) != tensor.nbytes:
                    raise TruncatedError(f"{path}: {brief(name)} can no longer be read")
                yield name, np.frombuffer(octets, tensor.dtype)
    except OSError as cause:
        raise NotReadableError(f"{path}: cannot be read: {cause.strerror}") from None
