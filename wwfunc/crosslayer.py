"""Neighbouring layers as one matrix: the correlations that pass from one to the next."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wwfunc.checkpoint import Checkpoint, TensorHint
from wwfunc.layers.find import find
from wwfunc.layers.layer import Task
from wwfunc.sources import as_checkpoint


@dataclass(frozen=True)
class Product:
    """The product of two layers' matrices, each over its Frobenius norm, formed when it is read."""

    later: Task
    earlier: Task
    turned: tuple[bool, bool]
    """Which of the two are transposed, so that the sides between them agree."""

    @property
    def shape(self) -> tuple[int, int]:
        (out, _), (_, into) = (_sides(task, turn) for task, turn in self._pair())
        return out, into

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64)

    @property
    def nbytes(self) -> int:
        return 8 * self.shape[0] * self.shape[1]

    @property
    def key(self) -> Hashable:
        return self.later.handle.key, self.earlier.handle.key, self.turned

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        left, right = (_normalised(task, turn) for task, turn in self._pair())
        product = left[rows] @ right
        product.flags.writeable = False
        return product

    def _pair(self) -> tuple[tuple[Task, bool], tuple[Task, bool]]:
        return (self.later, self.turned[0]), (self.earlier, self.turned[1])


def intra(model: Any, *, hints: Mapping[str, TensorHint] | None = None) -> Checkpoint:
    r"""Make a checkpoint of the products of neighbouring layers.

    .. math:: X = W_{l+1} W_l / (\|W_{l+1}\|_F \|W_l\|_F)

    Parameters
    ----------
    model
        What `analyze` takes.
    hints
        What tensors are, by name pattern, where the rules cannot tell.

    Returns
    -------
    Checkpoint
        A tensor for each two layers of one matrix (dense, embedding, 1 x 1 convolution) that
        follow each other in natural order of their names and share a side, named
        `"LATER x EARLIER"`; it is computed when it is read. Where inputs and outputs do not fit, a
        matrix is transposed; where no sides are equal, and across a convolution of several
        slices, there is no tensor.

    Notes
    -----
    WeightWatcher's `intra=True`. There the singular values of X take the place of eigenvalues;
    here eigenvalues are those of X^T X, as of every matrix.

    Examples
    --------
    >>> import wwfunc
    >>> products = wwfunc.intra("examples/digits.safetensors")
    >>> wwfunc.analyze(products, layers="dense2*").records[0].longname
    'dense2 x dense1'
    """
    checkpoint = as_checkpoint(model)
    if hints is not None:
        checkpoint = checkpoint.with_hints(hints)
    tasks = [finding.task for finding in find(checkpoint) if finding.task]
    found = {}
    for earlier, later in itertools.pairwise(task for task in tasks if task.layer.num_evals):
        flat = earlier.layer.rf == later.layer.rf == 1
        turned = _aligned(later, earlier) if flat else None
        if turned is not None:
            name = f"{later.layer.longname} x {earlier.layer.longname}"
            found[f"{name}.weight"] = Product(later, earlier, turned)
    hint = TensorHint("dense")
    return Checkpoint(found, hints=dict.fromkeys(found, hint), source=checkpoint.source)


def _aligned(later: Task, earlier: Task) -> tuple[bool, bool] | None:
    """What to transpose, as little as possible: the input of the later is the earlier's output."""
    for turned in ((False, False), (False, True), (True, False), (True, True)):
        if _sides(later, turned[0])[1] == _sides(earlier, turned[1])[0]:
            return turned
    return None


def _sides(task: Task, turned: bool) -> tuple[int, int]:
    """Outputs and inputs, or the other way round."""
    shape = task.handle.shape
    rows, cols = (
        int(np.prod([shape[a] for a in axes])) for axes in (task.hint.rows, task.hint.cols)
    )
    return (cols, rows) if turned else (rows, cols)


def _normalised(task: Task, turned: bool) -> np.ndarray:
    tensor, axes = task.handle.read().astype(np.float64), (*task.hint.rows, *task.hint.cols)
    others = (axis for axis in range(tensor.ndim) if axis not in axes)  # of length 1
    matrix = tensor.transpose(*others, *axes).reshape(_sides(task, False))
    # By a power of two, which rounds nothing: squares stay in range, whatever the scale.
    matrix = np.ldexp(matrix, -np.frexp(abs(matrix).max())[1])
    norm = np.linalg.norm(matrix)
    matrix = matrix / norm if norm else matrix
    return matrix.T if turned else matrix
