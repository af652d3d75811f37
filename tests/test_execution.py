"""Running many layers: threads, engines, buckets, compiled programs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

import wwfunc
from wwfunc import execution

EXTRAS = ("mp_fit", "randomize", "detX", "vectors", "ranks", "deltas")


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    shapes = [(90, 60), (60, 90), (64, 64), (200, 12), (8, 8), (33, 20)]
    layers = {f"l{i}.weight": rng.standard_normal(shape) for i, shape in enumerate(shapes * 3)}
    return {**layers, "c.weight": rng.standard_normal((12, 10, 3, 3))}


def test_threads_and_batches_change_nothing(model, monkeypatch):
    one = wwfunc.analyze(model, threads=1).details
    pd.testing.assert_frame_equal(wwfunc.analyze(model, threads=4).details, one)
    monkeypatch.setattr(execution, "BATCH_SIDE", 1)
    pd.testing.assert_frame_equal(wwfunc.analyze(model).details, one)
    monkeypatch.setattr(execution, "LARGE_SIDE", 32)
    pd.testing.assert_frame_equal(wwfunc.analyze(model).details, one)


@pytest.mark.parametrize("view", [{}, {"pool": False}, {"conv2d_fft": 4}, {"inverse": True}])
def test_threads_and_batches_change_nothing_beside_options(view, model, monkeypatch):
    options = {**dict.fromkeys(EXTRAS, True), **view}
    one = wwfunc.analyze(model, threads=1, **options).details
    pd.testing.assert_frame_equal(wwfunc.analyze(model, threads=4, **options).details, one)
    monkeypatch.setattr(execution, "LARGE_SIDE", 32)
    pd.testing.assert_frame_equal(wwfunc.analyze(model, **options).details, one)


def test_engines_agree(model):
    host, jax = (wwfunc.analyze(model, engine=engine) for engine in ("host", "jax"))
    assert (host.provenance.engine, jax.provenance.engine) == ("host", "jax")
    for ours, theirs in zip(host.records, jax.records, strict=True):
        np.testing.assert_allclose(ours.evals, theirs.evals, rtol=0, atol=10 * ours.floor)
        np.testing.assert_allclose(ours.alpha, theirs.alpha, rtol=1e-8)


def test_progress_is_told_of_every_layer(model):
    seen = []
    wwfunc.analyze(model, progress=lambda done, total, name: seen.append((done, total, name)))
    assert [done for done, _, _ in seen] == list(range(1, len(model) + 1))
    assert {total for _, total, _ in seen} == {len(model)}
    assert {name for _, _, name in seen} == {name.removesuffix(".weight") for name in model}


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_usual_variables_are_respected(variable, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert execution.default_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv(variable, "1")
    assert execution.default_threads() == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_is_a_whole_number_from_1(threads, model):
    with pytest.raises(wwfunc.OptionError, match="threads"):
        wwfunc.analyze(model, threads=threads)


def test_buckets_hold_their_spectra():
    sizes = range(1, 5000, 7)
    assert all(execution.bucket(size) >= size for size in sizes)
    assert len({execution.bucket(size) for size in sizes}) == 4
    assert len({execution.bucket(size) for size in range(1, 200_000, 50)}) <= 6


PROGRAMS = {
    "none": ("{}", {}, 0),
    "eigenvalues": (
        "dict(mp_fit=True, detX=True, ranks=True, deltas=True)",
        {"extras_of": 2, "fit_bulk": 2},
        0,
    ),
    "kde": ("dict(mp_fit=True, mp_method='kde')", {"fit_bulk": 2}, 0),
    # Five shuffles of a small layer stand in a larger bucket than one of a large one.
    "shuffles": (
        "dict(mp_fit=True, randomize=True)",
        {"extras_of": 3, "fit_bulk": 2, "together": 2},
        13,
    ),
}
"""Options; in how many buckets the forty shapes need what these add; small programs of any shape:
conversions, the key of a layer."""


@pytest.mark.parametrize("case", PROGRAMS)
def test_forty_shapes_compile_no_more_programs_than_there_are_buckets(case):
    """Counted by JAX's own log, in a process that has compiled nothing before."""
    options, added, small = PROGRAMS[case]
    code = f"""
        options = {options}
    """
    code += """
        import logging
        import numpy as np
        import jax
        import wwfunc
        from wwfunc.execution import bucket

        compiled = []
        class Count(logging.Handler):
            def emit(self, record):
                if "Finished XLA compilation" in record.getMessage():
                    compiled.append(record.getMessage())
        jax.config.update("jax_log_compiles", True)
        logging.getLogger("jax").addHandler(Count())
        logging.getLogger("jax").propagate = False

        rng = np.random.default_rng(0)
        sides = [(30 + 9 * i, 20 + 7 * i) for i in range(40)]
        model = {f"l{i}.weight": rng.standard_normal(side) for i, side in enumerate(sides)}
        analysis = wwfunc.analyze(model, **options)
        assert len(analysis.measured) == 40
        print(len(compiled), len({bucket(min(side)) for side in sides}))
        print(*(name.split("jit(")[1].split(")")[0] for name in compiled), sep=chr(10))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    first, *names = done.stdout.splitlines()
    programs, buckets = map(int, first.split())
    assert programs == len(names)
    assert 1 <= names.count("measure_esd") <= buckets == 2
    for name, most in added.items():
        assert names.count(name) == most, name
    assert programs <= buckets + sum(added.values()) + small, names


def test_what_is_set_for_a_run_is_set_back(model):
    """Also when the run breaks off: BLAS threads, 64-bit mode."""

    def threads():
        return [library["num_threads"] for library in threadpool_info()]

    def interrupt(done, total, name):
        assert not jax.config.read("jax_enable_x64"), "a callback runs in the caller's mode"
        raise KeyboardInterrupt

    before = threads()
    with pytest.raises(KeyboardInterrupt):
        wwfunc.analyze(model, progress=interrupt)
    assert threads() == before
    assert not jax.config.read("jax_enable_x64")


def test_slices_too_large_to_go_together_go_alone(monkeypatch):
    kernel = {"c.weight": np.random.default_rng(2).standard_normal((12, 10, 3, 3))}
    together = wwfunc.analyze(kernel).records[0].evals
    monkeypatch.setattr("wwfunc.host._GRAM_ELEMENTS", 1)
    np.testing.assert_allclose(wwfunc.analyze(kernel).records[0].evals, together, rtol=1e-12)
