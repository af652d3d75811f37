"""An entry of an archive, inflated once and held in memory, for a format of many tensors."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np

from .archive import Member
from .budget import Budget
from .errors import ArchiveError
from .files import read_bytes
from .strict_json import brief

_STEP = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Inflated:
    """Bytes in memory; they are never copied as a whole."""

    array: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    @property
    def key(self) -> Hashable:
        return id(self.array)

    def read(self, what: str) -> np.ndarray:
        view = self.array.view()
        view.flags.writeable = False
        return view


def inflate(member: Member, budget: Budget) -> Inflated:
    """All of a deflated entry, checked against its size and CRC.

    Raises
    ------
    BudgetError, ArchiveError
        If it has more than `Budget.free_bytes`, or other bytes than the directory says.
    """
    budget.check("free_bytes", member.nbytes, member.path)
    array = np.empty(member.nbytes, np.uint8)
    at = crc = 0
    for piece in _pieces(member):
        if at + len(piece) > member.nbytes:
            break
        array[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at, crc = at + len(piece), zlib.crc32(piece, crc)
    else:
        if at == member.nbytes and crc == member.crc:
            return Inflated(array)
    raise ArchiveError(
        f"{member.path}: {brief(member.name)} does not inflate to its {member.nbytes} bytes"
    )


def _pieces(member: Member) -> Iterator[bytes]:
    """The entry a little at a time: zlib would need twice its size to give it at once."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    for start in range(0, member.stored, _STEP):
        size = min(_STEP, member.stored - start)
        rest = read_bytes(member.path, size, member.offset + start)
        full = True
        while full or rest:
            try:
                piece = engine.decompress(rest, _STEP)
            except zlib.error as cause:
                raise ArchiveError(
                    f"{member.path}: {brief(member.name)} is damaged: {cause}"
                ) from None
            yield piece
            rest, full = engine.unconsumed_tail, len(piece) == _STEP
            if engine.eof:
                break
