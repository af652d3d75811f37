"""JSON from strangers: no duplicate names, no NaN, no deep nesting, and one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from wwfunc.errors import CheckpointError

from .errors import HeaderError


def parse_object(
    text: bytes, path: Path, error: type[CheckpointError] = HeaderError
) -> dict[str, Any]:
    """The JSON object in `text`, or `error` saying what is wrong with it."""
    try:
        document = json.loads(
            text.decode("utf-8", "strict"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
        )
        if b"\\u" in text:  # an escaped lone surrogate is no text
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise error(f"{path}: JSON nested too deep") from None
    except ValueError as cause:
        raise error(f"{path}: not valid JSON: {str(cause)[:200]}") from None
    if type(document) is not dict:
        raise error(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:80]!r} stands twice")
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
