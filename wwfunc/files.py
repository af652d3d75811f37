"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from wwfunc.errors import OptionError


def output_path(path: str | os.PathLike[str]) -> Path:
    """`path`, where a file can be put: into a folder, and in the place of nothing but a file.

    Raises
    ------
    OptionError
        If it is a folder, a pipe or a device, or no path at all, or its folder does not exist.
    """
    try:
        target = Path(path)
        kind = _kind(target)
    except (TypeError, ValueError) as cause:  # a number, bytes, a NUL character
        raise OptionError(f"{path!r} is no path of a file: {cause}") from None
    except OSError as cause:  # links in a circle, a name too long
        raise OptionError(f"{path}: cannot be written to: {cause.strerror}") from None
    if stat.S_ISDIR(kind):
        raise OptionError(f"{path}: a folder, not a file to write")
    if not stat.S_ISREG(kind):
        raise OptionError(f"{path}: not a regular file, and only such a file is replaced")
    folder = Path(os.path.realpath(target)).parent
    if not (target.parent.is_dir() and folder.is_dir()):
        raise OptionError(f"{path}: no folder {folder}")
    return target


def _kind(path: Path) -> int:
    """What `stat` says a path is; a regular file where there is nothing yet."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return stat.S_IFREG


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a new file beside `path`, then put it in the place of `path` at once.

    A link is followed, and a file that was there keeps its permissions.

    Raises
    ------
    OptionError
        If the path cannot be written to.
    OSError
        If the writing fails half way, as on a full disk. What was there stays.
    """
    target = Path(os.path.realpath(output_path(path)))
    beside = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}")
    try:
        _replace(target, beside, write)
    except OSError as cause:
        if str(cause.filename) == str(beside):  # it could not be made, opened or moved
            raise OptionError(f"{path}: cannot be written to: {cause.strerror}") from None
        if cause.errno and cause.filename is None:
            cause.filename = str(path)
        raise


def _replace(target: Path, beside: Path, write: Callable[[Path], None]) -> None:
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    file = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(file, mode)  # the umask took bits away
        write(beside)
        os.fsync(file)  # else a loss of power could leave the new name with half of the data
        beside.replace(target)
    finally:
        os.close(file)
        beside.unlink(missing_ok=True)
