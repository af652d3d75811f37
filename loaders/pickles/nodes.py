"""What a pickle becomes here: plain values, and inert nodes where Python would run code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

_PYTHON3 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Global(NamedTuple):
    """The name of a class or function, which is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def named(module: str, name: str) -> Global:
    """The token of a name; the two modules that Python 2 called otherwise get one name."""
    return Global(_PYTHON3.get(module, module), name)


@dataclass(frozen=True, slots=True)
class Blob:
    """A long byte string, left where it stands in the data that holds the pickle."""

    start: int
    nbytes: int


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """A reference to something outside the pickle: a storage."""

    pid: Any
    at: int
    """Position of the opcode."""

    def __repr__(self) -> str:
        return f"<persistent id at byte {self.at}>"


@dataclass(eq=False, repr=False, slots=True)
class Instance:
    """What a class or function would return for `args`, and what would be put into it then."""

    function: Global
    args: tuple[Any, ...]
    at: int
    called: bool
    """Whether Python would call the function, or only make an empty object of the class."""
    state: Any = None
    entries: dict[Any, Any] | None = None
    items: list[Any] | None = None

    def __repr__(self) -> str:  # its arguments may hold itself, or a billion of themselves
        return f"<{self.function} at byte {self.at}>"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class TupleKey:
    """A tuple as the key of a dict: hashed by identity, not by what a stranger chose."""

    items: tuple[Any, ...]

    def __repr__(self) -> str:  # it may hold a billion of others
        return f"<a tuple of {len(self.items)} as a key>"
