"""Files of `torch.save` since PyTorch 1.6, and TorchScript: a zip of a pickle and raw storages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wwfunc.checkpoint import Checkpoint, Handle

from ..archive import Member, read_archive
from ..budget import Budget
from ..errors import ArchiveError, HeaderError, LayoutError, UnsupportedError
from ..files import FileBytes, require_file
from ..pickles.machine import PickleMachine
from ..pickles.nodes import Blob, Instance, Persistent
from ..strict_json import brief
from ..strided import MemoryBytes, Stored
from .tensors import Sources, Storage, claim, torch_persistent
from .tree import open_tree

_EXPORTED = "an exported program (.pt2), which is not read: save its state_dict()"
_OTHERS = {
    "data/weights/model_weights_config.json": _EXPORTED,
    "models/model.json": _EXPORTED,
    "model.json": "TorchScript of PyTorch 1.0, which is not read: save its state_dict()",
}
_DISTRIBUTED = (
    "a part of a distributed checkpoint, which is not read: convert the folder by "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
)
_SMALL = 64


def load_torch_zip(
    path: str | Path,
    *,
    key: str | None = None,
    inert: bool = False,
    check_crc: bool = False,
    budget: Budget | None = None,
) -> Checkpoint:
    """Open a file of `torch.save` or `torch.jit.save`; its tensors are mapped when they are read.

    Parameters
    ----------
    path
        The file.
    key
        Dotted path to the part that holds the model, where the file has several; "" takes all.
    inert
        Keep what an unknown function would return as an opaque object, rather than refuse it.
    check_crc
        Read every storage that a tensor shows and compare its CRC, which PyTorch does not do.
    budget
        Limits on what the file may ask for.

    Raises
    ------
    loaders.errors.NotReadableError, ArchiveError, HeaderError, PickleError, UnsafeGlobalError, \
BudgetError, LayoutError, ElementTypeError, UnsupportedError, AmbiguousError
        See `loaders.errors`; each names the file and the tensor, entry or byte.
    """
    path, budget = Path(path), budget or Budget()
    if path.suffix == ".distcp":
        raise UnsupportedError(f"{path}: {_DISTRIBUTED}")
    archive = TorchArchive(path, budget, check_crc=check_crc)
    machine = PickleMachine(path, budget, inert=inert, persistent=torch_persistent)
    root = machine.load_whole(archive.pickle, what="data.pkl")
    spent = machine.spent
    if archive.has_constants:
        machine = PickleMachine(path, budget, inert=inert, persistent=archive.constant)
        machine.spent = spent
        start = archive.append_constants(budget)
        constants = machine.load_whole(archive.pickle, start, what="constants.pkl")
        root, spent = _with_constants(root, constants), machine.spent
    return open_tree(root, archive, path, budget, key, archive.size, spent=spent)


def read_tensors(path: Path, budget: Budget) -> dict[str, Handle]:
    """The tensors of one shard, `pytorch_model-00001-of-00002.bin` for one."""
    return dict(load_torch_zip(path, budget=budget))


class TorchArchive(Sources):
    """The entries of the zip file, as the sources of tensors."""

    def __init__(self, path: Path, budget: Budget, *, check_crc: bool = False) -> None:
        self.size = require_file(path)
        self._path, self._check_crc = path, check_crc
        self._members = self._under_root(read_archive(path.absolute(), budget))
        self._order = self._byteorder(budget)
        member = self._members["data.pkl"]
        self._pickles = [(0, member)]
        self._storages: dict[str, Storage] = {}
        self._of_constants: set[Persistent] = set()
        self.pickle = member.content(budget, "pickle_bytes")
        """The content of data.pkl."""

    @property
    def has_constants(self) -> bool:
        """Whether it is TorchScript, which holds what its code refers to beside its modules."""
        return "constants.pkl" in self._members

    def append_constants(self, budget: Budget) -> int:
        """Where the content of constants.pkl starts in `pickle`, to which it is added."""
        member, start = self._members["constants.pkl"], len(self.pickle)
        self.pickle += member.content(budget, "pickle_bytes")
        self._pickles.append((start, member))
        return start

    def constant(self, pid: Any, at: int) -> Any:
        """What stands for a persistent id in constants.pkl, whose storages lie by themselves."""
        node = torch_persistent(pid, at)
        if isinstance(node, Persistent):
            self._of_constants.add(node)
        return node

    def storage(self, node: Persistent | Instance, where: str) -> Storage:
        """The storage that a persistent id names: an entry of exactly its size."""
        if not isinstance(node, Persistent):
            raise UnsupportedError(f"{where} is a PyTorch file within the pickle of another")
        found = claim(node, where)
        folder = "constants" if node in self._of_constants else "data"
        member = self._members.get(f"{folder}/{found.key}")
        if member is None or "/" in found.key:
            raise LayoutError(f"{where}: the file has no storage {brief(found.key)}")
        if member.nbytes != found.nbytes:
            raise LayoutError(
                f"{where}: storage {brief(found.key)} of {found.numel} elements of "
                f"{found.kind.name} does not take {member.nbytes} bytes"
            )
        storage = Storage(member, found.kind, self._order)
        first = self._storages.setdefault(member.name, storage)
        if first.kind != found.kind and None not in (first.kind.torch, found.kind.torch):
            raise LayoutError(
                f"{where}: storage {brief(found.key)} is {found.kind.name}, for another tensor "
                f"it is {first.kind.name}"
            )
        if self._check_crc and first is storage:
            member.check_crc()
        return storage

    def tensor(self, node: Persistent, where: str) -> Handle | None:
        """None: what a pickle refers to here are storages alone."""
        return None

    def octets(self, value: bytes | Blob) -> Stored:
        """Bytes of the pickle itself, mapped where it is not compressed."""
        if isinstance(value, bytes):
            return MemoryBytes(value)
        start, member = next(place for place in reversed(self._pickles) if place[0] <= value.start)
        if member.deflated:
            return MemoryBytes(self.pickle[value.start : value.start + value.nbytes])
        return FileBytes(member.path, member.offset + value.start - start, value.nbytes)

    def _under_root(self, members: Mapping[str, Member]) -> dict[str, Member]:
        """The entries without the folder that all of them stand in."""
        _refuse_others(members, self._path)
        pickles = [n for n in members if n.count("/") == 1 and n.lower().endswith("/data.pkl")]
        if not pickles:
            raise UnsupportedError(f"{self._path}: a zip archive that is no PyTorch file")
        roots = {name.partition("/")[0] for name in members}
        if len(roots) > 1:
            raise ArchiveError(f"{self._path}: entries stand beside the folder {brief(min(roots))}")
        if len({name.lower() for name in members}) != len(members):  # PyTorch takes any of them
            raise ArchiveError(f"{self._path}: names of entries differ in case alone")
        if not pickles[0].endswith("/data.pkl"):
            raise ArchiveError(f"{self._path}: {brief(pickles[0])} is not called data.pkl")
        start = len(pickles[0]) - len("data.pkl")
        return {name[start:]: member for name, member in members.items()}

    def _byteorder(self, budget: Budget) -> Literal["<", ">"]:
        """That of its storages; files of before PyTorch 2.1 do not say, and are little-endian."""
        member = self._members.get("byteorder")
        order = b"little" if member is None else self._content(member, budget)
        if order not in (b"little", b"big"):
            raise HeaderError(f"{self._path}: the byte order {brief(order)} is none")
        return "<" if order == b"little" else ">"

    def _content(self, member: Member, budget: Budget) -> bytes:
        if member.nbytes > _SMALL:
            raise HeaderError(f"{self._path}: {member.nbytes} bytes of {brief(member.name)}")
        return member.content(budget, "header_bytes")


def _with_constants(root: Any, constants: Any) -> Any:
    """The object with the tensors that its code refers to: all of its weights, if it is frozen."""
    if type(root) is not Instance or root.called or type(root.state) is not dict:
        return root
    if "constants" in root.state or not constants:
        return root
    root.state["constants"] = constants
    return root


def _refuse_others(members: Mapping[str, Member], path: Path) -> None:
    """Formats of PyTorch that are zip archives too."""
    for name in members:
        words = _OTHERS.get(name.partition("/")[2])
        if words is not None:
            raise UnsupportedError(f"{path}: {words}")
