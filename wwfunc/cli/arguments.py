"""Arguments that commands share, and what makes values of their texts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from wwfunc import checks
from wwfunc.checks import Selector
from wwfunc.errors import OptionError


def add_flag(group: argparse._ArgumentGroup, name: str, words: str) -> None:
    """An option that is on or not given."""
    group.add_argument(name, action="store_true", default=None, help=words)


def add_selection(command: argparse.ArgumentParser) -> None:
    """A model, and which of its layers."""
    add_input(command)
    group = command.add_argument_group("selection")
    add_layers(group)
    group.add_argument("--min-evals", type=int, help="fewest eigenvalues (default: 8)")
    group.add_argument("--max-evals", type=int, help="most eigenvalues (default: no limit)")
    group.add_argument("--max-N", type=int, help="longest side (default: no limit)")


def add_input(command: argparse.ArgumentParser) -> None:
    """The path of a model, and which one it is in its file."""
    command.add_argument("path", metavar="PATH", help="checkpoint file or folder of any format")
    add_opening(command)


def add_opening(command: argparse.ArgumentParser) -> None:
    """How files are opened."""
    command.add_argument("--key", help="which model, where a file holds several: ema, generator")
    command.add_argument(
        "--inert", action="store_true", help="keep unknown objects of a pickle as descriptions"
    )


def add_layers(group: argparse._ArgumentGroup) -> None:
    """`--layers`."""
    group.add_argument(
        "--layers",
        action="append",
        type=selector,
        metavar="WHICH",
        help="layer id, name, type, kind or pattern; -ID leaves one out; may be repeated",
    )


def add_output(command: argparse.ArgumentParser) -> None:
    """`--output` and `--quiet`."""
    command.add_argument(
        "--output",
        "-o",
        action="append",
        default=[],
        metavar="FILE",
        help="write the rows to FILE: .csv, .json or .parquet; may be repeated",
    )
    command.add_argument("--quiet", "-q", action="store_true", help="print no table, no progress")


def later(module: str) -> Callable[[argparse.Namespace], int]:
    """Import the command when it runs: `--help` stays quick."""

    def run(arguments: argparse.Namespace) -> int:
        return int(import_module(module).run(arguments))

    return run


def selector(text: str) -> Selector:
    """A layer id, name or pattern."""
    whole = text.removeprefix("-").isdecimal()
    return _checked(checks.selector, "layers", int(text) if whole else text)


def keep(text: str) -> int | float | str:
    """What `smooth` keeps."""
    from wwfunc.transforms.smoothing import checked_keep  # with JAX, which `--help` does without

    return _checked(checked_keep, _number(text))


def xmax(text: str) -> int | float:
    """A largest eigenvalue, or how many to leave out."""
    return _checked(checks.xmax, "xmax", _number(text))


def _checked(check: Callable[..., Any], *arguments: Any) -> Any:
    """What `check` returns, or its words as wrong usage; argparse says the option's name."""
    try:
        return check(*arguments)
    except OptionError as cause:
        raise argparse.ArgumentTypeError(re.sub(r"^\w+(= | is )", "", str(cause))) from None


def _number(text: str) -> int | float | str:
    """A whole number, else a number, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def words(text: str) -> list[str]:
    """Texts with commas between them."""
    return [word.strip() for word in text.split(",")]


def numbers(text: str) -> list[float]:
    """Numbers with commas between them; an empty one is not known."""
    try:
        return [float(word or "nan") for word in words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between, not {text!r}") from None


def side(text: str) -> int:
    """The side of a grid."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(
            f"a whole number from 1, not {text!r}; give the file first, or --conv2d-fft=SIDE"
        )
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("a whole number from 1")
    return int(text)
