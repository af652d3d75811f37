"""The side of WeightWatcher: in a worker, or `python -m benchmarks.peer PATH` for the table."""

import sys
from collections.abc import Callable

import weightwatcher
from safetensors.torch import load_file


def main() -> None:
    """Print the default analysis of the checkpoint that the command line names."""
    print(weightwatcher.WeightWatcher(model=load_file(sys.argv[1])).analyze())


def prepare(path: str) -> Callable[[], int]:
    """Load a checkpoint and return a function that analyses it by default."""
    state = load_file(path)
    return lambda: len(weightwatcher.WeightWatcher(model=state).analyze())


if __name__ == "__main__":
    main()
