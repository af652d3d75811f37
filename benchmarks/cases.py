"""What is measured: each case a record of what was asked and of the two commands."""

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Command, Timer, whole_process, worker


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison of the same work done by both sides."""

    name: str
    timer: Timer
    ours: Command
    peer: Command
    runs: int
    discarded: int = 1
    """Runs of each side before those that count."""
    speed: float
    """Asked: the peer's time over ours, at least this."""
    memory: float | None = None
    """Asked: our peak memory over the peer's, at most this."""
    limit: str = ""
    """What bounds us where we fall short."""


def all_cases(peer: str, minilm: Path, layer: Path) -> tuple[Case, ...]:
    """Return the cases, given the peer's interpreter and the two checkpoints."""
    return (
        Case(
            name="MiniLM, default analysis, warm: the analysis alone, after one before it",
            timer=worker,
            ours=(sys.executable, "-m", "benchmarks.worker", "benchmarks.ours", str(minilm)),
            peer=(peer, "-m", "benchmarks.worker", "benchmarks.peer", str(minilm)),
            runs=5,
            speed=4.0,
        ),
        Case(
            name="MiniLM, default analysis, cold: the whole process, from start to table",
            timer=whole_process,
            ours=(sys.executable, "-m", "wwfunc", "analyze", str(minilm)),
            peer=(peer, "-m", "benchmarks.peer", str(minilm)),
            runs=5,
            speed=2.0,
            memory=1.0,
        ),
        Case(
            name="One layer of 4096 x 4096, float32: the whole process, from start to table",
            timer=whole_process,
            ours=(sys.executable, "-m", "wwfunc", "analyze", str(layer)),
            peer=(peer, "-m", "benchmarks.peer", str(layer)),
            runs=3,
            discarded=0,
            speed=5.0,
            memory=0.6,
            limit="LAPACK's reduction to tridiagonal form, bound by memory, takes half of the "
            "process and longer than the whole bound would allow beside imports, the Gram matrix "
            "and one compilation; compiling meanwhile would break the bound on memory",
        ),
    )
