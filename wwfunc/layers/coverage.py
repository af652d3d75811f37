"""What became of every tensor: analysed or skipped, by which rule, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class CoverageRow:
    """One tensor of the checkpoint."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    num_params: int
    status: str
    """"analysed", "described" (by `describe`, which reads no tensor) or "skipped"."""
    rule: str
    reason: str
    longname: str
    """The row of the analysis that it became, or empty."""


class Coverage(Sequence[CoverageRow]):
    """A row for every tensor of a checkpoint, in natural order of the names."""

    def __init__(self, rows: Iterable[CoverageRow]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> CoverageRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CoverageRow]: ...
    def __getitem__(self, index: int | slice) -> CoverageRow | Sequence[CoverageRow]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[CoverageRow]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coverage) and self._rows == other._rows

    # Python's own way to say "not hashable", which typeshed has no type for.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        covered = len(self) - len(self.skipped)
        return f"<Coverage: {covered} of {len(self)} tensors, {self.share:.1%} of the parameters>"

    @property
    def num_params(self) -> int:
        """Parameters of all tensors, those of tied ones once."""
        return sum(row.num_params for row in self if row.rule != "tied")

    @property
    def share(self) -> float:
        """Share of the parameters that was not skipped; NaN where there are none."""
        skipped = sum(row.num_params for row in self.skipped if row.rule != "tied")
        return 1.0 - skipped / self.num_params if self.num_params else math.nan

    @property
    def skipped(self) -> tuple[CoverageRow, ...]:
        """The rows that are no part of the analysis."""
        return tuple(row for row in self if row.status == "skipped")

    @property
    def frame(self) -> pandas.DataFrame:
        """The rows as a DataFrame."""
        import pandas

        return pandas.DataFrame(self.as_dicts(), columns=list(CoverageRow.__dataclass_fields__))

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries."""
        return [asdict(row) for row in self]
