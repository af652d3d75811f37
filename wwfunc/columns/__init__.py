"""Every column of a table, in its order."""

from __future__ import annotations

from wwfunc.columns import change, ending, fits, identity, randommatrix, scale, sizes, trust
from wwfunc.columns.column import Column

COLUMNS: tuple[Column, ...] = (
    *identity.COLUMNS,
    *fits.COLUMNS,
    *trust.COLUMNS,
    *sizes.COLUMNS,
    *scale.COLUMNS,
    *randommatrix.COLUMNS,
    *change.COLUMNS,
    *ending.COLUMNS,
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
