"""How much a checkpoint may ask for before it is refused; one limit for each kind of attack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import BudgetError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits that `load(path, budget=Budget(...))` raises for a file that is trusted.

    The worst file inside the defaults opens, or is refused, in under two seconds and 64 MiB.
    """

    header_bytes: int = 8 * MIB
    """What a format says of its tensors before their data: a header, a directory, a graph."""
    index_bytes: int = 16 * MIB
    """An index of shards, which names every tensor of a model, or the vocabulary of a GGUF file."""
    config_bytes: int = 8 * MIB
    """A configuration file."""
    json_items: int = 700_000
    """Braces, brackets, commas and quotes in one JSON text: its memory grows with them."""
    wide_json_bytes: int = 4 * MIB
    """A JSON text that is not all ASCII: it takes up to four bytes a character in memory."""
    tensors: int = 100_000
    """Tensors in one checkpoint."""
    shards: int = 4_096
    """Files in one checkpoint."""
    archive_entries: int = 50_000
    """Files in one archive, or pieces of arrays in one Orbax folder."""
    pickle_bytes: int = 8 * MIB
    """A pickle, without the tensors that it refers to."""
    opcodes: int = 1_500_000
    """Instructions in a pickle: those that make an object count several times, and names too."""
    fields: int = 750_000
    """Fields in the graphs of an ONNX model."""
    nesting: int = 200
    """Containers within containers."""
    free_bytes: int = 48 * MIB
    """Bytes that tensors may take in memory, whatever the file's size."""
    expansion: int = 4
    """Bytes in memory for each byte in the file, beyond the free ones."""

    def check(self, limit: str, asked: int, path: Path) -> None:
        """Raise `BudgetError` if `asked` is over the limit of that name."""
        allowed = getattr(self, limit)
        if asked > allowed:
            words = "levels of nesting" if limit == "nesting" else limit.replace("_", " ")
            raise BudgetError(
                f"{path}: {asked:,} {words} are over the budget of {allowed:,}; if you trust the "
                f"file, raise it to that or more: load(path, budget=Budget({limit}={asked}))"
            )

    def check_expansion(self, nbytes: int, stored: int, path: Path) -> None:
        """Raise `BudgetError` if `nbytes` in memory are too many for `stored` bytes in a file."""
        allowed = self.expansion * stored + self.free_bytes
        if nbytes > allowed:
            raise BudgetError(
                f"{path}: {nbytes:,} bytes of tensors in {stored:,} bytes of file are over the "
                f"budget of {allowed:,}; if you trust the file, raise it: "
                f"load(path, budget=Budget(free_bytes={nbytes}))"
            )
