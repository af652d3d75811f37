"""Columns of the fits of a tail."""

from __future__ import annotations

from wwfunc.columns.column import CLAUSET, NATURE, column

_FARMS = "Hu et al. 2025, doi:10.48550/arXiv.2506.06280"
_HILL = "Zhou et al. 2023, doi:10.48550/arXiv.2312.00359"

COLUMNS = (
    column("fit", "text", "fit", "PL, a power law, or TPL, a truncated one"),
    column("alpha", "float", "measures.fit.alpha", "Exponent of the tail's (T)PL", ">= 1", NATURE),
    column(
        "Lambda",
        "float",
        "measures.fit.Lambda",
        "TPL: rate of the exponential that truncates the power law, per unit of eigenvalue",
        ">= 0",
        CLAUSET,
    ),
    column(
        "warning",
        "text",
        "warning",
        "over-trained (alpha of a PL under 2) or under-trained (above 6)",
        reference=NATURE,
    ),
    column("xmin", "float", "measures.fit.xmin", "Where the tail starts", "> 0", CLAUSET),
    column("xmax", "float", "measures.fit.xmax", "Largest eigenvalue that was fitted", "> 0"),
    column(
        "D",
        "float",
        "measures.fit.D",
        "Kolmogorov-Smirnov distance of the fit",
        "0 to 1",
        CLAUSET,
    ),
    column(
        "sigma",
        "float",
        "measures.fit.sigma",
        "Standard error of alpha, xmin taken as known: (alpha - 1) / sqrt(n) of a PL, from the "
        "information matrix of a TPL, missing where an estimate stopped at a bound",
        "> 0",
        CLAUSET,
    ),
    column(
        "sigma_Lambda",
        "float",
        "measures.fit.sigma_Lambda",
        "Standard error of Lambda, xmin taken as known",
        "> 0",
    ),
    column(
        "num_pl_spikes",
        "int",
        "measures.fit.num_pl_spikes",
        "Number n of eigenvalues in the tail",
        "0 to num_evals",
    ),
    column("tail_share", "float", "tail_share", "num_pl_spikes / num_evals", "0 to 1"),
    column(
        "num_fingers",
        "int",
        "measures.fit.num_fingers",
        "Largest eigenvalues that fix_fingers='clip_xmax' left out",
        ">= 0",
    ),
    column(
        "raw_alpha", "float", "measures.fit.raw_alpha", "alpha before fingers were clipped", "> 1"
    ),
    column(
        "alpha_hill",
        "float",
        "measures.hill.alpha",
        "Hill estimate over the upper half of the eigenvalues, PL_Alpha_Hill",
        "> 1",
        _HILL,
    ),
    column(
        "farms_alpha",
        "float",
        "measures.farms.alpha",
        "The same over windows of a fixed aspect ratio (farms=True)",
        "> 1",
        _FARMS,
    ),
)
