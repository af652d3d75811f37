"""Adapters of every layer that PEFT adapts, beside the changes that PEFT itself computes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import loaders
import wwfunc
from loaders.lora.files import load_lora
from wwfunc.lowrank import LowRank

pytestmark = pytest.mark.filterwarnings("ignore")
PREFIX = "base_model.model."


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(3, 6, 8))
        self.w2 = nn.Parameter(torch.randn(3, 8, 6))


class Net(nn.Module):
    """One layer of each kind that PEFT adapts."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.q_proj, self.k_proj = nn.Linear(8, 8), nn.Linear(8, 6, bias=False)
        self.c_attn = Conv1D(12, 8)
        self.conv1, self.conv2 = nn.Conv1d(4, 6, 3), nn.Conv2d(4, 6, (3, 2))
        self.conv3, self.point = nn.Conv3d(4, 6, (3, 2, 2)), nn.Conv2d(4, 6, 1)
        self.groups = nn.Conv2d(4, 8, 3, groups=2)
        self.mha = nn.MultiheadAttention(8, 2)
        self.experts = Experts()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return x


def adapted(model=None, dtype=torch.float32, **config):
    """A model with an adapter whose factors are drawn at random."""
    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": 14} | config
    model = get_peft_model((model or Net()).to(dtype), LoraConfig(**config))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape).to(parameter.dtype)
    return model


def peft_changes(model, adapter="default"):
    """The change of each weight as PEFT computes it, in float64, by the name of the weight."""
    changes = {}
    for path, layer in model.double().named_modules():
        if isinstance(layer, LoraLayer):
            name = path.removeprefix(PREFIX).replace(".base_layer", "")
            last = "in_proj_weight" if name == "mha" else "weight"
            changes[f"{name}.{last}"] = layer.get_delta_weight(adapter).detach().numpy()
    return changes


def assert_same(checkpoint, changes):
    found = {name for name, handle in checkpoint.items() if isinstance(handle, LowRank)}
    assert found == changes.keys()
    for name, change in changes.items():
        read = checkpoint[name].read()
        assert read.shape == checkpoint[name].shape == change.shape
        assert np.linalg.norm(read - change) <= 1e-6 * np.linalg.norm(change)
        left, right = checkpoint[name].factors()
        exact = np.linalg.norm((left @ right).reshape(change.shape) - change)
        assert exact <= 1e-6 * np.linalg.norm(change)


CONVOLUTIONS = ["conv1", "conv2", "conv3", "point"]
CONFIGS = {
    "plain": {"target_modules": ["q_proj", "k_proj"]},
    "rank-stabilised": {"target_modules": ["q_proj", "k_proj"], "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "k_proj"],
        "rank_pattern": {"k_proj": 2, r"^q_.*": 3},
        "alpha_pattern": {"(q|x)_proj": 5.5, "^k_proj$": 1},
    },
    "convolutions": {"target_modules": CONVOLUTIONS},
    "convolutions, rank-stabilised": {"target_modules": CONVOLUTIONS, "use_rslora": True},
    "embedding": {"target_modules": ["emb"]},
    "embedding and input first": {"target_modules": ["emb", "c_attn"], "fan_in_fan_out": True},
    "input first": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    "weight-decomposed": {
        "target_modules": ["emb", "q_proj", *CONVOLUTIONS],
        "use_dora": True,
    },
    "weight-decomposed, input first": {
        "target_modules": ["c_attn"],
        "use_dora": True,
        "fan_in_fan_out": True,
    },
    "attention": {"target_modules": ["mha"]},
    "biases": {"target_modules": ["q_proj"], "lora_bias": True, "bias": "all"},
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["head", "emb"]},
    "drawn": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    "orthogonal": {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"},
}


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickled"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_changes_are_those_of_peft(tmp_path, config, safe):
    model = adapted(**config)
    model.save_pretrained(tmp_path, safe_serialization=safe)
    assert_same(loaders.load(tmp_path), peft_changes(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_element_types(tmp_path, dtype):
    model = adapted(target_modules=["q_proj", "conv2", "emb"], dtype=dtype)
    model = model.to(dtype)
    model.save_pretrained(tmp_path)
    assert_same(loaders.load(tmp_path), peft_changes(model))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_tensor_of_the_adapter_is_lost(tmp_path, config):
    """What is no factor of a change keeps its name and its bits."""
    adapted(**config).save_pretrained(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    found = loaders.load(tmp_path)
    factor = re.compile(r"\.lora_(embedding_)?[AB](\.weight)?$")
    others = {name for name in saved if not factor.search(name)}
    assert {name for name, handle in found.items() if not isinstance(handle, LowRank)} == {
        name.removeprefix(PREFIX) for name in others
    }
    for name in others:
        read = found[name.removeprefix(PREFIX)].read()
        np.testing.assert_array_equal(read, saved[name].numpy())


LONE = {
    "groups": {"target_modules": ["groups"]},
    "experts": {"target_parameters": ["experts.w1"]},
    "two parameters": {"target_parameters": ["experts.w1", "experts.w2"]},
    "parameter of a layer": {"target_parameters": ["q_proj.weight"]},
}


@pytest.mark.parametrize("config", LONE.values(), ids=LONE)
def test_factors_that_are_no_dense_pair_stay(tmp_path, config):
    adapted(**config).save_pretrained(tmp_path)
    found = loaders.load(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    assert found.keys() == {name.removeprefix(PREFIX) for name in saved}
    assert wwfunc.describe(found).records == ()


def test_dora_merges_to_what_peft_merges(tmp_path):
    """With the base weight the magnitudes give the merged weight, as PEFT computes it."""
    model = adapted(target_modules=["q_proj"], use_dora=True)
    model.save_pretrained(tmp_path)
    change = loaders.load(tmp_path)["q_proj.weight"]
    base = model.base_model.model.q_proj.base_layer.weight.detach().numpy()
    moved = base + change.read()
    lengths = change.magnitude.read() / np.linalg.norm(moved, axis=1)
    merged = model.merge_and_unload().q_proj.weight.detach().numpy()
    assert np.linalg.norm(lengths[:, None] * moved - merged) <= 1e-5 * np.linalg.norm(merged)


def test_names_and_shapes_are_those_of_the_model(tmp_path):
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in base.state_dict().items()}
    model = adapted(base, target_modules=["q_proj", "v_proj", "down_proj", "embed_tokens"])
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    found = loaders.load(tmp_path)
    assert len(found) == 7
    assert {name: handle.shape for name, handle in found.items()}.items() <= shapes.items()
    assert_same(found, peft_changes(model))
    kinds = {record.layer.kind for record in wwfunc.describe(found).records}
    assert kinds == {"dense", "embedding"}


def test_input_first_layers_of_gpt2(tmp_path):
    base = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    shapes = {name: tuple(tensor.shape) for name, tensor in base.state_dict().items()}
    model = adapted(base, target_modules=["c_attn", "c_proj", "c_fc"])
    model.save_pretrained(tmp_path)
    found = loaders.load(tmp_path)
    assert {name: handle.shape for name, handle in found.items()}.items() <= shapes.items()
    assert_same(found, peft_changes(model))


def test_whole_state_dict_of_an_adapted_model(tmp_path):
    """Without the config the scale is 1; the base weights tell what is stored input first."""
    model = adapted(target_modules=["q_proj", "c_attn", "emb", "conv2"], lora_alpha=4)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    found = load_lora(tmp_path / "model.safetensors")
    assert_same(found, peft_changes(model))
    bases = {f"{name}.base_layer.weight" for name in ("q_proj", "c_attn", "emb", "conv2")}
    assert bases < found.keys()


def test_base_model_of_another_kind_is_refused(tmp_path):
    adapted(target_modules=["q_proj"], init_lora_weights="pissa").save_pretrained(tmp_path)
    with pytest.raises(loaders.errors.UnsupportedError, match="'pissa', which also changes"):
        loaders.load(tmp_path)


def test_pissa_converted_is_read(tmp_path):
    """PEFT writes the change of the original weight as a pair of twice the rank."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 8, bias=False))
    before = base[0].weight.detach().numpy().copy()
    model = get_peft_model(
        base, LoraConfig(r=2, lora_alpha=4, target_modules=["0"], init_lora_weights="pissa")
    )
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    layer = model.base_model.model[0]
    layer.lora_A["default"].weight.data += torch.randn(2, 8)
    model.save_pretrained(
        tmp_path / "trained", path_initial_model_for_weight_conversion=tmp_path / "start"
    )
    change = loaders.load(tmp_path / "trained")["0.weight"]
    merged = layer.base_layer.weight + layer.get_delta_weight("default")
    expected = merged.detach().numpy() - before
    assert change.rank == 4
    assert np.linalg.norm(change.read() - expected) <= 1e-5 * np.linalg.norm(expected)


def test_peft_loads_what_it_wrote_with_the_same_changes(tmp_path):
    """The scale in the file is the one that PEFT takes when it loads the adapter again."""
    config = CONFIGS["patterns"]
    adapted(**config).save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(Net(), tmp_path)
    assert_same(loaders.load(tmp_path), peft_changes(again))
