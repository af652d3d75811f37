"""One row of an analysis: which layer, what was measured, and how that ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wwfunc.columns import BY_NAME, COLUMNS
from wwfunc.layers.layer import Layer
from wwfunc.trust.verdict import verdict_of

if TYPE_CHECKING:
    from wwfunc.measures import Measures

_OWN = ("status", "warning", "fit", "tail_share", "verdict", "Q")
"""Columns that are properties here: reading them through the table would not end."""

OVER_TRAINED = 2.0
UNDER_TRAINED = 6.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerRecord:
    """A layer and its numbers. Every column of `wwfunc.columns` is an attribute too.

    Examples
    --------
    >>> import wwfunc
    >>> analysis = wwfunc.analyze("examples/digits.safetensors")
    >>> record = analysis["dense2"]
    >>> record.N, record.M, record.evals.shape
    (192, 160, (160,))
    """

    layer: Layer
    status: str
    """"success", with remarks; or why there are no numbers."""
    measures: Measures | None
    """The numerical records, on the host; None where nothing was measured."""

    def __getattr__(self, name: str) -> Any:
        column = BY_NAME.get(name)
        if column is None or name in _OWN:
            raise AttributeError(f"a LayerRecord has no {name!r}")
        return column.read(self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *BY_NAME})

    def __repr__(self) -> str:
        return f"<LayerRecord {self.layer.longname}: {self.status}>"

    @property
    def evals(self) -> np.ndarray:
        """Eigenvalues, ascending; empty where nothing was measured."""
        return np.empty(0) if self.measures is None else np.asarray(self.measures.esd.evals)

    @property
    def Q(self) -> float:
        """Aspect ratio N / M."""
        return self.layer.N / self.layer.M if self.layer.M else math.nan

    @property
    def fit(self) -> str:
        """What was fitted, PL or TPL; empty where nothing was."""
        if self.measures is None:
            return ""
        return "TPL" if hasattr(self.measures.fit, "Lambda") else "PL"

    @property
    def tail_share(self) -> float:
        """The share of the eigenvalues that lies in the tail."""
        if self.measures is None or not self.layer.num_evals:
            return math.nan
        return int(self.measures.fit.num_pl_spikes) / self.layer.num_evals

    @property
    def verdict(self) -> str:
        """What the statistics behind alpha add up to; empty without trust=True."""
        return verdict_of(self.layer, self.measures)

    @property
    def warning(self) -> str:
        """WeightWatcher's label of a power law's alpha; empty between 2 and 6, and without one."""
        alpha = BY_NAME["alpha"].read(self) if self.fit == "PL" else math.nan
        if alpha < OVER_TRAINED:
            return "over-trained"
        return "under-trained" if alpha > UNDER_TRAINED else ""

    def row(self) -> dict[str, Any]:
        """All columns as plain numbers and texts."""
        return {column.name: column.read(self) for column in COLUMNS}
