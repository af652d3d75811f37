"""Files beside an ONNX model that hold its tensors."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ..budget import Budget
from ..errors import HeaderError, NotReadableError, TruncatedError, UnsupportedError
from ..strict_json import brief

_DIGITS = 19


class ExternalFiles:
    """The files that the tensors of a model name: plain names in the model's own folder.

    Symbolic and hard links are refused, as by onnx itself: with one, a model from a stranger shows
    as its weights a file from elsewhere.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self._path, self._budget = path, budget
        self._sizes: dict[str, int] = {}
        self.nbytes = 0
        """Bytes of all the files together."""

    def place(self, entries: Mapping[str, str], nbytes: int, where: str) -> tuple[Path, int]:
        """The file and the offset of a tensor of `nbytes`."""
        name = entries.get("location", "")
        size = self._size(name, where)
        offset = _natural(entries.get("offset", "0"), "offset", where)
        length = _natural(entries.get("length", str(nbytes)), "length", where)
        if length != nbytes:
            raise HeaderError(f"{where} takes {nbytes} bytes, its external length is {length}")
        if offset + length > size:
            raise TruncatedError(
                f"{where} ends at byte {offset + length} of {brief(name)}, which has {size}"
            )
        return self._path.absolute().parent / name, offset

    def _size(self, name: str, where: str) -> int:
        if name not in self._sizes:
            self._budget.check("shards", len(self._sizes) + 1, self._path)
            self._sizes[name] = _checked_size(self._path.parent, name, where)
            self.nbytes += self._sizes[name]
        return self._sizes[name]


def _checked_size(folder: Path, name: str, where: str) -> int:
    what = f"{where}: its external file {brief(name)}"
    if name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise UnsupportedError(f"{what} is no plain name in the folder of the model")
    try:
        found = os.lstat(folder / name)
    except OSError as cause:
        raise NotReadableError(f"{what} cannot be read: {cause.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise UnsupportedError(f"{what} is a link, or no regular file; put a copy in its place")
    return found.st_size


def _natural(text: str, key: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise HeaderError(f"{where}: its external {key} is {brief(text)}, no natural number")
    return int(text)
