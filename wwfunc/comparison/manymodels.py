"""Several models in one table, and whether a metric orders them as a given truth does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wwfunc import checks
from wwfunc.analysis import Analysis
from wwfunc.columns import SUMMARY
from wwfunc.comparison.labelled import named_models, truth_of
from wwfunc.comparison.rankcorrelation import FEWEST, RankCorrelation, holm, kendall
from wwfunc.errors import OptionError
from wwfunc.options import Options, make_options
from wwfunc.pipeline import analyze

if TYPE_CHECKING:
    import pandas

Progress = Callable[[int, int, str], None]
"""Called with the models done, the models in all, and the label of the one just done."""

ACROSS = (
    "the models are built of different kinds of layers: alpha and its like are not known to order "
    "models across architectures (Martin, Peng, Mahoney 2021)"
)
SIZES = (
    "the models differ in depth or width: within a family of that kind the norms often order "
    "accuracy better than alpha, and the published results are mixed"
)
CHANGES = (
    "some rows are averages of changes from a base model, others of weights, or of another base"
)
OPTIONS = "the analyses were made with different options: their averages are not of one kind"
DIGITS = 10
FEW = "{} models with a known truth: a tau of so few says little, whatever it is"


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model: its averages over layers, and what is known of it."""

    label: str
    source: str | None
    summary: Mapping[str, float]
    truth: float
    """NaN where it is not known."""
    kinds: frozenset[tuple[str, str]]
    """What kinds of layers it has, in which roles."""
    sizes: tuple[tuple[int, int, int], ...]
    """N, M and slices of each layer."""
    options: Options
    base: str | None
    """What the model was measured as a change of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A row for each model; with a truth, the rank correlation of each metric with it.

    Examples
    --------
    >>> import wwfunc
    >>> found = wwfunc.compare(["examples/digits.safetensors"], labels=["digits"])
    >>> found.table.label.tolist()
    ['digits']
    """

    rows: tuple[ModelRow, ...]
    metrics: tuple[str, ...] = SUMMARY

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ModelRow]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(row.label for row in self.rows)}>"

    @property
    def has_truth(self) -> bool:
        """Whether anything is known to compare with."""
        return any(not math.isnan(row.truth) for row in self.rows)

    @property
    def correlations(self) -> Mapping[str, RankCorrelation]:
        """Kendall's tau of each metric with the truth; empty without one."""
        if not self.has_truth:
            return {}
        truth = [row.truth for row in self.rows]
        return {metric: kendall(self._values(metric), truth) for metric in self.metrics}

    def _values(self, metric: str) -> list[float]:
        """Without the digits that are rounding, so that equal averages are tied."""
        return [float(f"{row.summary[metric]:.{DIGITS}g}") for row in self.rows]

    @property
    def notes(self) -> list[str]:
        """What must be known before anything is concluded from the table."""
        found = []
        if len({row.kinds for row in self.rows}) > 1:
            found.append(ACROSS)
        elif len({row.sizes for row in self.rows}) > 1:
            found.append(SIZES)
        if len({row.base for row in self.rows}) > 1:
            found.append(CHANGES)
        if len({row.options for row in self.rows}) > 1:
            found.append(OPTIONS)
        known = sum(not math.isnan(row.truth) for row in self.rows)
        if self.has_truth and known < FEWEST:
            found.append(FEW.format(known))
        return found

    @property
    def table(self) -> pandas.DataFrame:
        """A DataFrame with a row a model."""
        import pandas

        return pandas.DataFrame(self.as_dicts())

    @property
    def correlation_table(self) -> pandas.DataFrame:
        """A DataFrame with a row a metric: tau, its interval, p, and p for the number of metrics.

        `p_holm` is adjusted by Holm's method: of six metrics one is often small by chance.
        """
        import pandas

        found = self.correlations
        adjusted = holm([one.p for one in found.values()])
        rows = [
            {"metric": metric, **asdict(one), "p_holm": p}
            for (metric, one), p in zip(found.items(), adjusted, strict=True)
        ]
        names = ["metric", *RankCorrelation.__dataclass_fields__, "p_holm"]
        return pandas.DataFrame(rows, columns=names)

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries."""
        return [
            {"label": row.label, "truth": row.truth, **row.summary, "source": row.source}
            for row in self.rows
        ]


def compare(
    models: Sequence[Any] | Mapping[str, Any],
    options: Options | None = None,
    *,
    labels: Sequence[str] | None = None,
    truth: Sequence[float] | Mapping[str, float] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Comparison:
    """Measure several models and put their averages beside each other.

    Parameters
    ----------
    models
        What `analyze` takes, or an `Analysis` that is there already; by label in a mapping.
    options, **changes
        As for `analyze`, for those that are to be measured; refused where none is.
    labels
        A name for each model; None takes the names of the files.
    truth
        What is known of each model, such as its test accuracy, in the order of the models or by
        label; NaN where it is not known.
    progress
        Called after each model with (done, total, label).

    Returns
    -------
    Comparison
        `.table`, `.correlations`, `.correlation_table`, `.notes`.

    Raises
    ------
    OptionError
        If labels repeat, labels or truth are not one for each model, or nothing is to be measured
        by the options.
    InputError
        If there are no models; and what `analyze` raises.

    Notes
    -----
    One model is in memory at a time. A tau is of the models that were given and of no others: it
    says whether a metric orders these, in which both are known. See `notes`.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> rng = np.random.default_rng(0)
    >>> models = {str(n): {"x.weight": n * rng.standard_normal((40, 30))} for n in (1, 2, 3)}
    >>> found = wwfunc.compare(models, truth=[0.7, 0.8, 0.9])
    >>> found.correlations["log_norm"].tau
    1.0
    """
    options = make_options(options, **changes)
    checks.callback("progress", progress)
    named = named_models(models, labels)
    if all(isinstance(model, Analysis) for model in named.values()) and options != Options():
        raise OptionError("options are for models to be measured; these were analysed before")
    known = truth_of(list(named), truth)
    rows = []
    for name, model in named.items():
        analysis = model if isinstance(model, Analysis) else analyze(model, options)
        rows.append(_row(name, analysis, known[name]))
        if progress is not None:
            progress(len(rows), len(named), name)
    return Comparison(rows=tuple(rows))


def _row(label: str, analysis: Analysis, truth: float) -> ModelRow:
    layers = [record.layer for record in analysis.counted]
    return ModelRow(
        label=label,
        source=analysis.provenance.source,
        summary=analysis.summary,
        truth=truth,
        kinds=frozenset((layer.kind, layer.role) for layer in layers),
        sizes=tuple((layer.N, layer.M, layer.rf) for layer in layers),
        options=analysis.options,
        base=analysis.provenance.base,
    )
