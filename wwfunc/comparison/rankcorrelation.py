"""Whether one quantity orders things as another does: Kendall's tau, with its confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wwfunc.errors import InputError

_Z95 = 1.959963984540054
FIELLER = 0.437
"""Variance of atanh(tau) times (n - 4)."""
FEWEST = 5
"""Fewer pairs of numbers have no interval."""


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Kendall's tau-b of two quantities."""

    tau: float
    """-1 to 1; NaN where one of them is constant or there are fewer than two."""
    low: float
    """The 95 % interval; NaN under five pairs of numbers."""
    high: float
    p: float
    """Two-sided, of no association; exact without ties."""
    n: int
    """Number of things in which both are known."""


def kendall(x: Sequence[float], y: Sequence[float]) -> RankCorrelation:
    r"""Correlate the ranks of two quantities; where one is NaN the pair is left out.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(n_0 - t_x) (n_0 - t_y)}}

    over C concordant and D discordant pairs of n_0 = n (n - 1) / 2, and those tied in x, y.

    Parameters
    ----------
    x, y
        Two sequences of one length.

    Notes
    -----
    The interval is that of Fieller, Hartley and Pearson on the scale of atanh tau, whose variance
    is 0.437 / (n - 4); a tau of 1 or -1 counts as one with half a pair against it, so that a
    perfect order of few things has an interval too. Of 5 to 30 pairs of normal numbers it holds
    a true tau up to 0.6 in 92 % of samples or more. Above it is often too narrow: it holds a tau of
    0.95 in 64 % of samples of 15.

    References
    ----------
    Kendall, Biometrika 30 (1938), doi:10.1093/biomet/30.1-2.81.
    Fieller, Hartley, Pearson, Biometrika 44 (1957), doi:10.1093/biomet/44.3-4.470.

    Examples
    --------
    >>> from wwfunc.comparison.rankcorrelation import kendall
    >>> round(kendall([1, 2, 3, 4], [1, 3, 2, 4]).tau, 3)
    0.667
    """
    first, second = (np.asarray(values, np.float64) for values in (x, y))
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(f"two sequences of one length, not of {first.shape} and {second.shape}")
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    tau, p = math.nan, math.nan
    if len(first) > 1 and np.ptp(first) and np.ptp(second):
        from scipy.stats import kendalltau  # slow to import, and seldom needed

        tied = len(set(first)) < len(first) or len(set(second)) < len(second)
        found = kendalltau(first, second, method="asymptotic" if tied else "exact")
        tau, p = float(found.statistic), float(found.pvalue)
    low, high = _interval(tau, len(first))
    return RankCorrelation(tau=tau, low=low, high=high, p=p, n=len(first))


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's method; NaN is none and stays.

    References
    ----------
    Holm, Scandinavian Journal of Statistics 6 (1979).

    Examples
    --------
    >>> from wwfunc.comparison.rankcorrelation import holm
    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    """
    tested = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    adjusted, least = [math.nan] * len(p), 0.0
    for rank, (value, place) in enumerate(tested):
        least = max(least, min(1.0, value * (len(tested) - rank)))
        adjusted[place] = least
    return adjusted


def _interval(tau: float, n: int) -> tuple[float, float]:
    if math.isnan(tau) or n < FEWEST:
        return math.nan, math.nan
    most = 1.0 - 1.0 / (n * (n - 1) / 2)
    centre = math.atanh(max(-most, min(most, tau)))
    half = _Z95 * math.sqrt(FIELLER / (n - 4))
    return min(tau, math.tanh(centre - half)), max(tau, math.tanh(centre + half))
