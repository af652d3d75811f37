"""The result object: rows, summary, DataFrame, saving and loading, files by suffix."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pandas as pd
import pytest

import wwfunc
from wwfunc.columns import BY_NAME, COLUMNS
from wwfunc.tables import write_table

MODEL = {
    "a.weight": np.random.default_rng(1).standard_normal((60, 40)).astype(np.float32),
    "b.weight": np.random.default_rng(2).standard_t(2.5, (50, 30)).astype(np.float32),
    "zero.weight": np.zeros((20, 20), np.float32),
    "small.weight": np.ones((4, 4), np.float32),
    "a.bias": np.zeros(60, np.float32),
}


@pytest.fixture(scope="module")
def analysis():
    return wwfunc.analyze(MODEL)


def test_records(analysis):
    record = analysis["a"]
    assert (record.longname, record.part, record.N, record.M) == ("a", "", 60, 40)
    exact = np.linalg.svd(MODEL["a.weight"].astype(float), compute_uv=False)[::-1] ** 2
    np.testing.assert_allclose(record.evals, exact, rtol=1e-8)
    assert record.alpha == float(record.measures.fit.alpha)
    assert analysis["a.weight"] is record
    assert set(BY_NAME) <= set(dir(record))
    with pytest.raises(AttributeError, match="no_such"):
        _ = record.no_such
    with pytest.raises(KeyError):
        analysis["nowhere"]


def test_details_have_every_column(analysis):
    details = analysis.details
    assert list(details.columns) == [column.name for column in COLUMNS]
    assert list(details.longname) == ["a", "b", "small", "zero"]
    assert details.set_index("longname").alpha["a"] == analysis["a"].alpha
    assert np.isnan(details.set_index("longname").alpha["zero"])


def test_summary_counts_what_it_averages(analysis):
    summary = analysis.summary
    assert summary["num_layers"] == 4
    assert summary["num_valid_alpha"] == 2
    assert summary["alpha"] == pytest.approx((analysis["a"].alpha + analysis["b"].alpha) / 2)
    assert math.isnan(wwfunc.analyze(MODEL, layers="zero").summary["alpha"])


def test_labels():
    def warning(alpha):
        rng = np.random.default_rng(0)
        evals = (1 - rng.random(60)) ** (-1 / (alpha - 1))
        q, p = (np.linalg.qr(rng.standard_normal((60, 60)))[0] for _ in range(2))
        return wwfunc.analyze({"w": (q * np.sqrt(evals)) @ p}).records[0].warning

    assert [warning(a) for a in (1.5, 4.0, 9.0)] == ["over-trained", "", "under-trained"]


def test_saved_and_loaded(analysis, tmp_path):
    path = tmp_path / "run.json"
    analysis.save(path)
    again = wwfunc.load_analysis(path)
    assert again.options == analysis.options
    assert again.provenance == analysis.provenance
    assert again.coverage == analysis.coverage
    pd.testing.assert_frame_equal(again.details, analysis.details, check_exact=True)
    for ours, theirs in zip(again.records, analysis.records, strict=True):
        np.testing.assert_array_equal(ours.evals, theirs.evals)
        assert ours.layer == theirs.layer
    assert int(again["zero"].measures.fit.status) == wwfunc.Status.ALL_ZERO
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


def test_json_is_strict_and_says_how_it_came_about(analysis, tmp_path):
    write_table(analysis, tmp_path / "run.json")

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert document["schema"] == 3
    assert document["base"] is None
    assert {"wwfunc", "jax", "numpy", "python"} <= document["versions"].keys()
    assert document["options"]["min_evals"] == 8
    zero = next(layer for layer in document["layers"] if layer["longname"] == "zero")
    assert zero["alpha"] is None
    assert len(document["coverage"]) == len(MODEL)


def test_csv_leaves_missing_numbers_empty_and_keeps_every_digit(analysis, tmp_path):
    write_table(analysis, tmp_path / "run.csv")
    with open(tmp_path / "run.csv", newline="") as file:
        rows = {row["longname"]: row for row in csv.DictReader(file)}
    assert rows["zero"]["alpha"] == ""
    assert float(rows["a"]["alpha"]) == analysis["a"].alpha


def test_parquet(analysis, tmp_path):
    write_table(analysis, tmp_path / "run.parquet")
    table = pd.read_parquet(tmp_path / "run.parquet").set_index("longname")
    assert table.alpha["a"] == analysis["a"].alpha


def test_unknown_suffix_is_refused(analysis, tmp_path):
    with pytest.raises(wwfunc.OptionError, match=r"\.csv, \.json, \.parquet"):
        write_table(analysis, tmp_path / "run.xlsx")


def test_a_failed_write_leaves_the_old_file(analysis, tmp_path, monkeypatch):
    path = tmp_path / "run.csv"
    path.write_text("before")
    monkeypatch.setattr("wwfunc.tables._cell", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_table(analysis, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


BROKEN = {
    "not json": "not a saved analysis",
    "[]": "not a saved analysis",
    "{}": "not a saved analysis",
    '{"schema": 99}': "schema 99",
    "[" * 100_000: "not a saved analysis",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:15])
def test_a_file_that_is_no_analysis_is_refused(text, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(wwfunc.AnalysisFileError, match=BROKEN[text]):
        wwfunc.load_analysis(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(wwfunc.AnalysisFileError, match="cannot be read"):
        wwfunc.load_analysis(tmp_path / "nowhere.json")
