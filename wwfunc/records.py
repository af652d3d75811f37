"""One row of an analysis: which layer, what was measured, and how that ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wwfunc.columns import BY_NAME, COLUMNS
from wwfunc.layers.layer import Layer

if TYPE_CHECKING:
    from wwfunc.measures import Measures

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
        if column is None or name in ("status", "warning", "Q"):
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
    def warning(self) -> str:
        """WeightWatcher's label of alpha; empty between 2 and 6 and where the fit failed."""
        alpha = BY_NAME["alpha"].read(self)
        if alpha < OVER_TRAINED:
            return "over-trained"
        return "under-trained" if alpha > UNDER_TRAINED else ""

    def row(self) -> dict[str, Any]:
        """All columns as plain numbers and texts."""
        return {column.name: column.read(self) for column in COLUMNS}
