"""What options add to a layer: each alone, together, for layers where something is missing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import wwfunc
from wwfunc import vectors
from wwfunc.checkpoint import as_handle
from wwfunc.columns import BY_NAME, COLUMNS, randommatrix
from wwfunc.extras import shape_of, wanted
from wwfunc.keys import layer_key
from wwfunc.lowrank import LowRank
from wwfunc.options import Options
from wwfunc.status import Status
from wwfunc.tables import write_table

RNG = np.random.default_rng(13)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(113).bit_generator.state


def normal(*shape):
    return RNG.standard_normal(shape)


BULK = [
    *("sigma_mp", "sigma_noise", "W_scale", "bulk_min", "bulk_max", "mp_edge", "num_spikes"),
    "mp_softrank",
]
SHUFFLED = ["max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist"]
WORDS = ["vec_entropy", "loc_ratio", "part_ratio"]
RANKS = ["effective_rank", "energy_rank_95", "energy_rank_99", "participation_ratio"]
ADDED = {
    "mp_fit": BULK,
    "randomize": [f"rand_{name}" for name in BULK] + ["num_traps", *SHUFFLED],
    "detX": ["detX_num", "num_ERG_spikes", "detX_val", "detX_val_unrescaled", "ERG_gap"],
    "vectors": [
        *(f"{s}_{m}_{name}" for s in ("bulk", "tail") for m in ("mean", "var") for name in WORDS),
        *(f"random_{name}" for name in WORDS),
    ],
    "ranks": [*RANKS, *(f"random_{name}" for name in ("stable_rank", *RANKS))],
    "deltas": ["spacing_ratio"],
}
EVERY = [name for names in ADDED.values() for name in names]
ALL = dict.fromkeys(ADDED, True)
PLAIN = [column.name for column in COLUMNS if column.name not in EVERY]


def spiked():
    """A direction of 1.6 bulk edges in noise of 0.3."""
    direction = np.outer(normal(120), normal(80))
    return 0.3 * normal(120, 80) + 16 * 0.3 * np.sqrt(10) * direction / np.linalg.norm(direction)


def trapped(n, m, value=None):
    """Gaussian, but for an element of three times what noise can hide."""
    matrix = normal(n, m)
    matrix[n // 2, m // 3] = value or 3 * (n * m) ** 0.25 + 5
    return matrix


MODEL = {
    "dense.weight": normal(60, 40),
    "heavy.weight": RNG.standard_t(2.5, (150, 120)),
    "conv.weight": normal(16, 12, 3, 3),
    "spiked.weight": spiked(),
    "trapped.weight": trapped(150, 110),
}


def missing(value):
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def same(ours, theirs, columns, relative=0.0):
    for column in columns:
        own, other = getattr(ours, column), getattr(theirs, column)
        if missing(own) or isinstance(own, str):
            assert own == other or (missing(own) and missing(other)), column
        else:
            assert own == pytest.approx(other, rel=relative, abs=0 if relative else None), column


@pytest.fixture(scope="module")
def plain():
    return wwfunc.analyze(MODEL)


@pytest.fixture(scope="module")
def whole():
    return wwfunc.analyze(MODEL, **ALL)


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


# Where something is missing ---------------------------------------------------------------------

BROKEN = {
    "lost": np.where(np.arange(600).reshape(30, 20) == 7, np.nan, normal(30, 20)),
    "huge": 1e200 * normal(30, 20),
    "zero": np.zeros((30, 20)),
    "equal": np.ones((30, 20)),
    "identity": np.eye(20),
    "column": normal(50, 1),
    "two": normal(2, 30),
    "deficient": normal(60, 10) @ normal(10, 40),
    "tiny": 1e-6 * normal(30, 20),
    "empty": np.zeros((0, 5)),
}


@pytest.fixture(scope="module")
def broken():
    model = {f"{name}.weight": array for name, array in BROKEN.items()}
    return wwfunc.analyze(model, min_evals=1, **ALL)


@pytest.mark.parametrize("name", ["lost", "huge", "empty"])
def test_without_a_spectrum_there_is_no_number(name, broken):
    assert broken[name].status.startswith(("failed: NaN", "skipped"))
    assert all(missing(getattr(broken[name], column)) for column in EVERY)


def test_zero_weights(broken):
    """Counts are 0, ratios are missing; what is of the shape is there."""
    record = broken["zero"]
    for column in (*BULK, *SHUFFLED, *ADDED["detX"], *RANKS):
        assert missing(getattr(record, column)) or getattr(record, column) == 0, column
    assert math.isnan(record.sigma_mp)
    assert math.isnan(record.rand_distance)
    assert math.isnan(record.bulk_mean_loc_ratio)
    expected = wwfunc.random_ranks(30, 20).effective_rank
    assert record.random_effective_rank == pytest.approx(float(expected), rel=1e-5)


def test_a_fit_that_failed_takes_what_looks_at_its_tail(broken):
    for name in ("identity", "equal", "column", "tiny"):
        record = broken[name]
        assert record.status.startswith("failed"), name
        assert math.isnan(record.alpha)
        assert math.isnan(record.ERG_gap)
        assert math.isnan(record.tail_mean_loc_ratio)
        assert math.isnan(record.bulk_mean_loc_ratio)
        assert math.isnan(record.sigma_mp) == (name == "equal")
        assert record.max_rand_eval > 0
        assert record.effective_rank >= 1 - 1e-12
    assert broken["tiny"].detX_num > 0, "the threshold hides all from the fit, not from the rest"
    assert broken["tiny"].sigma_noise == pytest.approx(1e-6, rel=0.1)


def test_one_eigenvalue(broken):
    """No order, no gap: what a shuffle of one column has is the column's."""
    record = broken["column"]
    assert record.max_rand_eval == pytest.approx(record.lambda_max, rel=1e-12)
    assert record.rand_distance == pytest.approx(0.0, abs=1e-7)
    assert record.ww_softrank == pytest.approx(1.0)
    assert [getattr(record, name) for name in RANKS] == pytest.approx([1.0] * 4)
    assert math.isnan(record.spacing_ratio)
    assert math.isnan(record.random_stable_rank), "under 8 columns the law of it says little"
    assert record.random_effective_rank == pytest.approx(1.0)
    assert (record.detX_num, record.num_traps) == (None, 0)


def test_a_deficient_rank(broken):
    """No noise of 60 by 40 entries has so many zeros; its shuffle has the full rank."""
    record = broken["deficient"]
    assert record.matrix_rank == record.energy_rank_99 == 10
    assert record.detX_num is None
    assert math.isnan(record.ERG_gap)
    assert record.num_spikes is None
    assert record.rand_bulk_min > 0
    assert record.rand_distance > 0.3
    tail = np.linalg.svd(BROKEN["deficient"])[2][: record.num_pl_spikes]
    expected = (np.abs(tail).sum(1) / np.abs(tail).max(1)).mean()
    assert record.tail_mean_loc_ratio == pytest.approx(expected, rel=1e-8)


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


# Saved and read ---------------------------------------------------------------------------------


def test_saved_and_read_again(whole, broken, tmp_path):
    for analysis in (whole, broken):
        analysis.save(tmp_path / "rows.json")
        again = wwfunc.load_analysis(tmp_path / "rows.json")
        assert again.options == analysis.options
        for ours, theirs in zip(again, analysis, strict=True):
            same(ours, theirs, BY_NAME)
        again.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "rows.json").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_every_column_in_a_file(suffix, whole, broken, tmp_path):
    for analysis in (whole, broken):
        write_table(analysis, tmp_path / f"rows.{suffix}")
        if suffix == "json":
            assert wwfunc.load_analysis(tmp_path / "rows.json").records[0].row().keys() == {
                *BY_NAME
            }
            continue
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[suffix]
        frame = read(tmp_path / f"rows.{suffix}").set_index("longname")
        for record in analysis:
            for column in EVERY:
                own, stored = getattr(record, column), frame.loc[record.longname, column]
                assert own == stored or (missing(own) and pd.isna(stored)), column


# Engines and adapters ---------------------------------------------------------------------------


def test_engines_agree(whole):
    device = wwfunc.analyze(MODEL, engine="jax", **ALL)
    for record in device:
        same(record, whole[record.longname], EVERY, 1e-8)
        assert record.num_traps == whole[record.longname].num_traps


def test_engines_agree_on_what_is_missing(broken):
    names = ["lost", "zero", "deficient", "column"]
    model = {f"{name}.weight": BROKEN[name] for name in names}
    device = wwfunc.analyze(model, min_evals=1, engine="jax", **ALL)
    # Vectors of eigenvalues that rounding does not resolve are any basis of their space.
    columns = [name for name in EVERY if not name.startswith(("bulk_mean", "bulk_var"))]
    columns.remove("rand_distance")
    for record in device:
        same(record, broken[record.longname], columns, 1e-8)
        assert record.status == broken[record.longname].status


ADAPTERS = {
    "dense": LowRank(as_handle(normal(64, 20)), as_handle(normal(20, 48)), 2.0, (64, 48)),
    "conv": LowRank(as_handle(normal(24, 9)), as_handle(normal(9, 16, 3, 3)), 0.5, (24, 16, 3, 3)),
}


@pytest.mark.parametrize("option", ADDED)
def test_an_adapter_is_measured_as_its_product(option):
    options = {option: True, "seed": 3}
    model = {f"{name}.weight": change for name, change in ADAPTERS.items()}
    product = {name: np.array(change.read()) for name, change in model.items()}
    plain = wwfunc.analyze(product, **options)
    columns = [c for c in ADDED[option] if not c.startswith(("bulk_mean", "bulk_var"))]
    for record in wwfunc.analyze(model, **options):
        assert record.matrix_rank == {"dense": 20, "conv": 81}[record.longname]
        same(record, plain[record.longname], ["alpha", *columns], 1e-7)
        none = {("deltas", "conv"), ("detX", "dense"), ("mp_fit", "dense"), ("mp_fit", "conv")}
        there = any(not missing(getattr(record, column)) for column in columns)
        assert there != ((option, record.longname) in none) or option == "mp_fit"
