"""Which tensors of real architectures become layers, and by which rule."""

from __future__ import annotations

import string
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wwfunc import Checkpoint, TensorHint
from wwfunc.dtypes import is_real_float
from wwfunc.layers.find import find
from wwfunc.layers.rules import RULES

# One tensor a line: name, shape (and element type unless f4), kind or - for skipped, rule.
ARCHITECTURES = {
    "bert": """
        embeddings.word_embeddings.weight 30522x384 embedding torch_embedding
        embeddings.position_ids 1x512:i8 - buffer
        embeddings.LayerNorm.weight 384 - vector
        embeddings.LayerNorm.bias 384 - bias
        encoder.layer.0.attention.self.query.weight 384x384 dense torch_dense
        encoder.layer.0.attention.self.query.bias 384 - bias
        pooler.dense.weight 384x384 dense torch_dense
        cls.predictions.bias 30522 - bias""",
    "albert and t5": """
        encoder.embedding_hidden_mapping_in.weight 768x128 dense torch_dense
        encoder.embedding_hidden_mapping_in.bias 768 - bias
        shared.weight 32128x512 embedding torch_embedding
        encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight 32x8 dense torch_dense
        embed_out.weight 50432x512 dense torch_dense
        token_embd.weight 32000x4096 embedding torch_embedding""",
    "gpt2": """
        wte.weight 50257x768 embedding torch_embedding
        wpe.weight 1024x768 embedding torch_embedding
        h.0.attn.bias 1x1x1024x1024 - bias
        h.0.attn.masked_bias scalar - buffer
        h.0.attn.c_attn.weight 768x2304 dense torch_dense
        h.0.attn.c_attn.bias 2304 - bias
        h.0.ln_1.weight 768 - vector""",
    "llama": """
        model.embed_tokens.weight 32000x4096:bf2 embedding torch_embedding
        model.layers.0.self_attn.q_proj.weight 4096x4096:bf2 dense torch_dense
        model.layers.0.self_attn.rotary_emb.inv_freq 64 - buffer
        model.layers.0.self_attn.q_norm.weight 32x128 - elementwise
        model.layers.0.input_layernorm.weight 4096:bf2 - vector
        freqs_cos 2048x64 - buffer
        lm_head.weight 32000x4096:bf2 dense torch_dense""",
    "vit": """
        cls_token 1x1x768 - unknown
        pos_embed 1x197x768 - unknown
        patch_embed.proj.weight 768x3x16x16 conv2d torch_conv
        blocks.0.attn.in_proj_weight 2304x768 dense torch_dense
        blocks.0.attn.in_proj_bias 2304 - bias
        blocks.0.attn.relative_position_bias_table 169x3 - bias
        blocks.0.attn.attention_biases 4x49 - bias
        blocks.0.attn.attn_mask 64x49x49 - buffer
        blocks.0.ls1.gamma 768 - vector""",
    "resnet": """
        conv1.weight 64x3x7x7 conv2d torch_conv
        bn1.weight 64 - vector
        bn1.running_mean 64 - buffer
        bn1.running_var 64 - buffer
        bn1.num_batches_tracked scalar:i8 - buffer
        layer1.0.downsample.0.weight 256x64x1x1 conv2d torch_conv
        fc.weight 1000x2048 dense torch_dense""",
    "unet": """
        conv_in.weight 320x4x3x3 conv2d torch_conv
        time_embedding.linear_1.weight 1280x320 dense torch_dense
        down_blocks.0.resnets.0.time_emb_proj.weight 320x1280 dense torch_dense
        down_blocks.0.resnets.0.time_emb_proj.bias 320 - bias
        mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight 1280x1280 dense torch_dense
        adaln_single.scale_shift_table 6x1152 - elementwise""",
    "other torch": """
        lstm.weight_ih_l0 512x128 dense torch_dense
        lstm.weight_hr_l1_reverse 64x128 dense torch_dense
        lstm.bias_hh_l0 512 - bias
        encoder.conv1.weight 512x80x3 conv1d torch_conv
        visual.patch_embed.proj.weight 1280x3x2x14x14 conv3d torch_conv
        mixer.A_log 1536x16 - elementwise
        norm.weight 64x8x8 - elementwise
        head.tril 64x64 - buffer
        text_projection 512x512 dense matrix
        linear.w 64x32 dense matrix
        linear.b 32 - bias
        b 64x32 dense matrix""",
    "experts": """
        a.block_sparse_moe.experts.0.w1.weight 14336x4096 dense torch_dense
        a.block_sparse_moe.gate.weight 8x4096 dense torch_dense
        a.mlp.experts.gate_up_proj 128x2880x5760:bf2 - fused_experts
        a.mlp.experts.gate_up_proj_bias 128x5760 - bias
        b.block_sparse_moe.input_linear.weight 32x1024x1024 - fused_experts
        blk.0.ffn_down_exps.weight 8x64x32 - fused_experts
        blk.0.ssm_a 64x16 - elementwise
        c.ffn.experts.mlp.w1 172032x6144 - fused_experts
        d.experts.0.weight 64x64x3x3 conv2d torch_conv
        e.mlp.experts.linear_fc1.weight0 1024x4096 dense matrix""",
    "reparametrised": """
        a.weight_g 64x1 - factor
        a.weight_v 64x32 - factor
        b.parametrizations.weight.original1 64x32 - factor
        c.weight_orig 64x32 - factor
        c.weight_mask 64x32 - buffer""",
    "flax": """
        params.Dense_0.kernel 64x128 dense flax_dense
        params.Conv_0.kernel 3x3x64x128 conv2d flax_conv
        params.Conv_1.kernel 3x64x128 conv1d flax_conv
        params.Embed_0.embedding 1000x64 embedding flax_embedding
        params.LayerNorm_0.scale 64 - vector
        params.layers.LayerNorm_0.scale 12x64 - elementwise
        batch_stats.BatchNorm_0.mean 64 - buffer
        batch_stats.SpectralNorm_0.Dense_0/kernel/u 1x64 - buffer
        params.attn.query.kernel 64x4x16 dense flax_attention
        params.attn.key.kernel 64x4x16 dense flax_attention
        params.attn.value.kernel 64x4x16 dense flax_attention
        params.attn.value.bias 4x16 - bias
        params.attn.out.kernel 4x16x64 dense flax_attention
        params.scan.attn.query.kernel 12x64x4x16 - flax_attention
        params.scan.attn.key.kernel 12x64x4x16 - flax_attention
        params.scan.attn.value.kernel 12x64x4x16 - flax_attention
        params.scan.attn.out.kernel 12x4x16x64 - flax_attention
        params.scan.mlp.kernel 12x64x256 - flax_conv
        bn.mean 64 - buffer
        drop.rngs.count scalar:u4 - buffer
        drop.rngs.key 2:u4 - not_real""",
}
PAYLOADS = {
    "gptq": """
        q.qweight 512x4096:i4 - quantised_payload
        q.qzeros 32x512:i4 - quantised_payload
        q.scales 32x4096:f2 - quantised_payload
        q.g_idx 4096:i4 - quantised_payload""",
    "bitsandbytes": """
        q.weight 8388608x1:u1 - not_real
        q.weight.absmax 131072x2 - quantised_payload
        q.weight.nested_absmax 1024x2 - quantised_payload
        q.weight.quant_map 4x4 - quantised_payload
        q.weight.quant_state.bitsandbytes__nf4 9x9:u1 - quantised_payload
        k.weight 4096x4096:i1 - not_real
        k.SCB 4096x1 - quantised_payload""",
    "compressed tensors": """
        q.weight_packed 4096x512:i4 - quantised_payload
        q.weight_scale 4096x32:bf2 - quantised_payload
        q.weight_shape 2:i8 - quantised_payload
        q.weight_global_scale 1x1 - quantised_payload
        k.compressed 64x32:bf2 - quantised_payload""",
    "fp8": """
        q.weight 4096x4096:f1 - scaled_payload
        q.weight_scale_inv 32x32 - quantised_payload
        q.input_scale 1x1 - quantised_payload
        k.weight 64x64:f1 - scaled_payload
        k.scale 2x2 - quantised_payload
        v.weight 64x64:f1 - scaled_payload
        v.scale_weight 64x1 - quantised_payload
        experts.down_proj 16x64x64:f1 - scaled_payload
        experts.down_proj_scale 16x64 - quantised_payload""",
    "mxfp4": """
        mlp.experts.gate_up_proj_blocks 32x5760x90x16:u1 - quantised_payload
        mlp.experts.gate_up_proj_scales 32x5760x90:u1 - quantised_payload""",
    "hqq, quanto, torchao": """
        q.W_q 2048x4096:u1 - quantised_payload
        q.scale 2048x64:f2 - quantised_payload
        q.zero 2048x64:f2 - quantised_payload
        k.weight._data 64x64:f1 - quantised_payload
        k.weight._scale 64x1 - quantised_payload
        v._weight_qdata 64x64:f1 - quantised_payload
        v._weight_scale 64x1 - quantised_payload""",
    "adapters": """
        q_proj.lora_A.weight 16x4096 - adapter_factor
        q_proj.lora_B.default.weight 4096x16 - adapter_factor
        q_proj.lora_magnitude_vector.default.weight 64x64 - adapter_factor
        embed.lora_embedding_A 16x4096 - adapter_factor
        q.lora_a.weight 16x4096 - adapter_factor
        lora_unet_down_blocks_0_to_q.lora_up.weight 320x16 - adapter_factor
        to_q_lora.down.weight 16x320 - adapter_factor
        q.hada_w1_a 64x16 - adapter_factor
        q.lokr_w2_b 16x64 - adapter_factor
        lora.lora_b 16x64 - adapter_factor""",
    "optimiser": """
        optimizer.state.0.exp_avg 64x64 - optimiser
        optimizer_states.0.state.0.exp_avg_sq 64x64 - optimiser
        state.0.max_exp_avg_sq 64x64 - optimiser
        state.0.momentum_buffer 64x64 - optimiser
        opt_state.0.mu.Dense_0.kernel 64x64 - optimiser""",
}
DTYPES = {
    "bf2": np.dtype(ml_dtypes.bfloat16),
    "f1": np.dtype(ml_dtypes.float8_e4m3fn),
    **{code: np.dtype(code) for code in ("f4", "f2", "i1", "i4", "i8", "u1", "u4")},
}


@dataclass(frozen=True)
class Described:
    """A handle of any size that fails the test if it is read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype = DTYPES["f4"]
    nbytes = 1

    @property
    def key(self):
        return self.name

    def read(self, rows=slice(None)):
        raise AssertionError(f"{self.name} was read")


def table(text: str) -> list[tuple[Described, str, str]]:
    rows = []
    for line in text.strip().splitlines():
        name, form, kind, rule = line.split()
        sides, _, code = form.partition(":")
        shape = () if sides == "scalar" else tuple(map(int, sides.split("x")))
        rows.append((Described(name, shape, DTYPES[code or "f4"]), kind, rule))
    return rows


def checkpoint(text: str, **kwargs) -> Checkpoint:
    return Checkpoint({handle.name: handle for handle, _, _ in table(text)}, **kwargs)


@pytest.mark.parametrize("name", [*ARCHITECTURES, *PAYLOADS])
def test_every_tensor_by_its_rule(name):
    text = (ARCHITECTURES | PAYLOADS)[name]
    found = {f.tensor: (f.layer.kind if f.layer else "-", f.rule) for f in find(checkpoint(text))}
    assert found == {handle.name: (kind, rule) for handle, kind, rule in table(text)}


def test_every_rule_is_used():
    lines = "\n".join((ARCHITECTURES | PAYLOADS).values()).splitlines()
    assert {line.split()[-1] for line in lines if line} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("name", sorted(set(PAYLOADS) - {"adapters", "optimiser"}))
def test_no_hint_makes_codes_into_weights(name):
    """A hint says which axes are which, not what the elements are scaled by."""
    hinted = checkpoint(PAYLOADS[name], hints={"*": TensorHint("dense")})
    assert [f.tensor for f in find(hinted) if f.layer] == []


@pytest.mark.parametrize(
    ("tensor", "N", "M", "rf"),
    [
        ("params.attn.query.kernel", 64, 64, 1),
        ("params.attn.out.kernel", 64, 64, 1),
        ("params.Conv_0.kernel", 128, 64, 9),
        ("params.Conv_1.kernel", 128, 64, 3),
        ("params.Dense_0.kernel", 128, 64, 1),
    ],
)
def test_sides(tensor, N, M, rf):
    layers = {f.tensor: f.layer for f in find(checkpoint(ARCHITECTURES["flax"]))}
    layer = layers[tensor]
    assert (layer.N, layer.M, layer.rf, layer.num_evals) == (N, M, rf, rf * M)


def test_an_embedding_is_dense_to_weightwatcher():
    layer = find(checkpoint("wte.weight 50x8 embedding torch_embedding"))[0].layer
    assert (layer.kind, layer.layer_type) == ("embedding", "dense")


WORDS = [
    *("weight", "kernel", "embedding", "bias", "scale", "weight_scale", "qweight", "lora_A"),
    *(
        "experts",
        "query",
        "norm",
        "conv",
        "0",
        "2",
        "10",
        "02",
        "h",
        "running_mean",
        "9" * 5000,
        "",
    ),
]
NAMES = st.lists(st.sampled_from(WORDS) | st.text(string.printable, max_size=3), max_size=4)
TENSORS = st.dictionaries(
    NAMES.map(".".join),
    st.tuples(
        st.lists(st.integers(0, 5), max_size=6).map(tuple), st.sampled_from(list(DTYPES.values()))
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(TENSORS, st.randoms())
def test_every_tensor_has_one_finding_whatever_its_name_and_its_place(tensors, random):
    handles = {name: Described(name, *form) for name, form in tensors.items()}
    shuffled = random.sample(list(handles), len(handles))
    found = find(Checkpoint(handles))
    again = find(Checkpoint({name: handles[name] for name in shuffled}))
    assert [(f.tensor, f.layer) for f in found] == [(f.tensor, f.layer) for f in again]
    assert sorted(f.tensor for f in found) == sorted(tensors)
    assert all(bool(f.layer) != bool(f.reason) and f.rule for f in found)
    layers = [f.layer for f in found if f.layer]
    assert all(is_real_float(tensors[layer.tensor][1]) for layer in layers)
    assert all(layer.N * layer.M * layer.rf == layer.num_params for layer in layers)
    ids = [layer.layer_id for layer in layers]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(("taps", "size"), [(1, "16 x 12"), (2, "16 x 12 x 2")])
def test_the_size_of_a_layer_in_words(taps, size):
    (finding,) = find(Checkpoint({"c.weight": np.ones((16, 12, 1, taps))}))
    assert finding.layer.size == size
