"""Several models in one table: their averages, their order, and what may be said of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import wwfunc
from wwfunc import InputError, OptionError
from wwfunc.columns import SUMMARY
from wwfunc.comparison.labelled import _name
from wwfunc.comparison.manymodels import ACROSS, CHANGES, OPTIONS, SIZES
from wwfunc.comparison.rankcorrelation import holm, kendall

RNG = np.random.default_rng(31)


def dense(scale, *shapes):
    return {f"l{i}.weight": scale * RNG.standard_normal(shape) for i, shape in enumerate(shapes)}


MODELS = {str(s): dense(s, (50, 40), (40, 30)) for s in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}


@pytest.fixture(scope="module")
def found():
    return wwfunc.compare(
        MODELS, truth={"1.0": 0.1, "2.0": 0.3, "3.0": 0.2, "4.0": 0.4, "6.0": 0.9}
    )


def test_a_row_is_the_summary_of_the_model(found):
    table = found.table.set_index("label")
    for label, model in MODELS.items():
        summary = wwfunc.analyze(model).summary
        for name, value in summary.items():
            assert table.loc[label, name] == pytest.approx(value, rel=1e-12), name
    assert table.truth["3.0"] == 0.2
    assert math.isnan(table.truth["5.0"])
    assert [row.label for row in found] == list(MODELS)
    assert len(found) == 6


def test_correlations_are_those_of_the_known_ones(found):
    """The norms of these grow with the scale, so their order is 1, 3, 2, 4, 5 for the truth."""
    assert set(found.correlations) == set(SUMMARY)
    norm = found.correlations["log_norm"]
    assert (norm.tau, norm.n) == (pytest.approx(0.8), 5)
    expected = kendall([1, 2, 3, 4, 6], [0.1, 0.3, 0.2, 0.4, 0.9])
    assert norm == expected
    frame = found.correlation_table.set_index("metric")
    assert frame.tau["log_norm"] == expected.tau
    np.testing.assert_allclose(frame.p_holm, holm(list(frame.p)))
    assert (frame.p_holm >= frame.p).all()


def test_without_a_truth_there_are_no_correlations():
    plain = wwfunc.compare(list(MODELS.values())[:2])
    assert not plain.has_truth
    assert plain.correlations == {}
    assert plain.correlation_table.empty
    assert plain.notes == []
    assert [row.label for row in plain] == ["model 1", "model 2"]


def test_what_may_not_be_said():
    wide = dense(1.0, (60, 40), (40, 30))
    conv = {"c.weight": RNG.standard_normal((16, 12, 3, 3))}
    alike = wwfunc.compare(list(MODELS.values()))
    assert alike.notes == []
    assert wwfunc.compare([MODELS["1.0"], wide]).notes == [SIZES]
    across = wwfunc.compare([wide, conv], truth=[1, 2])
    assert across.notes[0] == ACROSS
    assert across.notes[1].startswith("2 models with a known truth")
    assert len(across.notes) == 2


def test_analyses_are_taken_as_they_are(tmp_path):
    analysis = wwfunc.analyze(MODELS["2.0"], layers="l0")
    found = wwfunc.compare([analysis, MODELS["2.0"]], labels=["first layer", "both"])
    assert [row.summary["num_layers"] for row in found] == [1, 2]
    assert found.notes == [SIZES, OPTIONS]
    wwfunc.save(wwfunc.Checkpoint(MODELS["1.0"]), tmp_path / "small.safetensors")
    named = wwfunc.compare([tmp_path / "small.safetensors"], layers="l1")
    assert [(row.label, row.summary["num_layers"]) for row in named] == [("small", 1)]
    twice = wwfunc.compare([tmp_path / "small.safetensors"] * 2)
    assert [row.label for row in twice] == ["1 small", "2 small"]


def test_an_option_is_for_every_model():
    found = wwfunc.compare(MODELS, xmin=5.0)
    for label, model in MODELS.items():
        expected = wwfunc.analyze(model, xmin=5.0).summary["alpha"]
        own = next(row for row in found if row.label == label).summary["alpha"]
        assert own == expected or (math.isnan(own) and math.isnan(expected))


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        ([], {}, "no models"),
        ("model.safetensors", {}, "not a str"),
        (5, {}, "not a int"),
        ([{}], {}, "no named arrays"),
        ({"x.weight": np.eye(9)}, {}, "this is one model"),
        (wwfunc.Checkpoint({"x.weight": np.eye(9)}), {}, "not a Checkpoint"),
    ],
)
def test_models_are_checked(models, options, words):
    with pytest.raises(InputError, match=words):
        wwfunc.compare(models, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ["a"]}, "1 labels for 2 models"),
        ({"labels": ["a", "a"]}, "two models have the label 'a'"),
        ({"truth": [1.0]}, "truth has 1 numbers for 2 models"),
        ({"truth": 5}, "truth is a list with one for each model"),
        ({"truth": np.array(5.0)}, "truth is a list with one for each model"),
        ({"truth": "12"}, "truth is a list with one for each model"),
        ({"truth": {1.0, 2.0}}, "truth is a list with one for each model"),
        ({"truth": [10**400, 1]}, "truth is a number for each model"),
        ({"labels": "ab"}, "labels is a list with one for each model"),
        ({"labels": 5}, "labels is a list with one for each model"),
        ({"progress": 5}, "progress="),
        ({"truth": {"x": 1.0}}, "truth is known of 'x'"),
        ({"truth": ["good", "bad"]}, "truth is a number for each model"),
        ({"alphas": 3}, "no option 'alphas'"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(OptionError, match=words):
        wwfunc.compare([MODELS["1.0"], MODELS["2.0"]], **options)
    if "labels" not in options:
        with pytest.raises(OptionError, match="a mapping has its own"):
            wwfunc.compare(MODELS, labels=list("abcdef"))


def test_labels_are_text_and_each_is_one_models():
    one, two = MODELS["1.0"], MODELS["2.0"]
    found = wwfunc.compare({1: one, 2: two}, truth={2: 0.8, 1: 0.7})
    assert [(row.label, row.truth) for row in found] == [("1", 0.7), ("2", 0.8)]
    with pytest.raises(OptionError, match="two models have the label '1'"):
        wwfunc.compare({1: one, "1": two})


def test_a_series_by_label():
    models = {label: MODELS[label] for label in ("1.0", "2.0", "3.0")}
    truth = pd.Series({"3.0": 3, "1.0": 1, "2.0": 2})
    assert [row.truth for row in wwfunc.compare(models, truth=truth)] == [1, 2, 3]
    other = pd.Series([1, 2, np.inf])
    assert [row.truth for row in wwfunc.compare(models, truth=other)][:2] == [1, 2]
    assert math.isnan(wwfunc.compare(models, truth=other).rows[2].truth)


@pytest.mark.parametrize(
    ("labels", "order"),
    [([2, 1, 0], [0, 1, 2]), (["2", "0", "1"], [1, 2, 0])],
)
def test_a_series_is_taken_by_its_labels_as_text(labels, order):
    models = dict(enumerate(list(MODELS.values())[:3]))
    truth = pd.Series([0.1, 0.2, 0.3], index=labels)
    expected = [dict(zip(map(str, labels), truth, strict=True))[str(n)] for n in range(3)]
    assert [row.truth for row in wwfunc.compare(models, truth=truth)] == expected


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (pd.Series([1.0, 2.0], index=["a", "z"]), "known of 'z'"),
        (pd.Series([1.0, 2.0, 3.0], index=["a", "a", "b"]), "truth has 'a' twice"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]}), "a Series, not a table"),
    ],
)
def test_a_truth_that_could_be_misread(truth, words):
    models = dict(zip("ab", MODELS.values(), strict=False))
    with pytest.raises(OptionError, match=words):
        wwfunc.compare(models, truth=truth)


def test_labels_of_files_and_folders(tmp_path):
    paths = [tmp_path / "pythia-1.4b", tmp_path / "pythia-1.0b"]
    for path in paths:
        path.mkdir()
        wwfunc.save(wwfunc.Checkpoint(MODELS["1.0"]), path / "model.safetensors")
    wwfunc.save(wwfunc.Checkpoint(MODELS["1.0"]), tmp_path / "one.safetensors")
    found = wwfunc.compare([*paths, tmp_path / "one.safetensors"])
    assert [row.label for row in found] == ["pythia-1.4b", "pythia-1.0b", "one"]
    assert _name(tmp_path / "model.safetensors.index.json") == "model"


def test_changes_are_not_averaged_as_weights_are():
    base, model = MODELS["1.0"], MODELS["2.0"]
    change = wwfunc.analyze(model, base_model=base)
    assert wwfunc.compare([change, model]).notes == [CHANGES]
    parts = wwfunc.analyze(model, base_model=base, peft="with_base")
    assert wwfunc.compare([parts, change]).notes == [OPTIONS]


def test_rounding_orders_nothing():
    W = RNG.standard_normal((40, 30))
    models = [{"x.weight": W * scale} for scale in (1, 2.2, 3.7, 0.31, 5.3, 7.1)]
    found = wwfunc.compare(models, truth=[1, 2, 3, 4, 5, 6])
    assert len({row.summary["alpha"] for row in found}) > 1
    assert math.isnan(found.correlations["alpha"].tau)
    assert found.correlations["log_norm"].tau == pytest.approx(9 / 15)


def test_options_need_a_model_to_measure():
    analysis = wwfunc.analyze(MODELS["1.0"])
    with pytest.raises(OptionError, match="these were analysed before"):
        wwfunc.compare([analysis], fit="TPL")


def test_progress():
    seen = []
    wwfunc.compare(dict(list(MODELS.items())[:2]), progress=lambda *done: seen.append(done))
    assert seen == [(1, 2, "1.0"), (2, 2, "2.0")]
