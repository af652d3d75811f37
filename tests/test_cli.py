"""The command line, as a user runs it: output, files, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from files import write
from safetensors.numpy import save_file

from wwfunc.cli import main


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


BAD_INPUT = {
    "missing": (["analyze", "nowhere.safetensors"], "cannot be read: No such file"),
    "suffix": (["analyze", "{digits}", "-o", "x.xlsx"], "the suffix is one of"),
    "folder": (["analyze", "{digits}", "-o", "nowhere/x.csv"], "no folder"),
    "selector": (["analyze", "{digits}", "--layers", "dens1"], "the nearest name is 'dense1'"),
    "value": (["analyze", "{digits}", "--xmin", "-3"], "xmin is a number above 0"),
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
