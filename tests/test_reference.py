"""Against WeightWatcher 0.7.7's own tables; where it is wrong, the difference is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import seeded

import wwfunc

TABLES = Path(__file__).parent / "reference"
RELATIVE = 1e-6
COUNTS = ["layer_id", "M", "N", "rf", "num_evals", "num_pl_spikes", "matrix_rank", "rank_loss"]
NUMBERS = [
    *("alpha", "D", "xmin", "xmax", "sigma", "norm", "log_norm", "spectral_norm", "lambda_max"),
    *("log_spectral_norm", "alpha_weighted", "log_alpha_norm", "stable_rank", "sv_max", "sv_min"),
    "Q",
]
TEXTS = ["name", "layer_type", "status", "warning"]
SETS = ["minilm", "seeded"]


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(TABLES / f"{name}.csv", keep_default_na=True).set_index("longname")


def joined(reference: pd.DataFrame, analysis: wwfunc.Analysis) -> pd.DataFrame:
    """Our rows in the order of the reference; a layer that is missing here is an error."""
    return analysis.details.set_index("longname").loc[reference.index]


def compare(reference, ours, *, leave_out=()):
    """`leave_out` names (column, longname) pairs that are wrong in the reference."""
    for column in [c for c in (*COUNTS, *NUMBERS, *TEXTS, "entropy") if c in reference]:
        rows = [name for name in reference.index if (column, name) not in leave_out]
        theirs, own = reference.loc[rows, column], ours.loc[rows, column]
        if column in TEXTS:
            assert list(theirs.fillna("")) == list(own), column
        elif column in COUNTS:
            np.testing.assert_array_equal(own, theirs, err_msg=column)
        else:
            bound = 1e-5 if column == "entropy" else RELATIVE
            np.testing.assert_allclose(own, theirs, rtol=bound, err_msg=column)


# The smallest singular value of a convolution is there the largest of its slices' minima.
CONV_SV_MIN = {("sv_min", f"features.{i}") for i in (0, 3, 6)}


@pytest.mark.parametrize("name", SETS)
def test_analyze(name, analyses):
    reference = table(f"{name}_analyze")
    compare(reference, joined(reference, analyses[name]), leave_out=CONV_SV_MIN)


@pytest.mark.parametrize("name", SETS)
def test_analyze_through_jax(name, paths, analyses):
    """The same table where the eigenvalues come from `wwfunc.esd` instead of LAPACK."""
    reference = table(f"{name}_analyze")
    layers = [n for n in reference.index if "word_embeddings" not in n][:12]
    analysis = wwfunc.analyze(paths[name], layers=layers, engine="jax")
    compare(reference.loc[layers], joined(reference.loc[layers], analysis), leave_out=CONV_SV_MIN)


@pytest.mark.parametrize("name", SETS)
def test_xmax_minus_5(name, paths):
    reference = table(f"{name}_xmax_minus5")
    analysis = wwfunc.analyze(paths[name], xmax=-5)
    five_points = {(column, "classifier.narrow") for column in reference.columns}
    compare(reference, joined(reference, analysis), leave_out=CONV_SV_MIN | five_points)


@pytest.mark.parametrize("name", SETS)
def test_clip_xmax(name, paths):
    """num_fingers is there one less than left out, and num_pl_spikes counts those left out too."""
    reference = table(f"{name}_clip_xmax")
    ours = joined(reference, wwfunc.analyze(paths[name], fix_fingers="clip_xmax"))
    compare(reference.drop(columns=["num_pl_spikes", "num_fingers"]), ours, leave_out=CONV_SV_MIN)
    np.testing.assert_allclose(ours.raw_alpha, reference.raw_alpha, rtol=RELATIVE)
    np.testing.assert_array_equal(np.maximum(ours.num_fingers - 1, 0), reference.num_fingers)
    np.testing.assert_array_equal(ours.num_pl_spikes + ours.num_fingers, reference.num_pl_spikes)
    clipped = ours.num_fingers[ours.num_fingers > 0]
    assert len(clipped) == {"minilm": 11, "seeded": 3}[name]


@pytest.mark.parametrize("name", SETS)
def test_powerlaw_package(name, paths):
    """Without the correction of small samples it is the same fit; it gives no xmax."""
    reference = table(f"{name}_powerlaw_package").drop(columns="xmax")
    ours = joined(reference, wwfunc.analyze(paths[name], small_sample="mle"))
    compare(reference, ours, leave_out=CONV_SV_MIN)


@pytest.mark.parametrize("name", SETS)
def test_describe(name, paths):
    reference = table(f"{name}_describe")
    compare(reference, joined(reference, wwfunc.describe(paths[name])))


@pytest.mark.parametrize("name", SETS)
def test_summary(name, analyses):
    reference = json.loads((TABLES / f"{name}_summary.json").read_text())
    summary = analyses[name].summary
    for key, mean in reference.items():
        assert summary[key] == pytest.approx(mean, rel=RELATIVE), key
        assert summary[f"num_valid_{key}"] == {"minilm": 39, "seeded": 12}[name]


def test_rows_that_weightwatcher_leaves_out_are_named(analyses):
    ours = analyses["minilm"].details.set_index("longname")
    extra = set(ours.index) - set(table("minilm_analyze").index)
    assert extra == {"embeddings.token_type_embeddings"}
    assert ours.loc[list(extra), "status"].item() == "skipped: 2 eigenvalues, min_evals is 8"


# Where we differ on purpose ------------------------------------------------------------------


def test_sv_min_of_a_convolution_is_the_smallest(analyses):
    kernel = seeded.tensors()["features.0.weight"].astype(np.float64)
    slices = kernel.reshape(64, 3, 9).transpose(2, 0, 1)
    smallest = np.linalg.svd(slices, compute_uv=False).min() * np.sqrt(0.5)
    assert analyses["seeded"]["features.0"].sv_min == pytest.approx(smallest, rel=RELATIVE)
    assert table("seeded_analyze").sv_min["features.0"] > 1.2 * smallest


def test_five_points_are_no_tail(seeded_path):
    record = wwfunc.analyze(seeded_path, layers="classifier.narrow", xmax=-5).records[0]
    assert record.status == "failed: too few eigenvalues to fit a tail to"
    assert np.isnan(record.alpha)
    assert record.warning == ""
    assert table("seeded_xmax_minus5").sigma["classifier.narrow"] < 0


def test_weak_rank_loss_is_free_of_scale(analyses):
    """WeightWatcher counts eigenvalues under an absolute 1e-6."""
    weights = seeded.tensors()["classifier.square.weight"]
    counts = {
        scale: wwfunc.analyze({"w.weight": weights * np.float32(scale)}).records[0].weak_rank_loss
        for scale in (1.0, 1024.0)
    }
    assert counts == {1.0: 1, 1024.0: 1}
    name = "encoder.layer.0.attention.self.query"
    assert analyses["minilm"][name].weak_rank_loss > table("minilm_analyze").weak_rank_loss[name]


def test_a_given_xmin_is_where_the_tail_starts(seeded_path):
    """WeightWatcher scans upwards from it: asked for 0.3 it fits from 1.375."""
    ours = wwfunc.analyze(seeded_path, layers="classifier.gaussian", xmin=0.3).records[0]
    assert ours.xmin == 0.3
    evals = ours.evals[ours.evals >= 0.3]
    assert ours.num_pl_spikes == evals.size
    assert ours.alpha == pytest.approx(1 + evals.size / np.log(evals / 0.3).sum(), rel=1e-12)


def test_a_failed_fit_is_neither_labelled_nor_averaged(seeded_path):
    layers = ["classifier.narrow", "classifier.heavy3"]
    analysis = wwfunc.analyze(seeded_path, layers=layers, xmax=-5)
    assert analysis["classifier.narrow"].warning == ""
    assert analysis.summary["alpha"] == analysis["classifier.heavy3"].alpha
    assert analysis.summary["num_valid_alpha"] == 1
    assert analysis.summary["num_layers"] == 2
