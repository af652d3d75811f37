"""How far the biases of two layers are from each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from wwfunc.checkpoint import Checkpoint, Handle, as_handle
from wwfunc.comparison.matrixdistances import frobenius
from wwfunc.dtypes import is_real_float
from wwfunc.layers import names
from wwfunc.layers.layer import Task

Biases = Mapping[str, Handle]
"""By their names, dots between the parts."""


def biases_of(checkpoint: Checkpoint) -> Biases:
    """The tensors of a checkpoint that are called biases."""
    dotted = {names.dotted(name): leaf for name, leaf in checkpoint.items()}
    return {
        name: as_handle(leaf)
        for name, leaf in dotted.items()
        if "bias" in name.rpartition(".")[2].split("_")
    }


def bias_of(task: Task, biases: Biases) -> Handle | None:
    """What stands beside the weight: `bias`, or `bias_ih_l0` beside `weight_ih_l0`."""
    head, dot, last = names.dotted(task.layer.tensor).rpartition(".")
    own = "bias" if last in names.WEIGHT_PARTS else last.replace("weight", "bias")
    return biases.get(f"{head}{dot}{own}")


def bias_distance(first: Handle | None, second: Handle | None) -> float:
    """Euclidean; NaN where not both are there, of one length and finite."""
    if first is None or second is None or math.prod(first.shape) != math.prod(second.shape):
        return math.nan
    if not all(is_real_float(handle.dtype) for handle in (first, second)):
        return math.nan
    one, other = (handle.read().astype(np.float64).reshape(1, -1) for handle in (first, second))
    with np.errstate(all="ignore"):
        distance = float(frobenius(one, other))
    return distance if math.isfinite(distance) else math.nan
