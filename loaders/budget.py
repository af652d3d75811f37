"""How much a checkpoint may ask for before it is refused; one limit for each kind of attack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import BudgetError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits that `load(path, budget=Budget(...))` raises for a file that is trusted."""

    header_bytes: int = 8 * MIB
    """A safetensors header."""
    index_bytes: int = 32 * MIB
    """An index of shards: it names every tensor of the largest models."""
    config_bytes: int = 8 * MIB
    """A configuration file."""
    tensors: int = 200_000
    """Tensors in one checkpoint."""
    shards: int = 4_096
    """Files in one checkpoint."""

    def check(self, limit: str, asked: int, path: Path) -> None:
        """Raise `BudgetError` if `asked` is over the limit of that name."""
        allowed = getattr(self, limit)
        if asked > allowed:
            raise BudgetError(
                f"{path}: {asked:,} {limit.replace('_', ' ')} are over the budget of {allowed:,}; "
                f"if you trust the file, raise it: load(path, budget=Budget({limit}={asked}))"
            )
