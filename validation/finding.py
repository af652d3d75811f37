"""What a campaign found: what was asked of a statistic, and what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    what: str
    asked: str
    """Empty where a number is only reported."""
    measured: str
    met: bool = True


def share(what: str, hits: int, cases: int, *, low: float, high: float, full: int) -> Finding:
    """Ask that `hits` of `cases` lie between two shares.

    With fewer than the `full` number of cases each bound is three of its binomial standard errors
    further out: a short campaign sees gross errors alone.
    """

    def slack(bound: float) -> float:
        return 3 * math.sqrt(bound * (1 - bound) / cases) if cases < full else 0.0

    found = hits / cases
    return Finding(
        what=what,
        asked=f"{low:.1%} to {high:.1%}",
        measured=f"{found:.1%} of {cases:,}",
        met=low - slack(low) <= found <= high + slack(high),
    )


def at_most(what: str, value: float, bound: float) -> Finding:
    """Ask that a value stays within a bound."""
    return Finding(
        what=what, asked=f"at most {bound:g}", measured=f"{value:.3g}", met=value <= bound
    )
