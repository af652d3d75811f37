"""The side of WeightWatcher: in a worker, or `python -m benchmarks.peer PATH` for the table.

Names behind the path are options of `analyze` to switch on.
"""

import sys
from collections.abc import Callable

import weightwatcher
from safetensors.torch import load_file


def main() -> None:
    """Print the analysis of the checkpoint that the command line names."""
    path, *switched_on = sys.argv[1:]
    watcher = weightwatcher.WeightWatcher(model=load_file(path))
    print(watcher.analyze(**dict.fromkeys(switched_on, True)))


def prepare(path: str, *switched_on: str) -> Callable[[], int]:
    """Load a checkpoint and return a function that analyses it."""
    state, options = load_file(path), dict.fromkeys(switched_on, True)
    return lambda: len(weightwatcher.WeightWatcher(model=state).analyze(**options))


if __name__ == "__main__":
    main()
