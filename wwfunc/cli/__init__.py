"""The command line: `wwfunc analyze PATH`, `wwfunc describe PATH`."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields

from wwfunc.cli.parser import build_parser
from wwfunc.cli.text import printable
from wwfunc.errors import OptionError, SelectionError, WwfuncError
from wwfunc.options import Options

_ADVICE = (
    ("load(path, inert=True)", "--inert"),
    ("load(path, key=...)", "--key"),
    ("give base_model=", "give --base"),
    ("base_model= is", "--base is"),
    ("save(checkpoint.read(), path) if that is meant", "merge it into the weight first"),
)
"""What an error says to do in Python, and what does it here."""

_OPTION = re.compile(rf"(?<!\S)({'|'.join(field.name for field in fields(Options))})(?==| is )")
"""Where the words of an error name an option as Python does."""

DONE, BAD_INPUT, INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` and return its exit code.

    0 done; 1 bad input or nothing to analyse, with one line that says what and why; 2 wrong usage
    (argparse exits by itself); 130 interrupted.
    """
    logging.getLogger("wwfunc").addHandler(logging.NullHandler())  # messages come as the one line
    try:
        arguments = build_parser().parse_args(argv)
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # a full disk is an error like others
        return code
    except BrokenPipeError:  # `entry_point` knows what to do
        raise
    except (WwfuncError, OSError) as cause:
        print(f"wwfunc: {_one_line(cause)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("wwfunc: interrupted", file=sys.stderr)
        return INTERRUPTED


def entry_point() -> None:
    """What the installed command runs."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    elif sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (it stays open until the end)
    code = BAD_INPUT
    try:
        code = main()
        sys.stdout.flush()
    except OSError:  # the reader (head, less) has seen enough, or `main` has said that it is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _one_line(cause: BaseException) -> str:
    words = " ".join(str(cause).split())
    if isinstance(cause, (OptionError, SelectionError)):
        words = _OPTION.sub(lambda found: "--" + found[1].replace("_", "-"), words)
    for in_python, here in _ADVICE:
        words = words.replace(in_python, here)
    return printable(words) or type(cause).__name__
