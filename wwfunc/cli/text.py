"""Names from strangers as text that a terminal shows and does not obey."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with control characters and the like written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
