"""Adapters in one file, written by hand as kohya, LyCORIS and diffusers name their tensors."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from files import encoded, write

import loaders
import wwfunc
from loaders import errors
from loaders.lora.files import load_lora
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(0)
DOWN, UP = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 4), (6, 2)))
PRODUCT = UP.astype(np.float64) @ DOWN
KERNELS = RNG.normal(size=(2, 4, 3, 3)).astype(np.float32)
POINT = (..., None, None)


def number(value, dtype=np.float32):
    return np.array(value, dtype)


def pair(module, down=DOWN, up=UP, names=("lora_down", "lora_up")):
    return {f"{module}.{names[0]}.weight": down, f"{module}.{names[1]}.weight": up}


def lora(tmp_path, tensors, metadata=None):
    return load_lora(write(tmp_path / "lora.safetensors", encoded(tensors, metadata)))


def assert_is(change, expected):
    assert isinstance(change, LowRank)
    assert change.shape == expected.shape
    read = change.read()
    assert np.linalg.norm(read - expected) <= 1e-6 * np.linalg.norm(expected)


KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
NAMES = {
    "kohya": (pair(KOHYA), f"{KOHYA}.weight"),
    "peft": (
        pair("base_model.model.layers.0.q_proj", names=("lora_A", "lora_B")),
        "layers.0.q_proj.weight",
    ),
    "peft with its name": (
        pair("base_model.model.q_proj", names=("lora_A.default", "lora_B.default")),
        "q_proj.weight",
    ),
    "diffusers": (
        pair("unet.mid_block.attn1.to_q", names=("lora_A", "lora_B")),
        "unet.mid_block.attn1.to_q.weight",
    ),
    "diffusers in the middle": (
        pair("unet.attn1.to_out.0.lora", names=("down", "up")),
        "unet.attn1.to_out.0.weight",
    ),
    "diffusers of old": (
        pair("unet.attn1.processor.to_k_lora", names=("down", "up")),
        "unet.attn1.to_k.weight",
    ),
    "diffusers of old, out": (
        pair("unet.attn1.processor.to_out_lora", names=("down", "up")),
        "unet.attn1.to_out.0.weight",
    ),
    "text encoder": (
        pair("text_encoder.layers.0.self_attn.v_proj.lora_linear_layer", names=("down", "up")),
        "text_encoder.layers.0.self_attn.v_proj.weight",
    ),
    "text encoder of old": (
        pair("text_encoder.layers.0.self_attn.to_out_lora", names=("down", "up")),
        "text_encoder.layers.0.self_attn.out_proj.weight",
    ),
}


@pytest.mark.parametrize(("tensors", "name"), NAMES.values(), ids=NAMES)
def test_pair_has_the_name_of_its_weight(tmp_path, tensors, name):
    found = lora(tmp_path, tensors)
    assert found.keys() == {name}
    assert found.hint(name).kind == "dense"
    assert found[name].alpha is None
    assert_is(found[name], PRODUCT)


LAYOUTS = {
    "convolution": ((KERNELS, UP[POINT]), np.einsum("or,rikl->oikl", UP, KERNELS), "conv2d"),
    "pointwise": ((DOWN[POINT], UP[POINT]), PRODUCT[POINT], "conv2d"),
    "dense, down with ones": ((DOWN[POINT], UP), PRODUCT, "dense"),
    "dense, up with ones": ((DOWN, UP[POINT]), PRODUCT, "dense"),
    "up without ones": ((KERNELS, UP), np.einsum("or,rikl->oikl", UP, KERNELS), "conv2d"),
    "one dimension": (
        (KERNELS[:, :, 0], UP[..., None]),
        np.einsum("or,rik->oik", UP, KERNELS[:, :, 0]),
        "conv1d",
    ),
    "three dimensions": (
        (KERNELS[..., None], UP[(*POINT, None)]),
        np.einsum("or,rikl->oikl", UP, KERNELS)[..., None],
        "conv3d",
    ),
}


@pytest.mark.parametrize(("factors", "expected", "kind"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, factors, expected, kind):
    found = lora(tmp_path, pair("x", *factors))
    assert_is(found["x.weight"], expected)
    assert found.hint("x.weight").kind == kind


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_element_types(tmp_path, dtype):
    down, up = DOWN.astype(dtype), UP.astype(dtype)
    found = lora(tmp_path, pair("x", down, up))
    assert found["x.weight"].dtype == (np.float64 if dtype is np.float64 else np.float32)
    assert_is(found["x.weight"], up.astype(np.float64) @ down.astype(np.float64))


ALPHAS = {
    "single": (number(3.0), 1.5),
    "half": (number(0.5, np.float16), 0.25),
    "brain": (number(1.0, ml_dtypes.bfloat16), 0.5),
    "whole": (number(8, np.int64), 4.0),
    "vector of one": (number([4.0]), 2.0),
    "negative": (number(-1.0), -0.5),
    "zero is the rank": (number(0.0), 1.0),
}


@pytest.mark.parametrize(("alpha", "scale"), ALPHAS.values(), ids=ALPHAS)
def test_alpha_over_rank(tmp_path, alpha, scale):
    found = lora(tmp_path, pair("x") | {"x.alpha": alpha})
    assert found["x.weight"].scale == scale
    assert_is(found["x.weight"], scale * PRODUCT)
    np.testing.assert_array_equal(found["x.alpha"].read(), alpha)


OLD = {
    "unet.attn1.to_q.lora": ("unet.attn1.to_q.alpha", "unet.attn1.to_q.lora.alpha"),
    "text_encoder.q_proj.lora_linear_layer": (
        "text_encoder.q_proj.alpha",
        "text_encoder.q_proj.lora_linear_layer.alpha",
    ),
    "unet.attn1.processor.to_q_lora": ("unet.attn1.processor.to_q_lora.alpha",),
}


@pytest.mark.parametrize(("module", "name"), [(m, name) for m in OLD for name in OLD[m]])
def test_alpha_of_diffusers(tmp_path, module, name):
    found = lora(tmp_path, pair(module, names=("down", "up")) | {name: number(3.0)})
    (change,) = (handle for handle in found.values() if isinstance(handle, LowRank))
    assert change.scale == 1.5


def test_each_pair_has_its_own_alpha(tmp_path):
    tensors = pair("a") | pair("b") | {"b.alpha": number(8.0), "a.alpha": number(1.0)}
    found = lora(tmp_path, tensors)
    assert (found["a.weight"].scale, found["b.weight"].scale) == (0.5, 4.0)
    assert (found["a.weight"].alpha, found["b.weight"].alpha) == (1.0, 8.0)


def test_metadata_of_diffusers(tmp_path):
    """The options of each part of the model begin with its name; patterns do not."""
    options = {
        "unet.r": 2,
        "unet.lora_alpha": 8,
        "unet.alpha_pattern": {"mid.to_k": 6},
        "text_encoder.r": 2,
        "text_encoder.lora_alpha": 4,
        "text_encoder.use_rslora": True,
        "unused.r": "no rank",
    }
    names = ("unet.mid.to_q", "unet.mid.to_k", "text_encoder.q", "transformer.q")
    tensors = {}
    for name in names:
        tensors |= pair(name, names=("lora_A", "lora_B"))
    metadata = {"lora_adapter_metadata": json.dumps(options), "format": "pt"}
    found = lora(tmp_path, tensors, metadata)
    scales = [found[f"{name}.weight"].scale for name in names]
    assert scales == pytest.approx([4.0, 3.0, 4 / math.sqrt(2), 1.0])
    assert found.metadata == metadata


def test_dora_of_kohya(tmp_path):
    scale = np.arange(6, dtype=np.float32)[:, None]
    found = lora(tmp_path, pair("x") | {"x.dora_scale": scale})
    np.testing.assert_array_equal(found["x.weight"].magnitude.read(), scale)
    np.testing.assert_array_equal(found["x.dora_scale"].read(), scale)


OTHERS = {
    "core": pair("x", DOWN[POINT], UP[POINT])
    | {"x.lora_mid.weight": np.ones((2, 2, 3, 3), np.float32)},
    "hadamard": {f"x.hada_w{i}_{side}": DOWN for i in (1, 2) for side in "ab"},
    "kronecker": {"x.lokr_w1": DOWN, "x.lokr_w2_a": UP, "x.lokr_w2_b": DOWN},
    "experts": pair("mlp.experts", names=("lora_A", "lora_B")),
    "scaled codes": pair("x") | {"x.lora_up.weight_scale": number(2.0)},
    "adalora": {"x.lora_A": DOWN, "x.lora_B": UP, "x.lora_E": DOWN[:, :1]},
    "a very long name": pair("x" * 500),
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_products_of_other_kinds_stay_and_are_no_layers(tmp_path, others):
    found = lora(tmp_path, others | pair("y"))
    assert found.keys() == others.keys() | {"y.weight"}
    layers = {record.layer.tensor for record in wwfunc.describe(found).records}
    assert layers == {"y.weight"}


def test_factors_among_the_weights_of_a_model(tmp_path):
    """The weights of the model stay, and tell which changes are stored input first."""
    tensors = {
        "embed.weight": np.ones((9, 4), np.float32),
        "c_attn.base_layer.weight": np.ones((4, 6), np.float32),
        "q_proj.weight": np.ones((6, 4), np.float32),
        "codes.base_layer.weight": np.ones((48, 1), np.uint8),
    }
    factors = {}
    for name in ("c_attn", "q_proj", "codes"):
        factors |= pair(name, names=("lora_A.default", "lora_B.default"))
    found = lora(tmp_path, tensors | factors)
    changes = {"c_attn.weight": PRODUCT.T, "q_proj.lora.weight": PRODUCT, "codes.weight": PRODUCT}
    assert found.keys() == tensors.keys() | changes.keys()
    for name, expected in changes.items():
        assert_is(found[name], expected)


def test_two_adapters_have_their_names_in_those_of_their_changes(tmp_path):
    tensors = pair("q", names=("lora_A.one", "lora_B.one"))
    tensors |= pair("q", DOWN, -UP, names=("lora_A.two", "lora_B.two"))
    found = lora(tmp_path, tensors)
    assert_is(found["q.lora.one.weight"], PRODUCT)
    assert_is(found["q.lora.two.weight"], -PRODUCT)
    assert len(found) == 2


def test_file_of_a_folder_is_read_with_its_config(tmp_path):
    tensors = pair("base_model.model.q", names=("lora_A", "lora_B"))
    path = write(tmp_path / "adapter_model.safetensors", tensors)
    assert load_lora(path)["q.weight"].scale == 1.0
    write(tmp_path / "adapter_config.json", '{"peft_type": "LORA", "r": 2, "lora_alpha": 3}')
    assert load_lora(path)["q.weight"].scale == 1.5


META = json.dumps({"unet.r": 2, "unet.lora_alpha": 2})
E = errors.AdapterError
WRONG = {
    "alpha of two": ({"unet.x.alpha": number([1.0, 2.0])}, None, r"'unet.x.alpha' is float32 of"),
    "alpha NaN": ({"unet.x.alpha": number(np.nan)}, None, "'unet.x.alpha' is nan"),
    "alpha infinite": ({"unet.x.alpha": number(-np.inf)}, None, "'unet.x.alpha' is -inf"),
    "alpha complex": ({"unet.x.alpha": number(1j, np.complex64)}, None, "complex64 of shape"),
    "alpha true": ({"unet.x.alpha": number(True, np.bool_)}, None, "bool of shape"),
    "half a pair": (
        {"y.lora_up.weight": UP},
        None,
        "'y.lora_up.weight' is there without the other",
    ),
    "two alphas": ({"unet.x.alpha": number(1.0)}, META, "'unet.x' has an alpha, and one in the"),
    "metadata no JSON": ({}, "{", "not valid JSON"),
    "metadata without a rank": ({}, '{"unet.lora_alpha": 1}', "r is None, not a positive"),
    "metadata of another rank": ({}, META.replace("2", "3", 1), "the config says 3"),
    "metadata no object": ({}, "[]", "expected a JSON object"),
}


@pytest.mark.parametrize(("tensors", "text", "match"), WRONG.values(), ids=WRONG)
def test_file_that_is_refused(tmp_path, tensors, text, match):
    metadata = text and {"lora_adapter_metadata": text}
    with pytest.raises(E, match=match) as caught:
        lora(tmp_path, pair("unet.x") | tensors, metadata)
    assert str(caught.value).startswith(str(tmp_path / "lora.safetensors"))


def test_change_larger_than_any_weight(tmp_path):
    """Two vectors of 80 kB would make 6.4 GB; those of 260 kB 67.6 GB."""
    side = np.ones((20_000, 1), ml_dtypes.float8_e4m3fn)
    assert lora(tmp_path, pair("x", side.T, side))["x.weight"].shape == (20_000, 20_000)
    side = np.ones((130_000, 1), ml_dtypes.float8_e4m3fn)
    with pytest.raises(errors.BudgetError, match="takes 67,600,000,000 bytes when it is formed"):
        lora(tmp_path, pair("x", side.T, side))


def test_file_that_shrinks_after_its_header_was_read(tmp_path):
    path = write(tmp_path / "lora.safetensors", pair("x"))
    change = load_lora(path)["x.weight"]
    write(path, b"")
    with pytest.raises(errors.TruncatedError, match="can no longer be mapped"):
        change.read()


def test_names_are_those_of_the_file_without_an_adapter(tmp_path):
    path = write(tmp_path / "model.safetensors", {"q.weight": UP})
    assert load_lora(path).keys() == loaders.load_safetensors(path).keys()
