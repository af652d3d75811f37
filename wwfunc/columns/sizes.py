"""Columns of the sizes of a layer's matrices."""

from __future__ import annotations

from wwfunc.columns.column import column

COLUMNS = (
    column("N", "int", "layer.N", "Longer side of the weight matrices"),
    column("M", "int", "layer.M", "Shorter side of the weight matrices"),
    column("Q", "float", "Q", "Aspect ratio N / M", ">= 1"),
    column(
        "rf",
        "int",
        "layer.rf",
        "Slices: size of a convolution's receptive field; 1 under pool=False, the points of the "
        "grid under conv2d_fft",
        ">= 1",
    ),
    column("num_evals", "int", "layer.num_evals", "Number of eigenvalues, rf * M"),
)
