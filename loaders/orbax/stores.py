"""Where Orbax keeps the pieces of its arrays: in files below a folder, or in an OCDBT store."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from ..budget import Budget
from ..errors import NotReadableError, ShardError, UnsupportedError
from ..files import FileBytes
from ..strict_json import brief
from .ocdbt import Value, read_ocdbt
from .zarr_metadata import METADATA_NAMES

_LEGACY = "checkpoint"


class Store(Protocol):
    """Pieces by their keys, which are paths: that of the array, then that of the chunk."""

    folder: Path
    stored: int
    """Bytes that the pieces take on disk; those in a folder count once they were looked for."""

    def find(self, key: str) -> Value | None:
        """The piece under `key`, or None where there is none."""
        ...

    def names(self) -> list[str]:
        """The arrays, where no tree names them."""
        ...


class Database:
    """An OCDBT store."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        found = read_ocdbt(folder, budget)
        self.folder, self.stored, self._values = folder, found.stored, found.values

    def find(self, key: str) -> Value | None:
        return self._values.get(key.encode())

    def names(self) -> list[str]:
        texts = (key.decode("utf-8", "replace") for key in self._values)
        arrays = (text.rpartition("/") for text in texts)
        return sorted(name for name, _, file in arrays if file in METADATA_NAMES)


class Folders:
    """A folder for each array."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.folder, self.stored, self._budget = folder, 0, budget

    def find(self, key: str) -> Value | None:
        parts = key.split("/")
        if not all(parts) or {".", ".."} & set(parts) or set(key) & set("\\\0"):
            raise ShardError(f"{self.folder}: {brief(key)} is no plain path within the folder")
        path = f"{self.folder}/{key}"
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as cause:
            raise NotReadableError(
                f"{self.folder}: {brief(key)} cannot be read: {cause.strerror}"
            ) from None
        if not stat.S_ISREG(found.st_mode):
            raise NotReadableError(f"{self.folder}: {brief(key)} is not a regular file")
        self.stored += found.st_size
        return FileBytes(Path(path), 0, found.st_size)

    def names(self) -> list[str]:
        entries = sorted(os.listdir(self.folder))
        self._budget.check("archive_entries", len(entries), self.folder)
        if _LEGACY in entries:
            raise UnsupportedError(
                f"{self.folder}: a checkpoint of an old Orbax, with arrays in its file "
                f"{_LEGACY!r} too; save it again with a newer one"
            )
        return [name for name in entries if has_array(self.folder / name)]


def has_array(folder: Path) -> bool:
    """Whether the folder is a zarr array."""
    return any(os.path.exists(folder / file) for file in METADATA_NAMES)
