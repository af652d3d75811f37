"""What a hostile reviewer found once, and must not find again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from files import encoded, random_array, write
from threadpoolctl import threadpool_info

import wwfunc
from wwfunc.files import write_atomically
from wwfunc.tables import check_writable, write_table

W = np.random.default_rng(0).standard_t(3, (40, 30))


def test_float32_is_measured_in_float32_also_where_x64_is_on():
    with jax.enable_x64(True):
        inside = wwfunc.measure(W.astype(np.float32))
    scaled = wwfunc.measure(W.astype(np.float32), scale=np.sqrt(0.5))
    for found in (inside, scaled):
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("f4"), np.dtype("i4")}
        np.testing.assert_allclose(found.fit.alpha, wwfunc.measure(W).fit.alpha, rtol=1e-3)


@pytest.mark.parametrize("fit", ["PL", "TPL"])
def test_trust_in_float32_stays_there_where_x64_is_on(fit):
    options = wwfunc.Options(fit=fit, trust=True, replicates=19, farms=True)
    with jax.enable_x64(True):
        inside = wwfunc.measure(W.astype(np.float32), options)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(inside)} == {"float32", "int32", "bool"}


@pytest.mark.parametrize("seed", range(10))
def test_the_tail_that_was_found_is_the_tail_at_its_xmin(seed):
    esd = wwfunc.esd(np.random.default_rng(seed).standard_t(2, (40, 30)))
    found = wwfunc.fit_pl(esd)
    again = wwfunc.fit_pl(esd, xmin=float(found.xmin))
    np.testing.assert_allclose(
        [again.alpha, again.D, again.num_pl_spikes],
        [found.alpha, found.D, found.num_pl_spikes],
        rtol=1e-12,
    )


def test_d_has_no_derivative_and_does_not_fall():
    for options in ({}, {"xmin": 1.0}):
        gradient = jax.grad(lambda w, o=options: wwfunc.fit_pl(wwfunc.esd(w), **o).D)(
            W.astype(np.float32)
        )
        assert not gradient.any()


@pytest.mark.parametrize(("dtype", "factor"), [("f4", 1e-19), ("f4", 1e-25), ("f8", 1e-200)])
def test_squares_that_underflow_are_no_alpha(dtype, factor):
    small = (W * factor).astype(dtype)
    fit = wwfunc.measure(small, wwfunc.Options(threshold="relative")).fit
    assert int(fit.status) == wwfunc.Status.NOT_FINITE
    assert np.isnan(fit.alpha)


def test_analyze_tells_underflow_from_zero():
    status = wwfunc.analyze({"w": W * 1e-200}, threshold="relative").records[0].status
    assert "range of the precision" in status


def test_nan_among_eigenvalues_is_a_failed_fit():
    fit = wwfunc.fit_pl(np.r_[1 + np.random.default_rng(1).pareto(1.5, 99), np.nan])
    assert np.isnan(float(fit.alpha))


NO_NUMBERS = [None, "a", W * 1j, W.astype(object), np.ma.masked_greater(W, 0)]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("verb", [wwfunc.esd, wwfunc.fit_pl, wwfunc.measure])
def test_what_holds_no_real_numbers_is_refused(verb, value):
    with pytest.raises(wwfunc.InputError, match="must hold real numbers"):
        verb(value)


def test_a_long_name_keeps_nobody_busy(tmp_path):
    names = ["output_scale_" * 1000 + "!", "weight_" * 4000, "bias_" * 5000]
    arrays = {name: random_array("F32", (2, 2)) for name in names}
    start = time.process_time()
    analysis = wwfunc.describe(write(tmp_path / "x", encoded(arrays)))
    assert time.process_time() - start < 1.0
    assert {row.rule for row in analysis.coverage} == {"unknown"}


def test_finding_layers_is_linear():
    start = time.process_time()
    wwfunc.describe({f"w{i}": np.zeros((2, 2)) for i in range(10_000)})
    assert time.process_time() - start < 5.0


def test_flattened_names_of_flax():
    kernel = np.zeros((3, 3, 8, 16))
    for model in ({("p", "Conv_0", "kernel"): kernel}, {"p/Conv_0/kernel": kernel}):
        record = wwfunc.describe(model).records[0]
        assert (record.longname, record.kind, record.layer.rule) == (
            "p.Conv_0",
            "conv2d",
            "flax_conv",
        )


def test_runs_that_overlap_leave_blas_as_it_was():
    before = [library["num_threads"] for library in threadpool_info()]
    begun = threading.Event()

    def slow(*_):
        begun.set()
        time.sleep(0.3)

    one = threading.Thread(target=lambda: wwfunc.analyze({"w": W}, progress=slow))
    one.start()
    begun.wait()
    two = threading.Thread(
        target=lambda: wwfunc.analyze({"w": W}, progress=lambda *_: time.sleep(0.6))
    )
    two.start()
    one.join()
    two.join()
    assert [library["num_threads"] for library in threadpool_info()] == before


@pytest.mark.parametrize(
    ("column", "value"),
    [("alpha", 10**400), ("num_pl_spikes", 10**30), ("N", "x"), ("alpha", [1]), ("status", 3)],
)
def test_a_tampered_analysis_is_refused(column, value, tmp_path):
    path = tmp_path / "run.json"
    wwfunc.analyze({"w": W}).save(path)
    document = json.loads(path.read_text())
    document["layers"][0][column] = value
    path.write_text(json.dumps(document))
    with pytest.raises(wwfunc.AnalysisFileError):
        wwfunc.load_analysis(path)


def test_writing_keeps_permissions_and_follows_links(tmp_path):
    target = tmp_path / "target.csv"
    target.touch()
    target.chmod(0o660)  # more and less than the umask gives
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    write_table(wwfunc.describe({"w": W}), link)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o660
    assert target.stat().st_size > 100
    fresh = tmp_path / ("x" * 240 + ".csv")
    write_table(wwfunc.describe({"w": W}), fresh)
    mask = os.umask(0)
    os.umask(mask)
    assert fresh.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", ["pipe", "device", "circle"])
def test_only_regular_files_are_replaced(name, tmp_path):
    path = tmp_path / f"{name}.csv"
    if name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null" if name == "device" else path)
    with pytest.raises(wwfunc.OptionError, match=f"{name}.csv"):
        check_writable(path)
    if name != "device":  # were it replaced, the machine would be without it
        with pytest.raises(wwfunc.OptionError, match=f"{name}.csv"):
            write_atomically(path, Path.touch)
        assert not path.is_file()


def test_errors_of_writing_name_the_path_that_was_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"

    def full(beside):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*/x\.csv'"):
        write_atomically(path, full)

    def forbidden(beside, *_):
        raise PermissionError(13, "Permission denied", str(beside))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(wwfunc.OptionError, match=r"/x\.csv: cannot be written to: Permission"):
        write_atomically(path, Path.touch)


def test_a_name_is_shown_and_not_obeyed(tmp_path):
    arrays = {
        "\x1b[31mred.weight": random_array("F32", (9, 9)),
        "a[bold]日": random_array("F32", (9, 9)),
    }
    path = write(tmp_path / "x", encoded(arrays))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "wwfunc", "describe", path]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert b"\x1b" not in done.stdout
    assert rb"\x1b[31mred" in done.stdout
    assert rb"a[bold]\u65e5" in done.stdout


def test_a_closed_output_is_no_traceback(digits_path):
    command = f"{sys.executable} -m wwfunc describe {digits_path} >&-"
    done = subprocess.run(command, shell=True, capture_output=True, check=True)
    assert done.stderr == b""
