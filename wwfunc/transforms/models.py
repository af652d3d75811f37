"""Transforms over a whole model: a new Checkpoint whose layers are computed when they are read."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import jax
import numpy as np

from wwfunc import checks
from wwfunc.checkpoint import Checkpoint, Handle, TensorHint, as_handle
from wwfunc.checks import Selector
from wwfunc.errors import InputError, OptionError
from wwfunc.keys import layer_key
from wwfunc.layers.layer import Layer
from wwfunc.layers.select import chosen
from wwfunc.layers.views import views
from wwfunc.options import Options
from wwfunc.pipeline import found
from wwfunc.sources import as_checkpoint
from wwfunc.transforms.handles import Change, Transform, TransformedHandle, latest, refusal
from wwfunc.transforms.sharpening import remove_traps
from wwfunc.transforms.smoothing import Keep, checked_keep, smooth_matrix, smoothed

logger = logging.getLogger("wwfunc")

NOTE = "wwfunc"
"""The key in the metadata under which a checkpoint says what was done to it."""


@dataclass(frozen=True)
class Smoothing:
    """`smooth_matrix` on a layer."""

    keep: Keep

    def apply(self, stack: np.ndarray, layer: Layer, scale: float) -> tuple[np.ndarray, Change]:
        done = smoothed(stack, self.keep, scale)
        words = f"kept {done.kept} of {done.total} singular values"
        return done.stack, Change(layer=layer, number=done.total - done.kept, words=words)


@dataclass(frozen=True)
class Sharpening:
    """`remove_traps` on a layer, with a random key of the layer's own."""

    seed: int

    def apply(self, stack: np.ndarray, layer: Layer, scale: float) -> tuple[np.ndarray, Change]:
        done = remove_traps(layer_key(layer, self.seed), stack)
        if done.left:
            logger.warning("%s: %s", layer.longname, done.message)
        number, failed = len(done.removed), bool(done.failures)
        return done.W, Change(layer=layer, number=number, words=done.message, failed=failed)


@overload
def smooth(model: np.ndarray, keep: Keep) -> np.ndarray: ...
@overload
def smooth(model: jax.Array, keep: Keep) -> jax.Array: ...
@overload
def smooth(
    model: Any,
    keep: Keep,
    *,
    layers: Selector | Iterable[Selector] = (),
    hints: Mapping[str, TensorHint] | None = None,
) -> Checkpoint: ...
def smooth(
    model: Any,
    keep: Keep,
    *,
    layers: Selector | Iterable[Selector] = (),
    hints: Mapping[str, TensorHint] | None = None,
) -> Any:
    """Keep the largest singular values of a matrix, or of each layer of a model.

    Parameters
    ----------
    model
        A matrix or a stack of slices: see `wwfunc.transforms.smoothing.smooth_matrix`. Or whatever
        `analyze` takes: a Checkpoint, a path, a mapping or pytree of arrays, a state dict.
    keep
        A count (negative: take out so many of the largest), a share between 0 and 1, or a rule:
        "erg", "mp", "pl".
    layers
        Layer ids, names, types, kinds or patterns; negative ids are left out; () takes all.
    hints
        What tensors are, by name pattern, where the rules cannot tell.

    Returns
    -------
    Array or Checkpoint
        Of a matrix, the matrix: JAX's for JAX's, NumPy's for all others. Of a model, a Checkpoint:
        its layers are computed when they are read and keep their types; all other tensors are the
        handles that they were, and tied tensors stay tied. `metadata["wwfunc"]` says what was
        done, `changes` what became of each layer. The model is not touched.

    Raises
    ------
    OptionError, SelectionError, InputError, CheckpointError
        As `analyze`. A layer that cannot be smoothed (NaN, no spike to keep) stays as it was.

    Notes
    -----
    Left as they are: low-rank changes by adapters, and elements of at most 8 bits. What is written
    to the model's arrays after a layer was read shows when it is read again, not in `changes`.

    Examples
    --------
    >>> import wwfunc
    >>> smoothed = wwfunc.smooth("examples/digits.safetensors", 5, layers="head")
    >>> [change.words for change in wwfunc.changes(smoothed) if change.number]
    ['kept 5 of 10 singular values']
    """
    keep, selectors = checked_keep(keep), checks.selectors("layers", layers)
    if _is_array(model, selectors, hints):
        return smooth_matrix(_readable(model), keep)
    return _transformed(model, Smoothing(keep), selectors, hints)


@overload
def sharpen(model: np.ndarray, *, seed: int = 0) -> np.ndarray: ...
@overload
def sharpen(model: jax.Array, *, seed: int = 0) -> jax.Array: ...
@overload
def sharpen(
    model: Any,
    *,
    seed: int = 0,
    layers: Selector | Iterable[Selector] = (),
    hints: Mapping[str, TensorHint] | None = None,
) -> Checkpoint: ...
def sharpen(
    model: Any,
    *,
    seed: int = 0,
    layers: Selector | Iterable[Selector] = (),
    hints: Mapping[str, TensorHint] | None = None,
) -> Any:
    """Remove the correlation traps of a matrix, or of each layer of a model.

    Parameters
    ----------
    model
        A matrix, a stack of slices, or whatever `analyze` takes: see `smooth`.
    seed
        Of the shuffles that show the traps; each layer's key is made of it and of the layer's name.
    layers, hints
        See `smooth`.

    Returns
    -------
    Array or Checkpoint
        The same weights but for the elements that cause traps, which are zero: see
        `wwfunc.transforms.sharpening.remove_traps`, which also says which those are. A Checkpoint
        is as `smooth` returns it; a layer without traps keeps every bit.

    Raises
    ------
    OptionError, SelectionError, InputError, CheckpointError
        As `smooth`.

    Examples
    --------
    >>> import numpy as np, wwfunc
    >>> W = np.random.default_rng(0).standard_normal((300, 200))
    >>> W[17, 42] = 60
    >>> np.argwhere(wwfunc.sharpen(W) != W)
    array([[17, 42]])
    """
    seed, selectors = checks.seed("seed", seed), checks.selectors("layers", layers)
    if not _is_array(model, selectors, hints):
        return _transformed(model, Sharpening(seed), selectors, hints)
    done = remove_traps(jax.random.key(seed), _readable(model))
    if done.left:
        logger.warning("%s", done.message)
    return jax.numpy.asarray(done.W) if isinstance(model, jax.Array) else done.W


def _is_array(model: Any, selectors: tuple[Selector, ...], hints: Any) -> bool:
    single = hasattr(model, "shape") and hasattr(model, "dtype")
    if single and (selectors or hints is not None):
        raise OptionError("layers= and hints= choose among the tensors of a model, not of an array")
    return single


def _readable(array: Any) -> Any:
    """An array of NumPy or JAX as it is; another library's (torch's) read into NumPy's."""
    if isinstance(array, (np.ndarray, jax.Array)):
        return array
    handle = as_handle(as_checkpoint({"W": array})["W"])
    try:
        return handle.read()
    except (RuntimeError, TypeError, ValueError) as cause:
        raise InputError(f"a {type(array).__name__} that cannot be read: {cause}") from cause


def _transformed(
    model: Any,
    transform: Transform,
    selectors: tuple[Selector, ...],
    hints: Mapping[str, TensorHint] | None,
) -> Checkpoint:
    checkpoint, findings = found(model, hints)
    tasks = [finding.task for finding in findings if finding.task]
    wanted = chosen([task.layer for task in tasks], selectors)
    step = latest(checkpoint.values()) + 1
    new: dict[Hashable, Handle] = {
        task.handle.key: TransformedHandle(views(task, Options())[0], transform, step)
        for task in tasks
        if task.layer.tensor in wanted and refusal(task) is None
    }
    tensors = {name: new.get(as_handle(leaf).key, leaf) for name, leaf in checkpoint.items()}
    return Checkpoint(
        tensors,
        metadata={**checkpoint.metadata, NOTE: _noted(checkpoint.metadata, transform, selectors)},
        config=checkpoint.config,
        hints=checkpoint.hints,
        source=checkpoint.source,
    )


def _noted(
    metadata: Mapping[str, str], transform: Transform, selectors: tuple[Selector, ...]
) -> str:
    """What the metadata say, behind what earlier transforms said there."""
    chosen_words = f", layers={[*selectors]!r}" if selectors else ""
    return "; ".join(filter(None, [metadata.get(NOTE), f"{transform!r}{chosen_words}"]))
