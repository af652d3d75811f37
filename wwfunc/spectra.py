"""Spectra of the layers that were found, on the host or on JAX's device, fault by fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from wwfunc import host, matrices
from wwfunc.comparison.change import ChangeFromBase, change_of
from wwfunc.convolution import conv_esd, host_conv_esd
from wwfunc.errors import InputError
from wwfunc.fits.submatrices import window_esd, window_sides
from wwfunc.keys import layer_key
from wwfunc.layers.layer import Task
from wwfunc.lowrank import LowRank
from wwfunc.options import Options
from wwfunc.randommatrix.permutation import words
from wwfunc.randommatrix.randomised import replicas
from wwfunc.randommatrix.shuffling import Shuffles, host_shuffles, shuffles
from wwfunc.randommatrix.slices import Slices, host_alive, slices_of
from wwfunc.spectrum import ESD, esd
from wwfunc.vectors import Localization, host_vector_metrics, vector_metrics


@dataclass(frozen=True)
class Spectrum:
    """What is computed from the matrices of one layer, or why there is nothing."""

    task: Task
    esd: ESD | None = None
    windows: ESD | None = None
    """The pooled spectra of its windows, where those are asked for."""
    slices: Slices | None = None
    """Each slice by itself, where a Marchenko-Pastur law is fitted to it."""
    shuffles: Shuffles | None = None
    """The spectra of its shuffled weights."""
    localization: Localization | None = None
    """How localised its singular vectors are."""
    change: ChangeFromBase | None = None
    """How large it is beside what it changes."""
    failure: str = ""


def on_host(batch: Sequence[Task], options: Options) -> list[Spectrum]:
    """Spectra of layers with one smaller side, by one call of LAPACK where nothing goes wrong."""
    if len(batch) > 1 and all(_is_plain(task, options) for task in batch):
        try:
            return _together(batch, options)
        except Exception:  # whose fault it is shows when each layer is tried alone
            pass
    return [_attempt(task, _by_lapack, options) for task in batch]


def on_device(batch: Sequence[Task], options: Options) -> list[Spectrum]:
    """The same in float64 on whatever device JAX runs on, one layer after another."""
    return [_attempt(task, _by_jax, options) for task in batch]


def _is_plain(task: Task, options: Options) -> bool:
    """Whether eigenvalues are all that is wanted of stored weights."""
    more = options.farms or options.randomize or options.vectors or task.base
    return not more and task.grid is None and not isinstance(task.handle, LowRank)


def _together(batch: Sequence[Task], options: Options) -> list[Spectrum]:
    grams = [host.grams(_stack(task)) for task in batch]
    ends = np.cumsum([len(gram) for gram in grams])[:-1]
    evals = np.split(host.eigenvalues(np.concatenate(grams)), ends)
    return [_of(task, own, options) for task, own in zip(batch, evals, strict=True)]


def _of(task: Task, evals: np.ndarray, options: Options) -> Spectrum:
    """Given the eigenvalues of each slice (k, M)."""
    own = host.pooled(evals, task.layer.N, task.scale)
    return Spectrum(task, own, slices=_slices(task, evals) if options.mp_fit else None)


def _slices(task: Task, evals: np.ndarray) -> Slices:
    return host_alive(_stack(task), host.batched(evals, task.layer.N, task.scale))


def _attempt(
    task: Task, compute: Callable[[Task, Options], Spectrum], options: Options
) -> Spectrum:
    """A tensor from a stranger may raise anything when it is read: that is this row's status."""
    try:
        spectrum = compute(task, options)
        change = change_of(task, options.intruders) if task.base else None
        return replace(spectrum, change=change)
    except Exception as cause:
        return Spectrum(task, failure=f"failed: {type(cause).__name__}: {cause}")


def _by_lapack(task: Task, options: Options) -> Spectrum:
    if task.grid is not None:
        return Spectrum(task, host_conv_esd(_kernel(task), task.grid, task.scale))
    if options.vectors:
        found = host_vector_metrics(_stack(task), task.scale)
        spectrum = Spectrum(task, found.esd, localization=found)
        if options.mp_fit:
            spectrum = replace(spectrum, slices=_slices(task, _eigenvalues(task)))
    else:
        spectrum = _of(task, _eigenvalues(task), options)
    if options.farms:
        sides = _window_sides(task, options)
        windows = host.window_esd(_stack(task), *sides, options.farms_windows, task.scale)
        spectrum = replace(spectrum, windows=windows)
    if options.randomize:
        key, copies = layer_key(task.layer, options.seed), replicas(task.layer.num_evals)
        drawn = host_shuffles(words(key), _stack(task), task.scale, copies)
        spectrum = replace(spectrum, shuffles=drawn)
    return spectrum


def _eigenvalues(task: Task) -> np.ndarray:
    """Of each slice (k, M)."""
    if isinstance(task.handle, LowRank) and task.layer.rf == 1 and task.index is None:
        return host.low_rank(*task.handle.factors())[None]
    # The tensor is read again for each portion: while LAPACK works, nothing holds its pages.
    parts = host.portions(task.layer.rf, task.layer.M)
    return np.concatenate([host.eigenvalues(host.grams(_stack(task)[part])) for part in parts])


def _by_jax(task: Task, options: Options) -> Spectrum:
    """Each part is waited for: see `wwfunc.onelayer` on decompositions that run at a time."""
    with jax.enable_x64(True):
        if task.grid is not None:
            kernel = _double(_kernel(task))
            return Spectrum(task, jax.device_get(conv_esd(kernel, task.grid, task.scale)))
        W, scale = _double(_stack(task)), jax.numpy.float64(task.scale)
        found = Spectrum(task)
        if options.vectors:
            localization = jax.device_get(vector_metrics(W, scale))
            found = replace(found, esd=localization.esd, localization=localization)
        else:
            found = replace(found, esd=jax.device_get(esd(W, scale)))
        if options.farms:
            sides = _window_sides(task, options)
            windows = window_esd(W, *sides, options.farms_windows, scale)
            found = replace(found, windows=jax.device_get(windows))
        if options.randomize:
            key, copies = layer_key(task.layer, options.seed), replicas(task.layer.num_evals)
            found = replace(found, shuffles=jax.device_get(shuffles(key, W, scale, copies)))
        if options.mp_fit:
            found = replace(found, slices=jax.device_get(slices_of(W, scale)))
        return found


def _window_sides(task: Task, options: Options) -> tuple[int, int]:
    return window_sides(task.layer.N, task.layer.M, options.farms_rows, options.farms_aspect)


def _double(array: np.ndarray) -> jax.Array:
    return jax.numpy.asarray(array).astype(np.float64)


def _kernel(task: Task) -> np.ndarray:
    """The taps' axes first, then the channels'."""
    stack = _stack(task)
    axes = (*task.hint.rows, *task.hint.cols)
    taps = [side for axis, side in enumerate(task.handle.shape) if axis not in axes]
    if task.grid is not None and task.grid < max(taps):
        kernel = " x ".join(map(str, taps))
        raise InputError(f"conv2d_fft={task.grid} is smaller than the kernel, {kernel}")
    return stack.reshape(*taps, *stack.shape[1:])


def _stack(task: Task) -> np.ndarray:
    tensor = task.handle.read()
    native = tensor.dtype.newbyteorder("=")  # JAX takes no other
    stack = matrices.unfold(tensor.astype(native, copy=False), task.hint)
    return stack if task.index is None else stack[task.index : task.index + 1]
