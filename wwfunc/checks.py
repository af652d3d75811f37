"""Checks of single options: each returns the plain Python value or raises OptionError."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

from wwfunc.errors import OptionError

MOST_CLIPPED = 2**31 - 1
MOST_SEEDS = 2**31
DEFAULT_GRID = 32
FEWEST_REPLICATES = 19

Check = Callable[[str, Any], Any]
Selector = int | str


def selectors(name: str, layers: Any) -> tuple[Selector, ...]:
    """Names and layer ids, one or several."""
    single = isinstance(layers, (str, bytes, Integral)) or not isinstance(layers, Iterable | None)
    several = () if layers is None else layers
    return tuple(selector(name, item) for item in ((layers,) if single else several))


def selector(name: str, item: Any) -> Selector:
    """A name or a layer id."""
    if isinstance(item, str) and item:
        return str(item)  # NumPy's texts print themselves as such
    if is_number(Integral, item) and item:
        return int(item)
    raise OptionError(f"{name}= takes names and layer ids (negative ones leave out), not {item!r}")


def count(name: str, value: Any) -> int:
    """A whole number from 1."""
    if not is_number(Integral, value) or value < 1:
        raise OptionError(f"{name} is a whole number from 1, not {value!r}")
    return int(value)


def replicates(name: str, value: Any) -> int:
    """So many that a p-value, at least 1 / (1 + replicates), can fall to 0.05."""
    if count(name, value) < FEWEST_REPLICATES:
        raise OptionError(
            f"{name} is a whole number from {FEWEST_REPLICATES}, not {value!r}: with fewer no "
            "p-value falls to 0.05"
        )
    return int(value)


def positive(name: str, value: Any) -> float:
    """A number above 0."""
    if not 0 < as_float(value) < math.inf:
        raise OptionError(f"{name} is a number above 0, not {value!r}")
    return float(value)


def aspect(name: str, value: Any) -> float:
    """The longer side over the shorter one."""
    if not 1 <= as_float(value) < math.inf:
        raise OptionError(f"{name} is a number from 1, not {value!r}")
    return float(value)


def grid(name: str, value: Any) -> int | None:
    """The side of a grid; True stands for WeightWatcher's."""
    if value is None or isinstance(value, bool):
        return DEFAULT_GRID if value else None
    return count(name, value)


def seed(name: str, value: Any) -> int:
    """A whole number from 0 that a random key is made of."""
    if not is_number(Integral, value) or not 0 <= value < MOST_SEEDS:
        raise OptionError(f"{name} is a whole number from 0 to {MOST_SEEDS - 1}, not {value!r}")
    return int(value)


def callback(name: str, value: Any) -> None:
    """Something that can be called with (done, total, name), or None."""
    if value is not None and not callable(value):
        raise OptionError(f"{name}= is called with (done, total, name), {value!r} cannot be")


def flag(name: str, value: Any) -> bool:
    """A truth value."""
    plain = value.item() if getattr(value, "shape", None) == () else value  # NumPy's, unimported
    if not isinstance(plain, bool):
        raise OptionError(f"{name} is True or False, not {value!r}")
    return plain


def xmax(name: str, value: Any) -> int | float:
    """An eigenvalue, or a negative count."""
    if is_number(Integral, value) and -MOST_CLIPPED <= value < 0:
        return int(value)
    if 0 < as_float(value) < math.inf:
        return float(value)
    raise OptionError(
        f"{name} is an eigenvalue above 0, or a negative whole number that counts the largest "
        f"eigenvalues to leave out, not {value!r}"
    )


def as_float(value: Any) -> float:
    """`value` as a float, NaN where it is no number or none that a float holds."""
    try:
        return float(value) if is_number(Real, value) else math.nan
    except OverflowError:
        return math.nan


def is_number(kind: type, value: Any) -> bool:
    """Whether `value` is such a number, Python's or NumPy's; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def or_none(check: Check) -> Check:
    """The same check where None is allowed."""
    return lambda name, value: None if value is None else check(name, value)


def one_of(*choices: str) -> Check:
    """One of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise OptionError(f"{name} is one of {', '.join(choices)}, not {value!r}")
        return str(value)

    return check
