"""Measures many layers: eigenvalues in worker threads, fits in padded buckets beside them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from wwfunc import host, matrices
from wwfunc.errors import OptionError, WwfuncError
from wwfunc.layers.find import Finding, Layer
from wwfunc.measures import Measures, measure_esd
from wwfunc.options import Options
from wwfunc.powerlaw import limits_of
from wwfunc.records import LayerRecord
from wwfunc.spectrum import ESD, esd
from wwfunc.status import sentence

SMALLEST_BUCKET = 256
BUCKET_RATIO = 4
LARGE_SIDE = 1024
"""From this smaller side on, BLAS's own threads serve a layer better than a thread a layer."""
BATCH_SIDE = 1024
"""Small layers of one size go to LAPACK together until their sides add up to this: NumPy holds
the interpreter lock through a call on one small matrix, but not through one on a stack."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of one layer, or why there are none."""

    finding: Finding
    esd: ESD | None = None
    failure: str = ""


def measure_all(
    findings: Sequence[Finding], options: Options, threads: int | None = None
) -> Iterator[LayerRecord]:
    """A record for each finding that is a layer, as soon as it is measured, in any order."""
    small = [f for f in findings if _layer(f).M < LARGE_SIDE]
    large = [f for f in findings if _layer(f).M >= LARGE_SIDE]
    threads = default_threads() if threads is None else _checked(threads)
    on_host = engine(options) == "host"
    spectra = _host_spectra if on_host else _device_spectra
    with jax.enable_x64(True):
        with threadpool_limits(1, "blas"):
            yield from _run(_batches(small), spectra, threads if on_host else 1, options)
        with threadpool_limits(threads, "blas"):
            yield from _run([[f] for f in large], spectra, 1, options)


def default_threads() -> int:
    """The processors that this process may use, or fewer where a usual variable says so."""
    limits = [int(v) for v in map(os.environ.get, _THREAD_VARIABLES) if v and v.isdecimal()]
    return max(1, min([len(os.sched_getaffinity(0)), *[limit for limit in limits if limit > 0]]))


def _checked(threads: int) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise OptionError(f"threads is a whole number from 1, not {threads!r}")
    return threads


def engine(options: Options) -> str:
    """Where eigenvalues are computed: on the host unless JAX runs on an accelerator."""
    if options.engine != "auto":
        return options.engine
    return "host" if jax.default_backend() == "cpu" else "jax"


def bucket(size: int) -> int:
    """The padded size of a spectrum. A program is compiled for each, so they are far apart.

    Padding costs little: the scan for xmin skips it.
    """
    padded = SMALLEST_BUCKET
    while padded < size:
        padded *= BUCKET_RATIO
    return padded


def _layer(finding: Finding) -> Layer:
    assert finding.layer is not None
    return finding.layer


def _run(
    batches: Sequence[list[Finding]],
    spectra: Callable[[list[Finding]], list[Spectrum]],
    threads: int,
    options: Options,
) -> Iterator[LayerRecord]:
    """Spectra in `threads` workers; fits, and what they compile, in this thread meanwhile."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="wwfunc")
    try:
        futures: list[Future[list[Spectrum]]] = [pool.submit(spectra, batch) for batch in batches]
        for future in as_completed(futures):
            for spectrum in future.result():
                yield _record(spectrum, options)
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Layers of the same smaller side together, the most costly batches first."""
    by_side: defaultdict[int, list[Finding]] = defaultdict(list)
    for finding in sorted(findings, key=_cost, reverse=True):
        by_side[_layer(finding).M].append(finding)
    batches: list[list[Finding]] = []
    for side, group in by_side.items():
        filled = BATCH_SIDE
        for finding in group:
            if filled >= BATCH_SIDE:
                batches.append([])
                filled = 0
            batches[-1].append(finding)
            filled += side * _layer(finding).rf
    return sorted(batches, key=lambda batch: -sum(map(_cost, batch)))


def _cost(finding: Finding) -> int:
    layer = _layer(finding)
    return layer.rf * layer.M**2 * (layer.N + 10 * layer.M)


def _host_spectra(batch: list[Finding]) -> list[Spectrum]:
    """Eigenvalues of layers with one smaller side, by one call of LAPACK for all of them."""
    grams: list[np.ndarray] = []
    failures: dict[str, str] = {}
    for finding in batch:
        try:
            grams.append(host.grams(_stack(finding)))
        except (WwfuncError, OSError, MemoryError) as cause:
            failures[finding.tensor] = f"failed: {cause or type(cause).__name__}"
    try:
        evals = host.eigenvalues(np.concatenate(grams) if len(grams) > 1 else grams[0])
    except (IndexError, MemoryError, np.linalg.LinAlgError) as cause:
        reason = f"failed: {cause}"
        return [Spectrum(f, failure=failures.get(f.tensor, reason)) for f in batch]
    return list(_split(batch, evals, failures))


def _split(batch: list[Finding], evals: np.ndarray, failures: dict[str, str]) -> Iterator[Spectrum]:
    start = 0
    for finding in batch:
        if finding.tensor in failures:
            yield Spectrum(finding, failure=failures[finding.tensor])
            continue
        layer = _layer(finding)
        own = evals[start : start + layer.rf]
        start += layer.rf
        yield Spectrum(finding, host.pooled(own, layer.N, _scale(finding)))


def _device_spectra(batch: list[Finding]) -> list[Spectrum]:
    """The same through JAX, in float64 on whatever device it runs on."""
    spectra = []
    for finding in batch:
        try:
            with jax.enable_x64(True):
                stack = jax.numpy.asarray(_stack(finding)).astype(np.float64)
                spectra.append(Spectrum(finding, jax.device_get(esd(stack, _scale(finding)))))
        except (WwfuncError, OSError, MemoryError) as cause:
            spectra.append(Spectrum(finding, failure=f"failed: {cause or type(cause).__name__}"))
    return spectra


def _stack(finding: Finding) -> np.ndarray:
    assert finding.hint is not None
    return matrices.unfold(finding.handle.read(), finding.hint)


def _scale(finding: Finding) -> float:
    assert finding.hint is not None
    return matrices.scale(finding.hint)


def _record(spectrum: Spectrum, options: Options) -> LayerRecord:
    layer = _layer(spectrum.finding)
    if spectrum.esd is None:
        return LayerRecord(layer=layer, status=spectrum.failure, measures=None)
    measures = _fit(spectrum.esd, options)
    status = sentence(int(measures.fit.status), int(measures.scale.status))
    return LayerRecord(layer=layer, status=status, measures=measures)


def _fit(spectrum: ESD, options: Options) -> Measures:
    """Everything that follows from the spectrum, by the program of its bucket."""
    measures = measure_esd(
        host.padded(spectrum, bucket(spectrum.evals.size)),
        limits_of(xmin=options.xmin, xmin_min=options.xmin_min, xmax=options.xmax),
        threshold=options.threshold,
        small_sample=options.small_sample,
    )
    return replace(jax.device_get(measures), esd=spectrum)
