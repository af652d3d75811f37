"""The conditions of a run: processor, threads, versions, environment, and how memory is counted."""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

LEFT_OUT = ("JAX_", "XLA_", "PYTHON")
"""Variables so begun stay behind: compilation caches, compiler flags, no bytecode written."""

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one unit of `ru_maxrss`."""

VERSIONS = """
import importlib.metadata, json, platform, sys
found = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
wanted = {name: found.get(name, "not installed") for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version()} | wanted))
"""


def cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def child_environment() -> dict[str, str]:
    """Return the environment both sides run in: one thread a core, no accelerator, no caches."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
    threads = dict.fromkeys(THREAD_VARIABLES, str(cores()))
    return kept | threads | {"CUDA_VISIBLE_DEVICES": ""}


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the version of an interpreter and of packages it sees."""
    command = [python, "-c", VERSIONS, *packages]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=child_environment())
    return dict(json.loads(output.stdout))


def peak_bytes(usage: resource.struct_rusage) -> int:
    """Return the largest resident memory a process had."""
    return usage.ru_maxrss * MAXRSS_UNIT
