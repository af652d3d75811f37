"""The small files that are damaged: the fixtures, by the format that they are detected as."""

from __future__ import annotations

import functools
from collections import defaultdict
from pathlib import Path

import loaders
from wwfunc.errors import CheckpointError

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
_LARGEST = 1 << 17


@functools.cache
def seeds() -> dict[str, list[Path]]:
    """Format name to the fixtures of that format; an index stands for the folder around it."""
    found = defaultdict(list)
    for path in sorted([*FIXTURES.glob("*/*"), *FIXTURES.glob("*/*/*.json")]):
        try:
            name = loaders.detect(path)
        except CheckpointError:
            continue
        if path.is_dir() or path.stat().st_size <= _LARGEST:
            found[name].append(path)
    return dict(found)
