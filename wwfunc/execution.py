"""Measures many layers: eigenvalues in worker threads, fits in padded buckets beside them."""

from __future__ import annotations

import os
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial

import jax
from threadpoolctl import threadpool_limits

from wwfunc import host, spectra
from wwfunc.errors import OptionError
from wwfunc.fits.submatrices import FarmsFit, count_windows, farms_of, window_sides
from wwfunc.fits.tail import limits_of
from wwfunc.layers.layer import Layer, Task
from wwfunc.measures import Measures, measure_esd
from wwfunc.options import Options
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
    if spectrum.esd is None:
        return LayerRecord(layer=spectrum.layer, status=spectrum.failure, measures=None)
    try:
        measures = _measure(spectrum.layer, spectrum.esd, spectrum.windows, options)
    except Exception as cause:  # as for spectra: other rows are not lost to the fault of one
        failure = f"failed: {type(cause).__name__}: {cause}"
        return LayerRecord(layer=spectrum.layer, status=failure, measures=None)
    codes = int(measures.fit.status), int(measures.scale.status)
    known = Status.NOT_FINITE not in codes  # without a spectrum not even a rank is known
    return LayerRecord(
        layer=spectrum.layer, status=sentence(*codes), measures=measures if known else None
    )


def _measure(layer: Layer, own: ESD, windows: ESD | None, options: Options) -> Measures:
    """Everything that follows from the spectrum, by the programs of its bucket."""
    limits = limits_of(options)
    with jax.enable_x64(True):
        smallest = SMALLEST_TRUSTED_BUCKET if options.trust else SMALLEST_BUCKET
        padded = host.padded(own, bucket(own.evals.size, smallest))
        quick = options.fit == "PL" and engine(options) == "host"
        program = _measure_once if quick else measure_esd
        measures = program(padded, limits, method=options.method)
        extras: dict[str, Trust | FarmsFit] = {}
        if options.trust:
            shape = (layer.rf, layer.N, layer.M)
            extras["trust"] = trust_of(
                padded,
                measures.fit,
                layer_key(layer, options.seed),
                limits,
                null_quantiles(*shape, limits, options.method),
                options.method,
                replicates=options.replicates,
            )
        if windows is not None:
            extras["farms"] = _farms(layer, windows, options)
        return replace(jax.device_get(replace(measures, **extras)), esd=own)


def _farms(layer: Layer, windows: ESD, options: Options) -> FarmsFit:
    sides = window_sides(layer.N, layer.M, options.farms_rows, options.farms_aspect)
    shape = (layer.rf, layer.N, layer.M)
    return farms_of(
        host.padded(windows, bucket(windows.evals.size)),
        count_windows(shape, *sides, options.farms_windows),
        threshold=options.threshold,
        ks=options.ks,
    )


def layer_key(layer: Layer, seed: int) -> jax.Array:
    """A random key of the layer's own: other layers, threads and their order do not change it."""
    name = f"{layer.longname}\0{layer.part}".encode("utf-8", "surrogatepass")
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name))
