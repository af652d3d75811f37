"""What options add to a layer: each alone, together, and what decides."""

from __future__ import annotations

import extras_models
import numpy as np
import pytest
from extras_models import (
    ADDED,
    ALL,
    EVERY,
    MODEL,
    PLAIN,
    RANKS,
    RNG,
    WORDS,
    missing,
    normal,
    same,
    trapped,
)

import wwfunc
from wwfunc import vectors
from wwfunc.columns import randommatrix
from wwfunc.extras import shape_of, wanted
from wwfunc.keys import layer_key
from wwfunc.options import Options
from wwfunc.status import Status


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(113).bit_generator.state


@pytest.fixture(scope="module")
def plain():
    return wwfunc.analyze(MODEL)


@pytest.fixture(scope="module")
def whole():
    return extras_models.whole()


# Each alone, and together ---------------------------------------------------------------------


def test_every_column_belongs_to_an_option():
    assert sorted(EVERY) == sorted(column.name for column in randommatrix.COLUMNS)


def test_without_options_there_is_nothing(plain):
    assert wanted(Options()) is None
    assert wanted(Options(mp_method="kde", inverse=True, vectors=True)) is None
    for record in plain:
        assert all(missing(getattr(record, name)) for name in EVERY)


@pytest.mark.parametrize("option", ADDED)
def test_an_option_adds_its_columns_and_changes_no_other(option, plain, whole):
    for record in wwfunc.analyze(MODEL, **{option: True}):
        own = [name for name in ADDED[option] if not missing(getattr(record, name))]
        pooled = option == "deltas" and record.rf > 1
        assert own == ([] if pooled else ADDED[option]), record.longname
        same(record, whole[record.longname], ADDED[option], 1e-9)
        others = [name for name in EVERY if name not in ADDED[option]]
        assert all(missing(getattr(record, name)) for name in others)
        # The eigenvalues come with the vectors then, from another routine.
        relative = 1e-6 if option == "vectors" else 1e-12
        same(record, plain[record.longname], PLAIN, relative)


def test_beside_trust_and_farms(whole):
    """A spectrum stands in a larger bucket then, which changes rounding alone."""
    trusted = wwfunc.analyze(MODEL, trust=True, replicates=19, farms=True, **ALL)
    for record in trusted:
        same(record, whole[record.longname], EVERY, 1e-9)
        assert record.verdict
        assert record.p_value > 0
        assert record.farms_alpha > 1


@pytest.mark.parametrize("fit", ["TPL", "E_TPL"])
def test_beside_a_truncated_power_law(fit, whole):
    """What looks at the tail looks at that of the fit."""
    tails = ("bulk_mean", "bulk_var", "tail_mean", "tail_var", "ERG_gap")
    for record in wwfunc.analyze(MODEL, fit=fit, **ALL):
        assert record.fit == "TPL"
        free = [name for name in EVERY if not name.startswith(tails)]
        same(record, whole[record.longname], free, 1e-9)
        assert record.ERG_gap == record.detX_num - record.num_pl_spikes
        assert record.tail_mean_loc_ratio > 1


def test_the_method_of_the_bulk(whole):
    kde = wwfunc.analyze(MODEL, mp_fit=True, randomize=True, mp_method="kde")
    for record in kde:
        same(record, whole[record.longname], ["W_scale", "rand_W_scale"], 1e-12)
        assert record.sigma_mp != whole[record.longname].sigma_mp
        assert record.rand_sigma_mp != whole[record.longname].rand_sigma_mp
        assert record.max_rand_eval == whole[record.longname].max_rand_eval


# What is planted is found -----------------------------------------------------------------------


def test_a_spike_is_in_the_layer_and_not_in_its_shuffle(whole):
    record = whole["spiked"]
    assert (record.num_spikes, record.rand_num_spikes, record.num_traps) == (1, 0, 0)
    assert record.sigma_noise == pytest.approx(0.3, rel=0.02)
    assert record.rand_sigma_noise == pytest.approx(np.std(MODEL["spiked.weight"]), rel=0.02)
    assert record.lambda_max > record.mp_edge > record.bulk_max
    assert record.mp_softrank == pytest.approx(record.bulk_max / record.lambda_max)
    assert record.ww_maxdist > 0.2 * record.lambda_max
    assert record.ww_softrank < 0.8


def test_a_trap_is_in_both(whole):
    record = whole["trapped"]
    assert (record.num_spikes, record.rand_num_spikes, record.num_traps) == (1, 1, 1)
    assert record.max_rand_eval > record.rand_mp_edge


def test_the_numbers_are_those_of_the_functions(whole):
    """For a matrix of 60 x 40, whose columns are read from one record."""
    record, W = whole["dense"], MODEL["dense.weight"]
    same(record, wwfunc.mp_fit(wwfunc.esd(W), 60, 40), ["sigma_mp", "bulk_max", "W_scale"], 1e-9)
    same(record, wwfunc.erg(wwfunc.esd(W), record.num_pl_spikes), ["detX_val", "ERG_gap"], 1e-9)
    same(record, wwfunc.ranks(W_evals := wwfunc.esd(W)), RANKS, 1e-9)
    random = wwfunc.random_ranks(60, 40)
    for name in ("stable_rank", *RANKS):
        assert getattr(record, f"random_{name}") == pytest.approx(
            float(getattr(random, name)), 1e-5
        )
    assert record.spacing_ratio == pytest.approx(float(wwfunc.spacings(W_evals).mean_ratio), 1e-7)
    found = vectors.bulk_and_tail(wwfunc.vector_metrics(W), record.xmin)
    same(record, found, [f"tail_mean_{name}" for name in WORDS], 1e-8)
    for name in WORDS:
        expected = float(getattr(wwfunc.random_vector(40), name))
        assert getattr(record, f"random_{name}") == pytest.approx(expected, rel=1e-6)


def test_a_trap_is_rarer_than_a_spike(whole):
    """Once in a thousand shuffles of noise, where a spike is once in a hundred matrices."""
    record, W = whole["heavy"], MODEL["heavy.weight"]
    shuffled = wwfunc.random_esd(layer_key(record.layer, 0), W)
    for edge, spectrum, quantile in (
        (record.mp_edge, wwfunc.esd(W), 0.99),
        (record.rand_mp_edge, shuffled, 0.999),
    ):
        expected = wwfunc.mp_fit(spectrum, 150, 120, quantile=quantile).edge
        assert edge == pytest.approx(float(expected), rel=1e-6)


def test_five_shuffles_of_a_small_layer_count_as_one():
    """A trap shows in each shuffle: five spikes, one trap; two elements, two traps."""
    twice = trapped(40, 30, 60.0)
    twice[3, 4] = 90.0
    model = {
        "one.weight": trapped(40, 30, 60.0),
        "two.weight": twice,
        "none.weight": normal(40, 30),
    }
    model["conv.weight"] = normal(20, 10, 3, 3)
    model["conv.weight"][0, 0] = 40.0  # in each of nine slices
    for method in ("tracy-widom", "kde"):
        found = wwfunc.analyze(model, randomize=True, mp_method=method)
        by_name = {r.longname: (r.num_traps, r.rand_num_spikes) for r in found}
        assert by_name["one"] == (1, 5), method
        assert by_name["two"] == (2, 10), method
        assert by_name["none"][0] == 0, method
        assert by_name["conv"] == (9, 45), method


def test_spikes_of_few_shuffles_are_rounded():
    """Two of five are no trap, three are one."""
    barely = np.linspace(1.4, 2.2, 40) * (40 * 30) ** 0.25
    found = wwfunc.analyze(
        {f"{i}.weight": trapped(40, 30, size) for i, size in enumerate(barely)}, randomize=True
    )
    spikes = [record.rand_num_spikes for record in found]
    assert {1, 2} & set(spikes)
    assert {3, 4} & set(spikes)
    assert [record.num_traps for record in found] == [int(count > 2) for count in spikes]


def test_replicas_and_quantiles_of_a_shape():
    assert int(shape_of(40, 30, 1).replicas) == 5
    assert int(shape_of(40, 10, 9).replicas) == 5
    assert int(shape_of(40, 10, 10).replicas) == 1
    one, many = shape_of(40, 30, 1), shape_of(40, 30, 9)
    assert float(one.spike) < float(one.trap)
    assert float(one.spike) < float(many.spike) < float(many.trap)


@pytest.mark.parametrize("method", ["tracy-widom", "kde"])
def test_without_a_bulk_nothing_is_counted(method):
    """Neither no spikes nor no traps."""
    model = {"zero.weight": np.zeros((30, 30)), "plain.weight": normal(30, 30)}
    found = wwfunc.analyze(model, mp_fit=True, randomize=True, mp_method=method)
    measures = found["zero"].measures
    assert int(measures.mp.status) == Status.ALL_ZERO
    assert int(measures.mp.num_spikes) == int(measures.num_traps) == -1
    row = found["zero"].row()
    assert [row[name] for name in ("num_spikes", "num_traps", "rand_num_spikes")] == [None] * 3
    assert found["plain"].num_spikes == found["plain"].num_traps == 0


# What decides -----------------------------------------------------------------------------------

DRAWN = ["max_rand_eval", "rand_distance", "ww_softrank", "rand_mp_softrank", "rand_mp_edge"]


def drawn(analysis):
    return {r.longname: [getattr(r, name) for name in DRAWN] for r in analysis}


def test_the_seed_and_nothing_else_decides_about_shuffles(whole, monkeypatch):
    reference = drawn(whole)
    variants = {
        "threads": wwfunc.analyze(MODEL, randomize=True, threads=4),
        "order": wwfunc.analyze(dict(reversed(MODEL.items())), randomize=True),
        "options": wwfunc.analyze(MODEL, randomize=True, farms=True, seed=0, ranks=True),
        "single": wwfunc.analyze(MODEL, randomize=True, layers="heavy"),
    }
    monkeypatch.setattr("wwfunc.execution.LARGE_SIDE", 32)
    variants["large"] = wwfunc.analyze(MODEL, randomize=True)
    for name, analysis in variants.items():
        for longname, row in drawn(analysis).items():
            np.testing.assert_allclose(row, reference[longname], rtol=1e-9, err_msg=name)
    other = wwfunc.analyze(MODEL, seed=1, **ALL)
    for record in other:
        reference = whole[record.longname]
        assert abs(record.rand_distance / reference.rand_distance - 1) > 1e-4
        steady = [name for name in EVERY if name not in ADDED["randomize"]]
        same(record, reference, ["alpha", *steady, "rand_W_scale"], 1e-12)


def test_equal_weights_under_other_names_are_shuffled_otherwise():
    W = normal(30, 20)
    one, other = wwfunc.analyze({"a.weight": W, "b.weight": W.copy()}, randomize=True)
    assert one.max_rand_eval != other.max_rand_eval
    assert one.alpha == other.alpha
