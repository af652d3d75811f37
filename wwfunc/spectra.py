"""Eigenvalues of the layers that were found, on the host or on JAX's device, fault by fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from wwfunc import host, matrices
from wwfunc.fits.submatrices import window_esd, window_sides
from wwfunc.layers.layer import Layer, Task
from wwfunc.lowrank import LowRank
from wwfunc.options import Options
from wwfunc.spectrum import ESD, esd


@dataclass(frozen=True)
class Spectrum:
    """The ESD of one layer, or why there is none."""

    layer: Layer
    esd: ESD | None = None
    windows: ESD | None = None
    """The pooled spectra of its windows, where those are asked for."""
    failure: str = ""


def on_host(batch: Sequence[Task], options: Options) -> list[Spectrum]:
    """Spectra of layers with one smaller side, by one call of LAPACK where nothing goes wrong."""
    if options.farms:
        return [_attempt(task, _by_lapack, _windows_by_lapack, options) for task in batch]
    if len(batch) > 1 and not any(isinstance(task.handle, LowRank) for task in batch):
        try:
            return _together(batch)
        except Exception:  # whose fault it is shows when each layer is tried alone
            pass
    return [_attempt(task, _by_lapack, _windows_by_lapack, options) for task in batch]


def on_device(batch: Sequence[Task], options: Options) -> list[Spectrum]:
    """The same in float64 on whatever device JAX runs on, one layer after another."""
    return [_attempt(task, _by_jax, _windows_by_jax, options) for task in batch]


def _together(batch: Sequence[Task]) -> list[Spectrum]:
    grams = [host.grams(_stack(task)) for task in batch]
    ends = np.cumsum([len(gram) for gram in grams])[:-1]
    evals = np.split(host.eigenvalues(np.concatenate(grams)), ends)
    return [
        Spectrum(task.layer, host.pooled(own, task.layer.N, matrices.scale(task.hint)))
        for task, own in zip(batch, evals, strict=True)
    ]


def _attempt(
    task: Task,
    compute: Callable[[Task], ESD],
    windows: Callable[[Task, Options], ESD],
    options: Options,
) -> Spectrum:
    """A tensor from a stranger may raise anything when it is read: that is this row's status."""
    try:
        own = compute(task)
        return Spectrum(task.layer, own, windows(task, options) if options.farms else None)
    except Exception as cause:
        return Spectrum(task.layer, failure=f"failed: {type(cause).__name__}: {cause}")


def _by_lapack(task: Task) -> ESD:
    if isinstance(task.handle, LowRank) and task.layer.rf == 1:
        few = host.low_rank(*task.handle.factors())
        return host.pooled(few, task.layer.N, matrices.scale(task.hint))
    # The tensor is read again for each portion: while LAPACK works, nothing holds its pages.
    parts = host.portions(task.layer.rf, task.layer.M)
    evals = [host.eigenvalues(host.grams(_stack(task)[part])) for part in parts]
    return host.pooled(np.concatenate(evals), task.layer.N, matrices.scale(task.hint))


def _by_jax(task: Task) -> ESD:
    with jax.enable_x64(True):
        stack = jax.numpy.asarray(_stack(task)).astype(np.float64)
        return jax.device_get(esd(stack, matrices.scale(task.hint)))


def _windows_by_lapack(task: Task, options: Options) -> ESD:
    sides = window_sides(task.layer.N, task.layer.M, options.farms_rows, options.farms_aspect)
    return host.window_esd(_stack(task), *sides, options.farms_windows, matrices.scale(task.hint))


def _windows_by_jax(task: Task, options: Options) -> ESD:
    sides = window_sides(task.layer.N, task.layer.M, options.farms_rows, options.farms_aspect)
    with jax.enable_x64(True):
        stack = jax.numpy.asarray(_stack(task)).astype(np.float64)
        scale = matrices.scale(task.hint)
        return jax.device_get(window_esd(stack, *sides, options.farms_windows, scale))


def _stack(task: Task) -> np.ndarray:
    tensor = task.handle.read()
    native = tensor.dtype.newbyteorder("=")  # JAX takes no other
    return matrices.unfold(tensor.astype(native, copy=False), task.hint)
