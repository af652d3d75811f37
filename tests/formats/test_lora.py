"""PEFT's adapter folders: those that PEFT wrote, and what their configurations may say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from files import write

import loaders
import wwfunc
from loaders import errors
from loaders.lora.peft import is_adapter, load_peft
from wwfunc.lowrank import LowRank

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "lora"
RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 4), (6, 2)))
PRODUCT = B.astype(np.float64) @ A


def pair(module="base_model.model.q_proj", a=A, b=B, dot=""):
    return {f"{module}.lora_A{dot}.weight": a, f"{module}.lora_B{dot}.weight": b}


def adapter(folder, tensors=None, **config):
    """A folder with an adapter of rank 2 and alpha 2, so that its scale is 1."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2} | config
    folder.mkdir(exist_ok=True)
    write(folder / "adapter_config.json", json.dumps(config))
    write(folder / "adapter_model.safetensors", pair() if tensors is None else tensors)
    return folder


def scale_of(checkpoint, name="q_proj.weight"):
    """What the product of the factors must be multiplied by to give the change."""
    return np.vdot(PRODUCT, checkpoint[name].read().astype(np.float64)) / np.vdot(PRODUCT, PRODUCT)


@pytest.mark.parametrize("folder", ["plain", "dora", "pickled"])
def test_changes_are_those_that_peft_computes(folder):
    found = loaders.load(FIXTURES / folder)
    expected = loaders.load_safetensors(FIXTURES / folder / "expected.safetensors").read()
    changes = {name for name, handle in found.items() if isinstance(handle, LowRank)}
    assert changes == expected.keys()
    for name, change in expected.items():
        read = found[name].read()
        assert read.shape == found[name].shape == change.shape
        assert np.linalg.norm(read - change) <= 1e-6 * np.linalg.norm(change)


def test_kinds_and_other_tensors_of_an_adapter():
    found = loaders.load(FIXTURES / "plain")
    kinds = {name: hint.kind for name in found if (hint := found.hint(name))}
    assert kinds == {
        "emb.weight": "embedding",
        "block.0.q_proj.weight": "dense",
        "block.0.k_proj.weight": "dense",
        "block.0.conv.weight": "conv2d",
    }
    assert found.keys() - kinds.keys() == {"head.weight", "head.bias"}
    assert found["head.weight"].read().shape == (3, 8)
    assert found.config["lora_alpha"] == 7
    assert found["block.0.q_proj.weight"].alpha == 5.0
    assert found["block.0.k_proj.weight"].rank == 3


def test_dora_keeps_its_magnitudes():
    found = loaders.load(FIXTURES / "dora")
    assert found.keys() == {"block.0.c_attn.weight", "block.0.c_attn.lora_magnitude_vector"}
    change = found["block.0.c_attn.weight"]
    assert change.shape == (6, 9)
    assert change.scale == pytest.approx(7 / math.sqrt(2))
    vector = found["block.0.c_attn.lora_magnitude_vector"]
    assert change.magnitude == vector
    assert vector.read().shape == (9,)


def test_a_bias_of_the_change_stays():
    found = loaders.load(FIXTURES / "pickled")
    assert found.keys() == {"block.0.q_proj.weight", "block.0.q_proj.lora_B.bias"}


def test_every_tensor_has_a_row_and_only_weights_are_layers():
    analysis = wwfunc.describe(loaders.load(FIXTURES / "plain"))
    assert {record.layer.tensor for record in analysis.records} == {
        "emb.weight",
        "block.0.q_proj.weight",
        "block.0.k_proj.weight",
        "block.0.conv.weight",
        "head.weight",
    }


SCALES = {
    "alpha over rank": ({"lora_alpha": 3}, 1.5),
    "alpha a fraction": ({"lora_alpha": 0.5}, 0.25),
    "alpha negative": ({"lora_alpha": -2}, -1.0),
    "root of the rank": ({"lora_alpha": 3, "use_rslora": True}, 3 / math.sqrt(2)),
    "pattern of the last part": ({"alpha_pattern": {"q_proj": 8}}, 4.0),
    "pattern of the whole name": ({"alpha_pattern": {"layers.0.q_proj": 8}}, 4.0),
    "pattern of another module": ({"alpha_pattern": {"proj": 8, "k_proj": 9}}, 1.0),
    "first pattern that fits": ({"alpha_pattern": {"k_proj": 1, ".*proj": 8, "q_proj": 6}}, 4.0),
    "pattern of the start": ({"alpha_pattern": {"^q_proj": 6, "^layers.*": 8}}, 4.0),
    "null patterns": ({"alpha_pattern": None, "rank_pattern": {}}, 1.0),
    "pattern of the rank": ({"r": 9, "rank_pattern": {"q_proj": 2}}, 1.0),
}


@pytest.mark.parametrize(("config", "scale"), SCALES.values(), ids=SCALES)
def test_scale(tmp_path, config, scale):
    found = load_peft(adapter(tmp_path, pair("base_model.model.layers.0.q_proj"), **config))
    assert scale_of(found, "layers.0.q_proj.weight") == pytest.approx(scale, rel=1e-6)


def test_name_of_the_adapter_in_the_names(tmp_path):
    tensors = pair(dot=".default") | {
        "base_model.model.q_proj.lora_magnitude_vector.default.weight": B[:, 0],
        "base_model.model.head.modules_to_save.default.weight": A,
    }
    found = load_peft(adapter(tmp_path, tensors, use_dora=True))
    assert found.keys() == {
        "q_proj.weight",
        "q_proj.lora_magnitude_vector.default.weight",
        "head.weight",
    }
    assert found["q_proj.weight"].magnitude.read().tolist() == B[:, 0].tolist()


def test_base_weight_beside_the_change(tmp_path):
    """PEFT saves the tables of embeddings that it changes, and those that grew."""
    module = "base_model.model.embed_tokens"
    tensors = {
        f"{module}.lora_embedding_A": A,
        f"{module}.lora_embedding_B": B,
        f"{module}.base_layer.weight": np.zeros((4, 6), np.float32),
    }
    found = load_peft(adapter(tmp_path, tensors))
    np.testing.assert_allclose(found["embed_tokens.weight"].read(), PRODUCT.T, rtol=1e-6)
    hints = {name: found.hint(name).kind for name in found}
    assert hints == {
        "embed_tokens.weight": "embedding",
        "embed_tokens.base_layer.weight": "embedding",
    }


def test_a_weight_of_the_same_name_is_not_overwritten(tmp_path):
    weight = np.zeros((6, 4), np.float32)
    found = load_peft(adapter(tmp_path, pair() | {"base_model.model.q_proj.weight": weight}))
    assert not found["q_proj.weight"].read().any()
    np.testing.assert_allclose(found["q_proj.lora.weight"].read(), PRODUCT, rtol=1e-6)
    assert found.hint("q_proj.lora.weight").kind == "dense"


def test_attention_of_pytorch_has_its_factors_at_the_module(tmp_path):
    module = "base_model.model.attn"
    tensors = pair(module) | pair(f"{module}.base_layer.out_proj")
    assert load_peft(adapter(tmp_path, tensors)).keys() == {
        "attn.in_proj_weight",
        "attn.out_proj.weight",
    }


LONE = {
    "experts": (pair("base_model.model.mlp.experts"), {}),
    "nested": (pair("base_model.model.moe") | pair("base_model.model.moe.base_layer"), {}),
    "parameter": (pair(), {"target_parameters": ["q_proj.weight"]}),
    "parameter of any module": (pair(), {"target_parameters": ["weight"]}),
    "groups": (
        pair(a=np.ones((4, 4, 3), np.float32), b=np.ones((6, 2, 1), np.float32)),
        {"r": 4},
    ),
    "more than a pair": (pair() | {"base_model.model.q_proj.lora_E": A}, {}),
    "integers": (pair(a=A.astype(np.int8)), {}),
    "another kind": (pair(), {"peft_type": "ADALORA"}),
}


@pytest.mark.parametrize(("tensors", "config"), LONE.values(), ids=LONE)
def test_factors_whose_product_is_not_the_change_stay_and_are_no_layers(tmp_path, tensors, config):
    found = load_peft(adapter(tmp_path, tensors, **config))
    assert found.keys() == {name.removeprefix("base_model.model.") for name in tensors}
    assert not any(isinstance(handle, LowRank) for handle in found.values())
    assert wwfunc.describe(found).records == ()


def test_adapter_beside_a_parameter_of_another_module(tmp_path):
    found = load_peft(adapter(tmp_path, target_parameters=["mlp.experts.w1", "proj.weight"]))
    assert found.keys() == {"q_proj.weight"}


E, U, C = errors.AdapterError, errors.UnsupportedError, errors.ConfigError
WRONG = {
    "no rank": ({"r": None}, E, "r is None, not a positive whole number"),
    "rank 0": ({"r": 0}, E, "r is 0"),
    "rank true": ({"r": True}, E, "r is True"),
    "another rank": ({"r": 3}, E, "'q_proj' has factors of rank 2, the config says 3"),
    "another rank by pattern": ({"rank_pattern": {"q_proj": 4}}, E, "the config says 4"),
    "alpha 0": ({"lora_alpha": 0}, E, "lora_alpha is 0, not a number"),
    "alpha text": ({"lora_alpha": "16"}, E, "lora_alpha is '16'"),
    "alpha of a pattern": ({"alpha_pattern": {"k": None}}, E, "alpha_pattern 'k' is None"),
    "pattern list": ({"rank_pattern": ["q_proj"]}, E, "rank_pattern is .* not a mapping"),
    "flag text": ({"use_rslora": "yes"}, E, "use_rslora is 'yes', neither true nor false"),
    "no kind": ({"peft_type": None}, E, "peft_type is None"),
    "no magnitude": ({"use_dora": True}, E, "'q_proj' lacks its lora_magnitude_vector"),
    "parameters": ({"target_parameters": "q"}, E, "target_parameters is 'q', not a list"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, U, "'pissa_niter_4', which also changes"),
    "olora": ({"init_lora_weights": "OLoRA"}, U, "'OLoRA', which also changes the base"),
    "corda": ({"init_lora_weights": "corda"}, U, "convert the adapter first"),
    "loftq": ({"init_lora_weights": "loftq"}, U, "convert the adapter first"),
    "lora_ga": ({"init_lora_weights": "lora_ga"}, U, "convert the adapter first"),
    "qalora": ({"use_qalora": True}, U, "with use_qalora the changes are not the products"),
    "bdlora": ({"use_bdlora": {"nblocks": 2}}, U, "with use_bdlora"),
    "arrow": ({"arrow_config": {"top_k": 2}}, U, "with arrow_config"),
    "kasa": ({"kasa_config": {"beta": 1}}, U, "with kasa_config"),
    "velora": ({"velora_config": {"scale": 1}}, U, "with velora_config"),
    "copied layers": ({"layer_replication": [[0, 4], [2, 5]]}, U, "with layer_replication"),
    "prompt": ({"peft_type": "PROMPT_TUNING"}, U, "kind 'PROMPT_TUNING' are not read"),
}


@pytest.mark.parametrize(("config", "error", "match"), WRONG.values(), ids=WRONG)
def test_config_that_is_refused(tmp_path, config, error, match):
    with pytest.raises(error, match=match) as caught:
        load_peft(adapter(tmp_path, **config))
    assert caught.type is error
    assert str(caught.value).startswith(str(tmp_path))


def test_alpha_over_all_floats(tmp_path):
    folder = adapter(tmp_path)
    for alpha in ("1e999", "1" + 400 * "0"):
        config = f'{{"peft_type": "LORA", "r": 2, "lora_alpha": {alpha}}}'
        write(folder / "adapter_config.json", config)
        with pytest.raises(E, match="lora_alpha is"):
            load_peft(folder)


FACTORS = {
    "one factor": ({k: v for k, v in pair().items() if "_A" in k}, "lora_A.* without the other"),
    "the other": ({k: v for k, v in pair().items() if "_B" in k}, "lora_B.* without the other"),
    "ranks": (pair(b=B[:, :1]), r"'q_proj', \[6, 1\] and \[2, 4\], have different ranks"),
    "vectors": (pair(a=A[0], b=B[0]), "are neither matrices nor kernels"),
    "six axes": (pair(a=A.reshape(2, 4, 1, 1, 1, 1)), "are neither matrices nor kernels"),
    "no rows": (pair(b=B[:0]), "are empty: were they saved without all their shards"),
    "rank 0": (pair(a=A[:0], b=B[:, :0]), "are empty"),
    "kernel behind": (pair(b=np.ones((6, 2, 3), np.float32)), "do not have a product"),
    "no factors": ({"base_model.model.head.weight": A}, "no tensor has the name of a LoRA factor"),
    "two adapters": (pair(dot=".a") | pair(dot=".b"), "the tensors are of several adapters"),
    "one factor twice": (
        pair() | {"base_model.model.q_proj.lora_down.weight": A},
        "'q_proj.lora_A.weight' and 'q_proj.lora_down.weight' are the same factor",
    ),
    "two of one name": (
        pair() | pair("q_proj"),
        "two tensors are the model's 'q_proj.lora_A.weight'",
    ),
    "names that are taken": (
        pair() | {"q_proj.weight": np.ones((6, 4), np.float32), "q_proj.lora.weight": A},
        "two tensors would be named 'q_proj.lora.weight'",
    ),
    "another base": (
        pair() | {"q_proj.base_layer.weight": np.ones((6, 5), np.float32)},
        r"the change of 'q_proj' is \[6, 4\], its weight \[6, 5\]",
    ),
}


@pytest.mark.parametrize(("tensors", "match"), FACTORS.values(), ids=FACTORS)
def test_factors_that_are_refused(tmp_path, tensors, match):
    with pytest.raises(E, match=match) as caught:
        load_peft(adapter(tmp_path, tensors))
    assert str(caught.value).startswith(str(tmp_path))


def test_folder_without_weights(tmp_path):
    (adapter(tmp_path) / "adapter_model.safetensors").unlink()
    with pytest.raises(errors.NotReadableError, match="neither adapter_model"):
        load_peft(tmp_path)


def test_config_that_is_no_json(tmp_path):
    write(adapter(tmp_path) / "adapter_config.json", b"{")
    with pytest.raises(C, match="not valid JSON"):
        load_peft(tmp_path)


NAMES = {
    "model.q_proj.lora_A.weight": True,
    "model.q_proj.lora_B.default.weight": True,
    "model.embed.lora_embedding_A": True,
    "lora_unet_mid_block_to_q.lora_down.weight": True,
    "unet.to_q.lora.up.weight": True,
    "unet.attn1.processor.to_q_lora.down.weight": True,
    "text_encoder.q_proj.lora_linear_layer.up.weight": True,
    "model.q_proj.weight": False,
    "model.q_proj.lora_A": False,
    "model.q_proj.lora_magnitude_vector": False,
    "model.lora_proj.weight": False,
    "x.hada_w1_a": False,
    "x.alpha": False,
    "exploratory.down.weight": False,
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items(), ids=NAMES)
def test_names_that_tell_an_adapter(name, expected):
    assert is_adapter(["embed.weight", name]) is expected
