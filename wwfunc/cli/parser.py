"""Words and options of the command line."""

from __future__ import annotations

import argparse

from wwfunc.cli.arguments import (
    add_flag,
    add_input,
    add_layers,
    add_opening,
    add_output,
    add_selection,
    keep,
    later,
    numbers,
    positive,
    side,
    words,
    xmax,
)
from wwfunc.options import (
    DISTANCES,
    FITS,
    FIX_FINGERS,
    KS_DISTANCES,
    MP_METHODS,
    PEAK_RANGES,
    PEFTS,
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
  wwfunc analyze adapter/ --base model/
  wwfunc distances before.safetensors after.pt --method cka
  wwfunc compare small/ medium/ large/ --truth 0.71,0.78,0.80
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
    _add_distances(commands)
    _add_compare(commands)
    return parser


def _add_analyze(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("analyze", help="measure every layer and print a table")
    add_selection(command)
    _add_fit(command)
    _add_trust(command)
    _add_random(command)
    _add_views(command)
    _add_base(command)
    command.add_argument("--threads", type=positive, help="processors to use (default: all)")
    add_output(command)
    command.set_defaults(run=later("wwfunc.cli.analyze"))


def _add_fit(command: argparse.ArgumentParser) -> None:
    fit = command.add_argument_group("the fit")
    fit.add_argument("--fit", choices=FITS, help="power law (default), or truncated power law")
    fit.add_argument("--xmin", type=float, help="where every tail starts (default: the best fit)")
    fit.add_argument("--xmin-min", type=float, help="smallest xmin that is tried")
    fit.add_argument("--xmin-max", type=float, help="largest xmin that is tried")
    fit.add_argument(
        "--xmax", type=xmax, help="largest eigenvalue to fit, or -K to leave out the K largest"
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
    add_flag(group, "--mp-fit", "Marchenko-Pastur: sigma, bulk edges, spikes, soft rank")
    group.add_argument(
        "--mp-method", choices=MP_METHODS, help="without spikes (default), or WeightWatcher's fit"
    )
    add_flag(group, "--randomize", "the same of shuffled weights, correlation traps among it")
    add_flag(group, "--detX", "the ERG (trace-log) condition")
    add_flag(group, "--vectors", "localisation of singular vectors")
    add_flag(group, "--ranks", "effective and energy ranks")
    add_flag(group, "--deltas", "level spacings")


def _add_views(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("other views of a layer")
    group.add_argument(
        "--no-pool",
        dest="pool",
        action="store_false",
        default=None,
        help="a row for each slice of a convolution",
    )
    add_flag(group, "--inverse", "fit the smallest eigenvalues, as 1 / lambda")
    add_flag(group, "--glorot-fix", "scale as if initialised with unit variance")
    group.add_argument(
        "--conv2d-fft",
        type=side,
        nargs="?",
        const=True,
        metavar="SIDE",
        help="convolutions as operators on a periodic grid (default: 32); stands behind the file",
    )


def _add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("describe", help="list the layers without reading the weights")
    add_selection(command)
    add_output(command)
    command.set_defaults(run=later("wwfunc.cli.describe"))


def _add_sharpen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "sharpen", help="write a copy without the elements that cause correlation traps"
    )
    _add_transform(command)
    command.add_argument("--seed", type=int, default=0, help="of the shuffles (default: 0)")
    command.set_defaults(run=later("wwfunc.cli.transform"), transform="sharpen")


def _add_smooth(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "smooth", help="write a copy that keeps the largest singular values of each layer"
    )
    _add_transform(command)
    command.add_argument(
        "--keep",
        type=keep,
        required=True,
        metavar="K",
        help="a count (-K takes out the K largest), a share such as 0.8, or erg, mp or pl: what "
        "the trace-log condition, the Marchenko-Pastur edge or the power law's tail keeps",
    )
    command.set_defaults(run=later("wwfunc.cli.transform"), transform="smooth")


def _add_transform(command: argparse.ArgumentParser) -> None:
    add_input(command)
    command.add_argument("out", metavar="OUT", help="file to write: .safetensors, .npz or .npy")
    add_layers(command.add_argument_group("selection"))
    command.add_argument("--quiet", "-q", action="store_true", help="print nothing, no progress")


def _add_base(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("adapters, and what a model was made of")
    group.add_argument("--base", metavar="MODEL", help="measure what PATH changes in this model")
    group.add_argument(
        "--peft", choices=PEFTS, help="rows for the changes (default), or for base and sum as well"
    )
    add_flag(group, "--intruders", "count leading directions that the base has none like")
    group.add_argument(
        "--no-scale",
        dest="scale",
        action="store_false",
        default=None,
        help="low-rank changes as B A, without alpha / r",
    )


def _add_distances(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("distances", help="how far two models are, layer by layer")
    command.add_argument("first", metavar="A", help="checkpoint file or folder of any format")
    command.add_argument("second", metavar="B", help="another one, of any format")
    add_opening(command)
    command.add_argument(
        "--method", choices=DISTANCES, default="raw", help="the distance (default: raw)"
    )
    command.add_argument("--rank", type=positive, default=10, help="directions of a subspace")
    add_layers(command.add_argument_group("selection"))
    add_output(command)
    command.set_defaults(run=later("wwfunc.cli.distances"))


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("compare", help="several models in one table")
    command.add_argument("models", metavar="MODEL", nargs="+", help="files, folders, or analyses")
    add_opening(command)
    command.add_argument("--labels", type=words, metavar="A,B,...", help="names for the models")
    command.add_argument(
        "--truth",
        type=numbers,
        metavar="X,Y,...",
        help="what is known of each, such as test accuracy: adds rank correlations (--truth=-1,... "
        "where the first is negative)",
    )
    _add_fit(command)
    add_layers(command.add_argument_group("selection"))
    add_output(command)
    command.set_defaults(run=later("wwfunc.cli.compare"))
