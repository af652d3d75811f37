"""A row for every tensor, and an honest row for every layer that is broken."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import pytest

import wwfunc
from loaders.errors import TruncatedError
from wwfunc.columns import COLUMNS
from wwfunc.layers.coverage import Coverage, CoverageRow

RNG = np.random.default_rng(11)
GOOD = RNG.standard_normal((40, 30))
MODEL = {
    "h.10.w.weight": RNG.standard_normal((30, 20)),
    "h.2.w.weight": RNG.standard_normal((20, 30)).astype(np.float32),
    "h.2.w.bias": np.ones(20),
    "h.2.tiny.weight": np.ones((3, 30)),
    "h.2.q.qweight": np.ones((4, 30), np.int32),
    "embed.weight": GOOD,
    "head.weight": GOOD,
    "pos": np.ones((1, 7, 30)),
    "steps": np.array(3),
}
SHAPES = {name: array.shape for name, array in MODEL.items()}
SIZE = sum(array.size for array in MODEL.values()) - GOOD.size  # tied: counted once


def rows(coverage):
    return {row.tensor: (row.status, row.rule, row.reason, row.longname) for row in coverage}


def test_a_row_for_every_tensor_in_natural_order():
    coverage = wwfunc.analyze(MODEL).coverage
    assert [row.tensor for row in coverage] == [
        *("embed.weight", "h.2.q.qweight", "h.2.tiny.weight", "h.2.w.bias", "h.2.w.weight"),
        *("h.10.w.weight", "head.weight", "pos", "steps"),
    ]
    assert {row.tensor: row.shape for row in coverage} == SHAPES
    assert {row.tensor: row.dtype for row in coverage if row.dtype != "float64"} == {
        "h.2.w.weight": "float32",
        "h.2.q.qweight": "int32",
        "steps": "int64",
    }


def test_every_row_says_what_became_of_its_tensor():
    found = rows(wwfunc.analyze(MODEL, layers=["h.2*", "embed"]).coverage)
    assert found == {
        "embed.weight": ("analysed", "torch_embedding", "", "embed"),
        "h.2.q.qweight": (
            *("skipped", "quantised_payload"),
            *("part of a quantised weight, which is not read yet", ""),
        ),
        "h.2.tiny.weight": (
            *("skipped", "torch_dense"),
            *("skipped: 3 eigenvalues, min_evals is 8", "h.2.tiny"),
        ),
        "h.2.w.bias": ("skipped", "bias", "a bias", ""),
        "h.2.w.weight": ("analysed", "torch_dense", "", "h.2.w"),
        "h.10.w.weight": ("skipped", "torch_dense", "not selected by layers=", ""),
        "head.weight": ("skipped", "tied", "the same tensor as 'embed.weight'", ""),
        "pos": (
            *("skipped", "unknown"),
            *("no rule knows 3 axes under this name; say what it is in hints=", ""),
        ),
        "steps": ("skipped", "not_real", "int64 elements are no real weights", ""),
    }


def test_describe_reads_nothing_and_finds_the_same():
    unread = {name: Unreadable(shape, AssertionError("read")) for name, shape in SHAPES.items()}
    described = wwfunc.describe(unread)
    analysed = wwfunc.analyze({name: RNG.random(shape) for name, shape in SHAPES.items()})
    assert {row.status for row in described.coverage} == {"described", "skipped"}
    for ours, theirs in zip(described.coverage, analysed.coverage, strict=True):
        assert (ours.rule, ours.longname) == (theirs.rule, theirs.longname)
        assert (ours.status == "described") == (theirs.status == "analysed")
    assert described.coverage.share == analysed.coverage.share
    record = described["h.2.w"]
    assert (record.status, record.measures) == ("described, not measured", None)
    identity = {c.name for c in COLUMNS if c.path.startswith("layer.")} | {"warning", "Q"}
    for column in sorted(identity):
        assert getattr(record, column) == getattr(analysed["h.2.w"], column), column


def test_parameters_add_up():
    coverage = wwfunc.analyze(MODEL).coverage
    assert [row.num_params for row in coverage] == [math.prod(row.shape) for row in coverage]
    assert coverage.num_params == SIZE
    kept = [row for row in coverage if row.status == "analysed"]
    assert sum(r.num_params for r in wwfunc.analyze(MODEL).measured) == 1200 + 600 + 600
    assert sum(row.num_params for row in kept) == 1200 + 600 + 600
    assert coverage.share == pytest.approx(2400 / SIZE, rel=1e-15)
    assert len(kept) + len(coverage.skipped) == len(coverage)
    assert repr(coverage) == f"<Coverage: 3 of 9 tensors, {2400 / SIZE:.1%} of the parameters>"


def test_nothing_covered():
    nothing = wwfunc.analyze({"bias": np.ones(5)}).coverage
    assert (len(nothing), nothing.share) == (1, 0.0)
    assert math.isnan(Coverage([]).share)
    assert math.isnan(wwfunc.describe({"w": np.ones((0, 8))}).coverage.share)


def test_frame():
    coverage = wwfunc.analyze(MODEL).coverage
    frame = coverage.frame
    assert list(frame.columns) == [field.name for field in fields(CoverageRow)]
    assert frame.to_dict("records") == coverage.as_dicts()
    assert list(Coverage([]).frame.columns) == list(frame.columns)
    assert frame.num_params.sum() == SIZE + GOOD.size


def test_coverage_is_a_sequence():
    coverage = wwfunc.describe(MODEL).coverage
    assert coverage[0].tensor == "embed.weight"
    assert [row.tensor for row in coverage[-2:]] == ["pos", "steps"]
    assert coverage == Coverage(list(coverage))
    assert coverage != Coverage(coverage[1:])


# Layers whose tensor cannot be read -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Unreadable:
    shape: tuple[int, ...]
    fault: BaseException
    dtype = np.dtype(np.float64)

    @property
    def nbytes(self):
        return 8 * math.prod(self.shape)

    @property
    def key(self):
        return id(self)

    def read(self, rows=slice(None)):
        raise self.fault


FAULTS = [
    TruncatedError("model.safetensors: tensor 'w' ends early"),
    MemoryError("Unable to allocate 4 TiB"),
    OSError(5, "Input/output error"),
    ValueError("cannot reshape"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("engine", ["host", "jax"])
def test_a_fault_in_one_tensor_is_the_status_of_its_row(fault, engine):
    model = {"a.weight": GOOD, "w.weight": Unreadable(GOOD.shape, fault), "z.weight": GOOD * 2}
    analysis = wwfunc.analyze(model, engine=engine)
    status = f"failed: {type(fault).__name__}: {fault}"
    assert [r.longname for r in analysis] == ["a", "w", "z"]
    assert [r.status for r in analysis] == ["success", status, "success"]
    alone = wwfunc.analyze({"a.weight": GOOD}, engine=engine)["a"]
    assert analysis["a"].alpha == alone.alpha
    record = analysis["w"]
    assert record.measures is None
    assert math.isnan(record.alpha)
    assert record.evals.size == 0
    row = analysis.coverage[1]
    assert (row.status, row.reason, row.longname) == ("skipped", status, "w")
    assert analysis.summary["num_layers"] == 3
    assert analysis.summary["num_valid_alpha"] == 2


def test_all_tensors_of_a_batch_are_broken():
    model = {f"{n}.weight": Unreadable((40, 30), MemoryError(n)) for n in "xyz"}
    assert [r.status for r in wwfunc.analyze(model)] == [f"failed: MemoryError: {n}" for n in "xyz"]


def test_a_user_who_interrupts_is_heard():
    with pytest.raises(KeyboardInterrupt):
        wwfunc.analyze({"w.weight": Unreadable((40, 30), KeyboardInterrupt())})


# Layers whose numbers are broken --------------------------------------------------------------


def with_entry(value):
    broken = GOOD.copy()
    broken[3, 4] = value
    return broken


BROKEN = "failed: NaN or infinity in the weights, or their squares leave the range of the precision"
SHORT = "failed: too few eigenvalues to fit a tail to"
CASES = {
    "nan": (with_entry(np.nan), BROKEN),
    "inf": (with_entry(np.inf), BROKEN),
    "-inf": (with_entry(-np.inf), BROKEN),
    "zero": (0 * GOOD, "failed: all weights are zero"),
    "constant": (np.full_like(GOOD, 0.5), SHORT),
    "1 x n": (GOOD[:1], SHORT),
    "rank 1": (np.outer(GOOD[:, 0], GOOD[0]), SHORT),
    "identity": (np.eye(30), "failed: the eigenvalues to fit are all equal"),
    "orthogonal": (np.linalg.qr(GOOD)[0], "failed: the eigenvalues to fit are all equal"),
    "0 x n": (GOOD[:0], "skipped: an empty tensor"),
    "n x 0": (GOOD[:, :0], "skipped: an empty tensor"),
}
FLOATS = [c.name for c in COLUMNS if c.type == "float" and c.path.startswith("measures.")]
COUNTS = ["matrix_rank", "rank_loss", "weak_rank_loss"]
FITTED = ["alpha", "xmin", "xmax", "D", "sigma", "alpha_weighted", "log_alpha_norm"]


@pytest.fixture(scope="module")
def sick():
    model = {f"{name}.weight": weights for name, (weights, _) in CASES.items()}
    return wwfunc.analyze({**model, "good.weight": GOOD}, min_evals=1)


@pytest.mark.parametrize("name", CASES)
def test_status_in_words_and_no_fit(name, sick):
    record = sick[name]
    assert record.status == CASES[name][1]
    assert record.warning == ""
    assert [c for c in FITTED if not math.isnan(getattr(record, c))] == []
    assert not record.num_pl_spikes


@pytest.mark.parametrize("name", ["nan", "inf", "-inf", "0 x n", "n x 0"])
def test_a_layer_without_a_spectrum_has_no_number(name, sick):
    record = sick[name]
    assert [c for c in FLOATS if not math.isnan(getattr(record, c))] == []
    assert np.isnan(record.evals).all()


@pytest.mark.parametrize("name", ["zero", "constant", "1 x n", "rank 1", "identity", "orthogonal"])
def test_a_finite_layer_keeps_its_norms_and_ranks(name, sick):
    weights, record = CASES[name][0], sick[name]
    singular = np.linalg.svd(weights, compute_uv=False)
    rank = int(np.linalg.matrix_rank(weights))
    assert record.norm == pytest.approx(np.square(weights).sum(), rel=1e-12)
    assert record.sv_max == pytest.approx(singular[0], rel=1e-12)
    assert (record.matrix_rank, record.rank_loss) == (rank, singular.size - rank)
    assert record.sv_min == pytest.approx(singular[-1] if rank == singular.size else 0, rel=1e-12)
    if rank:
        assert record.stable_rank == pytest.approx(record.norm / singular[0] ** 2, rel=1e-12)
    else:
        assert math.isnan(record.log_norm)
        assert math.isnan(record.stable_rank)
    assert math.isnan(record.entropy) == (rank < 2)


@pytest.mark.parametrize("engine", ["host", "jax"])
def test_squares_that_overflow_are_a_status_and_no_warning(engine):
    record = wwfunc.analyze({"w": with_entry(1e200)}, engine=engine)["w"]
    assert record.status == BROKEN
    assert math.isnan(record.norm)


@pytest.mark.parametrize("name", ["nan", "inf", "-inf"])
def test_a_layer_without_a_spectrum_has_no_rank(name, sick):
    """Neither 0 nor a full loss: nothing is known of it."""
    assert [sick[name].row()[column] for column in COUNTS] == [None] * 3


def test_the_others_are_not_affected(sick):
    assert sick["good"].status == "success"
    assert sick["good"].row() == {
        **wwfunc.analyze({"good.weight": GOOD})["good"].row(),
        "layer_id": sick["good"].layer_id,
    }
    assert sick.summary["num_valid_alpha"] == 1
    assert sick.summary["alpha"] == sick["good"].alpha
    assert sick.summary["num_layers"] == len(CASES) + 1
