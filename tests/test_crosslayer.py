"""Products of neighbouring layers: planted spectra, sides that are turned, what has no product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wwfunc
from wwfunc import Checkpoint, OptionError, TensorHint
from wwfunc.checkpoint import as_handle
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(12)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(112).bit_generator.state


def normal(*shape):
    return RNG.standard_normal(shape)


def orthogonal(rows, cols=None):
    return np.linalg.qr(normal(rows, cols or rows))[0]


def unit(matrix):
    return matrix / np.linalg.norm(matrix)


def test_planted_singular_values():
    """The right vectors of the later are the left ones of the earlier: values multiply."""
    shared = orthogonal(20)
    first, second = RNG.uniform(1, 2, (2, 20))
    earlier = shared @ np.diag(first) @ orthogonal(30, 20).T
    later = orthogonal(40, 20) @ np.diag(second) @ shared.T
    products = wwfunc.intra({"l1.weight": earlier, "l2.weight": later})
    assert list(products) == ["l2 x l1.weight"]
    record = wwfunc.analyze(products).records[0]
    expected = (first * second / (np.linalg.norm(first) * np.linalg.norm(second))) ** 2
    np.testing.assert_allclose(record.evals[-20:], np.sort(expected), rtol=1e-10)
    assert (record.longname, record.N, record.M) == ("l2 x l1", 40, 30)
    assert record.matrix_rank == 20
    assert record.kind == "dense"


SHAPES = {
    "as they are": ((20, 30), (40, 20), (False, False)),
    "the earlier": ((30, 20), (40, 20), (False, True)),
    "the later": ((20, 30), (20, 40), (True, False)),
    "both": ((30, 20), (20, 40), (True, True)),
    "square": ((20, 20), (20, 20), (False, False)),
    "as little as possible": ((20, 30), (30, 20), (False, False)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_sides_are_turned_until_they_fit(case):
    first, second, (turn_later, turn_earlier) = SHAPES[case]
    earlier, later = normal(*first), normal(*second)
    product = wwfunc.intra({"l1.weight": earlier, "l2.weight": later})["l2 x l1.weight"]
    left = unit(later.T if turn_later else later)
    right = unit(earlier.T if turn_earlier else earlier)
    assert product.shape == (left @ right).shape
    np.testing.assert_allclose(product.read(), left @ right, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(product.read(slice(2, 5)), (left @ right)[2:5], atol=1e-15)
    assert product.nbytes == 8 * product.read().size
    assert not product.read().flags.writeable


def test_natural_order_norms_between_and_tables():
    """Norms and biases do not stand between layers; block 10 comes behind block 9."""
    model = {
        "embeddings.weight": normal(50, 12),
        "h.9.fc.weight": normal(16, 12),
        "h.9.fc.bias": normal(16),
        "h.10.norm.weight": normal(16),
        "h.10.fc.weight": normal(12, 16),
    }
    products = wwfunc.intra(dict(reversed(model.items())))
    assert sorted(products) == ["h.10.fc x h.9.fc.weight", "h.9.fc x embeddings.weight"]
    assert products["h.10.fc x h.9.fc.weight"].shape == (12, 12)
    assert products["h.9.fc x embeddings.weight"].shape == (16, 50)


def test_no_product():
    """Without a shared side, and across a convolution: its neighbours are no neighbours."""
    assert list(wwfunc.intra({"a.weight": normal(20, 30), "b.weight": normal(17, 19)})) == []
    around = {
        "a.weight": normal(20, 30),
        "b.weight": normal(9, 8, 3, 3),
        "c.weight": normal(40, 20),
    }
    assert list(wwfunc.intra(around)) == []
    assert list(wwfunc.intra({"a.weight": normal(20, 30)})) == []
    assert list(wwfunc.intra({"a.bias": normal(20)})) == []
    assert list(wwfunc.intra({"a.weight": np.zeros((0, 20)), "b.weight": normal(20, 20)})) == []


def test_a_convolution_of_one_tap_is_a_matrix():
    earlier, later = normal(24, 16), normal(32, 24, 1, 1)
    product = wwfunc.intra({"a.weight": earlier, "b.weight": later})["b x a.weight"]
    np.testing.assert_allclose(product.read(), unit(later[:, :, 0, 0]) @ unit(earlier), atol=1e-15)


def test_flax_layout_and_hints():
    """(in, out), as a hint or a rule says it, gives what (out, in) gives."""
    earlier, later = normal(20, 30), normal(40, 20)
    torch = wwfunc.intra({"a.weight": earlier, "b.weight": later})["b x a.weight"].read()
    flax = wwfunc.intra({"a.kernel": earlier.T, "b.kernel": later.T})
    np.testing.assert_allclose(flax["b x a.weight"].read(), torch, atol=1e-15)
    hint = TensorHint("dense", rows=(2,), cols=(0,))
    model = {"a.weight": earlier, "b.deep": later.T[:, None]}
    hinted = wwfunc.intra(model, hints={"b.*": hint})
    np.testing.assert_allclose(next(iter(hinted.values())).read(), torch, atol=1e-15)
    with pytest.raises(OptionError, match="no distinct axes"):
        wwfunc.intra(model, hints={"b.*": TensorHint("dense", rows=(5,), cols=(0,))})


def test_an_adapter_has_products():
    change = LowRank(as_handle(normal(24, 4)), as_handle(normal(4, 16)), 0.5, (24, 16))
    products = wwfunc.intra({"a.weight": normal(16, 30), "b.weight": change})
    assert wwfunc.analyze(products).records[0].matrix_rank == 4


def test_what_is_wrong_in_a_layer_is_wrong_in_its_products():
    broken = normal(20, 30)
    broken[0, 0] = np.nan
    model = {"a.weight": broken, "b.weight": normal(40, 20), "c.weight": np.zeros((25, 40))}
    model["d.weight"] = normal(40, 25)
    by_name = {r.longname: r.status for r in wwfunc.analyze(wwfunc.intra(model))}
    assert by_name["b x a"].startswith("failed: NaN or infinity")
    assert by_name["c x b"] == by_name["d x c"] == "failed: all weights are zero"


def test_a_product_is_a_layer_as_any_other(tmp_path):
    """All options, a file, and the input untouched."""
    model = {"a.weight": normal(60, 50).astype(np.float32), "b.weight": normal(70, 60)}
    before = {name: array.copy() for name, array in model.items()}
    products = wwfunc.intra(Checkpoint(model, source="there"))
    assert products.source == "there"
    options = dict.fromkeys(("mp_fit", "randomize", "detX", "vectors"), True)
    analysis = wwfunc.analyze(products, threshold="relative", **options)
    record = analysis["b x a"]
    assert record.status == "success"
    assert record.num_traps == 0
    assert record.sigma_noise > 0
    analysis.save(tmp_path / "rows.json")
    assert wwfunc.load_analysis(tmp_path / "rows.json")["b x a"].row() == record.row()
    assert all(np.array_equal(model[name], before[name]) for name in model)


@settings(max_examples=15, deadline=None)
@given(factors=st.tuples(st.floats(1e-100, 1e100), st.floats(-1e3, -1e-3)), seed=st.integers(0, 99))
def test_the_scale_of_a_layer_changes_nothing(factors, seed):
    rng = np.random.default_rng(seed)
    earlier, later = rng.standard_normal((9, 12)), rng.standard_normal((10, 9))
    plain, scaled = (
        wwfunc.intra({"a.weight": earlier * f, "b.weight": later * g})["b x a.weight"].read()
        for f, g in ((1.0, 1.0), factors)
    )
    np.testing.assert_allclose(scaled, -plain, rtol=1e-12)
    assert np.linalg.norm(plain) <= 1


@pytest.mark.parametrize("exponent", [-1000, -530, -500, 530, 1000])
def test_squares_out_of_range(exponent):
    """Those of 2^530 overflow, those of 2^-530 lose digits."""
    earlier, later = normal(9, 12), normal(10, 9)
    plain, scaled = (
        wwfunc.intra({"a.weight": W, "b.weight": later})["b x a.weight"].read()
        for W in (earlier, np.ldexp(earlier, exponent))
    )
    np.testing.assert_array_equal(scaled, plain)
