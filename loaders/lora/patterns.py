"""Regular expressions from strangers: those that are matched in linear time.

The `rank_pattern` and `alpha_pattern` of an adapter are expressions that PEFT hands to `re`, where
`(a+)+$` runs for ever. What people write in them is less than `re` can do: literal names, `.*`,
`[0-9]+`, `(q|v)_proj`. That much is matched here, by an automaton that is in all its states at
once and never goes back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Protocol

from ..errors import AdapterError, BudgetError
from ..strict_json import brief

_LONGEST = 256
"""Characters in an expression, other than a literal."""
_MOST_WAYS = 64
_MOST_WORK = 2_000_000
"""Steps of matching, each a fraction of a microsecond."""
_COMPILING = 200
"""What preparing an expression costs, in such steps."""

_LITERAL = re.compile(r"\^?[\w.-]+")
_STEP = re.compile(r"(\\[dw]|\\[^\w\s]|\[(?:\w(?:-\w)?)+\]|[\w./:-])([*+?]?)")
_GROUP = re.compile(r"\((?:\?:)?([\w.|-]*)\)(?![*+?{])")


@dataclass(frozen=True, slots=True)
class _Size:
    """How much there is to match."""

    names: int
    characters: int
    alphabet: int


class Pattern(Protocol):
    """One expression, ready to be matched."""

    def cost(self, size: _Size) -> int:
        """Steps that matching so much takes."""
        ...

    def matches(self, name: str) -> bool:
        r"""Whether `(.*\.)?(expression)$` matches from the start of `name`, as PEFT asks."""
        ...


def compile_all(
    expressions: Iterable[str], modules: Collection[str], path: Path
) -> Mapping[str, Pattern]:
    """The patterns by their expressions, to be matched with the names of all `modules`.

    Raises
    ------
    AdapterError
        If an expression is none of those that are matched here.
    BudgetError
        If matching them all would take too long.
    """
    patterns: dict[str, Pattern] = {}
    size = _Size(len(modules), sum(map(len, modules)), len(set().union(*modules)))
    work = 0
    for expression in expressions:
        pattern = _compiled(expression, path)
        work += _COMPILING + pattern.cost(size)
        if work > _MOST_WORK:
            raise BudgetError(
                f"{path}: the patterns for ranks and alphas are too many for {size.names:,} modules"
            )
        patterns[expression] = pattern
    return patterns


def _compiled(expression: str, path: Path) -> Pattern:
    if _LITERAL.fullmatch(expression):
        text = expression.removeprefix("^")
        return _Literal(text, text != expression, re.compile(text))
    try:
        return _Ways(tuple(_ways(expression)))
    except (ValueError, re.error):
        raise AdapterError(
            f"{path}: the pattern {brief(expression)} is none of those that are matched here: "
            f"names, with . \\d [0-9] and * + ? behind them, and (a|b)"
        ) from None


@dataclass(frozen=True)
class _Literal:
    """`re` takes these in one go: each has one length, and nothing in it can be tried again."""

    text: str
    anchored: bool
    compiled: re.Pattern[str]

    def cost(self, size: _Size) -> int:
        return 4 * len(self.text) + size.names + size.characters // 64

    def matches(self, name: str) -> bool:
        start = len(name) - len(self.text)
        inside = start > 0 and not self.anchored and name[start - 1] == "."
        return (start == 0 or inside) and self.compiled.match(name, start) is not None


@dataclass(frozen=True)
class _Ways:
    """The alternatives of an expression."""

    ways: tuple[_Way, ...]

    def cost(self, size: _Size) -> int:
        steps = sum(len(way.steps) for way in self.ways)
        skips = sum(len(way.optional) for way in self.ways)
        return steps * size.alphabet + size.characters * (2 * len(self.ways) + skips)

    def matches(self, name: str) -> bool:
        return any(way.matches(name) for way in self.ways)


@dataclass(frozen=True)
class _Step:
    """One character of a kind: once, at most once, or any number of times."""

    kind: str
    times: str


@dataclass(frozen=True)
class _Way:
    """Steps one after the other. Bit i of its states stands for "step i is the next"."""

    steps: tuple[_Step, ...]
    anchored: bool
    fitting: dict[str, int] = field(default_factory=dict)

    @cached_property
    def optional(self) -> list[int]:
        return [1 << i for i, step in enumerate(self.steps) if step.times in ("*", "?")]

    @cached_property
    def repeated(self) -> int:
        return sum(1 << i for i, step in enumerate(self.steps) if step.times in ("*", "+"))

    def matches(self, name: str) -> bool:
        """Whether the steps lead to the end of `name`, from its start or from behind a dot."""
        states, start = 0, True
        for character in name:
            states = self._skipped(states | start)
            taken = states & self._fitting(character)
            states = taken << 1 | taken & self.repeated
            start = character == "." and not self.anchored
        return bool(self._skipped(states | start) >> len(self.steps) & 1)

    def _skipped(self, states: int) -> int:
        """With the states behind those steps that may be left out."""
        for bit in self.optional:
            if states & bit:
                states |= bit << 1
        return states

    def _fitting(self, character: str) -> int:
        if character not in self.fitting:
            bits = (1 << i for i, step in enumerate(self.steps) if _fits(step.kind, character))
            self.fitting[character] = sum(bits)
        return self.fitting[character]


@lru_cache(1 << 12)
def _fits(kind: str, character: str) -> bool:
    return re.fullmatch(kind, character) is not None


def _ways(expression: str) -> Iterable[_Way]:
    """The steps of each alternative; ValueError where the expression has other parts."""
    ways = 0
    if len(expression) > _LONGEST:
        raise ValueError("too long")
    for branch in _branches(expression):
        body = branch.removeprefix("^")
        body = body if body.endswith("\\$") else body.removesuffix("$")
        for parts in product(*_parts(body)):
            ways += 1
            if ways > _MOST_WAYS:
                raise ValueError("too many alternatives")
            yield _Way(tuple(step for part in parts for step in part), branch.startswith("^"))


def _branches(expression: str) -> list[str]:
    """The alternatives outside of all groups."""
    branches, depth, escaped = [""], 0, False
    for character in expression:
        depth += (character == "(" and not escaped) - (character == ")" and not escaped)
        if character == "|" and not depth and not escaped:
            branches.append("")
        else:
            branches[-1] += character
        escaped = character == "\\" and not escaped
    return branches


def _parts(body: str) -> Iterable[list[list[_Step]]]:
    """For each part of a branch the ways to take it: one for a step, several for a group."""
    place = 0
    while place < len(body):
        group = _GROUP.match(body, place)
        if group:
            yield [list(_steps(option)) for option in group[1].split("|")]
            place = group.end()
        else:
            step = _STEP.match(body, place)
            if step is None:
                raise ValueError("an expression of another kind")
            re.compile(step[1])  # a range may run backwards
            yield [[_Step(step[1], step[2])]]
            place = step.end()


def _steps(option: str) -> Iterable[_Step]:
    return (_Step(character, "") for character in option)
