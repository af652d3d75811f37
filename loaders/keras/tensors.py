"""Names and element types that both of Keras's HDF5 layouts share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np

from wwfunc.checkpoint import Handle, TensorHint
from wwfunc.dtypes import BY_NUMPY_NAME
from wwfunc.errors import OptionError

from ..budget import Budget
from ..errors import ElementTypeError, LayoutError
from ..hdf5 import Node
from ..strict_json import brief

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a model, before it is known whether its name is the only one of its kind."""

    name: str
    full_name: str
    """Longer, and used where two variables share the short one."""
    node: Node
    bfloat16: bool = False
    """Whether two opaque bytes are bfloat16: HDF5 has no such type, and Keras writes it so."""
    hint: TensorHint | None = None


@dataclass(slots=True)
class Tensors:
    """Handles and hints by name."""

    handles: dict[str, Handle] = field(default_factory=dict)
    hints: dict[str, TensorHint] = field(default_factory=dict)


def lost_type(name: str | None) -> np.dtype | None:
    """The element type that the caller names, for files that do not."""
    if name is not None and name not in BY_NUMPY_NAME:
        raise OptionError(f"dtype={name!r} is no element type; choose among {[*BY_NUMPY_NAME]}")
    return None if name is None else BY_NUMPY_NAME[name].dtype


def counted(variables: Iterable[Variable], path: Path, budget: Budget) -> list[Variable]:
    """The variables, as long as they and their names together are within the budget."""
    found: list[Variable] = []
    length = 0
    for variable in variables:
        length += len(variable.name) + len(variable.full_name)
        budget.check("header_bytes", length, path)
        found.append(variable)
        budget.check("tensors", len(found), path)
    return found


def named(variables: Sequence[Variable], path: Path, lost: np.dtype | None) -> Tensors:
    """A handle to each variable, under names of which none stands twice.

    Raises
    ------
    LayoutError, ElementTypeError
        If two variables have all names in common, or one does not say what its elements are.
    """
    count = Counter(variable.name for variable in variables)
    tensors = Tensors()
    for variable in variables:
        name = variable.name if count[variable.name] == 1 else variable.full_name
        if name in tensors.handles:
            raise LayoutError(f"{path}: two variables are named {brief(name)}")
        dataset = variable.node.dataset
        dtype = _element_type(dataset.dtype, variable, dataset.where, lost)
        tensors.handles[name] = dataset.tensor(name, dtype)
        if variable.hint is not None:
            tensors.hints[name] = variable.hint
    return tensors


def _element_type(
    stored: np.dtype, variable: Variable, where: str, lost: np.dtype | None
) -> np.dtype:
    if stored != np.dtype((np.void, stored.itemsize)):
        return stored
    if variable.bfloat16 and stored.itemsize == _BFLOAT16.itemsize:
        return _BFLOAT16
    if lost is None or lost.itemsize != stored.itemsize:
        raise ElementTypeError(
            f"{where} holds elements of {stored.itemsize} bytes and does not say of what type; "
            f"if you know, say so: dtype='bfloat16' or another type of that size"
        )
    return lost
