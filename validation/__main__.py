"""`python -m validation`: run the campaigns, print and write what they found."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from validation.finding import Finding
from validation.report import CAMPAIGNS, Campaign, MissingCampaignError, find, page, section


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit with 1 if something that was asked is not met, with 2 if a campaign is missing."""
    asked = _parser().parse_args(arguments)
    try:
        campaigns = [find(name) for name in asked.only or CAMPAIGNS]
    except MissingCampaignError as missing:
        print(missing, file=sys.stderr)
        return 2
    met = True
    for campaign in campaigns:
        cases = asked.cases or campaign.full
        findings = list(_timed(campaign, cases))
        met &= all(found.met for found in findings)
        text = section(campaign, cases, findings)
        print(text)
        if asked.output:
            _write(asked.output, campaign.name, text)
    return 0 if met else 1


def _timed(campaign: Campaign, cases: int) -> Iterator[Finding]:
    """Its findings; how long they took is no finding."""
    began = time.perf_counter()
    for found in campaign.run(cases):
        mark = "     " if found.met else "MISS "
        print(f"{mark}{found.what}: {found.measured}", file=sys.stderr, flush=True)
        yield found
    print(f"{campaign.name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def _write(path: Path, name: str, text: str) -> None:
    """After each campaign, so that a long run that is interrupted has not been for nothing."""
    before = path.read_text() if path.exists() else ""
    path.write_text(page({name: text}, before))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__)
    parser.add_argument("--cases", type=count, help="cases of each campaign; all if left out")
    parser.add_argument("--only", choices=CAMPAIGNS, action="append", help="may be repeated")
    parser.add_argument(
        "--output", type=Path, help="Markdown page; campaigns that are not run keep their section"
    )
    return parser


def count(text: str) -> int:
    """A whole number from 1."""
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
