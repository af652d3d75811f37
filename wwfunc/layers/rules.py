"""The named rules that say what a tensor is; what no rule knows is skipped, not guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wwfunc.checkpoint import TensorHint
from wwfunc.dtypes import is_narrow_float, is_real_float
from wwfunc.layers.names import WEIGHT_PARTS


@dataclass(frozen=True)
class Facts:
    """What a rule may look at: the tensor's name, and what stands beside it."""

    name: str
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


Verdict = TensorHint | Skip | None
Rule = Callable[[Facts], Verdict]

_BUFFERS = re.compile(
    r"running_(mean|var)|num_batches_tracked|position_ids|inv_freq|masked_bias|rotary_emb|"
    r"relative_position_index|(attn|attention|causal)_mask|(cos|sin)_cached|mean|var|count|step"
)
_PAYLOADS = re.compile(
    r"qweight|qzeros|g_idx|weight_(packed|shape|zero_point)|scales|zeros|(nested_)?absmax|SCB|"
    r"(nested_)?quant_map|(weight|kernel|input|output)_scale\w*"
)
_SCALE = re.compile(r"(^|_)scale(s|_|$)")
_ADAPTERS = re.compile(
    r"(^|\.)(lora_[AB]|lora_(down|up|mid)|lora_embedding_[AB]|lora_magnitude_vector|hada_w\d\w?|"
    r"lokr_w\d\w?|dora_scale)(\.|$)"
)
_OPTIMISER = re.compile(
    r"(^|\.)(optimizer|optimizer_state\w*|opt_state|exp_avg(_sq)?|momentum_buffer|adam_[mv])(\.|$)"
)
_QUANT_STATE = re.compile(r"quant_state|_(blocks|scales)$|\.(absmax|quant_map)$")
_EMBEDDING = re.compile(r"emb(ed|eddings?|s)?(_|\d|$)|(^|_)w[tp]e$|(^|_)embed", re.IGNORECASE)
_ATTENTION = {"query", "key", "value", "out"}
_CONV_KINDS = {3: "conv1d", 4: "conv2d", 5: "conv3d"}


def optimiser(t: Facts) -> Verdict:
    return Skip("optimiser state") if _OPTIMISER.search(t.name) else None


def adapter_factor(t: Facts) -> Verdict:
    if not _ADAPTERS.search(t.name):
        return None
    return Skip("a lone factor of an adapter: only the product of both is a weight", weight=True)


def buffer(t: Facts) -> Verdict:
    return Skip("a buffer or running statistic") if _BUFFERS.fullmatch(t.last) else None


def quantised_payload(t: Facts) -> Verdict:
    if _PAYLOADS.fullmatch(t.last) or _QUANT_STATE.search(t.name):
        return Skip("part of a quantised weight, which is not read yet")
    return None


def bias(t: Facts) -> Verdict:
    is_bias = t.last in ("bias", "b", "beta") or re.fullmatch(r"(\w+_)?bias(_\w+)?", t.last)
    return Skip("a bias") if is_bias else None


def not_real(t: Facts) -> Verdict:
    if is_real_float(t.dtype):
        return None
    named = t.last in WEIGHT_PARTS
    return Skip(f"{t.dtype.name} elements are no real weights", weight=named)


def scaled_payload(t: Facts) -> Verdict:
    scales = sorted(name for name in t.siblings if _SCALE.search(name))
    if is_narrow_float(t.dtype) and scales:
        return Skip(f"{t.dtype.name} scaled by {scales[0]!r}, which is not read yet", weight=True)
    return None


def vector(t: Facts) -> Verdict:
    if len(t.shape) < 2:
        return Skip("a vector or scalar has no spectrum", weight=True)
    return None


def torch_embedding(t: Facts) -> Verdict:
    is_embedding = t.last == "weight" and len(t.shape) == 2 and _EMBEDDING.search(t.module)
    return TensorHint("embedding") if is_embedding else None


def torch_dense(t: Facts) -> Verdict:
    fused = re.fullmatch(r"\w+_weight|weight_[ih]h_l\d+(_reverse)?", t.last)
    is_dense = len(t.shape) == 2 and (t.last == "weight" or fused)
    return TensorHint("dense") if is_dense else None


def torch_conv(t: Facts) -> Verdict:
    """(out, in, ...): every axis after the second is one of the kernel."""
    if t.last != "weight" or len(t.shape) not in _CONV_KINDS:
        return None
    if "expert" in t.name:
        return Skip("fused experts are not split yet", weight=True)
    return TensorHint(_CONV_KINDS[len(t.shape)])  # type: ignore[arg-type]


def flax_embedding(t: Facts) -> Verdict:
    is_embedding = t.last == "embedding" and len(t.shape) == 2
    return TensorHint("embedding") if is_embedding else None


def flax_attention(t: Facts) -> Verdict:
    """(features, heads, depth), and (heads, depth, features) for the projection out."""
    beside = t.uncles | {t.module}
    if (
        t.last != "kernel"
        or len(t.shape) != 3
        or not beside >= _ATTENTION
        or t.module not in beside
    ):
        return None
    if t.module == "out":
        return TensorHint("dense", rows=(0, 1), cols=(2,))
    return TensorHint("dense", rows=(0,), cols=(1, 2)) if t.module in _ATTENTION else None


def flax_dense(t: Facts) -> Verdict:
    is_dense = t.last == "kernel" and len(t.shape) == 2
    return TensorHint("dense") if is_dense else None


def flax_conv(t: Facts) -> Verdict:
    """(..., in, out): every axis before the last two is one of the kernel."""
    rank = len(t.shape)
    if t.last != "kernel" or rank not in _CONV_KINDS:
        return None
    if rank == 3 and "conv" not in t.module:
        return Skip("three axes: a convolution, or a projection with heads? Say so in hints=", True)
    return TensorHint(_CONV_KINDS[rank], rows=(rank - 1,), cols=(rank - 2,))  # type: ignore[arg-type]


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


def judge(facts: Facts) -> tuple[TensorHint | Skip, str]:
    """The verdict on a tensor, and the name of the rule that gave it."""
    for rule in RULES:
        verdict = rule(facts)
        if verdict is not None:
            return verdict, rule.__name__
    raise AssertionError("the last rule always has a verdict")
