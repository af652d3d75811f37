"""Columns that say how far a fit can be trusted."""

from __future__ import annotations

from wwfunc.columns.column import CLAUSET, column

_VUONG = "Vuong 1989, doi:10.2307/1912557"

_ALTERNATIVES = {
    "exponential": "an exponential",
    "lognormal": "a lognormal",
    "stretched_exponential": "a stretched exponential",
    "truncated": "a truncated power law",
}

COLUMNS = (
    column("verdict", "text", "verdict", "What the columns below add up to (trust=True)"),
    column(
        "alpha_low",
        "float",
        "measures.trust.bootstrap.alpha_low",
        "Lower end of alpha's 95 % bootstrap interval, xmin refitted",
        "> 1",
        CLAUSET,
    ),
    column("alpha_high", "float", "measures.trust.bootstrap.alpha_high", "Its upper end", "> 1"),
    column(
        "xmin_low",
        "float",
        "measures.trust.bootstrap.xmin_low",
        "Lower end of xmin's 95 % bootstrap interval",
        "> 0",
    ),
    column("xmin_high", "float", "measures.trust.bootstrap.xmin_high", "Its upper end", "> 0"),
    column(
        "p_value",
        "float",
        "measures.trust.goodness.p_value",
        "Goodness of fit: how often a true power law lies as far from its fit, xmin refitted",
        "0 to 1",
        CLAUSET,
    ),
    column(
        "p_random",
        "float",
        "measures.trust.p_random",
        "How often a random matrix of this shape has so low an alpha; missing where there is no "
        "null for the shape, or the rank is not full",
        "0 to 1",
    ),
    *(
        own
        for name in ("exponential", "lognormal", "stretched_exponential", "truncated")
        for own in (
            column(
                f"R_{name}",
                "float",
                f"measures.trust.alternatives.{name}.R",
                f"Log-likelihood of the power law less that of {_ALTERNATIVES[name]}",
                "" if name == "exponential" else "<= 0",
                _VUONG,
            ),
            column(
                f"p_{name}",
                "float",
                f"measures.trust.alternatives.{name}.p",
                "How often chance alone gives so large a ratio",
                "0 to 1",
                _VUONG,
            ),
        )
    ),
)
