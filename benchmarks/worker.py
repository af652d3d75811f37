"""Analyse a checkpoint once for each line read: `python -m benchmarks.worker SIDE PATH ...`.

SIDE is a module with `prepare(path, ...)`, which loads the checkpoint and returns a function that
analyses it and returns the number of layers measured. Answers go out on the standard output as
JSON, one a line; whatever the side prints there itself goes to the standard error.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import TextIO

from benchmarks.machine import peak_bytes


def main() -> None:
    """Prepare the side that the command line names, and serve it."""
    answers = own_output()
    side, *arguments = sys.argv[1:]
    serve(importlib.import_module(side).prepare(*arguments), answers)


def own_output() -> TextIO:
    """Take the standard output for this module alone, and send all other prints to the error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def serve(analyze: Callable[[], int], answers: TextIO) -> None:
    """Answer each line of the standard input with the time, peak memory and layers of one run."""
    for _ in sys.stdin:
        start = time.perf_counter()
        layers = analyze()
        seconds = time.perf_counter() - start
        peak = peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
        fields = {"seconds": seconds, "peak_bytes": peak, "layers": layers}
        print(json.dumps(fields), file=answers, flush=True)


if __name__ == "__main__":
    main()
