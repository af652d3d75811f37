"""`python -m fuzz --cases 2000 --output PAGE`: the whole campaign, as a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from fuzz.campaign import Outcome, run
from fuzz.seeds import seeds

_HEAD = """\
# Fuzzing

Small files of every format, damaged in their bytes and in their structure, are read whole in a
child process. A finding is anything but a checkpoint that is read or a `CheckpointError`: another
exception, a crash, a case of more than five seconds or two gigabytes. The cases are the same in
every run; `make fuzz` writes this page.

| format | cases | read | refused | findings | slowest, s | refused as |
|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Run the campaign, write its page, and say by the exit code whether anything was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("formats", nargs="*", help="all where none is named")
    given = parser.parse_args()
    outcomes = {}
    for name in given.formats or sorted(seeds()):
        outcomes[name] = run(name, given.cases)
        print(_row(name, outcomes[name]), *outcomes[name].findings, sep="\n", flush=True)
    if given.output:
        given.output.write_text(_HEAD + "\n".join(map(_row, outcomes, outcomes.values())) + "\n")
    return int(any(outcome.findings for outcome in outcomes.values()))


def _row(name: str, outcome: Outcome) -> str:
    refused = ", ".join(f"{error} {count}" for error, count in outcome.refused.most_common(4))
    return (
        f"| {name} | {outcome.cases} | {outcome.read} | {outcome.refused.total()} | "
        f"{len(outcome.findings)} | {outcome.slowest:.1f} | {refused} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
