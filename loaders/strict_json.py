"""JSON from strangers: no duplicate names, no NaN, no deep nesting, and one kind of error."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, NoReturn

from wwfunc.errors import CheckpointError

from .budget import Budget
from .errors import HeaderError

_ITEMS = (b"{", b"[", b",", b'"')

_WORDS = reprlib.Repr()
_WORDS.maxstring = _WORDS.maxother = 200


def parse_object(
    text: bytes,
    path: Path,
    error: type[CheckpointError] = HeaderError,
    budget: Budget | None = None,
    constants: bool = False,
) -> dict[str, Any]:
    """The JSON object in `text`, or `error` saying what is wrong with it.

    `constants` lets Python's own NaN and Infinity pass, which configurations have in them.
    """
    budget = budget or Budget()
    budget.check("json_items", sum(map(text.count, _ITEMS)), path)
    escaped = b"\\u" in text
    if escaped or not text.isascii():
        budget.check("wide_json_bytes", len(text), path)
    constant = float if constants else _refuse
    try:
        decoded = text.decode("utf-8", "strict")
        del text  # the largest documents are held but once
        document = json.loads(decoded, object_pairs_hook=_unique, parse_constant=constant)
        if escaped:  # a lone surrogate is no text
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise error(f"{path}: JSON nested too deep") from None
    except ValueError as cause:
        raise error(f"{path}: not valid JSON: {str(cause)[:200]}") from None
    if type(document) is not dict:
        raise error(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def brief(value: Any) -> str:
    """`value` for a message: cut short, whatever its length and its depth."""
    return _WORDS.repr(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"the name {name[:80]!r} stands twice")
        document[name] = value
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
