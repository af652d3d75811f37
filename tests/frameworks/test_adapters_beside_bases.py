"""Adapters measured beside the models that they are for, against PEFT's own changes and merges."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import loaders
import wwfunc

from .test_lora_files import CONFIGS, Net, adapted, peft_changes

pytestmark = pytest.mark.filterwarnings("ignore")


def weights(model):
    """Weights by their names, in float64."""
    return {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}


def with_magnitudes(model):
    """DoRA's lengths as training would leave them: not those of the weights."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_magnitude_vector" in name:
            parameter.data *= 1 + torch.rand(parameter.shape)
    return model


def spectra(tensor, record):
    """All singular values of the matrices of a layer, ascending."""
    if record.kind.startswith("conv"):
        tensor = np.moveaxis(tensor.reshape(*tensor.shape[:2], -1), 2, 0)
    factor = np.sqrt(0.5) if record.kind == "conv2d" else 1.0
    return np.sort(np.linalg.svd(tensor, compute_uv=False).ravel()) * factor


def close(record, tensor):
    expected = spectra(tensor, record)
    found = np.sqrt(record.evals)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected[-1])


@pytest.fixture(params=CONFIGS)
def saved(request, tmp_path):
    """A folder with an adapter, its model, and PEFT's changes."""
    torch.manual_seed(2)
    net = Net()
    base = weights(net)
    model = with_magnitudes(adapted(net, **CONFIGS[request.param]))
    model.save_pretrained(tmp_path)
    return tmp_path, base, model, request.param


def test_the_change_has_the_singular_values_of_pefts(saved):
    folder, _, model, name = saved
    changes = peft_changes(copy.deepcopy(model))
    adapter = loaders.load(folder)
    found = wwfunc.analyze(adapter, min_evals=1)
    dora = "weight-decomposed" in name
    for record in found:
        tensor = record.layer.tensor
        if tensor in changes:
            close(record, changes[tensor])
            assert ("DoRA" in record.status) == dora
            assert record.lora_rank == adapter[tensor].rank


TWICE = "mha.out_proj.weight"
"""PEFT 0.21.2 adds the change of an attention's output projection twice, merged or not."""


def test_base_change_and_sum(saved):
    folder, base, model, _ = saved
    merged = weights(copy.deepcopy(model).double().merge_and_unload())
    changes = peft_changes(copy.deepcopy(model))
    if TWICE in changes:
        added = merged[TWICE] - base[TWICE]
        np.testing.assert_allclose(added, 2 * changes[TWICE], atol=1e-9)
        merged[TWICE] = base[TWICE] + changes[TWICE]
    adapter = loaders.load(folder)
    found = wwfunc.analyze(adapter, base_model=base, peft="with_base", min_evals=1)
    seen = set()
    for record in found:
        tensor = record.layer.tensor
        if tensor not in changes:
            continue
        seen.add(tensor)
        assert record.part in ("base", "delta", "merged"), record.status
        model_there = {"base": base, "merged": merged}.get(record.part)
        expected = merged[tensor] - base[tensor] if model_there is None else model_there[tensor]
        close(record, expected)
        if record.part == "delta":
            share = np.linalg.norm(expected) / np.linalg.norm(base[tensor])
            assert record.relative_change == pytest.approx(share, rel=1e-4)
    assert seen == changes.keys() & {record.layer.tensor for record in found}
    assert seen


def test_gpt2_stores_its_inputs_first(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=20)
    torch.manual_seed(0)
    net = GPT2LMHeadModel(config)
    net_before = copy.deepcopy(net)
    net.save_pretrained(tmp_path / "base")
    model = with_magnitudes(
        adapted(net, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_dora=True)
    )
    model.save_pretrained(tmp_path / "adapter")
    merged = weights(copy.deepcopy(model).double().merge_and_unload())
    base, adapter = (loaders.load(tmp_path / name) for name in ("base", "adapter"))
    found = wwfunc.analyze(adapter, base_model=base, peft="with_base", intruders=True)
    assert len(found) == 9
    before = weights(net_before)
    for record in found:
        assert record.status.startswith("success"), record.status
        if record.part == "delta":  # left vectors are those of the outputs, which stand last here
            name = record.layer.tensor
            one, other = (np.linalg.svd(W.T)[0] for W in (before[name], merged[name]))
            nearest = np.abs(one[:, : min(merged[name].shape)].T @ other[:, :10]).max(axis=0)
            assert record.num_intruders == np.sum(nearest < 0.5)
        if record.part == "merged":
            name = record.layer.tensor.removeprefix("base_model.model.")
            close(record, merged[name])


def test_one_word_of_pefts_for_layers_that_are_stored_both_ways(tmp_path):
    """The last module that PEFT wraps decides `fan_in_fan_out` in the file for all of them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sides = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 50, "n_positions": 20}
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(**sides, tie_word_embeddings=False))
    base = weights(net)
    model = adapted(net, target_modules=["c_attn", "c_proj", "lm_head"])
    model.save_pretrained(tmp_path)
    merged = weights(copy.deepcopy(model).double().merge_and_unload())
    found = wwfunc.analyze(loaders.load(tmp_path), base_model=base, peft="with_base")
    by_name = {(record.longname, record.part): record for record in found}
    for name in ("transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj", "lm_head"):
        record = by_name[name, "merged"]
        close(record, merged[f"{name}.weight"])
    (square,) = (r for r in found if r.longname == "transformer.h.0.attn.c_proj")
    assert "fan_in_fan_out does not hold for" in square.status
