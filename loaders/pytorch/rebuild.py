"""The calls by which PyTorch pickles tensors, answered with handles instead of being made."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wwfunc.checkpoint import ArrayHandle, Handle

from ..budget import Budget
from ..errors import ElementTypeError, LayoutError, PickleError, UnsupportedError
from ..pickles import globals as names
from ..pickles.byte_strings import bytes_of
from ..pickles.nodes import Global, Instance, Persistent
from ..strict_json import brief
from ..strided import Stored, StridedTensor
from .arguments import (
    in_c_order,
    layout,
    marks,
    number,
    numbers,
    torch_dtype,
    unsized,
)
from .handles import Dequantised, Nibbles, Recoded, Truth
from .numpy_arrays import array_tensor, is_array, pickled_array
from .sparse import COO, SparseTensor, sparse_tensor
from .tensors import Sources, Storage, strided_tensor

_SHORT = 100
_STEPS = 8  # a parameter around a subclass around a tensor is three
_WORKSPACE = 4 << 20
_OLD_STATE = 4  # storage, offset, size, strides
_OLD_VARIABLE = 5  # data, name, hooks, requires_grad, volatile
_NO_DATA = frozenset((names.META, names.WRAPPER))
_CLASSES = names.TENSOR_CLASSES | names.PARAMETER_CLASSES
_TENSORS = names.REBUILDS | names.SUBCLASSES | _CLASSES


class Tensors:
    """Handles for the nodes that are tensors, all of them within one budget.

    `stored` is the size of the file.
    """

    def __init__(self, path: Path, sources: Sources, budget: Budget, stored: int) -> None:
        self._path, self._sources, self._budget, self._stored = path, sources, budget, stored
        self._nbytes = 0
        self._copies = False
        self._known: dict[Any, Handle] = {}
        self._known_octets: dict[int, Stored] = {}
        self._name = ""
        self._calls: dict[Global, Callable[[Instance, str, int], Handle]] = {
            **dict.fromkeys(names.PLAIN_TENSORS, self._plain),
            **dict.fromkeys(names.PARAMETERS, self._first),
            **dict.fromkeys(names.MOVED, self._moved),
            **dict.fromkeys(names.SUBCLASSES, self._subclass),
            **dict.fromkeys(_CLASSES, self._of_class),
            **dict.fromkeys(_NO_DATA, self._no_data),
            names.QUANTISED: self._quantised,
            names.SPARSE: self._sparse,
            names.NESTED: self._nested,
        }

    def is_tensor(self, node: Any) -> bool:
        """Whether a node is a tensor, a storage or an array of numbers."""
        if type(node) is Persistent:
            return True
        if type(node) is not Instance:
            return False
        return node.function in _TENSORS or node.function == names.NESTED_FILE or is_array(node)

    def rank(self, node: Any) -> int:
        """How many axes a tensor has, as far as its node tells; 1 where it does not."""
        for _ in range(_STEPS):
            if type(node) is not Instance or not node.args:
                return 1
            if node.function in names.PLAIN_TENSORS | {names.QUANTISED}:
                size = unsized(node.args[2]) if len(node.args) > 2 else ()
                return len(size) if type(size) is tuple else 1
            node = node.args[0]
        return 1

    def handle(self, node: Any, name: str) -> Handle:
        """The tensor that a node stands for; `name` is for messages.

        Raises
        ------
        loaders.errors.PickleError, LayoutError, ElementTypeError, UnsupportedError, BudgetError
            If it does not stand for one, has no data, or shows more than the file may.
        """
        found = self._known.get(node)
        if found is None:
            self._name = name
            shown = repr(name) if len(name) <= _SHORT else brief(name)
            where = f"{self._path}: tensor {shown}"
            found = self._known[node] = self._handle(node, where, 0)
            self._spend(self._workspace(found))
        self._spend(found.nbytes)
        return found

    def _workspace(self, found: Handle) -> int:
        """What reading takes beside the values, once: more than views of a file are made."""
        copied = not isinstance(found, StridedTensor) or found.conjugated or found.negated
        first, self._copies = copied and not self._copies, copied or self._copies
        return _WORKSPACE if first else 0

    def _spend(self, nbytes: int) -> None:
        self._nbytes += nbytes
        self._budget.check_expansion(self._nbytes, self._stored, self._path)

    def _handle(self, node: Any, where: str, step: int) -> Handle:
        if step > _STEPS:
            raise PickleError(f"{where}: a tensor within a tensor, {step} deep")
        if type(node) is Persistent:
            known = self._sources.tensor(node, where)
            return self._bare(node, where) if known is None else known
        if type(node) is not Instance:
            raise PickleError(f"{where}: {brief(node)} is no tensor")
        if node.function == names.NESTED_FILE:
            return self._bare(node, where)
        if is_array(node):
            return self._array(node, where)
        call = self._calls.get(node.function)
        if call is None:
            raise PickleError(f"{where}: what {node.function} returns is not known to be a tensor")
        return call(node, where, step)

    # ---- storages and arrays

    def _storage(self, node: Any, where: str) -> Storage:
        is_file = type(node) is Instance and node.function == names.NESTED_FILE
        if not is_file and type(node) is not Persistent:
            raise PickleError(f"{where}: {brief(node)} is no storage")
        found = self._sources.storage(node, where)
        if getattr(found.stored, "deflated", False):
            self._spend(found.stored.nbytes)  # every read of a view inflates all of it
        return found

    def _bare(self, node: Any, where: str) -> Handle:
        """A storage that stands where tensors stand: all of it, as a vector."""
        storage = self._storage(node, where)
        numel = storage.stored.nbytes // storage.kind.itemsize
        dtype = storage.kind.torch or "uint8"
        return strided_tensor(storage, self._name, dtype, 0, (numel,), (1,), where)

    def _array(self, node: Instance, where: str) -> Handle:
        array = pickled_array(node, where)
        stored = self._octets(array.octets, where)
        view = array_tensor(array, stored, self._name, where)
        if view.dtype.kind == "b":
            octets = np.dtype(np.uint8)
            return Truth(StridedTensor(stored, view.name, view.shape, octets, 0, view.strides))
        native = view.dtype.newbyteorder("<") if view.dtype.kind in "iufc" else view.dtype
        return view if view.dtype == native else Recoded(view, native)

    def _octets(self, node: Any, where: str) -> Stored:
        """The bytes of an array, taken once however many arrays share them."""
        source = node.args[0] if type(node) is Instance and node.args else node
        known = self._known_octets.get(id(source))
        if known is None:
            octets = bytes_of(node)
            if octets is None:
                raise PickleError(f"{where}: the bytes of a NumPy array are {brief(node)}")
            known = self._known_octets[id(source)] = self._sources.octets(octets)
        return known

    # ---- calls

    def _arguments(self, node: Instance, where: str, least: int, most: int) -> tuple[Any, ...]:
        if not least <= len(node.args) <= most:
            raise PickleError(f"{where}: {node.function} with {len(node.args)} arguments")
        return node.args

    def _plain(self, node: Instance, where: str, step: int) -> Handle:
        third = node.function == names.TENSOR_V3
        first = node.function == names.TENSOR
        args = self._arguments(node, where, *((4, 4) if first else (7, 8) if third else (6, 7)))
        storage = self._storage(args[0], where)
        dtype = torch_dtype(args[6], where) if third else None
        metadata = args[7:] if third else args[6:]
        flags = marks(metadata[0] if metadata else None, where)
        return self._view(storage, dtype, args[1:4], where, **flags)

    def _view(
        self,
        storage: Storage,
        dtype: str | None,
        geometry: tuple[Any, ...],
        where: str,
        **flags: bool,
    ) -> Handle:
        if storage.kind.packed > 1 and dtype is None:
            raise ElementTypeError(
                f"{where}: the packed codes of {storage.kind.name} have no scale"
            )
        offset, size, strides = (
            geometry[0],
            numbers(geometry[1], where),
            numbers(geometry[2], where),
        )
        return strided_tensor(storage, self._name, dtype, offset, size, strides, where, **flags)

    def _first(self, node: Instance, where: str, step: int) -> Handle:
        """The first argument is the tensor, the others say how it is trained."""
        return self._handle(self._arguments(node, where, 1, 4)[0], where, step + 1)

    def _moved(self, node: Instance, where: str, step: int) -> Handle:
        data, dtype, *_ = self._arguments(node, where, 4, 4)
        found = self._handle(data, where, step + 1)
        wanted = torch_dtype(dtype, where)
        if found.dtype.name != wanted:
            raise UnsupportedError(f"{where}: {found.dtype.name} elements to be read as {wanted}")
        return found

    def _subclass(self, node: Instance, where: str, step: int) -> Handle:
        function, kind, args, *_ = self._arguments(node, where, 4, 4)
        if (
            type(function) is not Global
            or function not in names.REBUILDS
            or type(args) is not tuple
        ):
            raise PickleError(f"{where}: {brief(function)} is not known to return a tensor")
        if function == names.WRAPPER and _is_distributed(kind):
            raise UnsupportedError(f"{where} is a distributed tensor: save its full_tensor()")
        return self._handle(Instance(function, args, node.at, True), where, step + 1)

    def _of_class(self, node: Instance, where: str, step: int) -> Handle:
        """Tensors and parameters of before PyTorch 0.4: an empty object and its state."""
        state = node.state
        if type(state) is tuple and len(state) == _OLD_STATE:
            return self._view(self._storage(state[0], where), None, state[1:], where)
        if type(state) is tuple and len(state) == _OLD_VARIABLE:
            return self._handle(state[0], where, step + 1)
        if node.function in names.PARAMETER_CLASSES and node.args:
            return self._handle(node.args[0], where, step + 1)
        raise UnsupportedError(f"{where} has no data: it is an empty {node.function}")

    def _no_data(self, node: Instance, where: str, step: int) -> Handle:
        raise UnsupportedError(f"{where} has no data: it was saved by {node.function}")

    def _nested(self, node: Instance, where: str, step: int) -> Handle:
        raise UnsupportedError(f"{where} is a nested tensor, whose rows differ in length")

    # ---- quantised and sparse

    def _quantised(self, node: Instance, where: str, step: int) -> Handle:
        storage, *geometry = self._arguments(node, where, 7, 7)[:4]
        codes = self._codes(self._storage(storage, where), tuple(geometry), where)
        quantiser = node.args[4]
        if type(quantiser) is not tuple or type(quantiser[0] if quantiser else None) is not Global:
            raise PickleError(f"{where}: {brief(quantiser)} is no quantiser")
        if isinstance(codes, (Nibbles, Recoded)):
            self._spend(codes.nbytes)  # beside the values, they are in memory too
        scheme, *rest = quantiser
        if scheme == ("torch", "per_tensor_affine") and len(rest) == 2:
            return Dequantised(codes, number(rest[0], where), number(rest[1], where))
        if scheme.name.startswith("per_channel_affine") and len(rest) == 3:
            return self._by_channel(codes, rest, where, step)
        raise UnsupportedError(f"{where}: the quantiser {brief(str(scheme))} is not read")

    def _codes(self, storage: Storage, geometry: tuple[Any, ...], where: str) -> Handle:
        if storage.kind.packed == 1:
            return self._view(storage, None, geometry, where)
        shape, strides = numbers(geometry[1], where), numbers(geometry[2], where)
        if storage.kind.packed != 2 or geometry[0] != 0 or not in_c_order(shape, strides):
            raise UnsupportedError(f"{where}: packed codes in another order than C's")
        nbytes, whole = storage.stored.nbytes, (math.prod(shape) + 1) // 2
        # The codes follow each other, but PyTorch allots every row whole bytes.
        allotted = math.prod(shape[:-1]) * ((shape[-1] + 1) // 2) if shape else 1
        if nbytes not in (whole, allotted):
            raise LayoutError(f"{where}: shape {[*shape]} does not take {nbytes} bytes of codes")
        name, octets = self._name, np.dtype(np.uint8)
        return Nibbles(StridedTensor(storage.stored, name, (nbytes,), octets, 0, (1,)), shape)

    def _by_channel(self, codes: Handle, rest: list[Any], where: str, step: int) -> Handle:
        scales, zeros = (self._channel(part, where, step) for part in rest[:2])
        axis = rest[2]
        if type(axis) is not int or not 0 <= axis < len(codes.shape):
            raise LayoutError(f"{where}: the axis {brief(axis)} of its scales is none of its own")
        if not scales.shape == zeros.shape == (codes.shape[axis],):
            raise LayoutError(
                f"{where}: {[*scales.shape]} scales and {[*zeros.shape]} zero points for "
                f"{codes.shape[axis]} channels"
            )
        return Dequantised(codes, scales, zeros, axis)

    def _channel(self, part: Any, where: str, step: int) -> Handle:
        if type(part) is list:
            return ArrayHandle(np.array([number(value, where) for value in part], np.float64))
        found = self._handle(part, where, step + 1)
        self._spend(found.nbytes)
        return found

    def _sparse(self, node: Instance, where: str, step: int) -> SparseTensor:
        kind, parts = self._arguments(node, where, 2, 2)
        name = layout(kind, where)
        expected = (3, 4) if name == COO else (4,)
        if type(parts) is not tuple or len(parts) not in expected:
            raise PickleError(f"{where}: the parts of a {name} tensor are not those of one")
        count = 2 if name == COO else 3
        found = [self._dense(part, where, step) for part in parts[:count]]
        shape = numbers(parts[count], where)
        return sparse_tensor(name, tuple(found[:-1]), found[-1], shape, where)

    def _dense(self, part: Any, where: str, step: int) -> Handle:
        found = self._handle(part, where, step + 1)
        if isinstance(found, SparseTensor):
            raise PickleError(f"{where}: a sparse tensor of sparse tensors")
        self._spend(found.nbytes)
        return found


def _is_distributed(kind: Any) -> bool:
    """Whether a class is `DTensor`, which has moved from module to module."""
    is_name = type(kind) is Global and kind.name == "DTensor"
    return is_name and kind.module.startswith("torch.distributed.")
