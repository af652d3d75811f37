"""Whether two layers of one name have one shape, in whatever layouts they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from test_pairing import model, pairs

from wwfunc import Checkpoint, TensorHint
from wwfunc.checkpoint import as_handle
from wwfunc.comparison.pairing import matching
from wwfunc.layers.find import find
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(4)


def test_shapes_that_differ():
    found = matching(model(["x.weight"]), model(["x.weight"], (10, 12)))
    assert found.matches[0].theirs.layer.tensor == "x.weight"
    assert found.matches[0].reason == "the shapes differ: 12 x 10 and 10 x 12"
    assert found.rest == ()


def test_layouts_that_differ_are_one_shape():
    ours = find(Checkpoint({"x.weight": RNG.standard_normal((12, 10))}))
    turned = TensorHint("dense", rows=(1,), cols=(0,))
    theirs = find(Checkpoint({"x.kernel": RNG.standard_normal((10, 12))}, hints={"*": turned}))
    assert pairs(ours, theirs) == {"x.weight": "x.kernel"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((12, 10, 3, 1), (12, 10, 1, 3)),
        ((12, 10, 9), (12, 10, 3, 3)),
        ((12, 10, 2, 3), (12, 10, 3, 2)),
    ],
)
def test_kernels_of_other_sides_are_other_shapes(first, second):
    found = matching(model(["c.weight"], first), model(["c.weight"], second))
    assert "the shapes differ" in found.matches[0].reason


def test_a_kernel_of_one_tap_is_a_matrix():
    found = matching(model(["c.weight"], (12, 10, 1, 1)), model(["c.weight"]))
    assert found.matches[0].reason == ""


@pytest.mark.parametrize(
    ("second", "fits"), [((20, 4, 5), True), ((20, 5, 4), False), ((20, 20), True)]
)
def test_heads_are_part_of_the_shape(second, fits):
    def attention(shape):
        hint = TensorHint("dense", rows=tuple(range(1, len(shape))), cols=(0,))
        return find(Checkpoint({"q.kernel": RNG.standard_normal(shape)}, hints={"q.kernel": hint}))

    found = matching(attention((20, 4, 5)), attention(second))
    assert (found.matches[0].reason == "") is fits


def test_a_table_is_never_turned():
    change = LowRank(*map(as_handle, (np.ones((30, 2)), np.ones((2, 10)))), 1.0, (30, 10))
    ours = find(Checkpoint({"emb.weight": change}, hints={"*": TensorHint("embedding")}))
    (match,) = matching(ours, model(["emb.weight"], (10, 30))).matches
    assert match.reason == "the shapes differ: 30 x 10 and 10 x 30"


def test_what_a_hint_says_of_the_base_stays():
    """Only a weight of PyTorch's, whose name does not tell, is stored as the adapter says."""
    change = LowRank(
        *map(as_handle, (np.ones((10, 2)), np.ones((2, 10)))), 1.0, (10, 10), transposed=True
    )
    turned = TensorHint("dense", rows=(1,), cols=(0,))
    ours = find(Checkpoint({"x.weight": change}, hints={"*": turned}))
    plain = Checkpoint({"x.kernel": np.eye(10)}, hints={"*": TensorHint("dense")})
    (match,) = matching(ours, find(plain)).matches
    assert match.theirs.hint == TensorHint("dense")


def mixed(transposed):
    """An adapter of an input-first layer, a plain one and two square ones, by one word for all."""
    shapes = {"first.weight": (30, 10), "plain.weight": (12, 10), "square.weight": (10, 10)}
    shapes["other.weight"] = (10, 10)
    return find(
        Checkpoint(
            {
                name: LowRank(
                    as_handle(RNG.standard_normal((out, 2))),
                    as_handle(RNG.standard_normal((2, into))),
                    1.0,
                    (into, out) if transposed else (out, into),
                    transposed,
                )
                for name, (out, into) in shapes.items()
            },
            hints={
                name: TensorHint("dense", rows=(int(transposed),), cols=(int(not transposed),))
                for name in shapes
            },
        )
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_one_word_of_an_adapter_for_layers_of_two_kinds(transposed):
    base = Checkpoint(
        {
            "first.weight": RNG.standard_normal((10, 30)),  # as GPT-2 has it
            "plain.weight": RNG.standard_normal((12, 10)),
            "square.weight": RNG.standard_normal((10, 10)),
            "other.weight": RNG.standard_normal((11, 11)),
        }
    )
    ours = mixed(transposed)
    by_name = {m.ours.layer.tensor: m for m in matching(ours, find(base)).matches}
    for name in ("first.weight", "plain.weight"):
        match = by_name[name]
        assert match.reason == ""
        assert match.ours.handle.shape == match.theirs.handle.shape
        own = next(f.task.handle for f in ours if f.tensor == name)
        product = own.read() if own.shape == match.ours.handle.shape else own.read().T
        np.testing.assert_array_equal(match.ours.handle.read(), product)
    wrong = "plain" if transposed else "first"
    words = f"which side is its input cannot be told: fan_in_fan_out does not hold for {wrong}"
    assert by_name["square.weight"].reason == words
    assert by_name["other.weight"].reason == "the shapes differ: 10 x 10 and 11 x 11"


def test_an_adapter_whose_word_holds_leaves_square_layers_alone():
    base = Checkpoint(
        {
            n: RNG.standard_normal(s)
            for n, s in {
                "first.weight": (30, 10),
                "plain.weight": (12, 10),
                "square.weight": (10, 10),
                "other.weight": (10, 10),
            }.items()
        }
    )
    assert {m.reason for m in matching(mixed(False), find(base)).matches} == {""}


def test_an_adapter_knows_how_its_base_is_stored():
    """Inputs first, which the name of the weight does not say."""
    up, down = (as_handle(RNG.standard_normal(shape)) for shape in ((10, 2), (2, 12)))
    change = LowRank(up, down, 1.0, (12, 10), transposed=True)
    turned = TensorHint("dense", rows=(1,), cols=(0,))
    ours = find(Checkpoint({"x.weight": change}, hints={"x.weight": turned}))
    match = matching(ours, model(["x.weight"])).matches[0]
    assert match.reason == ""
    assert match.theirs.hint == turned
