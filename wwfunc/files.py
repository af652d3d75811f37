"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new file beside `path`, then put it in the place of `path` at once.

    A link is followed, and a file that was there keeps its permissions.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}")
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except OSError as cause:
        raise type(cause)(cause.errno, cause.strerror, str(path)) from None
    try:
        write(beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
