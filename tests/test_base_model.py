"""Changes from a base model: full fine-tunes, adapters, DoRA, and what has no partner."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import Checkpoint, InputError, TensorHint

RNG = np.random.default_rng(21)
SHAPES = {"a": (50, 40), "b": (30, 60), "conv": (16, 12, 3, 3), "square": (32, 32)}
NUMBERS = ["alpha", "xmin", "D", "norm", "spectral_norm", "stable_rank", "entropy", "sv_min"]


def normal(*shape):
    return RNG.standard_normal(shape)


BASE = {f"{name}.weight": normal(*shape) for name, shape in SHAPES.items()}
CHANGE = {name: 0.05 * normal(*array.shape) for name, array in BASE.items()}
TUNED = {name: array + CHANGE[name] for name, array in BASE.items()}


def same(ours, theirs, columns=NUMBERS, relative=1e-7):
    for column in columns:
        own, other = getattr(ours, column), getattr(theirs, column)
        assert own == pytest.approx(other, rel=relative, nan_ok=True), column


@pytest.mark.parametrize("engine", ["host", "jax"])
def test_the_change_is_measured(engine):
    expected = wwfunc.analyze(CHANGE)
    found = wwfunc.analyze(TUNED, base_model=BASE, engine=engine)
    for record in found:
        same(record, expected[record.longname])
        name = f"{record.longname}.weight"
        size = np.linalg.norm(CHANGE[name]) / np.linalg.norm(BASE[name])
        assert record.relative_change == pytest.approx(size, rel=1e-9)
        assert record.num_intruders is None
        assert record.part == ""
    assert found.provenance.base == "memory"
    assert wwfunc.analyze(TUNED).provenance.base is None


@pytest.mark.parametrize("options", [{"mp_fit": True, "randomize": True}, {"vectors": True}])
def test_every_part_is_of_the_change(options):
    expected = wwfunc.analyze(CHANGE, **options)
    for record in wwfunc.analyze(TUNED, base_model=BASE, **options):
        other = expected[record.longname]
        same(record, other)
        for column in ("sigma_noise", "rand_distance", "num_spikes", "tail_mean_part_ratio"):
            own, theirs = getattr(record, column), getattr(other, column)
            assert own == theirs or own == pytest.approx(theirs, rel=1e-6, nan_ok=True), column


def test_base_delta_and_merged():
    found = wwfunc.analyze(TUNED, base_model=BASE, peft="with_base", pool=False)
    assert len(found) == 3 * (3 + 9)
    for part, model in {"base": BASE, "delta": CHANGE, "merged": TUNED}.items():
        expected = wwfunc.analyze(model, pool=False)
        rows = [record for record in found if record.part.startswith(part)]
        for record, other in zip(rows, expected, strict=True):
            same(record, other)
            assert record.part == f"{part} {other.part}".strip()
            assert math.isnan(record.relative_change) == (part != "delta")


def test_averages_are_those_of_the_changes():
    parts = wwfunc.analyze(TUNED, base_model=BASE, peft="with_base")
    assert parts.summary == wwfunc.analyze(TUNED, base_model=BASE).summary
    assert parts.summary["num_layers"] == 4


def test_one_slice_beside_the_same_slice():
    found = wwfunc.analyze(TUNED, base_model=BASE, layers="conv", pool=False)
    for index, record in enumerate(found):
        tap = np.unravel_index(index, (3, 3))
        before, change = (model["conv.weight"][(..., *tap)] for model in (BASE, CHANGE))
        share = np.linalg.norm(change) / np.linalg.norm(before)
        assert record.relative_change == pytest.approx(share)


def test_nothing_changed():
    found = wwfunc.analyze(BASE, base_model=BASE)
    for record in found:
        assert record.relative_change == 0.0
        assert math.isnan(record.alpha)
        assert record.status.startswith("failed: all weights are zero")


def test_of_zeros_no_share_is_known():
    zero = {name: np.zeros_like(array) for name, array in BASE.items()}
    for record in wwfunc.analyze(TUNED, base_model=zero):
        assert math.isnan(record.relative_change)
        assert record.status == "success"


def test_layers_without_a_partner_are_rows():
    tuned = {**TUNED, "new.weight": normal(20, 10), "a.weight": normal(20, 10)}
    found = wwfunc.analyze(tuned, base_model=BASE)
    assert found["new"].status == "skipped: no layer of this name in the other model"
    assert found["a"].status == "skipped: the shapes differ: 20 x 10 and 50 x 40"
    assert found["b"].status == "success"
    reasons = {row.tensor: row.reason for row in found.coverage if row.status == "skipped"}
    assert reasons["new.weight"] == found["new"].status
    with pytest.raises(InputError, match="no layer of the model is one of the base model: 'x'"):
        wwfunc.analyze({"x.weight": normal(20, 10)}, base_model=BASE)


def test_layers_of_the_base_alone_are_rows():
    tuned = {"a.weight": TUNED["a.weight"]}
    found = wwfunc.analyze(tuned, base_model=BASE)
    alone = [record for record in found if record.part == "base model"]
    assert [record.longname for record in alone] == ["b", "conv", "square"]
    assert {r.status for r in alone} == {"skipped: no layer of this name in the first model"}
    assert found.summary["num_layers"] == 1
    assert len(wwfunc.analyze(tuned, base_model=BASE, layers="a")) == 1


def test_other_layouts_and_formats(tmp_path):
    flax = {
        "a.kernel": BASE["a.weight"].T,
        "b.kernel": BASE["b.weight"].T,
        "conv.kernel": BASE["conv.weight"].transpose(2, 3, 1, 0),
        "square.kernel": BASE["square.weight"].T,
    }
    dense = TensorHint("dense", rows=(1,), cols=(0,))
    hints = {"*": dense, "conv.kernel": TensorHint("conv2d", rows=(3,), cols=(2,))}
    expected = wwfunc.analyze(TUNED, base_model=BASE)
    for record in wwfunc.analyze(TUNED, base_model=Checkpoint(flax, hints=hints)):
        same(record, expected[record.longname])
    wwfunc.save(Checkpoint(TUNED), tmp_path / "tuned.npz")
    wwfunc.save(Checkpoint(BASE), tmp_path / "base.safetensors")
    found = wwfunc.analyze(tmp_path / "tuned.npz", base_model=tmp_path / "base.safetensors")
    for record in found:
        same(record, expected[record.longname], relative=1e-12)
    assert found.provenance.base == str(tmp_path / "base.safetensors")
    found.save(tmp_path / "saved.json")
    again = wwfunc.load_analysis(tmp_path / "saved.json")
    assert again.provenance == found.provenance
    assert again["a"].relative_change == found["a"].relative_change


def test_narrow_types_are_subtracted_in_double():
    import ml_dtypes

    a, b = (BASE["a.weight"].astype(ml_dtypes.bfloat16), TUNED["a.weight"].astype(np.float16))
    expected = wwfunc.analyze({"a.weight": b.astype(float) - a.astype(float)})
    same(wwfunc.analyze({"a.weight": b}, base_model={"a.weight": a})["a"], expected["a"])


def test_nan_and_tensors_that_cannot_be_read_are_rows():
    class Broken:
        shape, dtype, nbytes, key = (30, 60), np.dtype(np.float64), 14400, "broken"

        def read(self, rows=slice(None)):
            raise RuntimeError("the disk is gone")

    base = Checkpoint({**BASE, "a.weight": np.full((50, 40), np.nan), "b.weight": Broken()})
    found = wwfunc.analyze(TUNED, base_model=base, intruders=True)
    assert found["a"].status.startswith("failed: NaN")
    assert found["b"].status == "failed: RuntimeError: the disk is gone"
    assert found["square"].status == "success"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_laws(seed, scale):
    """The sign of a change does not matter, nor the scale of both to its share."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 24, 16))
    one, other = (
        wwfunc.analyze({"x.weight": later}, base_model={"x.weight": earlier}, threshold="relative")
        for later, earlier in ((scale * b, scale * a), (a, b))
    )
    assert one["x"].alpha == pytest.approx(other["x"].alpha, rel=1e-6)
    share = one["x"].relative_change * np.linalg.norm(a) / np.linalg.norm(b)
    assert share == pytest.approx(other["x"].relative_change)


def test_the_type_of_a_row_is_that_of_its_weights():
    tuned = {"a.weight": TUNED["a.weight"].astype(np.float16)}
    found = wwfunc.analyze(tuned, base_model=BASE, peft="with_base", layers="a")
    assert [record.dtype for record in found] == ["float64", "float16", "float16"]
