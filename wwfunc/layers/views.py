"""Which matrices of a layer are measured: its slices pooled, each alone, or the whole operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from wwfunc.layers.layer import Layer, Task
from wwfunc.options import Options


def views(task: Task, options: Options) -> Sequence[Task]:
    """The tasks that one layer becomes: one, but for slices that are not pooled."""
    layer = task.layer
    if options.conv2d_fft is not None and layer.kind == "conv2d":
        return [_operator(task, options)]
    if options.pool or layer.rf < 2:
        return [replace(task, scale=_scale(layer, options))]
    return [_slice(task, index, options) for index in range(layer.rf)]


def _operator(task: Task, options: Options) -> Task:
    """Two-dimensional convolution on a grid, whose Fourier transform has a matrix a point."""
    grid = options.conv2d_fft
    assert grid is not None
    layer = replace(task.layer, part=_part(task, f"{grid} x {grid}"), rf=grid * grid)
    scale = _scale(task.layer, options) if options.glorot_fix else 1.0
    return replace(task, layer=layer, grid=grid, scale=scale)


def _slice(task: Task, index: int, options: Options) -> Task:
    whole = task.layer
    layer = replace(
        whole, part=_part(task, str(index)), rf=1, num_params=whole.num_params // whole.rf
    )
    return replace(task, layer=layer, index=index, scale=_scale(whole, options))


def _part(task: Task, part: str) -> str:
    """Behind the part that the task is of already: its base, its change."""
    return f"{task.layer.part} {part}".strip()


def _scale(layer: Layer, options: Options) -> float:
    """WeightWatcher's `conv2d_norm`, or what brings a Glorot initialisation to unit variance."""
    if options.glorot_fix:
        return math.sqrt((layer.N + layer.M) * layer.rf / 2)
    if layer.kind != "conv2d":
        return 1.0
    return math.sqrt(0.5) if options.pool else math.sqrt(layer.rf / 2)
