"""What the statistics behind a fit add up to, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from wwfunc.layers.layer import Layer

if TYPE_CHECKING:
    from wwfunc.fits.truncated import TruncatedPowerLawFit
    from wwfunc.measures import Measures
    from wwfunc.trust.alternatives import LikelihoodRatio
    from wwfunc.trust.statistics import Trust

SHORT_TAIL = 10
"""With fewer points alpha - 1 is uncertain by a third even where all assumptions hold."""
CHANCE = 0.05
"""A random matrix that shows so low an alpha more often than this explains the layer."""
IMPLAUSIBLE = 0.1
"""Clauset, Shalizi and Newman give up the power law at this goodness of fit."""
DECIDED = 0.05
"""At this p a likelihood ratio has found the better model."""

_NAMES = {
    "exponential": "an exponential",
    "lognormal": "a lognormal",
    "stretched_exponential": "a stretched exponential",
    "truncated": "a truncated power law",
}


def verdict_of(layer: Layer, measures: Measures | None) -> str:
    """The verdict on a layer; empty where no statistics were asked for.

    The first of these that holds: no fit; too short a tail; as a random matrix of the same shape;
    not a power law by its goodness of fit; a better alternative; an alternative that cannot be
    told apart; a power law. The thresholds are conventions, `docs/fits.md` discusses them.
    """
    if measures is None or measures.trust is None:
        return ""
    if np.isnan(measures.fit.alpha):
        return "no fit"
    count = int(measures.fit.num_pl_spikes)
    if count < SHORT_TAIL:
        return f"tail of {count} points: too short"
    if hasattr(measures.fit, "Lambda"):
        return _of_truncated(cast("TruncatedPowerLawFit", measures.fit), measures.trust)
    unknown = "" if np.isfinite(measures.trust.p_random) else "; not calibrated against chance"
    return _of_power_law(layer, measures) + unknown


def _of_power_law(layer: Layer, measures: Measures) -> str:
    fit, trust = measures.fit, cast("Trust", measures.trust)
    if trust.p_random > CHANCE:
        return _beside_random(layer, min(float(trust.p_random), 0.99))
    better, undecided = _alternatives(trust)
    interval = f"{trust.bootstrap.alpha_low:.1f} to {trust.bootstrap.alpha_high:.1f}"
    alpha = f"alpha {fit.alpha:.1f} ({interval})"
    doubted = better or trust.goodness.p_value <= IMPLAUSIBLE
    if doubted and fit.xmax < measures.esd.evals[-1]:
        return f"undecided: a tail without its largest eigenvalues looks truncated, {alpha}"
    if trust.goodness.p_value <= IMPLAUSIBLE:
        instead = f", {better} fits better" if better else ""
        return f"not a power law (p = {trust.goodness.p_value:.2g}){instead}"
    if better:
        return f"{better} rather than a power law"
    return f"cannot be told from {undecided}, {alpha}" if undecided else f"power law, {alpha}"


def _beside_random(layer: Layer, p_random: float) -> str:
    if p_random > 1 - CHANCE:
        return (
            f"lighter-tailed than a random {layer.size} matrix ({p_random:.0%} have a lower alpha)"
        )
    return f"as a random {layer.size} matrix would look ({p_random:.0%} have so low an alpha)"


def _alternatives(trust: Trust) -> tuple[str, str]:
    """The alternative that is better than a power law, and the one that is no worse, if any.

    Of several the most likely is named. One whose maximum is the power law itself says nothing.
    """
    ratios = {name: getattr(trust.alternatives, name) for name in _NAMES}
    likely = sorted(ratios, key=lambda name: -float(ratios[name].loglikelihood))
    better = [_NAMES[name] for name in likely if _favours(ratios[name]) < 0]
    open_ratios = [name for name in likely if not ratios[name].limit]
    equal = [_NAMES[name] for name in open_ratios if _favours(ratios[name]) == 0]
    return next(iter(better), ""), next(iter(equal), "")


def _favours(ratio: LikelihoodRatio) -> int:
    """1 for the power law, -1 for the alternative, 0 where chance may have decided."""
    return int(np.sign(ratio.R)) if ratio.p < DECIDED else 0


def _of_truncated(fit: TruncatedPowerLawFit, trust: Trust) -> str:
    ratio = trust.alternatives.truncated
    if fit.Lambda == 0:
        return f"plain power law, alpha {fit.alpha:.1f}: no truncation fits better"
    bound = " at its bound" if np.isnan(fit.sigma) else ""
    better = "better" if _favours(ratio) < 0 else "no better"
    return (
        f"truncated power law, alpha {fit.alpha:.1f}{bound}, Lambda {fit.Lambda:.2g}: "
        f"{better} than a power law (p = {ratio.p:.2g})"
    )
