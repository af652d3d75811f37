"""Every choice that a user can make, in one frozen, hashable, picklable record."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

from wwfunc.errors import OptionError

Selector = int | str
Threshold = Literal["absolute", "relative"]
SmallSample = Literal["corrected", "mle"]
Engine = Literal["auto", "host", "jax"]

THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)
SMALL_SAMPLES: tuple[SmallSample, ...] = get_args(SmallSample)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to analyse and how."""

    layers: tuple[Selector, ...] = ()
    """Layer ids, names, types, kinds or patterns; negative ids are left out; () takes all."""
    min_evals: int = 8
    """A layer with fewer eigenvalues is a row without numbers."""
    max_evals: int | None = None
    """A layer with more eigenvalues is a row without numbers."""
    max_N: int | None = None
    """A layer whose longer side is longer is a row without numbers."""
    xmin: float | None = None
    """Where every tail starts; None looks for the best start."""
    xmin_min: float | None = None
    """Smallest xmin that is tried."""
    xmax: int | float | None = None
    """Larger eigenvalues are not fitted; a negative integer -k leaves out the k largest."""
    threshold: Threshold = "absolute"
    """Fit eigenvalues above 1e-5 ("absolute"), or all that rounding resolves ("relative")."""
    small_sample: SmallSample = "corrected"
    """Correct the bias of alpha under 20 eigenvalues ("corrected"), or never ("mle")."""
    engine: Engine = "auto"
    """Eigenvalues by LAPACK ("host"), by JAX's device ("jax"), or by what JAX runs on ("auto")."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _as_selectors(self.layers))
        _require(self.min_evals, "min_evals", least=1)
        for name in ("max_evals", "max_N"):
            _require(getattr(self, name), name, least=1)
        for name in ("xmin", "xmin_min"):
            _require(getattr(self, name), name, above=0)
        _require_xmax(self.xmax)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}"
                )


_CHOICES = {"threshold": THRESHOLDS, "small_sample": SMALL_SAMPLES, "engine": get_args(Engine)}


def make_options(base: Options | None = None, **changes: Any) -> Options:
    """`base` with `changes`; an unknown name is refused with the nearest that exists."""
    known = [field.name for field in dataclasses.fields(Options)]
    for name in changes:
        if name not in known:
            raise OptionError(f"there is no option {name!r}{_nearest(name, known)}")
    return dataclasses.replace(base or Options(), **changes)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _as_selectors(layers: Selector | Iterable[Selector] | None) -> tuple[Selector, ...]:
    given = () if layers is None else (layers,) if isinstance(layers, (int, str)) else tuple(layers)
    for selector in given:
        if (
            not isinstance(selector, (int, str))
            or isinstance(selector, bool)
            or selector in (0, "")
        ):
            raise OptionError(
                f"layers= takes names and layer ids (negative ones leave out), not {selector!r}"
            )
    return given


def _require(
    value: float | None, name: str, *, least: float = -math.inf, above: float = -math.inf
) -> None:
    if value is None:
        return
    bound = f"at least {least}" if least > -math.inf else f"above {above}"
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (good and least <= value < math.inf and value > above):
        raise OptionError(f"{name} is a number {bound}, not {value!r}")


def _require_xmax(xmax: float | None) -> None:
    if xmax is None or (isinstance(xmax, int) and not isinstance(xmax, bool) and xmax < 0):
        return
    good = isinstance(xmax, (int, float)) and not isinstance(xmax, bool)
    if not (good and 0 < xmax < math.inf):
        raise OptionError(
            f"xmax is an eigenvalue above 0, or a negative integer that counts the largest "
            f"eigenvalues to leave out, not {xmax!r}"
        )
