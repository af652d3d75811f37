"""Measure wwfunc beside WeightWatcher: `python -m benchmarks.run --peer PYTHON`, from the root."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.cases import all_cases
from benchmarks.comparison import compare
from benchmarks.machine import cores, processor, versions
from benchmarks.report import page, write
from benchmarks.weights import minilm, random_adapter, random_layer

RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    """Run every case, print the results and write them beside this file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--peer", required=True, help="the Python that has weightwatcher")
    peer = parser.parse_args().peer
    with tempfile.TemporaryDirectory() as folder:
        layer, adapter = random_layer(folder, size=4096), random_adapter(folder, size=4096, rank=16)
        cases = all_cases(peer, minilm(), layer, adapter)
        text = page([compare(case) for case in cases], conditions(peer))
    write(RESULTS, text)
    print(text)


def conditions(peer: str) -> dict[str, str]:
    """Return what the numbers hold for: the processor, and the versions of both sides."""
    return {
        "processor": f"{processor()}, {cores()} cores, {cores()} threads on each side",
        "wwfunc": named(versions(sys.executable, ("wwfunc", "jax", "jaxlib", "numpy"))),
        "WeightWatcher": named(versions(peer, ("weightwatcher", "torch", "numpy", "scipy"))),
    }


def named(found: dict[str, str]) -> str:
    """Return versions as one line."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


if __name__ == "__main__":
    main()
