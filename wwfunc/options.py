"""Every choice that a user can make, in one frozen, hashable, picklable record."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, Literal, get_args

from wwfunc.errors import OptionError

Selector = int | str
Threshold = Literal["absolute", "relative"]
SmallSample = Literal["corrected", "mle"]
Engine = Literal["auto", "host", "jax"]

MOST_CLIPPED = 2**31 - 1

Check = Callable[[str, Any], Any]

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
    """Larger eigenvalues are not fitted; an integer, always negative here, -k leaves out the k
    largest."""
    threshold: Threshold = "absolute"
    """Fit eigenvalues above 1e-5 ("absolute"), or all that rounding resolves ("relative")."""
    small_sample: SmallSample = "corrected"
    """Correct the bias of alpha under 20 eigenvalues ("corrected"), or never ("mle")."""
    engine: Engine = "auto"
    """Eigenvalues by LAPACK ("host"), by JAX's device ("jax"), or by what JAX runs on ("auto")."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            checked = _CHECKS[field.name](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, checked)


def make_options(base: Options | None = None, **changes: Any) -> Options:
    """`base` with `changes`; an unknown name is refused with the nearest that exists."""
    if base is not None and not isinstance(base, Options):
        raise OptionError(f"options= takes an Options record, not {base!r}")
    known = [field.name for field in dataclasses.fields(Options)]
    for name in changes:
        if name not in known:
            raise OptionError(f"there is no option {name!r}{_nearest(name, known)}")
    return dataclasses.replace(base or Options(), **changes)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _selectors(name: str, layers: Any) -> tuple[Selector, ...]:
    single = isinstance(layers, (str, bytes, Integral)) or not isinstance(layers, Iterable | None)
    return tuple(_selector(name, item) for item in ((layers,) if single else layers or ()))


def _selector(name: str, item: Any) -> Selector:
    if isinstance(item, str) and item:
        return item
    if _is(Integral, item) and item:
        return int(item)
    raise OptionError(f"{name}= takes names and layer ids (negative ones leave out), not {item!r}")


def _count(name: str, value: Any) -> int:
    if not _is(Integral, value) or value < 1:
        raise OptionError(f"{name} is a whole number from 1, not {value!r}")
    return int(value)


def _positive(name: str, value: Any) -> float:
    if not 0 < _as_float(value) < math.inf:
        raise OptionError(f"{name} is a number above 0, not {value!r}")
    return float(value)


def _xmax(name: str, value: Any) -> int | float:
    if _is(Integral, value) and -MOST_CLIPPED <= value < 0:
        return int(value)
    if 0 < _as_float(value) < math.inf:
        return float(value)
    raise OptionError(
        f"{name} is an eigenvalue above 0, or a negative whole number that counts the largest "
        f"eigenvalues to leave out, not {value!r}"
    )


def _as_float(value: Any) -> float:
    """`value` as a float, NaN where it is no number or none that a float holds."""
    try:
        return float(value) if _is(Real, value) else math.nan
    except OverflowError:
        return math.nan


def _is(kind: type, value: Any) -> bool:
    """Whether `value` is such a number, Python's or NumPy's; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _one_of(*choices: str) -> Check:
    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise OptionError(f"{name} is one of {', '.join(choices)}, not {value!r}")
        return str(value)

    return check


_CHECKS: dict[str, Check] = {
    "layers": _selectors,
    "min_evals": _count,
    "max_evals": _or_none(_count),
    "max_N": _or_none(_count),
    "xmin": _or_none(_positive),
    "xmin_min": _or_none(_positive),
    "xmax": _or_none(_xmax),
    "threshold": _one_of(*THRESHOLDS),
    "small_sample": _one_of(*SMALL_SAMPLES),
    "engine": _one_of(*get_args(Engine)),
}
"""One check for each option, which returns the plain Python value."""
