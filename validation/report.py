"""Which campaigns there are, and the page that says what they found."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from validation.finding import Finding
from wwfunc.provenance import versions

CAMPAIGNS = (
    "truncated",
    "alternatives",
    "resampling",
    "null",
    "submatrices",
    "marchenkopastur",
    "traps",
)
"""Modules of this package, in the order of the page."""

HEAD = """# Validation

Simulated spectra whose truth is known, and what the statistics said of them. `make validate` draws
them all again, with the same seeds, and writes this page. Where nothing is asked a number is only
reported.
"""


@dataclass(frozen=True)
class Campaign:
    """One module of this package that has `FULL`, how many cases, and `campaign`."""

    name: str
    about: str
    full: int
    run: Callable[[int], Iterator[Finding]]


class MissingCampaignError(Exception):
    """A campaign is listed and there is no module of its name."""


def find(name: str) -> Campaign:
    """The campaign of that name, imported when it is wanted.

    Raises
    ------
    MissingCampaignError
        If there is no such module.
    """
    module_name = f"validation.{name}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as cause:
        if cause.name != module_name:
            raise
        raise MissingCampaignError(f"no campaign {name!r}: there is no {module_name}") from None
    about = cast(str, inspect.getdoc(module))
    return Campaign(name=name, about=about, full=module.FULL, run=module.campaign)


def section(campaign: Campaign, cases: int, findings: Iterable[Finding]) -> str:
    """What one campaign found, as Markdown."""
    rows = [
        f"| {found.what} | {found.asked} | {found.measured} | {_result(found)} |"
        for found in findings
    ]
    head = ["| what | asked | measured | result |", "|---|---|---|---|"]
    computed_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    how = f"{cases:,} cases; {computed_with}."
    return "\n".join([f"## {campaign.name}", "", campaign.about, "", *head, *rows, "", how, ""])


def page(sections: dict[str, str], before: str = "") -> str:
    """The sections in order; a campaign that has none keeps its own of the page `before`."""
    parts = re.split(r"^(?=## )", before, flags=re.M)[1:]
    kept = {part.split()[1]: f"{part.rstrip()}\n" for part in parts}
    known = kept | sections
    return "\n".join([HEAD, *(known[name] for name in CAMPAIGNS if name in known)])


def _result(found: Finding) -> str:
    if not found.asked:
        return ""
    return "met" if found.met else "**missed**"
