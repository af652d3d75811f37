"""The results as a page of Markdown, and its file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.cases import Case
from benchmarks.comparison import Comparison
from benchmarks.timing import Sample

HEADER = (
    "case",
    "asked",
    "measured",
    "wwfunc",
    "peer",
    "peak memory, wwfunc",
    "peak memory, peer",
    "runs of each",
    "result",
)

TEXT = """# Benchmarks

Written by `make bench`. wwfunc and its peer ran in turn, WeightWatcher in an environment of its
own, on the same processor with the same number of threads and no accelerator. Times are medians,
with the smallest and the largest in brackets; "measured" is the median of the ratios of
neighbouring runs.
A whole process starts Python, imports, compiles, reads, analyses and prints the table; no
compilation cache is kept. Peak memory is the median of the largest resident size of the process.
A result is unsteady where one side's times spread widely: other work shared the processor.
"""


def page(comparisons: Sequence[Comparison], conditions: Mapping[str, str]) -> str:
    """Return the whole page."""
    listed = "\n".join(f"- {name}: {value}" for name, value in conditions.items())
    lines = [row(HEADER), row(["---"] * len(HEADER)), *(row(cells(c)) for c in comparisons)]
    short = [f"- {c.case.name}: {c.case.limit}." for c in comparisons if not c.met and c.case.limit]
    why = ["", "Why it falls short:", "", *short] if short else []
    return "\n".join([TEXT, listed, "", *lines, *why, ""])


def row(texts: Sequence[str]) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(texts)} |"


def cells(comparison: Comparison) -> tuple[str, ...]:
    """Return the texts of one comparison, under `HEADER`."""
    case = comparison.case
    return (
        case.name,
        asked(case),
        measured(comparison),
        times(comparison.ours),
        f"{case.peer_name}: {times(comparison.peer)}" if case.peer else "",
        peak(comparison.ours),
        peak(comparison.peer) if case.peer else "",
        str(case.runs),
        verdict(comparison),
    )


def asked(case: Case) -> str:
    """Return what the case asks; nothing where it only reports."""
    if case.speed is not None:
        return ratios(f"at least {case.speed:g} times as fast", case.memory, "at most ")
    return "" if case.seconds is None else f"at most {case.seconds:g} s"


def measured(comparison: Comparison) -> str:
    """Return what was measured, in the words of what was asked."""
    if not comparison.case.peer:
        return f"{comparison.seconds:.2f} s"
    memory = None if comparison.case.memory is None else comparison.memory
    return ratios(f"{comparison.speed:.2f} times as fast", memory)


def ratios(speed: str, memory: float | None, bound: str = "") -> str:
    """Return a speed and, where there is one, a share of memory."""
    return speed if memory is None else f"{speed}, in {bound}{memory:.0%} of the memory"


def verdict(comparison: Comparison) -> str:
    """Return whether what was asked was reached, and whether the times can be trusted."""
    if not asked(comparison.case):
        return "" if comparison.steady else "unsteady: run again"
    reached = "met" if comparison.met else "falls short"
    return reached if comparison.steady else f"{reached}, but unsteady: run again"


def times(samples: Sequence[Sample]) -> str:
    """Return the median, smallest and largest time, and the layers where they are counted."""
    seconds = [sample.seconds for sample in samples]
    text = f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
    layers = samples[0].layers
    return text if layers is None else f"{text}, {layers} layers"


def peak(samples: Sequence[Sample]) -> str:
    """Return the median peak memory."""
    return f"{median(sample.peak_bytes for sample in samples) / 2**20:.0f} MiB"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
