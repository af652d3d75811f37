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
    """A number of the result."""
    smooth: bool = True
    """Whether it has a derivative; resampling has none."""


RNG = np.random.default_rng(20)
RESAMPLED = np.exp(RNG.standard_normal(120))


def resampling(verb):
    return lambda evals: verb(evals, jax.random.key(0), replicates=20)


KEY = jax.random.key(3)
OTHER = np.random.default_rng(21)
MATRIX, SPECTRUM = OTHER.standard_t(4, (40, 30)), np.exp(2 * OTHER.standard_normal(120))


def square_fit(evals):
    """As of a square matrix, which has one eigenvalue at least."""
    some = evals if evals.size else np.zeros(1, evals.dtype)
    return wwfunc.mp_fit(some, some.size, some.size)


REGISTRY = {
    "esd": Verb(wwfunc.esd, RNG.standard_t(4, (40, 30)), lambda r: r.evals[-1]),
    "fit_pl": Verb(wwfunc.fit_pl, 1 + RNG.pareto(1.5, 300), lambda r: r.alpha),
    "fit_tpl": Verb(wwfunc.fit_tpl, 1 + RNG.gamma(0.7, 2.0, 300), lambda r: r.Lambda),
    "hill": Verb(wwfunc.hill, 1 + RNG.pareto(1.5, 300), lambda r: r.alpha),
    "hill_curve": Verb(wwfunc.hill_curve, 1 + RNG.pareto(1.5, 90), lambda r: r.alpha[30]),
    "farms": Verb(wwfunc.farms, RNG.standard_t(4, (40, 30)), lambda r: r.alpha),
    "bootstrap": Verb(resampling(wwfunc.bootstrap), RESAMPLED, lambda r: r.alpha_low, False),
    "goodness_of_fit": Verb(
        resampling(wwfunc.goodness_of_fit), RESAMPLED, lambda r: r.p_value, False
    ),
    "compare_alternatives": Verb(
        wwfunc.compare_alternatives, RESAMPLED, lambda r: r.lognormal.R, False
    ),
    "mp_fit": Verb(square_fit, SPECTRUM, lambda r: r.sigma),
    "mp_density": Verb(
        lambda x: wwfunc.mp_density(x, 1.0, 60, 40), np.linspace(5, 100, 40), lambda r: r[15]
    ),
    "bulk_edges": Verb(
        lambda s: wwfunc.bulk_edges(s, 60, 40), np.arange(1.0, 6), lambda r: r[1][2]
    ),
    "erg": Verb(wwfunc.erg, SPECTRUM, lambda r: r.detX_val),
    "shuffled": Verb(lambda W: wwfunc.shuffled(KEY, W), MATRIX, lambda r: r[0, 0]),
    "random_esd": Verb(lambda W: wwfunc.random_esd(KEY, W), MATRIX, lambda r: r.evals[-1]),
    "vector_metrics": Verb(wwfunc.vector_metrics, MATRIX, lambda r: r.part_ratio[-1], False),
    "ranks": Verb(wwfunc.ranks, SPECTRUM, lambda r: r.effective_rank),
    "spacings": Verb(wwfunc.spacings, SPECTRUM, lambda r: r.mean_ratio),
    "conv_esd": Verb(
        lambda kernel: wwfunc.conv_esd(kernel, 5),
        OTHER.standard_t(4, (3, 4, 5)),
        lambda r: r.evals[-1],
    ),
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

    numerical = ("spectrum", "onelayer", "fits.", "trust.", "randommatrix.", "vectors")
    numerical += ("softranks", "levels", "convolution")
    functions = {n for n, home in _HOMES.items() if home.startswith(numerical) and n.islower()}
    takes_no_array = {"null_alphas", "p_random", "gaussian_esd", "random_fits"}
    takes_no_array |= {"random_ranks", "random_vector"}
    on_the_host = {"analyze_traps"}
    assert functions == set(REGISTRY) | takes_no_array | on_the_host


def test_jit_changes_nothing(verb):
    with jax.enable_x64(True):
        close(jax.jit(verb.call)(verb.sample), verb.call(verb.sample), 1e-10)


def test_vmap_is_one_by_one(verb):
    stacked = np.stack([verb.sample, 2 * verb.sample, verb.sample[::-1]])
    with jax.enable_x64(True):
        together = jax.device_get(jax.vmap(verb.call)(stacked))
    for i, sample in enumerate(stacked):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], together), verb.call(sample), 1e-9)


@pytest.fixture(params=[name for name, verb in REGISTRY.items() if verb.smooth])
def smooth_verb(request):
    return REGISTRY[request.param]


def test_gradient_is_that_of_finite_differences(smooth_verb):
    verb = smooth_verb
    with jax.enable_x64(True):
        number = jax.jit(lambda sample: verb.scalar(verb.call(sample)))
        step = np.random.default_rng(1).standard_normal(verb.sample.shape)
        slope = np.vdot(jax.grad(number)(verb.sample), step)
        h = 1e-7
        secant = (number(verb.sample + h * step) - number(verb.sample - h * step)) / (2 * h)
    np.testing.assert_allclose(slope, secant, rtol=1e-5)
    assert abs(slope) > 1e-6


def test_float32_is_close_to_float64(smooth_verb):
    verb = smooth_verb
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
def test_gradients_of_odd_input_are_finite(smooth_verb, odd):
    verb = smooth_verb
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
FITS = ("tail", "powerlaw", "nearest", "truncated", "truncatedks", "hillestimator", "submatrices")
TRUST = ("alternatives", "lognormal", "stretched", "bootstrapping", "goodness", "statistics")
RANDOM = ("density", "marchenkopastur", "noisefit", "kernelfit", "randomised", "shuffling")
RANDOM += ("tracelog",)
MODULES = ["spectrum", "metrics", "measures", "onelayer", "extras", "vectors", "softranks"]
MODULES += [f"randommatrix.{name}" for name in RANDOM]
MODULES += [f"fits.{name}" for name in FITS] + [f"trust.{name}" for name in TRUST]
modules = [f"wwfunc.{name}" for name in MODULES]
with install_import_hook(modules, "beartype.beartype"):
    import wwfunc, wwfunc.measures
import jax, numpy as np
W = np.random.default_rng(0).standard_normal((40, 30))
for matrix in (W, W.astype(np.float32), np.stack([W, W])):
    wwfunc.measure(matrix)
for options in ({}, {"xmin": 3.0}, {"xmin_min": 2.0, "xmax": 40.0}, {"xmax": -3}):
    wwfunc.fit_pl(np.arange(1.0, 50), **options)
    wwfunc.fit_tpl(np.arange(1.0, 50), **options)
for fit in ("PL", "E_TPL"):
    wwfunc.measure(W, wwfunc.Options(fit=fit, trust=True, replicates=19, farms=True))
jax.jit(jax.vmap(wwfunc.measure))(np.stack([W, W]).astype(np.float32))
jax.grad(lambda w: wwfunc.measure(w).fit.alpha)(W.astype(np.float32))
try:
    wwfunc.spectrum.ESD(evals=np.ones(3), n=np.ones(2, np.int32), floor=np.ones(4))
except Exception as cause:
    print(type(cause).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "TypeCheckError\n"
