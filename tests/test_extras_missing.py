"""What options add to a layer where something is missing, in files, and on other engines."""

from __future__ import annotations

import functools
import math

import extras_models
import numpy as np
import pandas as pd
import pytest
from extras_models import (
    ADDED,
    ALL,
    BROKEN,
    BULK,
    EVERY,
    MODEL,
    RANKS,
    RNG,
    SHUFFLED,
    missing,
    normal,
    same,
)

import wwfunc
from wwfunc.checkpoint import as_handle
from wwfunc.columns import BY_NAME
from wwfunc.lowrank import LowRank
from wwfunc.tables import write_table


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(113).bit_generator.state


@pytest.fixture(scope="module")
def whole():
    return extras_models.whole()


@pytest.fixture(scope="module")
def broken():
    return extras_models.broken()


# Where something is missing ---------------------------------------------------------------------


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
        exact = functools.partial(pd.read_csv, dtype=str)  # pandas 2 reads rounded numbers
        read = {"csv": exact, "parquet": pd.read_parquet}[suffix]
        frame = read(tmp_path / f"rows.{suffix}").set_index("longname")
        for record in analysis:
            for column in EVERY:
                own, stored = getattr(record, column), frame.loc[record.longname, column]
                equal = missing(own) if pd.isna(stored) else own == type(own)(stored)
                assert equal, column


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
