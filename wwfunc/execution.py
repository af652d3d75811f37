"""Measures many layers: eigenvalues in worker threads, fits in padded buckets beside them."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from wwfunc import host, spectra, vectors
from wwfunc.errors import OptionError
from wwfunc.extras import bulks_of, extras_of, shape_of, vectors_of, wanted
from wwfunc.fits.submatrices import FarmsFit, count_windows, farms_of, window_sides
from wwfunc.fits.tail import limits_of
from wwfunc.keys import layer_key
from wwfunc.layers.layer import Layer, Task
from wwfunc.lowrank import LowRank
from wwfunc.measures import Measures, measure_esd
from wwfunc.options import Options
from wwfunc.pytrees import Array
from wwfunc.randommatrix.marchenkopastur import MPFit, fit_bulk
from wwfunc.randommatrix.randomvectors import random_vector
from wwfunc.randommatrix.shuffling import Shuffles
from wwfunc.randommatrix.slices import Slices, together
from wwfunc.records import LayerRecord
from wwfunc.spectra import Spectrum
from wwfunc.spectrum import ESD
from wwfunc.status import Status, sentence
from wwfunc.trust.null import null_quantiles
from wwfunc.trust.statistics import Trust, trust_of

SMALLEST_BUCKET = 256
SMALLEST_TRUSTED_BUCKET = 1024
"""The programs behind trust take seconds to compile and skip padding: small spectra share one."""
BUCKET_RATIO = 4
LARGE_SIDE = 1024
"""From this smaller side on, BLAS's own threads serve a layer better than a thread a layer."""
BATCH_SIDE = 1024
"""Small layers of one size go to LAPACK together until their sides add up to this: NumPy holds
the interpreter lock through a call on one small matrix, but not through one on a stack."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_ONE_AT_A_TIME = threading.RLock()
"""BLAS has one number of threads for the whole process: runs from several threads take turns."""

_measure_once = jax.jit(
    measure_esd,
    static_argnames="method",
    compiler_options={"xla_backend_optimization_level": 0},
)
"""`measure_esd`, compiled in two thirds of the time to run a millisecond longer: a model has too
few layers to win that back by a power law's fit. A truncated one's takes long enough."""

Report = Callable[[LayerRecord], None]


def measure_all(
    tasks: Sequence[Task], options: Options, threads: int | None, report: Report
) -> None:
    """Report a record for each task as soon as it is measured, in any order."""
    threads = default_threads() if threads is None else _checked(threads)
    small = [task for task in tasks if task.layer.M < LARGE_SIDE]
    large = [task for task in tasks if task.layer.M >= LARGE_SIDE]
    on_host = engine(options) == "host"
    compute = partial(spectra.on_host if on_host else spectra.on_device, options=options)
    with _ONE_AT_A_TIME:
        with threadpool_limits(1, "blas"):
            _run(_batches(small), compute, threads if on_host else 1, options, report)
        with threadpool_limits(threads, "blas"):
            _run([[task] for task in large], compute, 1, options, report)


def default_threads() -> int:
    """The processors that this process may use, or fewer where a usual variable says so."""
    limits = [int(v) for v in map(os.environ.get, _THREAD_VARIABLES) if v and v.isdecimal()]
    return max(1, min([_processors(), *[limit for limit in limits if limit > 0]]))


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows have no affinity to ask for


def _checked(threads: int) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise OptionError(f"threads is a whole number from 1, not {threads!r}")
    return threads


def engine(options: Options) -> str:
    """Where eigenvalues are computed: on the host unless JAX runs on an accelerator."""
    if options.engine != "auto":
        return options.engine
    return "host" if jax.default_backend() == "cpu" else "jax"


def bucket(size: int, smallest: int = SMALLEST_BUCKET) -> int:
    """The padded size of a spectrum. A program is compiled for each, so they are far apart.

    Padding costs little: the scan for xmin skips it.
    """
    padded = smallest
    while padded < size:
        padded *= BUCKET_RATIO
    return padded


def _run(
    batches: Sequence[Sequence[Task]],
    compute: Callable[[Sequence[Task]], list[Spectrum]],
    threads: int,
    options: Options,
    report: Report,
) -> None:
    """Spectra in `threads` workers; fits, and what they compile, in this thread meanwhile.

    The resampling behind trust takes longer than a spectrum: it goes to the workers too.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="wwfunc")
    resampled = []
    try:
        for future in as_completed([pool.submit(compute, batch) for batch in batches]):
            for spectrum in future.result():
                if options.trust:
                    resampled.append(pool.submit(_record, spectrum, options))
                else:
                    report(_record(spectrum, options))
        for done in as_completed(resampled):
            report(done.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(tasks: Sequence[Task]) -> list[list[Task]]:
    """Layers of the same smaller side together, the most costly batches first."""
    by_side: defaultdict[int, list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=_cost, reverse=True):
        by_side[task.layer.M].append(task)
    batches: list[list[Task]] = []
    for side, group in by_side.items():
        filled = BATCH_SIDE
        for task in group:
            if filled >= BATCH_SIDE:
                batches.append([])
                filled = 0
            batches[-1].append(task)
            filled += side * task.layer.rf
    return sorted(batches, key=lambda batch: -sum(map(_cost, batch)))


def _cost(task: Task) -> int:
    layer = task.layer
    return layer.rf * layer.M**2 * (layer.N + 10 * layer.M)


def _record(spectrum: Spectrum, options: Options) -> LayerRecord:
    layer = spectrum.task.layer
    if spectrum.esd is None:
        return LayerRecord(layer=layer, status=spectrum.failure, measures=None)
    try:
        measures = _measure(spectrum, spectrum.esd, options)
    except Exception as cause:  # as for spectra: other rows are not lost to the fault of one
        failure = f"failed: {type(cause).__name__}: {cause}"
        return LayerRecord(layer=layer, status=failure, measures=None)
    codes = int(measures.fit.status), int(measures.scale.status)
    if Status.NOT_FINITE in codes:  # without a spectrum not even a rank is known
        return LayerRecord(layer=layer, status=sentence(*codes), measures=None)
    status = "; ".join([sentence(*codes), *_failures(measures, codes), *_remarks(spectrum.task)])
    return LayerRecord(layer=layer, status=status, measures=measures)


def _failures(measures: Measures, known: tuple[int, ...]) -> Iterator[str]:
    """Parts that failed while others did not, and why."""
    for option, part in {"mp_fit": "mp", "randomize": "rand_mp", "detX": "erg"}.items():
        found = getattr(measures, part)
        if found is not None and (code := Status(int(found.status))).failed and code not in known:
            yield f"{option} {code.sentence}"


def _remarks(task: Task) -> Iterator[str]:
    """What a reader of the numbers must know."""
    if isinstance(task.handle, LowRank) and task.handle.remark:
        yield task.handle.remark


def _measure(spectrum: Spectrum, own: ESD, options: Options) -> Measures:
    """Everything that follows from the spectrum, by the programs of its bucket."""
    with jax.enable_x64(True):
        smallest = SMALLEST_TRUSTED_BUCKET if options.trust else SMALLEST_BUCKET
        padded = host.padded(own, bucket(own.evals.size, smallest))
        quick = options.fit == "PL" and engine(options) == "host"
        program = _measure_once if quick else measure_esd
        measures = program(padded, limits_of(options), method=options.method)
        extras = _extras(spectrum, measures, padded, options)
        if options.trust:
            extras["trust"] = _trust(spectrum.task, measures, options)
        if spectrum.windows is not None:
            extras["farms"] = _farms(spectrum.task.layer, spectrum.windows, options)
        measured: Measures = jax.device_get(replace(measures, **extras))
    return replace(measured, esd=host.unpadded(measured.esd) if options.inverse else own)


def _extras(
    spectrum: Spectrum, measures: Measures, padded: ESD, options: Options
) -> dict[str, Any]:
    """The parts that the options ask for; those about matrices not of an operator on a grid."""
    asked, task, slices = wanted(options), spectrum.task, spectrum.slices
    found: dict[str, Any] = {"change": spectrum.change}
    shuffles = spectrum.shuffles and _padded(spectrum.shuffles, padded.evals.size)
    shape = None if task.grid else shape_of(task.layer.N, task.layer.M, task.layer.rf)
    if asked is not None:
        shuffled = shuffles and (shuffles.first, shuffles.every)
        found |= extras_of(padded, measures.fit, shuffled, shape, asked)
    if shape is not None:
        found |= bulks_of(padded, slices, shuffles, shape, options.mp_method, _fit_slices)
    if spectrum.localization is not None:
        localization = vectors.padded(spectrum.localization, padded.evals.size)
        found["vectors"] = vectors_of(localization, measures.fit, options.inverse)
        found["random_vector"] = random_vector(task.layer.M)
    return found


def _padded(shuffles: Shuffles, size: int) -> Shuffles:
    every = host.padded(shuffles.every, max(size, bucket(shuffles.every.evals.size)))
    return replace(shuffles, first=host.padded(shuffles.first, size), every=every)


def _fit_slices(slices: Slices, pooled: ESD, tw: Float[Array, ""]) -> MPFit:
    """`fit_slices` by one program for all numbers of slices."""
    each = fit_each(slices, tw)
    if len(slices.n) == 1 and slices.m[0] == slices.esd.evals.size:
        return jax.tree.map(lambda leaf: leaf[0], each)  # nothing is left out: it is the layer's
    return together(each, slices.n, slices.m, pooled)


def fit_each(slices: Slices, tw: float | Float[Array, ""]) -> MPFit:
    """The Marchenko-Pastur fits of slices, one after another."""
    size = bucket(slices.esd.evals.shape[1])
    fits = []
    for index in range(len(slices.n)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], slices)
        fits.append(fit_bulk(host.padded(one.esd, size), one.n, one.m, 1, tw))
    stacked: MPFit = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(fits))
    return stacked


def _trust(task: Task, measures: Measures, options: Options) -> Trust:
    limits, method = limits_of(options), options.method
    known = not (task.grid or method.inverse)
    shape = (task.layer.rf, task.layer.N, task.layer.M)
    return trust_of(
        measures.esd,
        measures.fit,
        layer_key(task.layer, options.seed),
        limits,
        null_quantiles(*shape, limits, method) if known else None,
        method,
        replicates=options.replicates,
    )


def _farms(layer: Layer, windows: ESD, options: Options) -> FarmsFit:
    sides = window_sides(layer.N, layer.M, options.farms_rows, options.farms_aspect)
    shape = (layer.rf, layer.N, layer.M)
    return farms_of(
        host.padded(windows, bucket(windows.evals.size)),
        count_windows(shape, *sides, options.farms_windows),
        threshold=options.threshold,
        ks=options.ks,
    )
