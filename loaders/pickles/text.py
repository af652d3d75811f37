"""The arguments of protocol 0, which are lines of text, and the strings of Python 2."""

from __future__ import annotations

import codecs
import re

_INTEGER = re.compile(rb"[+-]?[0-9]{1,39}L?")
_FLOAT = re.compile(rb"[+-]?(inf|nan|[0-9]{1,400}(\.[0-9]{0,400})?(e[+-]?[0-9]{1,4})?)", re.I)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[\\'\"abfnrtv])|\\")
_CONTROLS = dict(zip(b"abfnrtv\\'\"", b"\a\b\f\n\r\t\v\\'\"", strict=True))


class TextError(ValueError):
    """The text is not what the opcode says."""


def int_of(line: bytes) -> int:
    """An integer of at most 39 digits, which are 16 bytes."""
    if not _INTEGER.fullmatch(line):
        raise TextError("an integer that is none, or too long")
    return int(line.rstrip(b"L"))


def float_of(line: bytes) -> float:
    """A float as `repr` writes it."""
    if not _FLOAT.fullmatch(line):
        raise TextError("a float that is none")
    return float(line)


def string_of(line: bytes) -> bytes:
    """A quoted string of Python 2."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise TextError("a string without its quotes")
    return _ESCAPE.sub(_unescaped, line[1:-1])


def unicode_of(line: bytes) -> str:
    """Text in the escapes that protocol 0 has for it."""
    try:
        text, _ = codecs.raw_unicode_escape_decode(line)  # by its name it would be imported
        text.encode("utf-8")  # half of a surrogate pair is no text
    except UnicodeError:
        raise TextError("text with broken escapes") from None
    return text


def python2_text(raw: bytes) -> str | bytes:
    """A string of Python 2, which may be text or not: text where it can be."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _unescaped(found: re.Match[bytes]) -> bytes:
    escape = found[1]
    if escape is None:
        raise TextError("a string with an unknown escape")
    return bytes([int(escape[1:], 16) if len(escape) == 3 else _CONTROLS[escape[0]]])
