"""Columns of norms, ranks and entropy."""

from __future__ import annotations

from wwfunc.columns.column import NATURE, column

_STABLE = "Rudelson, Vershynin 2007, doi:10.1145/1255443.1255449"

COLUMNS = (
    column(
        "norm",
        "float",
        "measures.scale.norm",
        "Squared Frobenius norm, the sum of the eigenvalues",
        ">= 0",
    ),
    column("log_norm", "float", "measures.scale.log_norm", "log10 of norm"),
    column(
        "spectral_norm",
        "float",
        "measures.scale.spectral_norm",
        "Squared spectral norm, the largest eigenvalue",
        ">= 0",
    ),
    column(
        "log_spectral_norm", "float", "measures.scale.log_spectral_norm", "log10 of spectral_norm"
    ),
    column("lambda_max", "float", "measures.scale.spectral_norm", "Largest eigenvalue", ">= 0"),
    column("sv_max", "float", "measures.scale.sv_max", "Largest singular value", ">= 0"),
    column(
        "sv_min",
        "float",
        "measures.scale.sv_min",
        "Smallest singular value; 0 under the rounding floor",
        ">= 0",
    ),
    column(
        "stable_rank",
        "float",
        "measures.scale.stable_rank",
        "norm / spectral_norm",
        "1 to matrix_rank",
        _STABLE,
    ),
    column(
        "matrix_rank",
        "int",
        "measures.scale.matrix_rank",
        "Number of eigenvalues above the rounding floor",
        "0 to num_evals",
    ),
    column("rank_loss", "int", "measures.scale.rank_loss", "num_evals - matrix_rank"),
    column(
        "weak_rank_loss",
        "int",
        "measures.scale.weak_rank_loss",
        "Number of eigenvalues under 1e-6 of the largest",
    ),
    column(
        "entropy",
        "float",
        "measures.scale.entropy",
        "Entropy of the eigenvalues' shares over ln(matrix_rank)",
        "0 to 1",
        NATURE,
    ),
    column(
        "alpha_weighted",
        "float",
        "measures.shape.alpha_weighted",
        "alpha times log10 of the largest eigenvalue",
        reference=NATURE,
    ),
    column(
        "log_alpha_norm",
        "float",
        "measures.shape.log_alpha_norm",
        "log10 of the sum of the eigenvalues to the power alpha",
        reference=NATURE,
    ),
)
