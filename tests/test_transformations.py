"""Every public numerical function under jit, vmap, grad, both precisions, and odd input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import wwfunc


class Verb(NamedTuple):
    call: Callable[[Any], Any]
    sample: np.ndarray
    scalar: Callable[[Any], Any]
    """A number of the result that has a derivative."""


RNG = np.random.default_rng(20)
REGISTRY = {
    "esd": Verb(wwfunc.esd, RNG.standard_t(4, (40, 30)), lambda r: r.evals[-1]),
    "fit_pl": Verb(wwfunc.fit_pl, 1 + RNG.pareto(1.5, 300), lambda r: r.alpha),
    "measure": Verb(wwfunc.measure, RNG.standard_t(4, (40, 30)), lambda r: r.scale.stable_rank),
}
ODD = {
    "empty": lambda sample: sample[:0],
    "one element": lambda sample: sample[(slice(0, 1),) * sample.ndim],
    "NaN": lambda sample: np.where(sample == sample.flat[3], np.nan, sample),
    "infinity": lambda sample: np.where(sample == sample.flat[3], np.inf, sample),
    "zero": np.zeros_like,
    "constant": np.ones_like,
}


def close(found, expected, rtol):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@pytest.fixture(params=REGISTRY)
def verb(request):
    return REGISTRY[request.param]


def test_registry_names_every_public_numerical_function():
    from wwfunc import _HOMES

    numerical = {"spectrum", "powerlaw", "measures"}
    functions = {name for name, home in _HOMES.items() if home in numerical and name.islower()}
    assert functions == set(REGISTRY)


def test_jit_changes_nothing(verb):
    with jax.enable_x64(True):
        close(jax.jit(verb.call)(verb.sample), verb.call(verb.sample), 1e-10)


def test_vmap_is_one_by_one(verb):
    stacked = np.stack([verb.sample, 2 * verb.sample, verb.sample[::-1]])
    with jax.enable_x64(True):
        together = jax.device_get(jax.vmap(verb.call)(stacked))
    for i, sample in enumerate(stacked):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], together), verb.call(sample), 1e-9)


def test_gradient_is_that_of_finite_differences(verb):
    with jax.enable_x64(True):
        number = jax.jit(lambda sample: verb.scalar(verb.call(sample)))
        step = np.random.default_rng(1).standard_normal(verb.sample.shape)
        slope = np.vdot(jax.grad(number)(verb.sample), step)
        h = 1e-7
        secant = (number(verb.sample + h * step) - number(verb.sample - h * step)) / (2 * h)
    np.testing.assert_allclose(slope, secant, rtol=1e-5)
    assert abs(slope) > 1e-6


def test_float32_is_close_to_float64(verb):
    single = verb.call(verb.sample.astype(np.float32))
    double = verb.call(verb.sample)
    assert verb.scalar(single).dtype == np.float32
    assert verb.scalar(double).dtype == np.float64
    np.testing.assert_allclose(verb.scalar(single), verb.scalar(double), rtol=1e-3)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_odd_input_never_raises(verb, odd, dtype):
    sample = ODD[odd](verb.sample).astype(dtype)
    eager = verb.call(sample)
    with jax.enable_x64(dtype == np.float64):
        close(jax.jit(verb.call)(sample), eager, 1e-5)


@pytest.mark.parametrize("odd", ["zero", "constant"])
def test_gradients_of_odd_input_are_finite(verb, odd):
    sample = ODD[odd](verb.sample).astype(np.float32)
    total = jax.grad(
        lambda s: sum(
            jax.numpy.sum(jax.numpy.where(jax.numpy.isfinite(leaf), leaf, 0.0))
            for leaf in jax.tree.leaves(verb.call(s))
            if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        )
    )(sample)
    assert np.isfinite(total).all()


def test_nobody_elses_settings_are_touched():
    before = jax.config.values.copy()
    for verb in REGISTRY.values():
        verb.call(verb.sample)
    assert jax.config.values == before
    assert (jax.numpy.ones(2) * 1.0).dtype == np.float32


def test_shapes_are_what_the_annotations_say():
    """jaxtyping's annotations, checked at run time by beartype."""
    code = """
from jaxtyping import install_import_hook
modules = [f"wwfunc.{name}" for name in ("spectrum", "tail", "powerlaw", "metrics", "measures")]
with install_import_hook(modules, "beartype.beartype"):
    import wwfunc, wwfunc.measures
import jax, numpy as np
W = np.random.default_rng(0).standard_normal((40, 30))
for matrix in (W, W.astype(np.float32), np.stack([W, W])):
    wwfunc.measure(matrix)
for options in ({}, {"xmin": 3.0}, {"xmin_min": 2.0, "xmax": 40.0}, {"xmax": -3}):
    wwfunc.fit_pl(np.arange(1.0, 50), **options)
jax.jit(jax.vmap(wwfunc.measure))(np.stack([W, W]).astype(np.float32))
jax.grad(lambda w: wwfunc.measure(w).fit.alpha)(W.astype(np.float32))
try:
    wwfunc.spectrum.ESD(evals=np.ones(3), n=np.ones(2, np.int32), floor=np.ones(4))
except Exception as cause:
    print(type(cause).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "TypeCheckError\n"
