"""Patterns of ranks and alphas match what `re` matches for PEFT, or are refused."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.errors import AdapterError, BudgetError
from loaders.lora.patterns import compile_all

PATH = Path("adapter_config.json")


def matches(expression, name):
    return compile_all([expression], [name], PATH)[expression].matches(name)


def peft_matches(expression, name):
    return re.match(rf"(.*\.)?({expression})$", name) is not None


HONEST = [
    "q_proj",
    "layers.0.q_proj",
    r"layers\.0\.q_proj",
    "^model.layers.0.q_proj",
    "^layers.0.q_proj",
    r".*\.layers\.\d+\.(q|k|v)_proj",
    r"model\.layers\.[0-9]+\..*_proj$",
    "layers.[1-9][0-9]?.(?:q|o)_proj",
    r"\w+_proj",
    ".*",
    "q_proj|k_proj",
    "to-q",
    "",
]
NAMES = [
    "q_proj",
    "model.layers.0.q_proj",
    "model.layers.10.k_proj",
    "model.layers.7.self_attn.o_proj",
    "layersX0Xq_proj",
    "xq_proj",
    "q_proj.lora",
    "to-q",
    "q.",
    "",
]


@pytest.mark.parametrize("expression", HONEST)
def test_patterns_that_people_write(expression):
    for name in NAMES:
        assert matches(expression, name) == peft_matches(expression, name), name


_ATOMS = ["a", "b", "0", ".", r"\.", r"\d", r"\w", "[0-9]", "[ab]", "(a|b)", "(?:0|ab)", "|"]
_SUFFIXED = st.tuples(st.sampled_from(_ATOMS[:9]), st.sampled_from(["", "*", "+", "?"]))
_EXPRESSIONS = st.lists(st.sampled_from(_ATOMS) | _SUFFIXED.map("".join), max_size=6)


@given(st.sampled_from(["", "^"]), _EXPRESSIONS.map("".join), st.text(alphabet="ab0.", max_size=8))
def test_patterns_by_chance(start, expression, name):
    assert matches(start + expression, name) == peft_matches(start + expression, name)


REFUSED = [
    "(a+)+$",
    "(a|b)*",
    "((a))",
    "a{2}",
    "a**",
    "(?=a)",
    "(?P<x>a)",
    r"\1",
    r"(a)\1",
    "[^a]",
    "[z-a]",
    "[]",
    "(",
    "a)",
    "a$b",
    "a^",
    "*",
    "a\n",
    "a?" * 200,
    "(a|b)" * 7,
]


@pytest.mark.parametrize("expression", REFUSED)
def test_patterns_that_are_refused(expression):
    with pytest.raises(AdapterError, match=r"adapter_config.json: the pattern .* is none of those"):
        compile_all([expression], ["a"], PATH)


HEAVY = {
    "literals": ([f"x{i}" for i in range(2000)], [f"y{i}" for i in range(2000)]),
    "expressions": ([f"a*b?{i}" for i in range(2000)], ["a" * 500] * 20),
    "ways": (["(a|b)" * 6 + "a?" * 60 + "c" * i for i in range(60)], ["abcdefghij"]),
}


@pytest.mark.parametrize(("expressions", "modules"), HEAVY.values(), ids=HEAVY)
def test_too_many_patterns_for_the_modules(expressions, modules):
    start = time.perf_counter()
    with pytest.raises(BudgetError, match=f"too many for {len(modules):,} modules"):
        compile_all(expressions, modules, PATH)
    assert time.perf_counter() - start < 2
