"""Adapters beside the models that they are for: changes, sums, DoRA, and what needs a base."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_base_model import BASE, TUNED, same

import wwfunc
from wwfunc import Checkpoint, InputError, OptionError
from wwfunc.checkpoint import as_handle
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(22)


def normal(*shape):
    return RNG.standard_normal(shape)


def low_rank(shape, rank=4, scale=0.5, **more):
    up, down = normal(shape[0], rank), normal(rank, *shape[1:])
    if more.get("transposed"):
        up, down = normal(shape[1], rank), normal(rank, shape[0])
    return LowRank(as_handle(up), as_handle(down), scale, shape, **more)


ADAPTER = {
    "a.weight": low_rank((50, 40)),
    "b.weight": low_rank((30, 60), transposed=True),
    "conv.weight": low_rank((16, 12, 3, 3), 20),
}


def test_an_adapter_beside_its_base():
    found = wwfunc.analyze(Checkpoint(ADAPTER), base_model=BASE, peft="with_base", min_evals=1)
    products = {name: np.array(change.read(), float) for name, change in ADAPTER.items()}
    sums = {name: BASE[name] + product for name, product in products.items()}
    for part, model in {"base": BASE, "delta": products, "merged": sums}.items():
        expected = wwfunc.analyze(model, min_evals=1)
        for record in (record for record in found if record.part == part):
            same(record, expected[record.longname], ["norm", "spectral_norm"], 1e-6)
            rank = ADAPTER[record.layer.tensor].rank
            assert record.lora_rank == (rank if part == "delta" else None)
    for record in (record for record in found if record.part == "delta"):
        name = record.layer.tensor
        size = np.linalg.norm(products[name]) / np.linalg.norm(BASE[name])
        assert record.relative_change == pytest.approx(size, rel=1e-6)
    assert [r.matrix_rank for r in found if r.longname == "a"] == [40, 4, 40]


def test_layers_that_an_adapter_leaves_alone_are_no_rows():
    assert len(wwfunc.analyze(Checkpoint(ADAPTER), base_model=BASE)) == len(ADAPTER) < len(BASE)


def test_without_its_scale():
    scaled = wwfunc.analyze(Checkpoint(ADAPTER), min_evals=1)
    plain = wwfunc.analyze(Checkpoint(ADAPTER), min_evals=1, scale=False)
    for record in scaled:
        assert plain[record.longname].norm == pytest.approx(record.norm / 0.25, rel=1e-9)
    one = Checkpoint({"a.weight": ADAPTER["a.weight"]})
    merged = wwfunc.analyze(one, base_model=BASE, peft="with_base", scale=False).records[2]
    expected = BASE["a.weight"] + 2.0 * ADAPTER["a.weight"].read()
    assert merged.norm == pytest.approx(np.sum(expected**2), rel=1e-6)


@pytest.mark.parametrize("name", ["a", "square"])
@pytest.mark.parametrize("transposed", [False, True])
def test_dora(name, transposed):
    """Each output has a length of its own."""
    base = BASE[f"{name}.weight"]
    lengths = RNG.uniform(1, 2, base.shape[int(transposed)])
    change = low_rank(base.shape, transposed=transposed, magnitude=as_handle(lengths))
    adapter = Checkpoint({f"{name}.weight": change})
    whole = base + change.read()
    norms = np.linalg.norm(whole, axis=0 if transposed else 1, keepdims=True)
    merged = whole / norms * (lengths[None] if transposed else lengths[:, None])
    found = wwfunc.analyze(adapter, base_model=BASE, peft="with_base")
    expected = wwfunc.analyze({"delta.weight": merged - base, "merged.weight": merged})
    for record in found.records[1:]:
        same(record, expected[record.part], ["norm", "spectral_norm", "stable_rank"], 1e-6)
    size = np.linalg.norm(merged - base) / np.linalg.norm(base)
    assert found.records[1].relative_change == pytest.approx(size, rel=1e-6)
    alone = wwfunc.analyze(adapter, min_evals=1).records[0]
    assert alone.status.endswith("; without DoRA's magnitudes, which need the base model")
    assert "DoRA" not in found.records[1].status
    assert alone.norm == pytest.approx(np.sum(change.read() ** 2), rel=1e-6)


def test_magnitudes_of_another_number_are_a_row():
    change = low_rank((50, 40), magnitude=as_handle(np.ones(7)))
    found = wwfunc.analyze(Checkpoint({"a.weight": change}), base_model=BASE)
    assert found["a"].status == "failed: InputError: 7 magnitudes for 50 outputs"


def test_merged_rows_are_those_of_the_whole():
    """As a Gram matrix by blocks of rows reads them."""
    from wwfunc.comparison.differences import Difference, Merged, MergedChange
    from wwfunc.layers.find import find

    lengths = as_handle(RNG.uniform(1, 2, 50))
    ours = find(Checkpoint({"a.weight": low_rank((50, 40), magnitude=lengths)}))[0].task
    theirs = find(Checkpoint({"a.weight": BASE["a.weight"]}))[0].task
    for cls in (Difference, Merged, MergedChange):
        handle = cls(ours, theirs)
        whole = handle.read()
        np.testing.assert_array_equal(handle.read(slice(7, 31)), whole[7:31])
        assert handle.dtype == whole.dtype == np.float64
        assert handle.shape == whole.shape
        assert handle.nbytes == whole.nbytes
        assert not whole.flags.writeable


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"peft": "with_base"}, "peft='with_base' looks"),
        ({"intruders": True}, "intruders=True looks"),
    ],
)
def test_what_needs_a_base_says_so(options, words):
    with pytest.raises(OptionError, match=words):
        wwfunc.analyze(Checkpoint(ADAPTER), **options)
    with pytest.raises(OptionError, match="peft"):
        wwfunc.analyze(Checkpoint(ADAPTER), base_model=BASE, peft="both")


def test_inputs_are_not_changed():
    before = [array.tobytes() for array in (*BASE.values(), *TUNED.values())]
    wwfunc.analyze(TUNED, base_model=BASE, peft="with_base", intruders=True)
    wwfunc.analyze(Checkpoint(ADAPTER), base_model=BASE, peft="with_base", intruders=True)
    assert before == [array.tobytes() for array in (*BASE.values(), *TUNED.values())]


def test_an_adapter_of_a_large_layer_takes_little_memory():
    """The product alone would take 128 MiB."""
    import tracemalloc

    change = low_rank((4096, 4096), rank=16)
    adapter = Checkpoint({"x.weight": change})
    wwfunc.analyze(adapter)
    tracemalloc.start()
    record = wwfunc.analyze(adapter).records[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert record.matrix_rank == 16
    assert peak < 50e6


def test_a_base_that_is_not_finite_costs_its_own_numbers_alone():
    for bad in (np.nan, np.inf):
        base = {"a.weight": np.where(np.arange(2000).reshape(50, 40) == 7, bad, BASE["a.weight"])}
        adapter = Checkpoint({"a.weight": ADAPTER["a.weight"]})
        record = wwfunc.analyze(adapter, base_model=base, intruders=True, min_evals=1).records[0]
        assert record.num_intruders is None
        assert math.isnan(record.relative_change)
        assert record.matrix_rank == 4


def test_factors_that_cancel_or_overflow():
    u, d = normal(40, 3), normal(3, 30)
    base = {"x.weight": normal(40, 30)}
    size = np.linalg.norm(u @ d) / np.linalg.norm(base["x.weight"])
    scaled = LowRank(as_handle(1e160 * u), as_handle(1e-160 * d), 1.0, (40, 30))
    record = wwfunc.analyze(Checkpoint({"x.weight": scaled}), base_model=base).records[0]
    assert record.relative_change == pytest.approx(size)
    near = np.concatenate([u, u + 1e-9], axis=1), np.concatenate([d, -d])
    change = LowRank(*map(as_handle, near), 1.0, (40, 30))
    record = wwfunc.analyze(Checkpoint({"x.weight": change}), base_model=base).records[0]
    expected = 1e-9 * np.linalg.norm(np.ones((40, 3)) @ d) / np.linalg.norm(base["x.weight"])
    assert record.relative_change == pytest.approx(expected, rel=1e-4)


def test_two_changes_with_the_same_factors_and_other_lengths():
    up, down = as_handle(normal(50, 4)), as_handle(normal(4, 40))
    model = {
        f"{name}.weight": LowRank(up, down, 1.0, (50, 40), magnitude=as_handle(np.full(50, length)))
        for name, length in (("a", 1.0), ("b", 2.0))
    }
    base = dict.fromkeys(("a.weight",), BASE["a.weight"]) | {"b.weight": BASE["a.weight"] + 0}
    found = wwfunc.analyze(Checkpoint(model), base_model=base, peft="with_base")
    norms = {r.longname: r.norm for r in found if r.part == "merged"}
    assert norms["b"] == pytest.approx(4 * norms["a"])


def test_lengths_of_inputs():
    base, lengths = normal(24, 24), RNG.uniform(1, 2, (1, 24))
    change = low_rank((24, 24), magnitude=as_handle(lengths), per_input=True)
    whole = base + change.read()
    merged = whole / np.linalg.norm(whole, axis=0) * lengths
    adapter = Checkpoint({"x.weight": change})
    found = wwfunc.analyze(adapter, base_model={"x.weight": base}, peft="with_base")
    assert found.records[2].norm == pytest.approx(np.sum(merged**2), rel=1e-6)


def test_an_adapter_is_no_base():
    with pytest.raises(InputError, match="base_model= is an adapter"):
        wwfunc.analyze(Checkpoint(ADAPTER), base_model=Checkpoint(ADAPTER))
