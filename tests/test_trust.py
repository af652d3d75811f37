"""Trust through the library: rows, files, the command line, determinism, and jit."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import numpy as np
import pandas as pd
import pytest
from planted import pareto
from test_cli import run

import wwfunc
from wwfunc.checkpoint import as_handle
from wwfunc.columns import BY_NAME, COLUMNS
from wwfunc.lowrank import LowRank
from wwfunc.options import Options
from wwfunc.tables import write_table

RNG = np.random.default_rng(3)
MODEL = {
    "heavy.weight": RNG.standard_t(2.5, (90, 70)).astype(np.float32),
    "random.weight": np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32),
    "conv.weight": RNG.standard_normal((24, 16, 3, 3)).astype(np.float32),
    "zero.weight": np.zeros((20, 20), np.float32),
    "nan.weight": np.full((20, 20), np.nan, np.float32),
}
TRUST = {"trust": True, "replicates": 50}
RANDOM_MATRIX = dict.fromkeys(("mp_fit", "randomize", "detX", "vectors", "ranks", "deltas"), True)
STATISTICS = [c.name for c in COLUMNS if c.path.startswith("measures.trust.")]


@pytest.fixture(scope="module")
def analysis():
    return wwfunc.analyze(MODEL, **TRUST, farms=True)


def test_every_statistic_has_a_value(analysis):
    record = analysis["heavy"]
    assert len(STATISTICS) == 14
    for name in STATISTICS:
        assert not math.isnan(getattr(record, name)), name
    assert record.alpha_low <= record.alpha_high
    assert record.xmin_low <= record.xmin_high
    assert record.verdict
    assert record.tail_share == record.num_pl_spikes / 70
    assert record.alpha_hill > 1
    assert record.farms_alpha > 1


def test_every_column_is_read_from_some_record(analysis):
    truncated = wwfunc.analyze(MODEL, layers=["heavy", "conv"], fit="TPL")
    beside = wwfunc.analyze(MODEL, layers=["heavy"], **RANDOM_MATRIX)
    adapter = LowRank(as_handle(np.ones((30, 9))), as_handle(np.eye(9, 20)), 1.0, (30, 20))
    changed = wwfunc.analyze(
        wwfunc.Checkpoint({"x.weight": adapter}),
        base_model={"x.weight": np.eye(30, 20)},
        intruders=True,
    )
    analyses = (analysis, truncated, beside, changed)
    for column in COLUMNS:
        rows = [record.row()[column.name] for a in analyses for record in a]
        known = column.name in ("part", "warning", "role", "block")  # not every model has them
        assert known or any(pd.notna(value) and value != "" for value in rows), column.name


def test_a_failed_fit_has_no_statistics(analysis):
    for name in ("zero", "nan"):
        record = analysis[name]
        assert all(math.isnan(getattr(record, column)) for column in STATISTICS)
        assert record.verdict in ("no fit", "")


def test_without_trust_there_is_none():
    record = wwfunc.analyze(MODEL, layers="heavy").records[0]
    assert record.measures.trust is None
    assert record.measures.farms is None
    assert record.verdict == ""
    assert all(math.isnan(getattr(record, column)) for column in STATISTICS)


def test_a_random_layer_is_called_random(analysis):
    assert analysis["random"].p_random > 0.05
    assert "as a random 64 x 64 matrix" in analysis["random"].verdict
    conv = analysis["conv"]
    assert conv.p_random == pytest.approx(wwfunc.p_random(conv.alpha, N=24, M=16, rf=9), rel=1e-12)


def numbers(record):
    return np.array([getattr(record, name) for name in STATISTICS])


def test_selection_threads_and_order_change_nothing(analysis):
    alone = wwfunc.analyze(MODEL, **TRUST, farms=True, layers="heavy", threads=1)
    reversed_order = wwfunc.analyze(dict(reversed(MODEL.items())), **TRUST, farms=True, threads=2)
    for other in (alone, reversed_order):
        np.testing.assert_array_equal(numbers(other["heavy"]), numbers(analysis["heavy"]))


def test_the_seed_changes_the_resampling_alone(analysis):
    other = wwfunc.analyze(MODEL, **TRUST, layers="heavy", seed=1)["heavy"]
    same = {"p_random", *(n for n in STATISTICS if n.startswith("R_") or n[:2] == "p_")} - {
        "p_value"
    }
    for name in STATISTICS:
        equal = getattr(other, name) == getattr(analysis["heavy"], name)
        if name in same:
            assert equal, name
    drawn = ("alpha_low", "alpha_high", "xmin_low", "xmin_high", "p_value")
    assert any(getattr(other, n) != getattr(analysis["heavy"], n) for n in drawn)
    assert other.alpha == analysis["heavy"].alpha


@pytest.mark.parametrize("options", [{**TRUST, "farms": True}, {**TRUST, "fit": "TPL"}], ids=str)
def test_saved_and_loaded(options, tmp_path):
    analysis = wwfunc.analyze(MODEL, **options)
    analysis.save(tmp_path / "run.json")
    again = wwfunc.load_analysis(tmp_path / "run.json")
    assert again.options == analysis.options
    pd.testing.assert_frame_equal(again.details, analysis.details, check_exact=True)
    ours, theirs = (jax.tree.leaves([r.measures for r in a]) for a in (analysis, again))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    write_table(again, tmp_path / "run.csv")
    frame = pd.read_csv(tmp_path / "run.csv").set_index("longname")
    assert frame.verdict["heavy"] == analysis["heavy"].verdict


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda layer: layer.update(alpha=2.0), "alpha is 2.0, its records say"),
        (lambda layer: layer["measures"]["fit"].update(alpha="x"), "no number"),
        (lambda layer: layer["measures"].update(record="Popen"), "Popen"),
        (lambda layer: layer["measures"].update(record="ESD"), "not a saved analysis"),
        (lambda layer: layer["measures"]["fit"].update(evil=1.0), "evil"),
        (lambda layer: layer["measures"].pop("fit"), "fit"),
        (lambda layer: layer.update(N=10**40), "not a saved analysis"),
        (lambda layer: layer.update(evals=["x"]), "no number"),
        (lambda layer: layer.update(evals=[]), "0 eigenvalues"),
        (lambda layer: layer["measures"]["hill"].update(alpha=[1.0]), "no number"),
    ],
)
def test_an_edited_file_is_refused(edit, words, analysis, tmp_path):
    path = tmp_path / "run.json"
    analysis.save(path)
    document = json.loads(path.read_text())
    edit(document["layers"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(wwfunc.AnalysisFileError, match=words):
        wwfunc.load_analysis(path)


def test_truncated_rows_say_what_they_are():
    W = np.random.default_rng(8).standard_normal((120, 80))
    record = wwfunc.analyze({"w": W}, fit="TPL", **TRUST).records[0]
    alone = wwfunc.fit_tpl(record.evals)
    assert (record.fit, record.warning) == ("TPL", "")
    np.testing.assert_allclose(
        [record.alpha, record.Lambda], [alone.alpha, alone.Lambda], rtol=1e-9
    )
    assert record.Lambda > 0
    assert record.verdict.startswith("truncated power law, alpha 1.0 at its bound, Lambda")
    assert math.isnan(record.p_value)
    assert math.isnan(record.alpha_low)
    assert 0 < record.p_truncated < 1


def test_measure_is_the_same_in_float64(analysis):
    """The keys differ, what is not resampled agrees."""
    W = MODEL["heavy.weight"].astype(np.float64)
    measures = wwfunc.measure(W, Options(**TRUST, farms=True))
    row = analysis["heavy"]
    np.testing.assert_allclose(measures.fit.alpha, row.alpha, rtol=1e-9)
    np.testing.assert_allclose(measures.hill.alpha, row.alpha_hill, rtol=1e-9)
    np.testing.assert_allclose(measures.farms.alpha, row.farms_alpha, rtol=1e-9)
    np.testing.assert_allclose(measures.trust.p_random, row.p_random, rtol=1e-6)
    for name in ("exponential", "lognormal", "stretched_exponential", "truncated"):
        ratio = getattr(measures.trust.alternatives, name)
        np.testing.assert_allclose(ratio.R, BY_NAME[f"R_{name}"].read(row), rtol=1e-6, atol=1e-8)


def test_measure_under_jit_and_vmap():
    stacked = RNG.standard_t(3, (3, 60, 40)).astype(np.float32)
    options = Options(trust=True, replicates=20, farms=True)
    many = jax.jit(jax.vmap(lambda W: wwfunc.measure(W, options)))(stacked)
    assert many.trust.goodness.p_value.shape == (3,)
    single = wwfunc.measure(stacked[1], options)
    np.testing.assert_allclose(many.trust.p_random[1], single.trust.p_random, atol=1e-3)
    np.testing.assert_allclose(many.fit.alpha[1], single.fit.alpha, rtol=1e-4)


def test_float32_under_jit_and_an_analysis_share_nothing():
    """JAX keeps arrays by identity: the quantiles of a shape once came back in float32."""
    W = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32)
    options = Options(trust=True, replicates=20)
    jax.jit(wwfunc.measure, static_argnums=1)(W, options)
    record = wwfunc.analyze({"w": W.astype(np.float64)}, options).records[0]
    assert record.status.startswith("success")
    assert record.p_random == pytest.approx(wwfunc.p_random(record.alpha, N=40, M=24), rel=1e-12)


def test_a_fault_in_one_layer_stays_there(monkeypatch):
    from wwfunc import execution

    def broken(shape, *arguments):
        if shape == 1:
            raise RuntimeError("out of luck")

    monkeypatch.setattr(execution, "null_quantiles", broken)
    rows = wwfunc.analyze(MODEL, layers=["heavy", "conv"], trust=True, replicates=20)
    assert rows["heavy"].status == "failed: RuntimeError: out of luck"
    assert rows["conv"].status.startswith("success")


def test_measure_of_the_inverse_is_not_calibrated():
    W = np.random.default_rng(1).standard_normal((60, 40))
    plain, inverse = (
        wwfunc.measure(W, Options(**TRUST, inverse=inverse)).trust for inverse in (False, True)
    )
    assert np.isfinite(plain.p_random)
    assert np.isnan(inverse.p_random)


def test_measure_of_a_spectrum_is_not_calibrated():
    evals = pareto(np.random.default_rng(1), 100, 2.5)
    spectrum = wwfunc.esd(np.diag(np.sqrt(evals)))
    measures = wwfunc.measure(spectrum, Options(**TRUST))
    assert np.isnan(measures.trust.p_random)
    assert np.isfinite(measures.trust.goodness.p_value)
    with pytest.raises(wwfunc.InputError, match="farms=True takes a matrix"):
        wwfunc.measure(spectrum, Options(farms=True))


def test_options_go_into_the_file_and_back(tmp_path):
    options = Options(fit="E_TPL", xmin_max=3.0, ks="two-sided", seed=7, farms_aspect=1.5)
    assert Options(**dataclasses.asdict(options)) == options
    assert options.method.fit == "TPL"
    assert options.method.fix_fingers == "xmin_peak"


def test_a_truth_value_of_numpy_is_one():
    assert Options(trust=np.bool_(True)).trust is True


BAD = [
    ({"fit": np.array(["PL", "TPL"])}, "fit is one of"),
    ({"trust": np.array([True])}, "trust is True or False"),
    ({"trust": 1}, "trust is True or False"),
    ({"replicates": 0}, "replicates"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**31}, "seed"),
    ({"farms_aspect": 0.5}, "farms_aspect"),
    ({"farms_windows": 0}, "farms_windows"),
    ({"fit": "LN"}, "fit is one of PL, TPL, E_TPL"),
    ({"free_alpha": "yes"}, "free_alpha"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=str)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(wwfunc.OptionError, match=words):
        Options(**options)


def test_command_line(digits_path, tmp_path):
    out = tmp_path / "rows.json"
    done = run(
        *("analyze", digits_path, "--trust", "--replicates", "30", "--seed", "4", "--farms"),
        *("--layers", "dense*", "--output", out),
    )
    assert done.returncode == 0, done.stderr
    assert "verdict" in done.stdout
    assert "farms_alpha" in done.stdout
    document = json.loads(out.read_text())
    assert document["options"]["seed"] == 4
    expected = wwfunc.analyze(
        digits_path, trust=True, replicates=30, seed=4, farms=True, layers="dense*"
    )
    for layer, record in zip(document["layers"], expected, strict=True):
        assert layer["p_value"] == record.p_value
        assert layer["verdict"] == record.verdict


def test_command_line_truncated_and_fingers(digits_path):
    done = run("analyze", digits_path, "--fit", "TPL", "--layers", "dense*")
    assert done.returncode == 0, done.stderr
    assert "Lambda" in done.stdout
    assert "truncated power law" in done.stdout
    assert "labels:" not in done.stdout
    clipped = run("analyze", digits_path, "--fix-fingers", "clip_xmax", "--max-fingers", "3")
    assert clipped.returncode == 0, clipped.stderr
    wrong = run("analyze", digits_path, "--fit", "TPL", "--fix-fingers", "clip_xmax")
    assert wrong.returncode == 1
    assert "clip_xmax" in wrong.stderr
