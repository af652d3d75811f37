"""Every column of a table: its meaning, unit, range and source, and where a record holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Type = Literal["text", "int", "float"]

_NATURE = "Martin, Peng, Mahoney 2021, doi:10.1038/s41467-021-24025-8"
_CLAUSET = "Clauset, Shalizi, Newman 2009, doi:10.1137/070710111"
_HILL = "Zhou et al. 2023, doi:10.48550/arXiv.2312.00359"
_FARMS = "Hu et al. 2025, doi:10.48550/arXiv.2506.06280"
_VUONG = "Vuong 1989, doi:10.2307/1912557"
_STABLE = "Rudelson, Vershynin 2007, doi:10.1145/1255443.1255449"


@dataclass(frozen=True)
class Column:
    """One column. `path` leads to its value from a `LayerRecord`."""

    name: str
    type: Type
    path: str
    meaning: str
    range: str = ""
    reference: str = ""

    @property
    def missing(self) -> Any:
        """The value where a row has none: NaN, None or empty text."""
        return {"float": math.nan, "int": None, "text": ""}[self.type]

    def read(self, record: Any) -> Any:
        """The value for a record as a plain Python number or text."""
        value = record
        for part in self.path.split("."):  # a row has not every record, a record not every field
            value = getattr(value, part, None)
        if value is None:
            return self.missing
        return {"float": float, "int": int, "text": str}[self.type](value)


_ALTERNATIVES = {
    "exponential": "an exponential",
    "lognormal": "a lognormal",
    "stretched_exponential": "a stretched exponential",
    "truncated": "a truncated power law",
}


def _column(
    name: str, type: Type, path: str, meaning: str, range: str = "", reference: str = ""
) -> Column:
    return Column(name, type, path, meaning, range, reference)


COLUMNS = (
    _column(
        "layer_id",
        "int",
        "layer.layer_id",
        "Rank of the tensor's name, in natural order, among all weight tensors",
        "from 1",
    ),
    _column("name", "text", "layer.longname", "The same as longname"),
    _column("longname", "text", "layer.longname", "Name of the layer in the checkpoint"),
    _column(
        "part", "text", "layer.part", "Part of the tensor that the row is about; empty for all"
    ),
    _column(
        "layer_type",
        "text",
        "layer.layer_type",
        "WeightWatcher's word for the layer (dense for an embedding)",
    ),
    _column("kind", "text", "layer.kind", "dense, embedding, conv1d, conv2d or conv3d"),
    _column("block", "int", "layer.block", "Number of the repeated block, where the name tells"),
    _column("role", "text", "layer.role", "q, k, v, o, up, gate, down, embed, head ..."),
    _column("fit", "text", "fit", "PL, a power law, or TPL, a truncated one"),
    _column(
        "alpha", "float", "measures.fit.alpha", "Exponent of the tail's (T)PL", ">= 1", _NATURE
    ),
    _column(
        "Lambda",
        "float",
        "measures.fit.Lambda",
        "TPL: rate of the exponential that truncates the power law, per unit of eigenvalue",
        ">= 0",
        _CLAUSET,
    ),
    _column(
        "warning",
        "text",
        "warning",
        "over-trained (alpha of a PL under 2) or under-trained (above 6)",
        reference=_NATURE,
    ),
    _column("xmin", "float", "measures.fit.xmin", "Where the tail starts", "> 0", _CLAUSET),
    _column("xmax", "float", "measures.fit.xmax", "Largest eigenvalue that was fitted", "> 0"),
    _column(
        "D",
        "float",
        "measures.fit.D",
        "Kolmogorov-Smirnov distance of the fit",
        "0 to 1",
        _CLAUSET,
    ),
    _column(
        "sigma",
        "float",
        "measures.fit.sigma",
        "Standard error of alpha, xmin taken as known: (alpha - 1) / sqrt(n) of a PL, from the "
        "information matrix of a TPL, missing where an estimate stopped at a bound",
        "> 0",
        _CLAUSET,
    ),
    _column(
        "sigma_Lambda",
        "float",
        "measures.fit.sigma_Lambda",
        "Standard error of Lambda, xmin taken as known",
        "> 0",
    ),
    _column(
        "num_pl_spikes",
        "int",
        "measures.fit.num_pl_spikes",
        "Number n of eigenvalues in the tail",
        "0 to num_evals",
    ),
    _column("tail_share", "float", "tail_share", "num_pl_spikes / num_evals", "0 to 1"),
    _column(
        "num_fingers",
        "int",
        "measures.fit.num_fingers",
        "Largest eigenvalues that fix_fingers='clip_xmax' left out",
        ">= 0",
    ),
    _column(
        "raw_alpha", "float", "measures.fit.raw_alpha", "alpha before fingers were clipped", "> 1"
    ),
    _column(
        "alpha_hill",
        "float",
        "measures.hill.alpha",
        "Hill estimate over the upper half of the eigenvalues, PL_Alpha_Hill",
        "> 1",
        _HILL,
    ),
    _column(
        "farms_alpha",
        "float",
        "measures.farms.alpha",
        "The same over windows of a fixed aspect ratio (farms=True)",
        "> 1",
        _FARMS,
    ),
    _column("verdict", "text", "verdict", "What the columns below add up to (trust=True)"),
    _column(
        "alpha_low",
        "float",
        "measures.trust.bootstrap.alpha_low",
        "Lower end of alpha's 95 % bootstrap interval, xmin refitted",
        "> 1",
        _CLAUSET,
    ),
    _column("alpha_high", "float", "measures.trust.bootstrap.alpha_high", "Its upper end", "> 1"),
    _column(
        "xmin_low",
        "float",
        "measures.trust.bootstrap.xmin_low",
        "Lower end of xmin's 95 % bootstrap interval",
        "> 0",
    ),
    _column("xmin_high", "float", "measures.trust.bootstrap.xmin_high", "Its upper end", "> 0"),
    _column(
        "p_value",
        "float",
        "measures.trust.goodness.p_value",
        "Goodness of fit: how often a true power law lies as far from its fit, xmin refitted",
        "0 to 1",
        _CLAUSET,
    ),
    _column(
        "p_random",
        "float",
        "measures.trust.p_random",
        "How often a random matrix of this shape has so low an alpha; missing where there is no "
        "null for the shape, or the rank is not full",
        "0 to 1",
    ),
    *(
        column
        for name in ("exponential", "lognormal", "stretched_exponential", "truncated")
        for column in (
            _column(
                f"R_{name}",
                "float",
                f"measures.trust.alternatives.{name}.R",
                f"Log-likelihood of the power law less that of {_ALTERNATIVES[name]}",
                "" if name == "exponential" else "<= 0",
                _VUONG,
            ),
            _column(
                f"p_{name}",
                "float",
                f"measures.trust.alternatives.{name}.p",
                "How often chance alone gives so large a ratio",
                "0 to 1",
                _VUONG,
            ),
        )
    ),
    _column("N", "int", "layer.N", "Longer side of the weight matrices"),
    _column("M", "int", "layer.M", "Shorter side of the weight matrices"),
    _column("Q", "float", "Q", "Aspect ratio N / M", ">= 1"),
    _column("rf", "int", "layer.rf", "Slices: size of a convolution's receptive field", ">= 1"),
    _column("num_evals", "int", "layer.num_evals", "Number of eigenvalues, rf * M"),
    _column(
        "norm",
        "float",
        "measures.scale.norm",
        "Squared Frobenius norm, the sum of the eigenvalues",
        ">= 0",
    ),
    _column("log_norm", "float", "measures.scale.log_norm", "log10 of norm"),
    _column(
        "spectral_norm",
        "float",
        "measures.scale.spectral_norm",
        "Squared spectral norm, the largest eigenvalue",
        ">= 0",
    ),
    _column(
        "log_spectral_norm", "float", "measures.scale.log_spectral_norm", "log10 of spectral_norm"
    ),
    _column("lambda_max", "float", "measures.scale.spectral_norm", "Largest eigenvalue", ">= 0"),
    _column("sv_max", "float", "measures.scale.sv_max", "Largest singular value", ">= 0"),
    _column(
        "sv_min",
        "float",
        "measures.scale.sv_min",
        "Smallest singular value; 0 under the rounding floor",
        ">= 0",
    ),
    _column(
        "stable_rank",
        "float",
        "measures.scale.stable_rank",
        "norm / spectral_norm",
        "1 to matrix_rank",
        _STABLE,
    ),
    _column(
        "matrix_rank",
        "int",
        "measures.scale.matrix_rank",
        "Number of eigenvalues above the rounding floor",
        "0 to num_evals",
    ),
    _column("rank_loss", "int", "measures.scale.rank_loss", "num_evals - matrix_rank"),
    _column(
        "weak_rank_loss",
        "int",
        "measures.scale.weak_rank_loss",
        "Number of eigenvalues under 1e-6 of the largest",
    ),
    _column(
        "entropy",
        "float",
        "measures.scale.entropy",
        "Entropy of the eigenvalues' shares over ln(matrix_rank)",
        "0 to 1",
        _NATURE,
    ),
    _column(
        "alpha_weighted",
        "float",
        "measures.shape.alpha_weighted",
        "alpha times log10 of the largest eigenvalue",
        reference=_NATURE,
    ),
    _column(
        "log_alpha_norm",
        "float",
        "measures.shape.log_alpha_norm",
        "log10 of the sum of the eigenvalues to the power alpha",
        reference=_NATURE,
    ),
    _column(
        "floor",
        "float",
        "measures.esd.floor",
        "Rounding floor of the eigenvalues, eps * N * lambda_max",
        ">= 0",
    ),
    _column("status", "text", "status", "success with remarks, or why numbers are missing"),
    _column("tensor", "text", "layer.tensor", "Name of the tensor in the checkpoint"),
    _column("dtype", "text", "layer.dtype", "Element type as stored"),
    _column("num_params", "int", "layer.num_params", "Number of parameters"),
    _column("rule", "text", "layer.rule", "Name of the rule that made the tensor a layer"),
)

BY_NAME = {column.name: column for column in COLUMNS}

SUMMARY = (
    "log_norm",
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_spectral_norm",
    "stable_rank",
)
"""Columns that a summary averages over the layers in which they are valid."""
