"""What Keras's own layers call their weights, in what order they save them, and their axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Kind, TensorHint

from .config import LayerConfig

_CONV_KINDS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}
_KERNEL = ("kernel", "bias")
_RECURRENT = ("kernel", "recurrent_kernel", "bias")
_SCALED = ("kernel", "bias", "kernel_scale", "kernel_zero", "g_idx")
_CALIBRATED = ("bias", "quantized_kernel", "kernel_scale", "kernel_zero")
_FLOAT8 = (
    *("kernel", "bias", "inputs_scale", "inputs_amax_history", "kernel_scale"),
    *("kernel_amax_history", "outputs_grad_scale", "outputs_grad_amax_history"),
)

_DENSE = {"dense": 2, "einsum_dense": None}
_CONV = re.compile(r"(conv|depthwise_conv)([123])d(_transpose)?")
_SEPARABLE = re.compile(r"separable_conv([12])d")
_CONV_LSTM = re.compile(r"conv_lstm([123])d(_cell)?")
_RNN = {"lstm_cell", "gru_cell", "simple_rnn_cell"}
_EMBEDDINGS = {
    "embedding": ("embeddings",),
    "reversible_embedding": ("embeddings", "reverse_embeddings"),
}
_VECTORS = {
    ("batch_normalization", 4): ("gamma", "beta", "moving_mean", "moving_variance"),
    ("batch_normalization", 2): ("moving_mean", "moving_variance"),
    ("layer_normalization", 2): ("gamma", "beta"),
    ("group_normalization", 2): ("gamma", "beta"),
    ("rms_normalization", 1): ("scale",),
    ("normalization", 3): ("mean", "variance", "count"),
    ("p_re_lu", 1): ("alpha",),
    # The wrapper saves the kernel of its layer once more, beside a vector of shape (1, n).
    ("spectral_normalization", 2): ("kernel_orig", "kernel_u"),
    ("seed_generator", 1): ("state",),
}

_ATTENTION = {"multi_head_attention", "group_query_attention", "grouped_query_attention"}
_PARTS = {
    **dict.fromkeys(("query_dense", "key_dense", "value_dense", "output_dense"), "einsum_dense"),
    **dict.fromkeys(
        ("_query_dense", "_key_dense", "_value_dense", "_output_dense"), "einsum_dense"
    ),
    "cell": "lstm_cell",
}
"""Attributes under which Keras's own layers keep other layers; all cells save alike."""

_IN = {"query", "key", "value"}
_OUT = {"attention_output", "output"}


@dataclass(frozen=True, slots=True)
class Weight:
    """What is known of one array before its name is."""

    shape: tuple[int, ...]
    dtype: np.dtype


def kind_of(config: LayerConfig | None, group: str, name: str) -> str:
    """The class of a layer: by its configuration, else by its group's name or its own."""
    if group in _PARTS:
        return _PARTS[group]
    if config is not None:
        return config.kind
    plain = numberless(group)
    return plain if _known(plain) else numberless(name)


def numberless(name: str) -> str:
    """A name without the number that Keras adds where several layers share it."""
    return re.sub(r"_\d+$", "", name)


def _known(kind: str) -> bool:
    own = kind in _DENSE or kind in _RNN or kind in _EMBEDDINGS or kind in _ATTENTION
    named = any(kind == other for other, _ in _VECTORS)
    return own or named or _is_convolution(kind)


def meanings(kind: str, weights: Sequence[Weight]) -> tuple[str, ...] | None:
    """The names of a layer's variables in the order in which it saves them.

    None where the class is not known, or the shapes are not those of the class: a position alone
    is no name.
    """
    if kind in _DENSE:
        return _dense(weights, _DENSE[kind])
    if kind in _EMBEDDINGS:
        return _embedding(weights, _EMBEDDINGS[kind])
    if len(weights) and (_is_convolution(kind) or kind in _RNN):
        return _kernels(kind, weights)
    return _VECTORS.get((kind, len(weights)))


def _kernels(kind: str, weights: Sequence[Weight]) -> tuple[str, ...] | None:
    if found := _CONV.fullmatch(kind):
        return _fitting(weights, _KERNEL, int(found[2]) + 2)
    if found := _SEPARABLE.fullmatch(kind):
        names = ("depthwise_kernel", "pointwise_kernel", "bias")
        return _fitting(weights, names, int(found[1]) + 2, matrices=2)
    # A cell shows in its shapes alone whether it is one of a convolutional LSTM.
    return _fitting(weights, _RECURRENT, len(weights[0].shape), matrices=2)


def _fitting(
    weights: Sequence[Weight], names: tuple[str, ...], rank: int | None, matrices: int = 1
) -> tuple[str, ...] | None:
    """The names, if the first `matrices` arrays have `rank` axes and one bias may follow."""
    heads = weights[:matrices]
    ranks = {len(weight.shape) for weight in heads}
    whole = matrices <= len(weights) <= len(names) and (rank is None or ranks == {rank})
    return names[: len(weights)] if whole else None


def _dense(weights: Sequence[Weight], rank: int | None) -> tuple[str, ...] | None:
    """A quantised layer saves codes and scales; which is which shows in the element types."""
    codes = next((i for i, weight in enumerate(weights) if _is_code(weight)), None)
    if codes is None:
        without_bias = tuple(name for name in _FLOAT8 if name != "bias")
        float8 = {len(_FLOAT8): _FLOAT8, len(without_bias): without_bias}
        return float8.get(len(weights)) or _fitting(weights, _KERNEL, rank)
    if weights[codes].dtype == np.uint8:
        return _calibrated(weights, codes)
    has_bias = len(weights) > 2 and not any(map(_is_code, weights[1:3]))
    names = _SCALED if has_bias else (_SCALED[0], *_SCALED[2:])
    return names[: len(weights)] if codes == 0 and len(weights) <= len(names) else None


def _calibrated(weights: Sequence[Weight], codes: int) -> tuple[str, ...] | None:
    """GPTQ and AWQ save the bias first, and AWQ one vector more."""
    for tail in (("g_idx",), ("awq_scales", "g_idx")):
        names = (*_CALIBRATED, *tail)[1 - codes :]
        if codes < 2 and len(names) == len(weights):
            return names
    return None


def _embedding(weights: Sequence[Weight], plain: tuple[str, ...]) -> tuple[str, ...] | None:
    if not any(map(_is_code, weights)):
        return _fitting(weights, plain, 2, matrices=len(weights))
    names: list[str] = []
    for i, weight in enumerate(weights):
        last = names[-1] if names else ""
        if last.endswith("_scale") and weight.shape == weights[i - 1].shape:
            names.append(last.replace("_scale", "_zero"))
        elif _is_code(weight):
            names.append("reverse_embeddings" if names else "embeddings")
        else:
            names.append(f"{last}_scale" if last.endswith("embeddings") else "g_idx")
    return tuple(names) if len(set(names)) == len(names) else None


def _is_code(weight: Weight) -> bool:
    return weight.dtype.kind in "iu"


def hint(
    kind: str, module: str, name: str, rank: int, config: LayerConfig | None
) -> TensorHint | None:
    """What an array is, where the rules for names alone would not know its axes.

    Rows are the axes of what comes out and columns those of what goes in, as in PyTorch.
    """
    if name in ("embeddings", "reverse_embeddings") and rank == 2:
        across = name.startswith("reverse")
        return TensorHint("embedding", (1,), (0,)) if across else TensorHint("embedding")
    if kind in _ATTENTION or kind == "einsum_dense":
        return _heads(module, name, rank) or _einsum(config, name, rank)
    if name == "recurrent_kernel" and rank == 2:
        return TensorHint("dense", (1,), (0,))
    is_kernel = name.endswith("kernel") and rank in _CONV_KINDS
    if not is_kernel or not (_is_convolution(kind) or kind in _RNN):
        return None
    axes = ((rank - 2,), (rank - 1,)) if kind.endswith("_transpose") else ((rank - 1,), (rank - 2,))
    return TensorHint(_CONV_KINDS[rank], *axes)


def _is_convolution(kind: str) -> bool:
    return any(pattern.fullmatch(kind) for pattern in (_CONV, _SEPARABLE, _CONV_LSTM))


def _heads(module: str, name: str, rank: int) -> TensorHint | None:
    """(features, heads, depth), and (heads, depth, features) for the projection out."""
    if name != "kernel" or rank != 3:
        return None
    if module in _IN:
        return TensorHint("dense", (1, 2), (0,))
    return TensorHint("dense", (2,), (0, 1)) if module in _OUT else None


def _einsum(config: LayerConfig | None, name: str, rank: int) -> TensorHint | None:
    """Axes that only the kernel has are rows; those that the equation sums over are columns."""
    found = re.fullmatch(r"([\w.]+),(\w+)->([\w.]+)", config.equation if config else "")
    if not found or name != "kernel" or len(found[2]) != rank:
        return None
    inputs, kernel, outputs = found.groups()
    rows = tuple(i for i, axis in enumerate(kernel) if axis not in inputs and axis in outputs)
    cols = tuple(i for i, axis in enumerate(kernel) if axis in inputs and axis not in outputs)
    return TensorHint("dense", rows, cols) if rows and cols else None
