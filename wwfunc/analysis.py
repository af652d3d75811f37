"""The result of a run: its rows, their averages, what was covered, and how it was computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wwfunc.columns import COLUMNS, SUMMARY
from wwfunc.document import as_document, read_document, write_document
from wwfunc.layers.coverage import Coverage
from wwfunc.options import Options
from wwfunc.provenance import Provenance, versions
from wwfunc.records import LayerRecord

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """A row for each layer that was asked for, in the order of the layer ids.

    Examples
    --------
    >>> import wwfunc
    >>> analysis = wwfunc.analyze("examples/digits.safetensors")
    >>> analysis["conv2"].alpha == analysis.details.set_index("longname").alpha["conv2"]
    np.True_
    """

    records: tuple[LayerRecord, ...]
    coverage: Coverage
    options: Options
    provenance: Provenance

    @classmethod
    def of(
        cls,
        records: Iterable[LayerRecord],
        coverage: Coverage,
        options: Options,
        source: str | None,
        engine: str,
        base: str | None = None,
    ) -> Analysis:
        """An analysis by the versions that are installed here."""
        provenance = Provenance(source=source, engine=engine, versions=versions(), base=base)
        return cls(
            records=tuple(records), coverage=coverage, options=options, provenance=provenance
        )

    def __getitem__(self, longname: str) -> LayerRecord:
        """The record of a layer, by `longname`, or by tensor name where layers share one."""
        for record in self.records:
            if longname in (record.layer.longname, record.layer.tensor):
                return record
        raise KeyError(longname)

    def __iter__(self) -> Iterator[LayerRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        source = self.provenance.source or "memory"
        return f"<Analysis of {len(self)} layers from {source}, alpha {self.summary['alpha']:.2f}>"

    @property
    def measured(self) -> Sequence[LayerRecord]:
        """The records that hold numbers."""
        return [record for record in self.records if record.measures is not None]

    @property
    def counted(self) -> Sequence[LayerRecord]:
        """The records that averages are taken over: where a base has rows, those of changes."""
        return [r for r in self.records if not r.layer.part.startswith(("base", "merged"))]

    @property
    def summary(self) -> dict[str, float]:
        """Means over layers, each with the number of layers in which it is valid.

        `num_layers` counts the rows; `num_valid_alpha` and so on the rows behind each mean. A
        failed fit is never averaged, and a mean over nothing is NaN. Where base, change and sum
        have a row each, the means are those of the changes.
        """
        summary: dict[str, float] = {"num_layers": len(self.counted)}
        for name in SUMMARY:
            values = [getattr(record, name) for record in self.counted]
            valid = [value for value in values if not math.isnan(value)]
            summary[name] = math.fsum(valid) / len(valid) if valid else math.nan
            summary[f"num_valid_{name}"] = len(valid)
        return summary

    @property
    def details(self) -> pandas.DataFrame:
        """A DataFrame with a row a layer and WeightWatcher's column names."""
        import pandas

        names = [column.name for column in COLUMNS]
        return pandas.DataFrame([record.row() for record in self.records], columns=names)

    def save(self, path: str | Path) -> None:
        """Write everything to a JSON document, atomically; `wwfunc.load_analysis` reads it."""
        document = as_document(
            self.records, self.coverage, self.options, self.provenance, self.summary
        )
        write_document(document, Path(path))


def load_analysis(path: str | Path) -> Analysis:
    """Read what `Analysis.save` wrote, every digit of it.

    Raises
    ------
    AnalysisFileError
        If the file is not such a document, or one of another schema.

    Examples
    --------
    >>> import tempfile, wwfunc
    >>> analysis = wwfunc.analyze("examples/digits.safetensors", layers="head")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     analysis.save(f"{folder}/digits.json")
    ...     again = wwfunc.load_analysis(f"{folder}/digits.json")
    >>> again["head"].alpha == analysis["head"].alpha
    True
    """
    return Analysis(**read_document(Path(path)))
