"""Columns of what was changed: an adapter's rank, and a change beside its base."""

from __future__ import annotations

from wwfunc.columns.column import column

COLUMNS = (
    column(
        "lora_rank",
        "int",
        "layer.lora_rank",
        "Rank that an adapter gives the change; matrix_rank is what it uses of it",
        ">= 1",
        "Hu et al. 2022, arXiv:2106.09685",
    ),
    column(
        "relative_change",
        "float",
        "measures.change.relative",
        "Frobenius norm of the change over that of the base (base_model=)",
        ">= 0",
    ),
    column(
        "num_intruders",
        "int",
        "measures.change.num_intruders",
        "Of the 10 leading directions after the change, those that no direction of the base is near"
        " (cosine under 0.5 either way; intruders=True)",
        "0 to 10 a slice",
        "Shuttleworth et al. 2024, arXiv:2410.21228",
    ),
)
