"""Damaged files by the thousand, read in a child process: a crash or a hang costs the child.

A finding is anything but a checkpoint that is read whole or a `CheckpointError`. The child writes
down each case before it reads it, so that the parent knows which one killed it.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.mutate import mutated
from fuzz.seeds import seeds

SECONDS = 5
"""A case may take two; the machine may be busy."""
_COMPANIONS = ("shards", "keras-shards", "onnx")
"""Formats of several files, of which one is named."""
_SPARE_MEMORY = 1 << 30
_HERE = Path(__file__).resolve().parent


@dataclass
class Outcome:
    """What became of the cases of one format."""

    cases: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0


def run(name: str, cases: int) -> Outcome:
    """Read `cases` damaged files of one format, in as many children as it takes."""
    outcome = Outcome()
    while outcome.cases < cases:
        _batch(name, outcome, cases)
    return outcome


def _batch(name: str, outcome: Outcome, cases: int) -> None:
    first = outcome.cases
    command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.campaign", name, first, cases]
    with subprocess.Popen(
        list(map(str, command)),
        cwd=_HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        for line in child.stdout:
            _count(json.loads(line), outcome)
        died = child.wait() != 0
        trace = child.stderr.read()
    if died:
        outcome.findings.append(f"case {outcome.cases}: the process died: {trace[-800:]}")
        outcome.cases += 1
    elif outcome.cases == first:
        raise RuntimeError(f"{name}: the child read nothing: {trace[-800:]}")


def _count(case: dict, outcome: Outcome) -> None:
    outcome.cases = case["case"] + 1
    outcome.slowest = max(outcome.slowest, case["seconds"])
    if case["kind"] == "read":
        outcome.read += 1
    elif case["kind"] == "refused":
        outcome.refused[case["error"]] += 1
    else:
        outcome.findings.append(f"case {case['case']}: {case['error']}")


def make(name: str, case: int, folder: Path) -> Path:
    """Case number `case` of a format, always the same, written into `folder`."""
    rng = random.Random(f"{name} {case}")
    seed = rng.choice(seeds()[name])
    source = seed.parent if name in _COMPANIONS else seed
    target = folder / source.name
    if source.is_file():
        target.write_bytes(mutated(source.read_bytes(), rng))
        return target
    shutil.copytree(source, target)
    stem = "" if source is seed else seed.name.split(".")[0]
    files = sorted(p for p in target.rglob(f"{stem}*") if p.is_file())
    for path in rng.sample(files, min(len(files), rng.choice((1, 1, 1, 2)))):
        path.write_bytes(mutated(path.read_bytes(), rng))
    return target if source is seed else target / seed.name


def attempt(path: Path) -> dict:
    """Read all of `path`: "read", "refused", or what else happened."""
    import loaders
    from wwfunc.errors import CheckpointError, MissingExtraError

    start = time.perf_counter()
    try:
        for handle in loaders.load(path).values():
            handle.read()
        found = {"kind": "read", "error": ""}
    except (CheckpointError, MissingExtraError) as error:
        found = {"kind": "refused", "error": type(error).__name__}
    except BaseException as error:  # whatever it is, it is a finding
        found = {"kind": "finding", "error": f"{type(error).__name__}: {error}"[:300]}
    return found | {"seconds": time.perf_counter() - start}


def _expire(*_):
    raise TimeoutError(f"more than {SECONDS} s")


def _child(name: str, first: int, last: int) -> None:
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (loaded + 2 * _SPARE_MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _expire)
    for case in range(first, last):
        with tempfile.TemporaryDirectory() as folder:
            path = make(name, case, Path(folder))
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            found = attempt(path)
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(found | {"case": case}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(_HERE.parent.parent))
    _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
