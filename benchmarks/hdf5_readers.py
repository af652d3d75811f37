"""Which reader opens HDF5 files from strangers: this package's own, pyfive, or h5py in a child.

`python -m benchmarks.hdf5_readers` writes two files of 100 MB and damaged copies of a small one
to a temporary folder, and prints a table. It needs h5py and pyfive.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

READERS = ("own", "pyfive", "h5py", "h5py in a child")
TENSORS, SIDE = 25, 1024
DAMAGED = 500
DEADLINE = 5.0


def write_files(folder: Path) -> None:
    import h5py

    rng = np.random.default_rng(0)
    for name, options in {
        "contiguous": {},
        "gzip": {"chunks": (256, 256), "compression": "gzip", "shuffle": True},
    }.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for layer in range(TENSORS):
                group = file.create_group(f"layers/dense_{layer}/vars")
                group.attrs["name"] = f"dense_{layer}"
                array = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
                group.create_dataset("0", data=array, **options)
    with h5py.File(folder / "small.h5", "w") as file:
        for layer in range(12):
            group = file.create_group(f"layers/dense_{layer}/vars")
            group.attrs["name"] = f"dense_{layer}"
            group.create_dataset("0", data=np.ones((8, 8), np.float32))
        group.create_dataset("1", data=np.ones((64, 8)), chunks=(16, 8), compression="gzip")


def damaged(content: bytes, seed: int) -> bytes:
    """A copy with one to eight other bytes."""
    dice = random.Random(seed)
    copy = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        copy[dice.randrange(len(copy))] = dice.randrange(256)
    return bytes(copy)


def own_read(path: Path) -> int:
    from loaders.keras.weights_h5 import load_keras_weights

    return sum(handle.read().size for handle in load_keras_weights(path).values())


def own_open(path: Path) -> int:
    from loaders.keras.weights_h5 import load_keras_weights

    return len(load_keras_weights(path))


def _visited(library: str, path: Path, see: Callable[[Any], int]) -> int:
    """Go through all groups with what h5py and pyfive have in common."""
    total = 0
    with importlib.import_module(library).File(path, "r") as file:
        waiting = [file]
        while waiting:
            group = waiting.pop()
            dict(group.attrs)
            for name in group:
                found = group[name]
                if hasattr(found, "keys"):
                    waiting.append(found)
                else:
                    total += see(found)
    return total


def _open_in(library: str) -> Callable[[Path], int]:
    return lambda path: _visited(library, path, lambda found: len(found.shape))


def _read_in(library: str) -> Callable[[Path], int]:
    return lambda path: _visited(library, path, lambda found: np.asarray(found[()]).size)


def _open_in_a_child(path: Path) -> int:
    return _in_a_child(path, "len(found.shape)")


def _read_in_a_child(path: Path) -> int:
    """Bytes come back through a pipe, as they must from a process that may die."""
    return _in_a_child(path, "sys.stdout.buffer.write(np.asarray(found[()]).tobytes())")


def _in_a_child(path: Path, see: str) -> int:
    code = (
        "import sys, h5py, numpy as np\n"
        "from benchmarks.hdf5_readers import _visited\n"
        f"_visited('h5py', sys.argv[1], lambda found: {see})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, timeout=DEADLINE, check=True
    )
    return len(done.stdout)


OPEN: dict[str, Callable[[Path], int]] = {
    "own": own_open,
    "pyfive": _open_in("pyfive"),
    "h5py": _open_in("h5py"),
    "h5py in a child": _open_in_a_child,
}
READ: dict[str, Callable[[Path], int]] = {
    "own": own_read,
    "pyfive": _read_in("pyfive"),
    "h5py": _read_in("h5py"),
    "h5py in a child": _read_in_a_child,
}


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def timed(reader: str, action: str, path: str) -> dict[str, float]:
    """One action in this fresh process, with the import that it costs."""
    before, start = peak_mib(), time.perf_counter()
    {"open": OPEN, "read": READ}[action][reader](Path(path))
    return {"seconds": time.perf_counter() - start, "growth": peak_mib() - before}


def outcome(reader: str, path: Path) -> str:
    from wwfunc.errors import CheckpointError

    try:
        READ[reader](path)
    except CheckpointError:
        return "typed error"
    except subprocess.TimeoutExpired:
        return "hang"
    except subprocess.CalledProcessError as error:
        return "crash in the child" if error.returncode < 0 else "error in the child"
    except Exception as error:  # what a reader raises is the measurement
        return type(error).__name__
    return "read"


def outcomes(reader: str, folder: str, start: str) -> None:
    """The outcome of each damaged file on a line of its own, so that a crash loses none."""
    content = (Path(folder) / "small.h5").read_bytes()
    bad = Path(folder) / f"{reader.replace(' ', '_')}.h5"
    for seed in range(int(start), DAMAGED):
        bad.write_bytes(damaged(content, seed))
        sys.stdout.write(f"{outcome(reader, bad)}\n")
        sys.stdout.flush()


def _child(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.hdf5_readers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def all_outcomes(reader: str, folder: Path) -> Counter[str]:
    """Start again behind each file that kills the process or keeps it."""
    found: list[str] = []
    while len(found) < DAMAGED:
        command = [sys.executable, "-m", "benchmarks.hdf5_readers", "outcomes", reader]
        process = subprocess.Popen(
            [*command, str(folder), str(len(found))], stdout=subprocess.PIPE, text=True
        )
        found += _lines(process)
        if len(found) < DAMAGED:
            found.append("hang" if process.returncode == -9 else f"signal {-process.returncode}")
    return Counter(found)


def _lines(process: subprocess.Popen[str]) -> list[str]:
    """What the process prints until it ends, or is silent for too long."""
    import selectors

    lines: list[str] = []
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(DEADLINE + 3):
            line = process.stdout.readline()
            if not line:
                break
            lines.append(line.strip())
        else:
            process.kill()
    process.wait()
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        print("| reader | open | read contiguous | read gzip | 500 damaged files |")
        print("|---|---|---|---|---|")
        for reader in READERS:
            cells = []
            for action, file in (("open", "contiguous"), ("read", "contiguous"), ("read", "gzip")):
                runs = [
                    json.loads(_child("timed", reader, action, str(folder / f"{file}.h5")).stdout)
                    for _ in range(3)
                ]
                best = min(runs, key=lambda run: run["seconds"])
                cells.append(f"{best['seconds']:.2f} s, {best['growth']:.0f} MiB")
            found = all_outcomes(reader, folder)
            cells.append(", ".join(f"{words} {count}" for words, count in found.most_common()))
            print(f"| {reader} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["timed"]:
        print(json.dumps(timed(*sys.argv[2:5])))
    elif sys.argv[1:2] == ["outcomes"]:
        outcomes(*sys.argv[2:5])
    else:
        main()
