"""Words and options of the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from wwfunc import checks
from wwfunc.checks import Selector
from wwfunc.errors import OptionError
from wwfunc.options import (
    FITS,
    FIX_FINGERS,
    KS_DISTANCES,
    MP_METHODS,
    PEAK_RANGES,
    SMALL_SAMPLES,
    THRESHOLDS,
)
from wwfunc.provenance import installed

_EXAMPLES = """examples:
  wwfunc analyze model.safetensors
  wwfunc analyze model/ --layers 'encoder.*' --layers -3
  wwfunc analyze model.safetensors --output layers.csv --output layers.json
  wwfunc analyze model.safetensors --trust --fix-fingers clip_xmax
  wwfunc describe model.safetensors
  wwfunc sharpen model.safetensors sharpened.safetensors
  wwfunc smooth model.safetensors smoothed.safetensors --keep mp
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has a `run` that takes the arguments and returns a code."""
    parser = argparse.ArgumentParser(
        prog="wwfunc",
        description="Diagnose neural networks from their weights alone.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wwfunc {installed('wwfunc')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_analyze(commands)
    _add_describe(commands)
    _add_sharpen(commands)
    _add_smooth(commands)
    return parser


def _add_analyze(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("analyze", help="measure every layer and print a table")
    _add_selection(command)
    _add_fit(command)
    _add_trust(command)
    _add_random(command)
    _add_views(command)
    command.add_argument("--threads", type=_positive, help="processors to use (default: all)")
    _add_output(command)
    command.set_defaults(run=_later("wwfunc.cli.analyze"))


def _add_fit(command: argparse.ArgumentParser) -> None:
    fit = command.add_argument_group("the fit")
    fit.add_argument("--fit", choices=FITS, help="power law (default), or truncated power law")
    fit.add_argument("--xmin", type=float, help="where every tail starts (default: the best fit)")
    fit.add_argument("--xmin-min", type=float, help="smallest xmin that is tried")
    fit.add_argument("--xmin-max", type=float, help="largest xmin that is tried")
    fit.add_argument(
        "--xmax", type=_xmax, help="largest eigenvalue to fit, or -K to leave out the K largest"
    )
    fit.add_argument(
        "--fix-fingers",
        choices=FIX_FINGERS,
        help="look for xmin near the peak, or clip the largest eigenvalues until alpha falls",
    )
    fit.add_argument("--peak-range", choices=PEAK_RANGES, help="which range xmin_peak takes")
    fit.add_argument("--max-fingers", type=int, help="most eigenvalues that are clipped")
    fit.add_argument("--finger-thresh", type=float, help="how far clipping must lower alpha")
    fit.add_argument(
        "--threshold", choices=THRESHOLDS, help="fit eigenvalues above 1e-5, or all resolved ones"
    )
    fit.add_argument("--small-sample", choices=SMALL_SAMPLES, help="bias of short tails")
    fit.add_argument("--ks", choices=KS_DISTANCES, help="the distance that chooses xmin")
    fit.add_argument(
        "--free-alpha", action="store_true", default=None, help="let TPL's alpha fall under 1"
    )


def _add_trust(command: argparse.ArgumentParser) -> None:
    trust = command.add_argument_group("how far to trust it")
    trust.add_argument(
        "--trust",
        action="store_true",
        default=None,
        help="intervals, p-values, alternatives and a verdict for each layer",
    )
    trust.add_argument("--replicates", type=int, help="resampled spectra (default: 1000)")
    trust.add_argument("--seed", type=int, help="of the resampling (default: 0)")
    trust.add_argument(
        "--farms",
        action="store_true",
        default=None,
        help="alpha over windows of a fixed aspect ratio too",
    )
    trust.add_argument(
        "--farms-rows", type=int, help="smaller side of a window (default: half of the layer's)"
    )
    trust.add_argument(
        "--farms-aspect", type=float, help="longer side over the smaller one (default: 1)"
    )
    trust.add_argument("--farms-windows", type=int, help="windows along each side (default: 10)")


def _add_random(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("beside random matrices")
    _add_flag(group, "--mp-fit", "Marchenko-Pastur: sigma, bulk edges, spikes, soft rank")
    group.add_argument(
        "--mp-method", choices=MP_METHODS, help="without spikes (default), or WeightWatcher's fit"
    )
    _add_flag(group, "--randomize", "the same of shuffled weights, correlation traps among it")
    _add_flag(group, "--detX", "the ERG (trace-log) condition")
    _add_flag(group, "--vectors", "localisation of singular vectors")
    _add_flag(group, "--ranks", "effective and energy ranks")
    _add_flag(group, "--deltas", "level spacings")


def _add_views(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("other views of a layer")
    group.add_argument(
        "--no-pool",
        dest="pool",
        action="store_false",
        default=None,
        help="a row for each slice of a convolution",
    )
    _add_flag(group, "--inverse", "fit the smallest eigenvalues, as 1 / lambda")
    _add_flag(group, "--glorot-fix", "scale as if initialised with unit variance")
    group.add_argument(
        "--conv2d-fft",
        type=_side,
        nargs="?",
        const=True,
        metavar="SIDE",
        help="convolutions as operators on a periodic grid (default: 32); stands behind the file",
    )


def _add_flag(group: argparse._ArgumentGroup, name: str, words: str) -> None:
    group.add_argument(name, action="store_true", default=None, help=words)


def _add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("describe", help="list the layers without reading the weights")
    _add_selection(command)
    _add_output(command)
    command.set_defaults(run=_later("wwfunc.cli.describe"))


def _add_sharpen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "sharpen", help="write a copy without the elements that cause correlation traps"
    )
    _add_transform(command)
    command.add_argument("--seed", type=int, default=0, help="of the shuffles (default: 0)")
    command.set_defaults(run=_later("wwfunc.cli.transform"), transform="sharpen")


def _add_smooth(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "smooth", help="write a copy that keeps the largest singular values of each layer"
    )
    _add_transform(command)
    command.add_argument(
        "--keep",
        type=_keep,
        required=True,
        metavar="K",
        help="a count (-K takes out the K largest), a share such as 0.8, or erg, mp or pl: what "
        "the trace-log condition, the Marchenko-Pastur edge or the power law's tail keeps",
    )
    command.set_defaults(run=_later("wwfunc.cli.transform"), transform="smooth")


def _add_transform(command: argparse.ArgumentParser) -> None:
    _add_input(command)
    command.add_argument("out", metavar="OUT", help="file to write: .safetensors, .npz or .npy")
    _add_layers(command.add_argument_group("selection"))
    command.add_argument("--quiet", "-q", action="store_true", help="print nothing, no progress")


def _add_selection(command: argparse.ArgumentParser) -> None:
    _add_input(command)
    group = command.add_argument_group("selection")
    _add_layers(group)
    group.add_argument("--min-evals", type=int, help="fewest eigenvalues (default: 8)")
    group.add_argument("--max-evals", type=int, help="most eigenvalues (default: no limit)")
    group.add_argument("--max-N", type=int, help="longest side (default: no limit)")


def _add_input(command: argparse.ArgumentParser) -> None:
    command.add_argument("path", metavar="PATH", help="checkpoint file or folder of any format")
    command.add_argument("--key", help="which model, where a file holds several: ema, generator")
    command.add_argument(
        "--inert", action="store_true", help="keep unknown objects of a pickle as descriptions"
    )


def _add_layers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--layers",
        action="append",
        type=_selector,
        metavar="WHICH",
        help="layer id, name, type, kind or pattern; -ID leaves one out; may be repeated",
    )


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--output",
        "-o",
        action="append",
        default=[],
        metavar="FILE",
        help="write the rows to FILE: .csv, .json or .parquet; may be repeated",
    )
    command.add_argument("--quiet", "-q", action="store_true", help="print no table, no progress")


def _later(module: str) -> Callable[[argparse.Namespace], int]:
    """Import the command when it runs: `--help` stays quick."""

    def run(arguments: argparse.Namespace) -> int:
        return int(import_module(module).run(arguments))

    return run


def _selector(text: str) -> Selector:
    whole = text.removeprefix("-").isdecimal()
    return _checked(checks.selector, "layers", int(text) if whole else text)


def _keep(text: str) -> int | float | str:
    from wwfunc.transforms.smoothing import checked_keep  # with JAX, which `--help` does without

    return _checked(checked_keep, _number(text))


def _xmax(text: str) -> int | float:
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


def _side(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(
            f"a whole number from 1, not {text!r}; give the file first, or --conv2d-fft=SIDE"
        )
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or text == "0":
        raise argparse.ArgumentTypeError("a whole number from 1")
    return int(text)
