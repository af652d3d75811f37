"""The distances between two models: a row a layer, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wwfunc.layers.coverage import Coverage
from wwfunc.layers.layer import Layer
from wwfunc.options import DistanceMethod

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class LayerDistance:
    """One layer of the first model beside its partner in the second, or a layer without one."""

    layer: Layer
    partner: str
    """Name of the layer in the second model; empty where there is none."""
    delta_W: float
    """The distance (a similarity for "cka", "centred_cka" and "subspace"); NaN without one."""
    delta_b: float
    """Of the biases, for "raw" and "euclidean"; NaN where not both have one of one length."""
    status: str
    """"success", with remarks; or why there is no number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Distances:
    """A row for each layer of either model.

    Examples
    --------
    >>> import wwfunc
    >>> found = wwfunc.distances("examples/digits.safetensors", "examples/digits.safetensors")
    >>> found.mean_W, len(found.unmatched)
    (0.0, 0)
    """

    method: DistanceMethod
    rows: tuple[LayerDistance, ...]
    sources: tuple[str | None, str | None]
    coverage: tuple[Coverage, Coverage]
    """What became of each tensor of either model."""

    def __repr__(self) -> str:
        count = len(self.rows) - len(self.unmatched)
        return f"<Distances of {count} layers, {self.method}, mean {self.mean_W:.4g}>"

    def __iter__(self) -> Iterator[LayerDistance]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, longname: str) -> LayerDistance:
        for row in self.rows:
            if longname in (row.layer.longname, row.layer.tensor):
                return row
        raise KeyError(longname)

    @property
    def unmatched(self) -> tuple[LayerDistance, ...]:
        """The rows without a number, each with its reason."""
        return tuple(row for row in self.rows if math.isnan(row.delta_W))

    @property
    def mean_W(self) -> float:
        """Mean of the distances that there are; NaN where there are none."""
        return _mean(row.delta_W for row in self.rows)

    @property
    def mean_b(self) -> float:
        """Mean of the biases' distances that there are; NaN where there are none."""
        return _mean(row.delta_b for row in self.rows)

    @property
    def details(self) -> pandas.DataFrame:
        """A DataFrame with a row a layer, WeightWatcher's columns first."""
        import pandas

        return pandas.DataFrame(self.as_dicts())

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries."""
        return [
            {
                "layer_id": row.layer.layer_id,
                "method": self.method,
                "name": row.layer.longname,
                "delta_W": row.delta_W,
                "delta_b": row.delta_b,
                "M": row.layer.M,
                "N": row.layer.N,
                "rf": row.layer.rf,
                "longname": row.layer.longname,
                "partner": row.partner,
                "status": row.status,
            }
            for row in self.rows
        ]


def _mean(values: Iterable[float]) -> float:
    valid = [value for value in values if not math.isnan(value)]
    return math.fsum(value / len(valid) for value in valid) if valid else math.nan
