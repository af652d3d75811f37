"""What the name of a tensor tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwfunc.layers.names import block, longname, natural_key, role

PIECES = st.sampled_from(["h", "layer", ".", "_", "0", "00", "1", "02", "10", "9" * 5000, "é", "٣"])
NAMES = st.lists(PIECES, max_size=6).map("".join)


@pytest.mark.parametrize(
    "ordered",
    [
        ["h.2.w", "h.10.w", "h.100.w"],
        ["h.2.w", "h.003.w", "h.4.w", "h.05.w"],
        ["layer2.0.w", "layer2.1.w", "layer10.0.w"],
        ["block_9.w", "block_10.w", "block_a.w"],
        ["0.w", "1.w", "10.w", "a.w"],
        ["a", "a.b", "a.b.c", "a1", "ab"],
        ["h.1.w", "h." + "1" * 5000 + ".w", "h.x.w"],
    ],
)
def test_natural_order(ordered):
    backwards = ordered[::-1]
    assert sorted(ordered, key=natural_key) == sorted(backwards, key=natural_key) == ordered


@given(NAMES, NAMES)
def test_two_names_never_share_a_key(one, other):
    """Else their order would be that of the file."""
    assert (natural_key(one) == natural_key(other)) == (one == other)
    assert (natural_key(one) < natural_key(other)) == (natural_key(other) > natural_key(one))


@given(st.lists(st.integers(0, 10**30), unique=True))
def test_numbers_sort_by_value(numbers):
    names = sorted((f"h.{number}.w" for number in numbers), key=natural_key)
    assert [int(name.split(".")[1]) for name in names] == sorted(numbers)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ("h.0.attn.c_attn.weight", "h.0.attn.c_attn"),
        ("params.Dense_0.kernel", "params.Dense_0"),
        ("Embed_0.embedding", "Embed_0"),
        ("attn.in_proj_weight", "attn.in_proj_weight"),
        ("lstm.weight_ih_l0", "lstm.weight_ih_l0"),
        ("mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj"),
        ("text_projection", "text_projection"),
        ("weight", "weight"),
        ("kernel.bias", "kernel.bias"),
        ("a.weight.weight", "a.weight"),
        ("", ""),
    ],
)
def test_longname(tensor, expected):
    assert longname(tensor) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h.7.attn.c_attn", 7),
        ("transformer.h.11.mlp.c_fc", 11),
        ("encoder.layer.0.output.dense", 0),
        ("model.layers.31.self_attn.q_proj", 31),
        ("encoder.layers.encoder_layer_3.self_attention.in_proj_weight", 3),
        ("params.layers_3.mlp.wi", 3),
        ("blocks.5.attn.qkv", 5),
        ("visual.transformer.resblocks.2.mlp.c_fc", 2),
        ("encoder.block.4.layer.0.SelfAttention.q", 4),
        ("blk.7.ffn_gate", 7),
        ("model.layers.2.mlp.experts.40.gate_proj", 2),
        ("layer1.0.conv1", None),
        ("player.3.w", None),
        ("layers.x.w", None),
        ("lm_head", None),
        ("h." + "9" * 5000, None),
        ("", None),
    ],
)
def test_block(name, expected):
    assert block(name) == expected


ROLES = {
    "qkv": """h.0.attn.c_attn blocks.0.attn.qkv attention.query_key_value attn.Wqkv
        self_attention.in_proj_weight blk.0.attn_qkv""",
    "q": """attention.self.query self_attn.q_proj SelfAttention.q attn1.to_q attention.wq
        q_lin attn_q""",
    "k": """attention.self.key self_attn.k_proj SelfAttention.k attn1.to_k attention.wk
        k_lin attn_k""",
    "v": """attention.self.value self_attn.v_proj SelfAttention.v attn1.to_v attention.wv
        v_lin attn_v""",
    "o": """attn_output attention.output.dense attn.c_proj self_attn.o_proj self_attn.out_proj
        SelfAttention.o attn1.to_out.0 attention.wo attn.proj self_attention.dense
        attention.dense attention.out_lin MultiHeadDotProductAttention_0.out""",
    "gate_up": "ffn_gate_up mlp.gate_up_proj mlp.experts.gate_up_proj",
    "gate": """ffn_gate ffn_gate_shexp mlp.gate_proj feed_forward.w1 experts.3.w1
        DenseReluDense.wi_0""",
    "up": """ffn_up intermediate.dense mlp.c_fc mlp.up_proj feed_forward.w3 mlp.fc1 ffn.lin1
        mlp.dense_h_to_4h DenseReluDense.wi DenseReluDense.wi_1""",
    "down": """ffn_down output.dense mlp.c_proj mlp.down_proj feed_forward.w2 mlp.fc2 ffn.lin2
        mlp.dense_4h_to_h DenseReluDense.wo mlp.wo""",
    "embed": """wte wpe embeddings.word_embeddings model.embed_tokens tok_embeddings shared
        token_embd position_embd text_model.embeddings.token_embedding""",
    "head": "lm_head classifier score vit.head embed_out",
    "": """mlp.gate block_sparse_moe.gate patch_embed.proj conv1 layer1.0.conv2 pooler.dense
        time_embedding.linear_1 lstm.weight_ih_l0 Dense_0 fc""",
}


@pytest.mark.parametrize(
    ("name", "expected"), [(name, r) for r, names in ROLES.items() for name in names.split()]
)
def test_role(name, expected):
    assert role(name) == expected
    assert role(f"model.layers.3.{name}") == expected
