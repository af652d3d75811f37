"""The named rules that say what a tensor is; what no rule knows is skipped, not guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import Kind, TensorHint
from wwfunc.dtypes import is_narrow_float, is_real_float
from wwfunc.layers.names import WEIGHT_PARTS


@dataclass(frozen=True)
class Facts:
    """What a rule may look at: the tensor's name, and what stands beside it."""

    tensor: str
    """Its name in the checkpoint."""
    name: str
    """The same with parts that join with dots."""
    shape: tuple[int, ...]
    dtype: np.dtype
    siblings: frozenset[str]
    """Names of the other tensors of the same module, without the module's own name."""
    uncles: frozenset[str]
    """Names of the modules beside the tensor's module."""

    @property
    def parts(self) -> list[str]:
        return self.name.split(".")

    @property
    def last(self) -> str:
        return self.parts[-1]

    @property
    def module(self) -> str:
        return self.parts[-2].lower() if len(self.parts) > 1 else ""


@dataclass(frozen=True)
class Skip:
    """Why a tensor is no layer. A `weight` counts for layer ids all the same."""

    reason: str
    weight: bool = False


LONGEST_NAME = 512
"""Patterns are not tried on longer names: a stranger could choose one that keeps them busy."""

Verdict = TensorHint | Skip | None
Rule = Callable[[Facts], Verdict]

_BUFFERS = re.compile(
    r"(running|moving)_(mean|var|variance)|num_batches_tracked|position_ids|inv_freq|masked_bias|"
    r"rotary_emb|freqs(_cis|_cos|_sin)?|(cos|sin)(_cached)?|relative_position_index|(\w+_)?mask|tril|"
    r"cached_(key|value)|embed_avg|cluster_size|noise_const|mean|var|count|step"
)
_PACKED = re.compile(r"qweight|weight_packed|W_q|(\w*_)?qdata|_data|compressed|(\w+_)?blocks")
_COMPANIONS = re.compile(
    r"qzeros|(\w+_)?zeros?|g_idx|weight_(shape|zero_point)|(\w+_)?scales|(nested_)?absmax|SCB|"
    r"(nested_)?quant_map|_(scale|shift|zeropoint)|\w*(weight|kernel|input|output|proj)_(\w+_)?scale\w*|"
    r"[qkv]_scale|scale_(weight|input)"
)
_QUANT_STATE = re.compile(r"\.quant_state\.")
_SCALE = re.compile(r"(^|_)scale(s|_|$)")
_ADAPTERS = re.compile(
    r"(^|\.)(lora_([ABEab]|down|up|mid|embedding_[AB]|(kernel|embeddings)_[ab]|magnitude_vector|"
    r"linear_layer)|\w+_lora|(hada|lokr|vera|ia3|b?oft)_\w+|dora_scale|token_adapter|trainable_tokens_\w+)(\.|$)"
)
_OPTIMISER = re.compile(
    r"(^|\.)(optim|optimizers?|optimizer_\w+|opt_state|(max_)?exp_avg(_sq)?(_row|_col)?|exp_inf|"
    r"momentum_buffer|square_avg|grad_avg|acc_delta|adam_[mv])(\.|$)"
)
_FACTORS = re.compile(r"(weight|kernel)_(orig|[guv])|vector_u")
_NORM = re.compile(r"norm(_?\d+)?$")
_FUSED = re.compile(r"(^|\.)experts\.(mlp\.)?\w+$")
_STACKED = re.compile(
    r"((expert|moe)\w*(\.\w+){0,2}|(in|out)put_linear\.weight|ffn_\w+_exps\.weight)$"
)
_EXPERT = re.compile(r"experts?[._]\d")
_EMBEDDING = re.compile(r"emb(e?d|eddings?|s)?(_|\d|$)|(^|_)w[tp]e$|(^|_)embed|^shared$")
_NO_EMBEDDING = re.compile(r"embed_out|.*proj.*")
_ATTENTION = {"query", "key", "value", "out"}
_CONV_KINDS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}


def optimiser(t: Facts) -> Verdict:
    return Skip("optimiser state") if _OPTIMISER.search(t.name) else None


def adapter_factor(t: Facts) -> Verdict:
    if not _ADAPTERS.search(t.name):
        return None
    words = "a factor of an adapter; wwfunc.load reads plain pairs of them as their product"
    return Skip(words, weight=True)


def buffer(t: Facts) -> Verdict:
    is_buffer = "batch_stats" in t.parts or _BUFFERS.fullmatch(t.last)
    return Skip("a buffer or running statistic") if is_buffer else None


def quantised_payload(t: Facts) -> Verdict:
    packed = _PACKED.fullmatch(t.last)
    scale = t.last == "scale" and t.siblings & {"weight", "W_q", "qweight"}
    if packed or scale or _COMPANIONS.fullmatch(t.last) or _QUANT_STATE.search(t.name):
        return Skip("part of a quantised weight, which is not read yet", weight=bool(packed))
    return None


def bias(t: Facts) -> Verdict:
    letter = t.last in ("b", "beta") and len(t.shape) < 2
    is_bias = letter or re.fullmatch(r"(\w+_)?bias(es)?(_\w+)?", t.last)
    return Skip("a bias") if is_bias else None


def not_real(t: Facts) -> Verdict:
    if is_real_float(t.dtype):
        return None
    named = t.last in WEIGHT_PARTS
    return Skip(f"{t.dtype.name} elements are no real weights", weight=named)


def scaled_payload(t: Facts) -> Verdict:
    if not is_narrow_float(t.dtype):
        return None
    scale = min(filter(_SCALE.search, t.siblings), default=None)
    if scale is None:
        return None
    return Skip(f"{t.dtype.name} scaled by {scale!r}, which is not read yet", weight=True)


def vector(t: Facts) -> Verdict:
    if len(t.shape) < 2:
        return Skip("a vector or scalar has no spectrum", weight=True)
    return None


def factor(t: Facts) -> Verdict:
    """Weight norm has a length and a direction, spectral norm a divisor, pruning a mask."""
    if not (_FACTORS.fullmatch(t.last) or "parametrizations" in t.parts):
        return None
    direction = t.last == "weight_v" and "weight_g" in t.siblings
    whole = direction or t.last in ("weight_orig", "original", "original1")
    return Skip("a factor of a reparametrised weight, which is not read yet", weight=whole)


def elementwise(t: Facts) -> Verdict:
    is_norm = t.last == "weight" and _NORM.search(t.module)
    if is_norm or t.last in ("gamma", "A_log", "ssm_a") or _SCALE.search(t.last):
        return Skip("acts element by element, not as a matrix", weight=True)
    return None


def fused_experts(t: Facts) -> Verdict:
    """All experts in one tensor: no number in its name says which one it is of."""
    rank = len(t.shape)
    fused = _FUSED.search(t.name) if rank == 2 else _STACKED.search(t.name)
    if not fused or _EXPERT.search(t.name):
        return None
    return Skip("fused experts are not split yet", weight=True)


def torch_embedding(t: Facts) -> Verdict:
    """A table has no bias; a layer with one is dense, whatever embedding it serves."""
    named = _EMBEDDING.search(t.module) and not _NO_EMBEDDING.fullmatch(t.module)
    is_table = t.last == "weight" and len(t.shape) == 2 and "bias" not in t.siblings
    return TensorHint("embedding") if named and is_table else None


def torch_dense(t: Facts) -> Verdict:
    fused = re.fullmatch(r"\w+_weight|weight_(ih|hh|hr)(_l\d+)?(_reverse)?", t.last)
    is_dense = len(t.shape) == 2 and (t.last == "weight" or fused)
    return TensorHint("dense") if is_dense else None


def torch_conv(t: Facts) -> Verdict:
    """(out, in, ...): every axis after the second is one of the kernel."""
    if t.last != "weight" or len(t.shape) not in _CONV_KINDS:
        return None
    return TensorHint(_CONV_KINDS[len(t.shape)])


def flax_embedding(t: Facts) -> Verdict:
    is_embedding = t.last == "embedding" and len(t.shape) == 2
    return TensorHint("embedding") if is_embedding else None


def flax_attention(t: Facts) -> Verdict:
    """(features, heads, depth), and (heads, depth, features) for the projection out."""
    if t.last != "kernel" or not t.module in _ATTENTION <= t.uncles or len(t.shape) < 3:
        return None
    if len(t.shape) > 3:
        return Skip("kernels of several attention layers in one are not split yet", weight=True)
    if t.module == "out":
        return TensorHint("dense", rows=(2,), cols=(0, 1))
    return TensorHint("dense", rows=(1, 2), cols=(0,))


def flax_dense(t: Facts) -> Verdict:
    """(in, out): turned, a square one has the same rounding as in PyTorch's (out, in)."""
    is_dense = t.last == "kernel" and len(t.shape) == 2
    return TensorHint("dense", rows=(1,), cols=(0,)) if is_dense else None


def flax_conv(t: Facts) -> Verdict:
    """(..., in, out): every axis before the last two is one of the kernel."""
    rank = len(t.shape)
    if t.last != "kernel" or rank not in _CONV_KINDS:
        return None
    if rank == 3 and "conv" not in t.module:
        return Skip("three axes: a convolution, or a projection with heads? Say so in hints=", True)
    return TensorHint(_CONV_KINDS[rank], rows=(rank - 1,), cols=(rank - 2,))


def matrix(t: Facts) -> Verdict:
    """Any other matrix: which side is which does not change its spectrum."""
    return TensorHint("dense") if len(t.shape) == 2 else None


def unknown(t: Facts) -> Verdict:
    return Skip(
        f"no rule knows {len(t.shape)} axes under this name; say what it is in hints=", True
    )


RULES: tuple[Rule, ...] = (
    optimiser,
    adapter_factor,
    buffer,
    quantised_payload,
    bias,
    not_real,
    scaled_payload,
    vector,
    factor,
    elementwise,
    fused_experts,
    torch_embedding,
    torch_dense,
    torch_conv,
    flax_embedding,
    flax_attention,
    flax_dense,
    flax_conv,
    matrix,
    unknown,
)
"""In this order: the first rule with a verdict decides, and its name stands in the coverage."""


UNREADABLE: tuple[Rule, ...] = (quantised_payload, not_real, scaled_payload)
"""What no hint can overrule: the elements of these tensors are no weights as they stand."""


def unreadable(facts: Facts) -> bool:
    """Whether the elements are codes, or numbers that lack their scale."""
    return any(rule(facts) is not None for rule in UNREADABLE)


def judge(facts: Facts) -> tuple[TensorHint | Skip, str]:
    """The verdict on a tensor, and the name of the rule that gave it."""
    if len(facts.name) > LONGEST_NAME:
        return Skip(f"a name of {len(facts.name):,} characters is no layer's"), "unknown"
    for rule in RULES:
        verdict = rule(facts)
        if verdict is not None:
            return verdict, rule.__name__
    raise AssertionError("the last rule always has a verdict")
