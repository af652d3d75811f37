"""What the name of a tensor tells: its layer, its place in the depth, its role in a block."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["", "q", "k", "v", "o", "qkv", "up", "gate", "down", "gate_up", "embed", "head"]

WEIGHT_PARTS = ("weight", "kernel", "embedding")
"""Last parts that say no more than "the weight of this layer"."""

_ROLES: tuple[tuple[Role, str], ...] = (
    ("qkv", r"(attn_)?qkv(_proj)?|query_key_value|c_attn|in_proj(_weight)?|wqkv"),
    ("q", r"(attn_)?q(_proj|_lin)?|query|to_q|wq"),
    ("k", r"(attn_)?k(_proj|_lin)?|key|to_k|wk"),
    ("v", r"(attn_)?v(_proj|_lin)?|value|to_v|wv"),
    (
        "o",
        r"(o|out)(_proj|_lin)?|attn_output|to_out(\.0)?|\w*(attention|attn)\.(wo|output\.dense|dense|c_proj|proj)",
    ),
    ("gate_up", r"gate_up_proj|ffn_gate_up"),
    ("gate", r"gate_proj|w1|wi_0|ffn_gate(_shexp)?"),
    (
        "up",
        r"up(_proj)?|ffn_up(_shexp)?|w3|fc1|c_fc|dense_h_to_4h|wi(_1)?|lin1|intermediate\.dense|linear1",
    ),
    (
        "down",
        r"down(_proj)?|ffn_down(_shexp)?|w2|wo|fc2|mlp\.c_proj|dense_4h_to_h|lin2|output\.dense|linear2",
    ),
    (
        "embed",
        r"(\w*_)?embeddings?|embed(_tokens|_in|_positions)?|(token|position)_embd|shared|wte|wpe",
    ),
    ("head", r"lm_head|embed_out|head|score|(\w*_)?classifier|output_projection"),
)
_ROLE_PATTERNS = tuple((role, re.compile(rf"(.*\.)?({words})")) for role, words in _ROLES)

_BLOCK = re.compile(r"(?:^|[._])(?:layers?|blocks?|h|stages?|resblocks|blk)[._](\d{1,9})(?=[._]|$)")


def natural_key(name: str) -> tuple[tuple[tuple[tuple[int, int, str], ...], ...], str]:
    """Sort key under which `layer.2` stands before `layer.10`; no two names share one.

    >>> sorted(["h.10.w", "h.2.w", "h.02.w"], key=natural_key)
    ['h.02.w', 'h.2.w', 'h.10.w']
    """
    parts = (re.split(r"(\d+)", part) for part in name.split("."))
    return tuple(tuple(map(_run_key, runs)) for runs in parts), name


def _run_key(run: str) -> tuple[int, int, str]:
    """Numbers before words; as text, since a name may hold more digits than `int` takes."""
    if not run.isdecimal():
        return 1, 0, run
    digits = run.lstrip("0")
    return 0, len(digits), digits


def dotted(tensor: str) -> str:
    """A tensor's name with dots between its parts; Flax's flattened names have slashes."""
    return tensor.replace("/", ".")


def longname(tensor: str) -> str:
    """The layer's name: that of its weight tensor without a last part that says nothing more."""
    head, _, last = tensor.rpartition(".")
    return head if head and last in WEIGHT_PARTS else tensor


def block(name: str) -> int | None:
    """Position of the repeated block that a layer stands in, where the name tells."""
    found = _BLOCK.search(name)
    return int(found[1]) if found else None


def role(name: str) -> Role:
    """What a layer does in its block, where the name tells, else empty."""
    lower = name.lower()
    return next((role for role, pattern in _ROLE_PATTERNS if pattern.fullmatch(lower)), "")
