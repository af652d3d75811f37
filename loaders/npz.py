"""NumPy's files: a lone array (.npy), and a zip archive of arrays (.npz).

The headers are read here rather than by NumPy, which allocates what a header claims before it
looks at the file, and evaluates the header's text.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from wwfunc.checkpoint import Checkpoint, Handle
from wwfunc.dtypes import BY_NUMPY_NAME, ELEMENT_TYPES
from wwfunc.errors import OptionError

from .archive import Member, read_archive
from .budget import Budget
from .errors import (
    ArchiveError,
    ElementTypeError,
    HeaderError,
    LayoutError,
    TruncatedError,
    UnsupportedError,
)
from .files import FileBytes, MappedTensor, read_bytes, require_file
from .strict_json import brief
from .strided import StridedTensor

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_LARGEST = (1 << 63) - 1
_DIMENSIONS = 32
_LENGTHS = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}
# Possessive throughout: a header that does not fit is refused without a second try.
_ITEM = (
    r"\s*+(?:'descr'\s*+:\s*+'(?P<descr{0}>[^']*+)'"
    r"|'fortran_order'\s*+:\s*+(?P<fortran{0}>True|False)"
    r"|'shape'\s*+:\s*+\((?P<shape{0}>[0-9L,\s]*+)\))\s*+"
)
_HEADER = re.compile(r"\{" + ",".join(_ITEM.format(place) for place in range(3)) + r",?+\s*+\}\s*+")
_RECORD = re.compile(r"'descr'\s*+:\s*+\[")
# NumPy writes f1 for one of several 8-bit floats of ml_dtypes, and cannot read it.
_PLAIN = {row.dtype.str[1:] for row in ELEMENT_TYPES if row.dtype.kind in "biufc"} - {"f1"}
_TEXT = re.compile(r"[<>|][SU][1-9][0-9]{0,5}")
_UNREAD = {
    re.compile(r"\["): "records",
    re.compile(r"[<>|]?O[0-9]?"): "Python objects",
    re.compile(r"[<>]M8(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?"): "dates",
    re.compile(r"[<>]m8(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?"): "spans of time",
    re.compile(r"[<>](f1[026]|c2[04]|c32)"): "numbers of NumPy's longdouble",
}
"""What NumPy writes and no weight is made of."""


def load_npz(
    path: str | Path, *, budget: Budget | None = None, dtype: str | None = None
) -> Checkpoint:
    """Open a .npz archive or a lone .npy file; stored arrays are mapped when they are read.

    An array is named by its entry without `.npy`, a lone one by its file. Arrays beside others
    that hold no numbers of a known type (Python objects, records, dates, NumPy's longdouble) are
    named in the metadata.

    Parameters
    ----------
    path
        The file; what it is is decided by its content.
    budget
        Limits on what the file may ask for.
    dtype
        What arrays of bare bytes are, "bfloat16" for instance: NumPy's format has no names for
        the element types of ml_dtypes, and loses them.

    Raises
    ------
    ArchiveError, HeaderError, TruncatedError, LayoutError
        If the archive, an array's header, or its size is not what it says.
    ElementTypeError
        If an array holds bare bytes while `dtype` is None, or all hold Python objects, records,
        dates or NumPy's longdouble.
    UnsupportedError
        If an entry of the archive is no .npy file.
    BudgetError
        If the arrays take far more memory than the file, or their headers are too long.
    """
    path, budget = Path(path).absolute(), budget or Budget()
    lost = _lost_type(dtype)
    size = require_file(path)
    if read_bytes(path, min(size, len(MAGIC))) == MAGIC:
        sources = {path.stem: _Source(path, path.stem, 0, size, None)}
    else:
        members = read_archive(path, budget).values()
        sources = {_name(member): _source(member) for member in members}
    tensors, unread = _opened(sources, lost, budget)
    if unread and not tensors:
        name, words = next(iter(unread.items()))
        raise ElementTypeError(f"{sources[name].where} holds {words}, which are not read")
    budget.check_expansion(sum(tensor.nbytes for tensor in tensors.values()), size, path)
    notes = {name: f"an array of {words}, which is not read" for name, words in unread.items()}
    return Checkpoint(tensors, metadata=notes, source=str(path))


def _opened(
    sources: Mapping[str, _Source], lost: np.dtype | None, budget: Budget
) -> tuple[dict[str, Handle], dict[str, str]]:
    """The arrays, and of those that are not read what they hold; all headers count together."""
    tensors: dict[str, Handle] = {}
    unread: dict[str, str] = {}
    spent = 0
    for name, source in sources.items():
        head = source.head(512)
        start, end = _header_place(head, source)
        spent += end
        budget.check("header_bytes", spent, source.path)
        header = _read_header(head, start, end, source)
        if words := _unread(header.descr):
            unread[name] = words
        else:
            tensors[name] = _array(source, header, lost)
    return tensors, unread


def _lost_type(name: str | None) -> np.dtype | None:
    if name is not None and name not in BY_NUMPY_NAME:
        raise OptionError(f"dtype={name!r} is no element type; choose among {[*BY_NUMPY_NAME]}")
    return None if name is None else BY_NUMPY_NAME[name].dtype


def _name(member: Member) -> str:
    if not member.name.endswith(".npy"):
        raise UnsupportedError(f"{member.path}: the entry {brief(member.name)} is no .npy array")
    return member.name.removesuffix(".npy")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where an array stands: from `offset` in the file, or in an entry that is deflated."""

    path: Path
    name: str
    offset: int
    nbytes: int
    deflated: Member | None

    @property
    def where(self) -> str:
        return f"{self.path}: array {brief(self.name)}"

    def head(self, size: int) -> bytes:
        """The first bytes, `size` at most."""
        size = min(size, self.nbytes)
        if self.deflated is None:
            return read_bytes(self.path, size, self.offset)
        packed = read_bytes(self.path, min(self.deflated.stored, 2 * size + 64), self.offset)
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)
        except zlib.error as cause:
            raise ArchiveError(f"{self.where} is damaged: {cause}") from None


def _source(member: Member) -> _Source:
    deflated = member if member.deflated else None
    return _Source(member.path, member.name, member.offset, member.nbytes, deflated)


@dataclass(frozen=True, slots=True)
class _Inflated:
    """What follows the header of an array in a deflated entry."""

    member: Member
    start: int

    @property
    def nbytes(self) -> int:
        return self.member.nbytes - self.start

    @property
    def key(self) -> Hashable:
        return self.member.key

    def read(self, what: str) -> np.ndarray:
        data = self.member.read(what)
        if zlib.crc32(data.data) != self.member.crc:
            raise ArchiveError(f"{self.member.path}: the CRC of {what} is wrong")
        return data[self.start :]


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the elements; of records `descr` is a bracket and no more is known."""

    length: int
    descr: str
    fortran: bool
    shape: tuple[int, ...]


def _array(source: _Source, header: _Header, lost: np.dtype | None) -> Handle:
    dtype = _element(header.descr, lost, source)
    nbytes = _checked_size(header, dtype, source)
    start = source.offset + header.length
    native = dtype.newbyteorder("<") == dtype
    if source.deflated is None and native and not header.fortran:
        return MappedTensor(source.path, source.name, start, header.shape, dtype, nbytes)
    stored = (
        FileBytes(source.path, start, nbytes)
        if source.deflated is None
        else _Inflated(source.deflated, header.length)
    )
    strides = _strides(header.shape, header.fortran)
    return StridedTensor(stored, source.name, header.shape, dtype, 0, strides)


def _header_place(head: bytes, source: _Source) -> tuple[int, int]:
    """Where the text of the header starts and ends."""
    version = head[len(MAGIC)] if len(head) > len(MAGIC) else 0
    if not head.startswith(MAGIC) or version not in _LENGTHS:
        raise HeaderError(f"{source.where} does not start as a .npy file of version 1, 2 or 3")
    field, start = _LENGTHS[version], len(MAGIC) + 2
    if len(head) < start + field.size:
        raise TruncatedError(f"{source.where} ends within its header")
    end = start + field.size + field.unpack_from(head, start)[0]
    if end > _LONGEST_HEADER:
        raise HeaderError(
            f"{source.where} has a header of {end:,} bytes; {_LONGEST_HEADER:,} can be"
        )
    return start + field.size, end


def _read_header(head: bytes, start: int, end: int, source: _Source) -> _Header:
    head = source.head(end) if end > len(head) else head
    if len(head) < end:
        raise TruncatedError(f"{source.where} ends within its header")
    try:
        return _Header(end, *_fields(head[start:end].decode("latin-1")))
    except HeaderError as cause:
        raise HeaderError(f"{source.where} {cause}") from None


@lru_cache(maxsize=64)
def _fields(text: str) -> tuple[str, bool, tuple[int, ...]]:
    """Element type, order and shape in a header; its text is matched, never evaluated."""
    if text.startswith("{") and _RECORD.search(text):
        return "[", False, ()
    found = _HEADER.fullmatch(text)
    groups = found.groupdict().items() if found else ()
    given = {name.rstrip("012"): value for name, value in groups if value is not None}
    if given.keys() != {"descr", "fortran", "shape"}:
        raise HeaderError(f"has a header that NumPy does not write: {brief(text)}")
    if "," not in given["shape"] and given["shape"].strip():
        raise HeaderError(f"has a shape that is no tuple: {brief(given['shape'])}")
    sides = [side.strip().removesuffix("L") for side in given["shape"].split(",")]
    sides = sides[:-1] if sides[-1] == "" else sides
    if len(sides) > _DIMENSIONS or not all(re.fullmatch("[0-9]{1,19}", side) for side in sides):
        raise HeaderError(f"has the shape {brief(given['shape'])}")
    return given["descr"], given["fortran"] == "True", tuple(map(int, sides))


def _unread(descr: str) -> str | None:
    """What elements of that name are, where they are never read."""
    return next((words for kind, words in _UNREAD.items() if kind.fullmatch(descr)), None)


def _element(descr: str, lost: np.dtype | None, source: _Source) -> np.dtype:
    """The element type that `descr` names, in the byte order of the file."""
    order, code = descr[:1], descr[1:]
    if (order in ("<", ">", "|") and code in _PLAIN) or _TEXT.fullmatch(descr):
        return np.dtype(descr)
    if re.fullmatch(r"[<|](V[0-9]{1,3}|f1)", descr):
        if lost is not None and lost.itemsize == int(code[1:]):
            return lost
        raise ElementTypeError(
            f"{source.where} holds bare {descr!r} elements: NumPy's format has no name for "
            f"bfloat16 or float8; say what they are, load_npz(path, dtype='bfloat16')"
        )
    raise ElementTypeError(f"{source.where} has the unknown element type {brief(descr)}")


def _checked_size(header: _Header, dtype: np.dtype, source: _Source) -> int:
    """Bytes of the elements, which are all that follows the header."""
    itemsize = dtype.itemsize
    if math.prod(side for side in header.shape if side) * itemsize > _LARGEST:
        raise LayoutError(f"{source.where}: shape {[*header.shape]} overflows")
    nbytes, found = math.prod(header.shape) * itemsize, source.nbytes - header.length
    if nbytes > found:
        raise TruncatedError(
            f"{source.where}: {dtype.name} of shape {[*header.shape]} takes {nbytes:,} "
            f"bytes, and {found:,} follow the header"
        )
    if nbytes < found:
        raise LayoutError(f"{source.where}: {found - nbytes:,} bytes follow the last element")
    return nbytes


def _strides(shape: tuple[int, ...], fortran: bool) -> tuple[int, ...]:
    """Elements from one position to the next along each axis."""
    before = (shape[:axis] if fortran else shape[axis + 1 :] for axis in range(len(shape)))
    return tuple(map(math.prod, before))
