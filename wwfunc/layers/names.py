"""What the name of a tensor tells: its layer, its place in the depth, its role in a block."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["", "q", "k", "v", "o", "qkv", "up", "gate", "down", "gate_up", "embed", "head"]

WEIGHT_PARTS = ("weight", "kernel", "embedding")
"""Last parts that say no more than "the weight of this layer"."""

_ROLES: tuple[tuple[Role, str], ...] = (
    ("qkv", r"qkv(_proj)?|query_key_value|c_attn|in_proj(_weight)?|wqkv"),
    ("q", r"q(_proj|_lin)?|query|to_q|wq"),
    ("k", r"k(_proj|_lin)?|key|to_k|wk"),
    ("v", r"v(_proj|_lin)?|value|to_v|wv"),
    ("o", r"(o|out)(_proj|_lin)?|to_out|wo|attention\.output\.dense|attn\.c_proj"),
    ("gate_up", r"gate_up_proj"),
    ("gate", r"gate(_proj)?|w1"),
    ("up", r"up(_proj)?|w3|fc1|c_fc|dense_h_to_4h|wi|lin1|intermediate\.dense|linear1"),
    ("down", r"down(_proj)?|w2|fc2|mlp\.c_proj|dense_4h_to_h|lin2|output\.dense|linear2"),
    ("embed", r"(\w*_)?embeddings?|embed(_tokens|_in|_positions)?|tok_embeddings|wte|wpe"),
    ("head", r"lm_head|head|score|(\w*_)?classifier|output_projection"),
)
_ROLE_PATTERNS = tuple((role, re.compile(rf"(.*\.)?({words})")) for role, words in _ROLES)

_BLOCK = re.compile(r"(?:^|[._])(?:layers?|blocks?|h|stages?|resblocks|blk)[._](\d+)(?=[._]|$)")


def natural_key(name: str) -> tuple[tuple[tuple[int, int | str], ...], ...]:
    """Sort key under which `layer.2` stands before `layer.10`."""
    return tuple(
        tuple((0, int(run)) if run.isdecimal() else (1, run) for run in re.split(r"(\d+)", part))
        for part in name.split(".")
    )


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
