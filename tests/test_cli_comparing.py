"""`wwfunc distances`, `wwfunc compare` and `wwfunc analyze --base`: what they print and write."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from torch_files import storage, tensor, torch_zip

import wwfunc
from wwfunc.cli import main, show

RNG = np.random.default_rng(8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two fine-tunes of one model, and one of other layers."""
    folder = tmp_path_factory.mktemp("models")
    base = {"a.weight": RNG.standard_normal((50, 40)), "a.bias": np.zeros(50)}
    base["b.weight"] = RNG.standard_normal((30, 20))
    tuned = {name: array + 0.1 * RNG.standard_normal(array.shape) for name, array in base.items()}
    alone = {"x.weight": RNG.standard_normal((30, 20))}
    models = {"base": base, "tuned": {**tuned, "new.weight": base["b.weight"] + 1}, "alone": alone}
    for name, model in models.items():
        wwfunc.save(wwfunc.Checkpoint(model), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in models}


def test_distances(files, tmp_path, capsys):
    outputs = [tmp_path / f"rows.{suffix}" for suffix in ("csv", "json", "parquet")]
    arguments = [word for path in outputs for word in ("--output", str(path))]
    assert main(["distances", files["tuned"], files["base"], *arguments]) == 0
    found = wwfunc.distances(files["tuned"], files["base"])
    out = capsys.readouterr().out
    assert f"2 of 3 layers: mean delta_W {found.mean_W:.4g}, mean delta_b {found.mean_b:.4g}" in out
    assert "; 80.00% and 98.11% of the parameters" in out
    assert "skipped: no layer of this name in the other model" in out
    read = [
        pd.read_csv(outputs[0], dtype={"delta_W": str}),
        pd.DataFrame(json.loads(outputs[1].read_text())["rows"]),
        pd.read_parquet(outputs[2]),
    ]
    for frame in read:
        assert list(frame.columns) == list(found.details.columns)
        assert frame.name.tolist() == ["a", "b", "new"]
        assert float(frame.delta_W[0]) == found["a"].delta_W
        assert pd.isna(frame.delta_W[2])


def test_distances_by_method_and_layer(files, capsys):
    options = ["--method", "subspace", "--rank", "3", "--layers", "a"]
    assert main(["distances", files["tuned"], files["base"], *options]) == 0
    value = wwfunc.distances(files["tuned"], files["base"], "subspace", rank=3)["a"].delta_W
    out = capsys.readouterr().out
    assert f"{value:#.3g}" in out
    assert "1 of 1 layers" in out
    assert main(["distances", files["tuned"], files["base"], "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_key_is_for_those_that_hold_such_a_part(tmp_path, files, capsys):
    weights = wwfunc.load(files["base"])["b.weight"].read().astype(np.float32)
    stored = storage("FloatStorage", "0", weights.size)
    model = {"b.weight": tensor(stored, weights.shape)}
    path = tmp_path / "two.pt"
    torch_zip(path, {"ema": model, "model": model}, {"0": weights.tobytes()})
    chosen = [str(path), files["base"], "--layers", "b"]
    assert main(["distances", *chosen, "--key", "ema"]) == 0
    assert re.search(r"mean delta_W \d.*e-07;", capsys.readouterr().out)
    assert main(["analyze", str(path), "--key", "ema", "--base", files["tuned"]]) == 0
    assert main(["compare", files["tuned"], str(path), "--key", "ema"]) == 0
    capsys.readouterr()
    assert main(["distances", *chosen]) == 1
    assert "choose by --key" in capsys.readouterr().err
    assert main(["distances", files["tuned"], files["base"], "--key", "ema"]) == 1
    assert "has no option 'key'" in capsys.readouterr().err
    wwfunc.analyze(files["base"]).save(tmp_path / "run.json")
    assert main(["compare", str(tmp_path / "run.json"), "--key", "ema"]) == 1
    assert "--key chooses a part of a checkpoint" in capsys.readouterr().err


def test_compare(files, tmp_path, capsys):
    saved = tmp_path / "tuned.json"
    wwfunc.analyze(files["tuned"]).save(saved)
    models = [files["base"], str(saved), files["alone"]]
    out = tmp_path / "table.csv"
    assert main(["compare", *models, "--truth", "0.9,,0.7", "-o", str(out)]) == 0
    found = wwfunc.compare(
        [files["base"], wwfunc.load_analysis(saved), files["alone"]], truth=[0.9, float("nan"), 0.7]
    )
    frame = pd.read_csv(out)
    assert frame.label.tolist() == ["base", "tuned", "alone"]
    np.testing.assert_allclose(frame.alpha, found.table.alpha, rtol=1e-12)
    printed = capsys.readouterr().out
    assert "Kendall's tau with the truth" in printed
    for note in found.notes:
        assert f"note: {note}" in printed
    assert len(found.notes) == 2
    assert main(["compare", *models, "--labels", "a, b ,c"]) == 0
    printed = capsys.readouterr().out
    assert [word for word in ("a", "b", "c") if f" {word} " in printed] == ["a", "b", "c"]
    assert "Kendall" not in printed


def test_labels_count_changes_alone(files, capsys):
    assert main(["analyze", files["tuned"], "--base", files["base"], "--peft", "with_base"]) == 0
    out = capsys.readouterr().out
    changes = wwfunc.analyze(files["tuned"], base_model=files["base"])
    under = sum(record.warning == "under-trained" for record in changes)
    over = sum(record.warning == "over-trained" for record in changes)
    assert f"labels: {over} over-trained (alpha < 2), {under} under-trained" in out
    assert f", {2 - over - under} between" in out


def test_models_without_a_number_are_exit_code_1(tmp_path, capsys):
    path = tmp_path / "zero.safetensors"
    wwfunc.save(wwfunc.Checkpoint({"x.weight": np.zeros((30, 20))}), path)
    assert main(["compare", str(path)]) == 1
    assert capsys.readouterr().err == "wwfunc: no layer with a number in 1 model\n"


def test_names_of_strangers_in_progress(monkeypatch):
    """Neither markup nor control characters of a label are obeyed."""
    seen = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda *_, **done: seen.append(done))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with show.progress_bar(True) as progress:
        progress(1, 2, "[/red]\x1b[2J")
    assert seen[-1]["description"] == show.safe("[/red]\x1b[2J")
    assert "\x1b" not in seen[-1]["description"]


def test_analyze_with_a_base(files, tmp_path, capsys):
    out = tmp_path / "rows.json"
    options = ["--peft", "with_base", "--intruders", "--output", str(out)]
    assert main(["analyze", files["tuned"], "--base", files["base"], *options]) == 0
    assert "a [delta]" in capsys.readouterr().out
    found = wwfunc.load_analysis(out)
    assert found.provenance.base == files["base"]
    assert found.options.peft == "with_base"
    assert [record.part for record in found][:3] == ["base", "delta", "merged"]
    assert found.records[1].num_intruders == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distances", "{base}", "{alone}"], "no layer of the first model is one of the second"),
        (["distances", "{base}", "missing.safetensors"], "missing.safetensors"),
        (["analyze", "{alone}", "--base", "{base}"], "no layer of the model is one of the base"),
        (["analyze", "{base}", "--peft", "with_base"], "beside its base: give --base"),
        (["analyze", "{base}", "--intruders"], "--intruders=True looks at a change"),
        (["distances", "", "{base}"], "wwfunc: "),
        (["compare", "{base}", "--truth", "1,2"], "truth has 2 numbers for 1 models"),
        (["compare", "{base}", "{alone}", "--labels", "a,a"], "two models have the label 'a'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(arguments, words, files, capsys):
    assert main([argument.format(**files) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare"],
        ["distances", "a"],
        ["compare", "a", "--truth", "good"],
        ["distances", "a", "b", "--rank", "00"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "error:" in capsys.readouterr().err
