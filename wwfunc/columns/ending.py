"""Columns of how a row came about and ended."""

from __future__ import annotations

from wwfunc.columns.column import column

COLUMNS = (
    column(
        "floor",
        "float",
        "measures.esd.floor",
        "Rounding floor of the eigenvalues, eps * N * lambda_max",
        ">= 0",
    ),
    column("status", "text", "status", "success with remarks, or why numbers are missing"),
    column("tensor", "text", "layer.tensor", "Name of the tensor in the checkpoint"),
    column("dtype", "text", "layer.dtype", "Element type as stored"),
    column("num_params", "int", "layer.num_params", "Number of parameters"),
    column("rule", "text", "layer.rule", "Name of the rule that made the tensor a layer"),
)
