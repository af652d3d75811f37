"""What is measured: each case a record of what was asked and of the two commands."""

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Command, Timer, whole_process, worker


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison of the same work done by both sides, or work of ours against the clock."""

    name: str
    timer: Timer
    ours: Command
    peer: Command | None = None
    peer_name: str = "WeightWatcher"
    runs: int
    discarded: int = 1
    """Runs of each side before those that count."""
    speed: float | None = None
    """Asked: the peer's time over ours, at least this."""
    seconds: float | None = None
    """Asked, where there is no peer: our time, at most this."""
    memory: float | None = None
    """Asked: our peak memory over the peer's, at most this."""
    limit: str = ""
    """What bounds us where we fall short."""


RANDOM = ("mp_fit", "randomize", "detX")
RANDOM_FLAGS = ("--mp-fit", "--randomize", "--detX")

TPL_LAYERS = ("encoder.layer.0.attention.self.key", "encoder.layer.0.output.dense")


def all_cases(peer: str, minilm: Path, layer: Path, adapter: Path) -> tuple[Case, ...]:
    """Return the cases, given the peer's interpreter and the three checkpoints."""
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
        Case(
            name="MiniLM with mp_fit, randomize and detX, warm",
            timer=worker,
            ours=_ours("benchmarks.ours", minilm, *RANDOM),
            peer=(peer, "-m", "benchmarks.worker", "benchmarks.peer", str(minilm), *RANDOM),
            runs=3,
            speed=20.0,
        ),
        Case(
            name="MiniLM with mp_fit, randomize and detX, cold: the whole process",
            timer=whole_process,
            ours=(sys.executable, "-m", "wwfunc", "analyze", str(minilm), *RANDOM_FLAGS),
            peer=(peer, "-m", "benchmarks.peer", str(minilm), *RANDOM),
            runs=3,
            discarded=0,
            speed=8.0,
        ),
        *(_truncated(peer, minilm, layer) for layer in TPL_LAYERS),
        Case(
            name="MiniLM, truncated power law on every layer, warm",
            timer=worker,
            ours=_ours("benchmarks.truncated", minilm),
            runs=5,
            seconds=5.0,
        ),
        Case(
            name="MiniLM, goodness-of-fit p with 1,000 replicates for every layer, warm",
            timer=worker,
            ours=_ours("benchmarks.goodness", minilm),
            runs=3,
            seconds=40.0,
        ),
        Case(
            name="MiniLM, trust=True with 1,000 replicates: the whole process",
            timer=whole_process,
            ours=(sys.executable, "-m", "wwfunc", "analyze", str(minilm), "--trust"),
            runs=3,
            discarded=0,
        ),
        Case(
            name="FARMS on one layer of 4096 x 4096, windows of 2000 x 2000, 10 x 10, float64",
            timer=worker,
            ours=_ours("benchmarks.farms", layer),
            peer=_ours("benchmarks.svd_windows", layer),
            peer_name="SciPy's svd of each window",
            runs=1,
            discarded=0,
            speed=2.5,
        ),
        Case(
            name="An adapter of rank 16 for a layer of 4096 x 4096, warm",
            timer=worker,
            ours=_ours("benchmarks.adapter", adapter),
            peer=_ours("benchmarks.formed_product", adapter),
            peer_name="B A and SciPy's svdvals",
            runs=3,
            speed=100.0,
        ),
    )


def _ours(side: str, *arguments: object) -> Command:
    return (sys.executable, "-m", "benchmarks.worker", side, *map(str, arguments))


def _truncated(peer: str, minilm: Path, layer: str) -> Case:
    """One layer: the peer takes half a minute or more, so that it runs once."""
    return Case(
        name=f"MiniLM, truncated power law of {layer}, given its spectrum, warm",
        timer=worker,
        ours=_ours("benchmarks.truncated_fit", minilm, layer),
        peer=(peer, "-m", "benchmarks.worker", "benchmarks.peer_truncated", str(minilm), layer),
        runs=1,
        discarded=0,
        speed=1000.0,
    )
