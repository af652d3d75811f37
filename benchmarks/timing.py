"""Time a command: as whole processes, or request by request in one process kept alive.

A timer is a context manager that gives a function of no arguments; each call of it does the work
once and returns its `Sample`.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TypeAlias

from benchmarks.machine import child_environment, peak_bytes


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one run took: wall time, and the peak resident memory of its process so far."""

    seconds: float
    peak_bytes: int
    layers: int | None = None
    """Layers measured, where the run counts them."""


Command: TypeAlias = Sequence[str]
Run: TypeAlias = Callable[[], Sample]
Timer: TypeAlias = Callable[[Command], AbstractContextManager[Run]]


class BenchmarkError(Exception):
    """A command that was to be timed failed."""

    def __init__(self, command: Command, output: bytes) -> None:
        """Keep the command and the end of what it printed."""
        super().__init__(f"{' '.join(command)} failed:\n{output.decode(errors='replace')[-4000:]}")


@contextmanager
def whole_process(command: Command) -> Iterator[Run]:
    """Time each run from the start of a new process to its end."""
    yield lambda: run_process(command)


def run_process(command: Command) -> Sample:
    """Run a command to its end, its output read through a pipe."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=child_environment()
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise BenchmarkError(command, output)
    return Sample(seconds=seconds, peak_bytes=peak_bytes(usage))


@contextmanager
def worker(command: Command) -> Iterator[Run]:
    """Time each run inside one process that stays alive: `benchmarks.worker`."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(),
        ) as process,
    ):
        yield lambda: request(command, process, log)


def request(command: Command, process: subprocess.Popen[bytes], log: IO[bytes]) -> Sample:
    """Ask a worker for one run: a line out, a line with the fields of the `Sample` back."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(b"\n")
    answer = process.stdout.readline()
    if not answer:
        log.seek(0)
        raise BenchmarkError(command, log.read())
    return Sample(**json.loads(answer))
