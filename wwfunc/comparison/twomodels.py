"""How far the layers of two models are from each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from wwfunc import checks
from wwfunc.checkpoint import TensorHint
from wwfunc.checks import Selector
from wwfunc.comparison import matrixdistances, spectraldistances
from wwfunc.comparison.biases import Biases, bias_distance, bias_of, biases_of
from wwfunc.comparison.differences import in_layout
from wwfunc.comparison.distancerecords import Distances, LayerDistance
from wwfunc.comparison.layouts import sides
from wwfunc.comparison.pairing import Match, check_some, matching
from wwfunc.layers.coverage import Coverage, CoverageRow
from wwfunc.layers.find import Finding, coverage_row, find
from wwfunc.layers.layer import Task
from wwfunc.layers.select import NOT_SELECTED, chosen
from wwfunc.lowrank import LowRank
from wwfunc.matrices import unfold
from wwfunc.options import DISTANCES, DistanceMethod
from wwfunc.sources import as_checkpoint, with_hints

SUBSPACE_RANK = 10

BESIDE_WEIGHTS = "one is what an adapter changes, the other a weight: see analyze(base_model=)"


def distances(
    a: Any,
    b: Any,
    method: DistanceMethod = "raw",
    *,
    rank: int = SUBSPACE_RANK,
    layers: Selector | Iterable[Selector] = (),
    hints: Mapping[str, TensorHint] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Distances:
    r"""Measure how far each layer of one model is from the layer of that name in another.

    Parameters
    ----------
    a, b
        What `analyze` takes; their formats may differ.
    method
        | "raw": Frobenius norm of the difference of the tensors.
        | "euclidean": the same of each slice of a convolution, in the mean.
        | "cka", "centred_cka": similarity of the inputs' weights, see `matrixdistances.cka`.
        | "subspace": shared leading directions, see `matrixdistances.subspace_overlap`.
        | "wasserstein": mean difference of the singular values, ranked.
        | "jensen_shannon": of the eigenvalues as shares, 0 to 0.833.

        All but "raw" are means over the slices.
    rank
        Directions that "subspace" takes.
    layers
        Layer ids, names, types, kinds or patterns of `a`; negative ids are left out; () takes all.
    hints
        What tensors are, by name pattern, where the rules cannot tell; in both models.
    progress
        Called after each layer with (done, total, name).

    Returns
    -------
    Distances
        `.rows`, `.details`, `.mean_W`, `.mean_b`, `.unmatched`, and the `.coverage` of either. A
        layer in one model alone, or of another shape, is a row that says so.

    Raises
    ------
    OptionError, SelectionError, InputError, CheckpointError
        As `analyze`; InputError too if no layer of `a` has the name of one in `b`.

    Notes
    -----
    Layers match by name, or by name behind one prefix; never by place. One pair is in memory at a
    time, in float64, with up to four copies while it is compared. WeightWatcher's "raw",
    "euclidean" and "cka" (which it does not centre, and whose numerator is not squared) are these.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414 (CKA). Hu et al. 2022, arXiv:2106.09685 (subspaces).

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> a = {"x.weight": np.eye(3), "y.weight": np.ones((2, 3))}
    >>> wwfunc.distances(a, {"x.weight": np.zeros((3, 3))}).details[["name", "delta_W", "status"]]
      name   delta_W                                             status
    0    x  1.732051                                            success
    1    y       NaN  skipped: no layer of this name in the other model
    """
    checks.one_of(*DISTANCES)("method", method)
    checks.count("rank", rank)
    checks.callback("progress", progress)
    selectors = checks.selectors("layers", layers)
    first, second = with_hints((as_checkpoint(a), as_checkpoint(b)), hints)
    findings = find(first), find(second)
    found = matching(*findings)
    check_some(found, findings[0], "the first model", "the second")
    wanted = chosen([match.ours.layer for match in found.matches], selectors)
    matches = [match for match in found.matches if match.ours.layer.tensor in wanted]
    biases = biases_of(first), biases_of(second)
    rows, ours, theirs = [], {}, {}
    for done, match in enumerate(matches, 1):
        row = _row(match, method, rank, biases)
        rows.append(row)
        ours[match.ours.layer.tensor] = row
        if match.theirs:
            theirs[match.theirs.layer.tensor] = row
        if progress is not None:
            progress(done, len(matches), match.ours.layer.longname)
    for other in () if selectors else found.rest:
        row = _alone(other.task, f"skipped: {other.reason}")
        rows.append(row)
        theirs[other.task.layer.tensor] = row
    return Distances(
        method=method,
        rows=tuple(rows),
        sources=(first.source, second.source),
        coverage=(_coverage(findings[0], ours), _coverage(findings[1], theirs)),
    )


def _row(
    match: Match, method: DistanceMethod, rank: int, biases: tuple[Biases, Biases]
) -> LayerDistance:
    ours, theirs = match.ours, match.theirs
    partner = theirs.layer.longname if theirs else ""
    if theirs is None or match.reason:
        return _alone(ours, f"skipped: {match.reason}", partner)
    if isinstance(ours.handle, LowRank) != isinstance(theirs.handle, LowRank):
        return _alone(ours, f"skipped: {BESIDE_WEIGHTS}", partner)
    if not ours.layer.num_evals:
        return _alone(ours, "skipped: an empty tensor", partner)
    try:
        distance = _distance(ours, theirs, method, rank)
        delta_b = math.nan
        if method in ("raw", "euclidean"):
            delta_b = bias_distance(bias_of(ours, biases[0]), bias_of(theirs, biases[1]))
    except Exception as cause:  # a tensor from a stranger may raise anything when it is read
        return _alone(ours, f"failed: {type(cause).__name__}: {cause}", partner)
    if not math.isfinite(distance):
        return _alone(ours, "failed: NaN, infinity, or nothing but zeros", partner)
    handles = ours.handle, theirs.handle
    remarks = {handle.remark for handle in handles if isinstance(handle, LowRank)} - {""}
    return LayerDistance(
        layer=ours.layer,
        partner=partner,
        delta_W=distance,
        delta_b=delta_b,
        status="; ".join(["success", *remarks]),
    )


def _alone(task: Task, status: str, partner: str = "") -> LayerDistance:
    return LayerDistance(
        layer=task.layer, partner=partner, delta_W=math.nan, delta_b=math.nan, status=status
    )


def _distance(ours: Task, theirs: Task, method: DistanceMethod, rank: int) -> float:
    first = _slices(ours.handle.read(), ours)
    second = _slices(in_layout(theirs, ours), ours)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return math.nan  # LAPACK never sees it
    if method == "raw":
        first, second = (stack.reshape(1, 1, -1) for stack in (first, second))
    measure: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
        "raw": matrixdistances.frobenius,
        "euclidean": matrixdistances.frobenius,
        "cka": matrixdistances.cka,
        "centred_cka": lambda A, B: matrixdistances.cka(A, B, centred=True),
        "subspace": lambda A, B: matrixdistances.subspace_overlap(A, B, rank),
        "wasserstein": spectraldistances.wasserstein,
        "jensen_shannon": spectraldistances.jensen_shannon,
    }
    with np.errstate(all="ignore"):  # not finite is the row's status
        each = [float(measure[method](A, B)) for A, B in zip(first, second, strict=True)]
    return math.fsum(each) / len(each) if each else math.nan


def _slices(tensor: np.ndarray, task: Task) -> np.ndarray:
    """(k, outputs, inputs) in float64."""
    stack = unfold(tensor.astype(np.float64), task.hint)
    return stack if stack.shape[1] == sides(task)[0] else stack.swapaxes(1, 2)


def _coverage(findings: Sequence[Finding], rows: Mapping[str, LayerDistance]) -> Coverage:
    """What became of each tensor of one model, given the rows by their tensors in it."""
    return Coverage(_coverage_row(finding, rows.get(finding.tensor)) for finding in findings)


def _coverage_row(finding: Finding, row: LayerDistance | None) -> CoverageRow:
    if row is None:
        reason = finding.reason or NOT_SELECTED
        return coverage_row(finding, "skipped", reason, "")
    done = not math.isnan(row.delta_W)
    status, reason = ("analysed", "") if done else ("skipped", row.status)
    return coverage_row(finding, status, reason, row.layer.longname)
