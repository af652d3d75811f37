"""The command line, as a user runs it: output, files, exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from files import write
from rich.console import Console
from safetensors.numpy import save_file

from wwfunc import Options, analyze
from wwfunc.cli import main, show
from wwfunc.cli.common import given_options
from wwfunc.cli.parser import build_parser
from wwfunc.cli.show import analysis_table
from wwfunc.options import make_options


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "wwfunc", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_analyze_prints_a_row_a_layer_and_a_summary(digits_path):
    done = run("analyze", digits_path)
    assert done.returncode == 0
    for name in ("conv1", "conv4", "dense1", "head"):
        assert name in done.stdout
    assert "9 layers, 9 with a fit: mean alpha" in done.stdout
    assert "coverage: 99.77% of 340,474 parameters" in done.stdout
    assert done.stderr == "", "no progress bar in a pipe"


def test_describe_reads_no_weights(digits_path):
    done = run("describe", digits_path)
    assert done.returncode == 0
    assert "192 x 160" in done.stdout
    assert "alpha" not in done.stdout


def test_output_files_and_quiet(digits_path, tmp_path):
    files = [tmp_path / f"rows.{suffix}" for suffix in ("csv", "json", "parquet")]
    flags = [flag for file in files for flag in ("--output", file)]
    done = run("analyze", digits_path, "--quiet", "--layers", "dense*", *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert all(file.stat().st_size > 100 for file in files)
    names = [layer["longname"] for layer in json.loads(files[1].read_text())["layers"]]
    assert names == ["dense1", "dense2", "dense3", "dense4"]


def test_selection_and_fit_options(digits_path, tmp_path, capsys):
    out = tmp_path / "rows.json"
    arguments = ["--layers", "-1", "--min-evals", "100", "--xmax", "-2", "--xmin-min", "0.01"]
    assert main(["analyze", str(digits_path), "-q", "-o", str(out), *arguments]) == 0
    document = json.loads(out.read_text())
    assert document["options"]["layers"] == [-1]
    assert document["options"]["xmax"] == -2
    by_name = {layer["longname"]: layer for layer in document["layers"]}
    assert "conv1" not in by_name
    assert by_name["head"]["status"] == "skipped: 10 eigenvalues, min_evals is 100"
    assert by_name["conv2"]["xmin"] >= 0.01


FLAGS = {
    "--seed 7": {"seed": 7},
    "--mp-fit": {"mp_fit": True},
    "--mp-method kde": {"mp_method": "kde"},
    "--randomize": {"randomize": True},
    "--detX": {"detX": True},
    "--vectors": {"vectors": True},
    "--ranks": {"ranks": True},
    "--deltas": {"deltas": True},
    "--no-pool": {"pool": False},
    "--inverse": {"inverse": True},
    "--glorot-fix": {"glorot_fix": True},
    "--conv2d-fft": {"conv2d_fft": 32},
    "--conv2d-fft 8": {"conv2d_fft": 8},
}


@pytest.mark.parametrize("flags", FLAGS)
def test_a_flag_is_an_option(flags):
    arguments = build_parser().parse_args(["analyze", "x", *flags.split()])
    assert make_options(**given_options(arguments)) == Options(**FLAGS[flags])


def test_every_option_has_a_flag():
    arguments = vars(build_parser().parse_args(["analyze", "x"]))
    assert {field.name for field in fields(Options)} - set(arguments) == {"engine"}
    assert given_options(Namespace(**arguments)) == {}


def test_views_on_the_command_line(digits_path, tmp_path):
    out = tmp_path / "rows.json"
    arguments = ["analyze", str(digits_path), "--layers", "conv2", "-o", str(out)]
    done = run(*arguments, "--no-pool", "--min-evals", "4", "--mp-fit")
    assert "conv2 [0]" in done.stdout
    assert "num_spikes" in done.stdout
    rows = json.loads(out.read_text())["layers"]
    assert [row["part"] for row in rows] == list("012345678")
    assert all(row["sigma_mp"] > 0 for row in rows)
    done = run(*arguments, "--conv2d-fft", "8")
    assert "conv2 [8 x 8]" in done.stdout
    (row,) = json.loads(out.read_text())["layers"]
    assert row["num_evals"] == 64 * row["M"]
    done = run("analyze", digits_path, "--layers", "conv2", "--conv2d-fft", "2")
    assert done.returncode == 1
    assert "failed: InputError: conv2d_fft=2 is smaller than the kernel, 3 x 3" in done.stderr


NAMES = ["encoder.layer.11.attention.output.dense", "features.3", "h.1000.mlp"]
ASKED = {
    "numbers": {},
    "trust": {"trust": True, "replicates": 19},
    "truncated": {"fit": "TPL"},
    "slices": {"pool": False},
}


@pytest.fixture(scope="module", params=ASKED)
def with_all_flags(request):
    rng = np.random.default_rng(3)
    shapes = [(300, 200), (24, 16, 3, 3), (30, 20)]
    model = {
        f"{name}.weight": rng.standard_normal(shape)
        for name, shape in zip(NAMES, shapes, strict=True)
    }
    flags = dict.fromkeys(
        ("mp_fit", "randomize", "detX", "vectors", "ranks", "deltas", "farms"), True
    )
    return analyze(model, **flags, **ASKED[request.param])


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
def test_a_table_with_all_flags_keeps_the_names(width, with_all_flags):
    """A column of numbers that finds no room is named under the table, none is cut."""
    lines = printed(analysis_table(with_all_flags, width), width)
    head = next(line for line in lines if "N x M" in line)
    assert {"id", "layer", "alpha"} <= set(head.split())
    assert "…" not in "".join(lines)
    names, rows = head.index("layer"), lines[lines.index(head) + 2 :]
    found = "".join(line[names : names + 14].strip() for line in rows)
    assert all(name[:14] in found for name in NAMES)
    text = " ".join(" ".join(lines).split())
    for flag, column in show.ASKED.items():
        assert getattr(with_all_flags.options, flag)
        assert (column in head.split()) != (column in text.partition("no room for")[2]), column
    enough = 160 if with_all_flags.options.fit == "PL" else 180
    assert ("no room for" in text) == (width < enough)


def test_a_table_without_flags_is_as_it_was(digits_path):
    analysis = analyze(digits_path)
    for width, last in ((80, "alpha"), (90, "D"), (120, "log_spectral_norm")):
        lines = printed(analysis_table(analysis, width), width)
        head = next(line for line in lines if "N x M" in line)
        assert head.split()[-2:] == [last, "label"]
        assert "no room for" not in " ".join(lines)


def test_a_table_without_rows():
    analysis = analyze({"bias": np.ones(3)}, randomize=True)
    assert "N x M" in "".join(printed(analysis_table(analysis, 80), 80))


def printed(table, width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(table)
    return console.file.getvalue().splitlines()


BAD_INPUT = {
    "missing": (["analyze", "nowhere.safetensors"], "cannot be read: No such file"),
    "suffix": (["analyze", "{digits}", "-o", "x.xlsx"], "the suffix is one of"),
    "folder": (["analyze", "{digits}", "-o", "nowhere/x.csv"], "no folder"),
    "selector": (["analyze", "{digits}", "--layers", "dens1"], "the nearest name is 'dense1'"),
    "value": (["analyze", "{digits}", "--xmin-min", "-3"], "--xmin-min is a number above 0"),
    "nothing": (["analyze", "{digits}", "--min-evals", "99999"], "nothing to analyse"),
    "format": (["analyze", __file__], "what is read is"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_1(case, digits_path, tmp_path):
    arguments, reason = BAD_INPUT[case]
    done = run(*[a.format(digits=digits_path) for a in arguments], "--quiet", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("wwfunc: ")
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["analyze"], ["nonsense"], ["analyze", "x", "--what"]])
def test_wrong_usage_is_exit_code_2(arguments):
    assert run(*arguments).returncode == 2


WRONG_VALUES = {
    "--xmax abc": "--xmax: an eigenvalue above 0",
    "--layers 0": "--layers: takes names and layer ids",
    "--threads 0": "--threads: a whole number from 1",
    "--conv2d-fft model.npz": "not 'model.npz'; give the file first, or --conv2d-fft=SIDE",
}


@pytest.mark.parametrize("flags", WRONG_VALUES)
def test_a_wrong_value_is_wrong_usage(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["analyze", *flags.split(), "x"])
    assert ended.value.code == 2
    assert WRONG_VALUES[flags] in capsys.readouterr().err


def test_help_and_version():
    assert "examples:" in run("--help").stdout
    assert run("--version").stdout.startswith("wwfunc ")


HEARING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from wwfunc.cli import entry_point
entry_point()
"""
"""In the background of a shell the suite ignores the interrupt, and its children would too."""


def test_interrupt_is_exit_code_130(tmp_path):
    rng = np.random.default_rng(0)
    layers = {f"l{i}.weight": rng.standard_normal((900, 900), np.float32) for i in range(60)}
    save_file(layers, tmp_path / "slow.safetensors")
    arguments = ["analyze", "slow.safetensors", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARING, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "slow.safetensors" not in maps.read_text():
        time.sleep(0.001)  # until the first layer is being read, and only then it is mapped
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "wwfunc: interrupted\n"


def test_a_reader_that_stops_early_is_no_traceback(digits_path):
    command = f"{sys.executable} -m wwfunc analyze {digits_path} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


def test_a_terminal_sees_progress(digits_path):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wwfunc", "analyze", str(digits_path)],
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while chunk := os.read(leader, 1 << 16):
            shown += chunk
    os.close(leader)
    assert process.wait(timeout=120) == 0
    assert b"reading" in shown
    assert b"/9" in shown


TRAINING = Path(__file__).parent / "fixtures" / "torch" / "training.pt"


def test_parts_that_were_left_out_are_named(tmp_path):
    for command in ("describe", "analyze"):
        done = run(command, TRAINING, "--min-evals", "1", cwd=tmp_path)
        assert "left out: optimizer_states (12 tensors); --key chooses a part" in done.stdout
    done = run("describe", TRAINING, "--min-evals", "1", "--key", "", cwd=tmp_path)
    assert "left out" not in done.stdout
    assert "optimizer_states" in run("describe", TRAINING, "--key", "nowhere", cwd=tmp_path).stderr


def test_advice_is_that_of_the_command_line(tmp_path):
    write(tmp_path / "x.pkl", b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.")
    done = run("analyze", tmp_path / "x.pkl", cwd=tmp_path)
    assert done.returncode == 1
    assert "posix.system" in done.stderr
    assert "tensors: --inert" in done.stderr
