"""`wwfunc sharpen` and `wwfunc smooth`, as a user runs them: files, output, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import wwfunc
from wwfunc.cli import main
from wwfunc.transforms.models import sharpen, smooth


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def trapped(tmp_path):
    tensors = {
        "a.weight": gaussian(120, 80),
        "a.bias": gaussian(120),
        "b.weight": gaussian(100, 60, seed=1),
        "b.bias": gaussian(100),
        "steps": np.array(7),
    }
    tensors["a.weight"][11, 22] = 50.0
    save_file(tensors, tmp_path / "in.safetensors", {"format": "pt"})
    return tmp_path / "in.safetensors"


def test_smooth_writes_what_the_function_gives(digits_path, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    arguments = ["--keep", "20", "--layers", "dense1", "--layers", "head"]
    assert main(["smooth", str(digits_path), str(out), *arguments]) == 0
    expected = smooth(digits_path, 20, layers=["dense1", "head"])
    written = wwfunc.load(out)
    assert written.digest() == expected.digest() != wwfunc.load(digits_path).digest()
    assert written.metadata == expected.metadata
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dense1: kept 20 of ")
    assert "head: as it was: kept 10 of 10 singular values" in lines
    assert "conv1: as it was: not selected" in lines
    assert any(line.endswith("as they were: a bias") for line in lines)
    assert lines[-1] == f"1 of 9 layers changed, written to {out}"


def test_sharpen_writes_what_the_function_gives(trapped, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    before = trapped.read_bytes()
    assert main(["sharpen", str(trapped), str(out), "--seed", "3"]) == 0
    assert wwfunc.load(out).digest() == sharpen(trapped, seed=3).digest()
    old, new = load_file(trapped), load_file(out)
    assert np.argwhere(old["a.weight"] != new["a.weight"]).tolist() == [[11, 22]]
    assert new["a.weight"][11, 22] == 0
    for name in ("a.bias", "b.weight", "b.bias", "steps"):
        assert new[name].tobytes() == old[name].tobytes()
    assert dict(wwfunc.load(out).metadata) == {"format": "pt", "wwfunc": "Sharpening(seed=3)"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a: ")
    assert "1 element" in lines[0]
    assert lines[1].startswith("b: as it was: ")
    assert "2 as they were: a bias" in lines
    assert lines[-1] == f"1 of 2 layers changed, written to {out}"
    assert trapped.read_bytes() == before


@pytest.mark.parametrize(
    ("keep", "rank"), [("5", 5), ("-70", 10), ("0.5", 40), ("mp", 1), ("erg", None), ("pl", None)]
)
def test_everything_that_keep_can_be(keep, rank, tmp_path):
    u, v = gaussian(120, 1, seed=1), gaussian(80, 1, seed=2)
    save_file({"w": gaussian(120, 80) + u @ v.T}, tmp_path / "in.safetensors")
    out = tmp_path / "out.npz"
    arguments = ["smooth", str(tmp_path / "in.safetensors"), str(out), f"--keep={keep}"]
    assert main([*arguments, "--quiet"]) == 0
    found = np.linalg.matrix_rank(np.load(out)["w"].astype(np.float64), tol=1e-3)
    assert found == rank if rank else 0 < found < 80


def test_quiet_and_separate_minus(digits_path, tmp_path, capsys):
    out = str(tmp_path / "out.safetensors")
    assert main(["smooth", str(digits_path), out, "--keep", "-2", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_key_chooses_the_part_of_a_file(digits_path, tmp_path, capsys):
    out = str(tmp_path / "out.safetensors")
    assert main(["smooth", str(digits_path), out, "--keep", "2", "--key", "ema"]) == 1
    assert "has no option 'key'" in capsys.readouterr().err


ADAPTER = str(Path(__file__).parent / "fixtures" / "lora" / "plain")
BAD_INPUT = {
    "missing": (["nowhere.safetensors", "out.npz"], "No such file"),
    "format": (["{in}", "out.pt"], "name a file that ends so, 'out.safetensors'"),
    "folder": (["{in}", "no/out.npz"], "no folder"),
    "itself": (["{in}", "{in}"], "read from this file"),
    "selector": (["{in}", "out.npz", "--layers", "aa"], "no layer fits 'aa'"),
    "no name": (["{in}", "out.npz", "--layers=--3"], "no layer fits '--3'"),
    "all left out": (["{in}", "out.npz", "--layers=a", "--layers=-1"], "--layers=['a', -1] leaves"),
    "adapter": ([ADAPTER, "out.npz"], "a dense weight; merge it into the weight first"),
    "no layer": (["biases.safetensors", "out.npz"], "no layer in 1 tensors; the first reason: a b"),
}


@pytest.mark.parametrize("command", [["sharpen"], ["smooth", "--keep=2"]], ids=lambda c: c[0])
@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_1(
    case, command, trapped, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    save_file({"a.bias": np.ones(3)}, "biases.safetensors")
    before = sorted(tmp_path.iterdir())
    arguments, reason = BAD_INPUT[case]
    assert main([*command, *[a.format(**{"in": trapped}) for a in arguments]]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("wwfunc: ")
    assert reason in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("keep", ["0", "1.0", "1.5", "nan", "MP"])
def test_a_wrong_keep_is_wrong_usage(keep, trapped, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["smooth", str(trapped), str(tmp_path / "o.npz"), "--keep", keep])
    assert ended.value.code == 2
    assert "argument --keep: a count (negative: take out" in capsys.readouterr().err
    assert not (tmp_path / "o.npz").exists()


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


OUTPUTS = {"no reader": (closed_pipe, []), "no room": (full_disk, ["No space left on device"])}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_that_fails_is_one_line_or_none(case, unbuffered, trapped, tmp_path):
    opened, words = OUTPUTS[case]
    output = opened()
    done = subprocess.run(
        [sys.executable, "-m", "wwfunc", "smooth", str(trapped), "o.npz", "--keep=2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(output)
    assert done.returncode == 1
    assert [line.partition("] ")[2] for line in done.stderr.splitlines()] == words


@pytest.mark.parametrize("command", [["sharpen"], ["smooth", "--keep=2"]], ids=lambda c: c[0])
def test_where_every_layer_fails_it_says_so(command, tmp_path, capsys):
    save_file({"w": np.full((9, 9), np.nan)}, tmp_path / "in.safetensors")
    paths = [str(tmp_path / name) for name in ("in.safetensors", "out.safetensors")]
    assert main([*command, *paths, "--quiet"]) == 1
    assert "out.safetensors is a copy: no layer changed; w: " in capsys.readouterr().err
    assert wwfunc.load(paths[1]).digest() == wwfunc.load(paths[0]).digest()


def test_names_of_strangers_do_not_reach_the_terminal(tmp_path, capsys):
    save_file({"\x1b[31mw": gaussian(9, 9)}, tmp_path / "in.safetensors")
    paths = [str(tmp_path / name) for name in ("in.safetensors", "out.safetensors")]
    assert main(["smooth", *paths, "--keep", "2"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["sharpen", "a"], ["smooth", "a", "b"], ["smooth", "-k"]])
def test_wrong_usage_is_exit_code_2(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_help_imports_no_numbers():
    code = """
import sys
from wwfunc.cli.parser import build_parser
for command in ("sharpen", "smooth"):
    try:
        build_parser().parse_args([command, "--help"])
    except SystemExit as ended:
        assert ended.code == 0
print([m for m in ("jax", "numpy", "scipy", "wwfunc.transforms.models") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--keep" in done.stdout
