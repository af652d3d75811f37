"""Byte strings in a pickle, which the older protocols write as text and a call."""

from __future__ import annotations

from typing import Any

from .globals import BYTEARRAY, ENCODE
from .nodes import Blob, Global, Instance

_BYTES = Global("builtins", "bytes")
_LATIN = ("latin1", "latin-1", "iso-8859-1")


def bytes_of(value: Any) -> bytes | Blob | None:
    """The bytes that a value stands for, or None where it stands for none."""
    if type(value) in (bytes, Blob):
        return value
    if type(value) is str:  # of Python 2, where it happened to be UTF-8
        return value.encode("utf-8")
    if type(value) is Instance and value.called:
        return _called(value.function, value.args)
    return None


def _called(function: Global, args: tuple[Any, ...]) -> bytes | Blob | None:
    if function in (_BYTES, BYTEARRAY) and not args:
        return b""
    if function == BYTEARRAY and type(args[0]) in (bytes, Blob):
        return args[0]
    if function in (ENCODE, BYTEARRAY) and len(args) == 2 and type(args[0]) is str:
        return _encoded(args[0]) if args[1] in _LATIN else None
    return None


def _encoded(text: str) -> bytes | None:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return None
