"""Layers of two models matched by name: prefixes, ties, adapters' names, and what stays alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wwfunc import Checkpoint, InputError
from wwfunc.checkpoint import as_handle
from wwfunc.comparison.pairing import check_some, matching
from wwfunc.layers.find import find
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(3)


def model(names, shape=(12, 10)):
    return find(Checkpoint({name: RNG.standard_normal(shape) for name in names}))


def pairs(ours, theirs):
    """Our tensor's name to theirs."""
    found = matching(ours, theirs)
    return {m.ours.layer.tensor: m.theirs and m.theirs.layer.tensor for m in found.matches}


def test_the_same_names():
    names = ["a.weight", "b.c.weight", "conv.weight"]
    assert pairs(model(names), model(names[::-1])) == {name: name for name in names}


def test_the_place_means_nothing():
    """Two models with the same shapes and other names have nothing in common."""
    found = matching(model(["a.weight", "b.weight"]), model(["c.weight", "d.weight"]))
    assert [m.reason for m in found.matches] == ["no layer of this name in the other model"] * 2
    assert [alone.task.layer.longname for alone in found.rest] == ["c", "d"]
    with pytest.raises(InputError, match=r"'a': no layer of this name .* 2 layers, the first 'c'"):
        check_some(found, [], "the model", "the base")


def test_the_last_part_may_be_another():
    assert pairs(model(["x.kernel", "e/embedding"]), model(["e.weight", "x.weight"])) == {
        "x.kernel": "x.weight",
        "e/embedding": "e.weight",
    }


@pytest.mark.parametrize("prefix", ["model.", "module.", "base.model."])
def test_one_prefix(prefix):
    short = ["layers.0.q.weight", "layers.1.q.weight", "head.weight"]
    long = [prefix + name for name in short]
    expected = dict(zip(long, short, strict=True))
    assert pairs(model(long), model(short)) == expected
    assert pairs(model(short), model(long)) == {theirs: ours for ours, theirs in expected.items()}


def test_only_one_prefix():
    """The second part of a pipeline is not taken for the first."""
    ours = model(["l.0.weight", "l.1.weight", "h.weight"])
    theirs = model(["enc.l.0.weight", "enc.l.1.weight", "dec.l.0.weight", "other.h.weight"])
    assert pairs(ours, theirs) == {
        "l.0.weight": "enc.l.0.weight",
        "l.1.weight": "enc.l.1.weight",
        "h.weight": None,
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["fc.weight"], ["text.fc.weight", "vision.fc.weight"]),
        (["fc.weight"], ["encoder.fc.weight", "decoder.fc.weight", "other.weight"]),
        (["a.x.weight", "y.weight"], ["x.weight", "a.y.weight"]),
        (["l1.weight", "head.weight"], ["l1.weight", "decoder.block.3.head.weight"]),
        (
            ["fc.weight", "head.weight", "x.weight"],
            ["decoder.fc.weight", "body.weight", "t.weight"],
        ),
    ],
)
def test_what_is_no_prefix_of_most_names(ours, theirs):
    """Two that are as good, one name alone, and one against names that are the same as they are."""
    for first, second in ((ours, theirs), (theirs, ours)):
        found = {here: there for here, there in pairs(model(first), model(second)).items() if there}
        assert found == {name: name for name in {*ours} & {*theirs}}


def test_a_name_that_two_share_matches_neither():
    ours = model(["x.weight", "y.weight"])
    theirs = model(["x.kernel", "x.embedding", "y.weight"])
    assert pairs(ours, theirs) == {"x.weight": None, "y.weight": "y.weight"}
    both = model(["x.kernel", "x.weight"]), model(["x.weight", "x.embedding"])
    assert pairs(*both) == {"x.kernel": None, "x.weight": "x.weight"}


def test_tied_tensors_are_known_by_each_name():
    table = RNG.standard_normal((12, 10))
    tied = find(Checkpoint({"embed.weight": table, "head.weight": table}))
    assert pairs(model(["head.weight"]), tied) == {"head.weight": "embed.weight"}
    found = matching(tied, model(["embed.weight", "head.weight"]))
    assert [m.theirs.layer.tensor for m in found.matches] == ["embed.weight"]
    assert [alone.reason for alone in found.rest] == [
        "no layer in the first model: the same tensor as 'embed.weight'"
    ]


def test_a_tied_tensor_of_the_first_is_known_by_its_other_name():
    table = RNG.standard_normal((12, 10))
    tied = find(Checkpoint({"embed.weight": table, "head.weight": table}))
    assert pairs(tied, model(["head.weight"])) == {"embed.weight": "head.weight"}


def test_why_a_tensor_is_no_layer_there():
    theirs = find(Checkpoint({"x.kernel": np.zeros((3, 4, 5)), "y.weight": np.zeros((4, 3))}))
    found = matching(model(["x.weight", "y.weight"], (4, 3)), theirs)
    reason = next(finding.reason for finding in theirs if finding.tensor == "x.kernel")
    assert found.matches[0].reason == f"no layer in the other model: {reason}"
    assert reason


def test_no_layer_at_all():
    factors = model(["x.vera_lambda_b"])
    with pytest.raises(InputError, match=r"has no layer; 'x\.vera_lambda_b': a factor of"):
        check_some(matching(factors, model(["x.weight"])), factors, "the model", "the base")
    with pytest.raises(InputError, match=r"the model has no layer$"):
        check_some(matching([], model(["x.weight"])), [], "the model", "the base")


def adapter(names):
    up, down = (as_handle(RNG.standard_normal(shape)) for shape in ((12, 2), (2, 10)))
    return find(
        Checkpoint({name: LowRank(up, down, 1.0 + i, (12, 10)) for i, name in enumerate(names)})
    )


def test_kohyas_names_have_underscores_for_dots():
    base = ["down_blocks.0.attn1.to_q.weight", "down_blocks.0.attn1.to_out.0.weight"]
    ours = [
        "lora_unet_down_blocks_0_attn1_to_q.weight",
        "lora_unet_down_blocks_0_attn1_to_out_0.weight",
    ]
    assert pairs(adapter(ours), model(base)) == dict(zip(ours, base, strict=True))
    text = ["lora_te_text_model_encoder_layers_0_mlp_fc1.weight"]
    there = ["text_model.encoder.layers.0.mlp.fc1.weight"]
    assert pairs(adapter(text), model(there)) == dict(zip(text, there, strict=True))
    # A plain tensor of such a name is no adapter's.
    assert set(pairs(model(ours), model(base)).values()) == {None}


def test_kohyas_names_in_a_pipeline():
    ours = ["lora_unet_a_b.weight", "lora_te_a_b.weight", "lora_te2_a_b.weight"]
    base = ["unet.a.b.weight", "text_encoder.a.b.weight", "text_encoder_2.a.b.weight"]
    assert pairs(adapter(ours), model(base)) == dict(zip(ours, base, strict=True))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("lora_unet_input_blocks_4_1_proj_in", "model.diffusion_model.input_blocks.4.1.proj_in"),
        ("lora_te_text_model_fc1", "cond_stage_model.transformer.text_model.fc1"),
        ("lora_te1_text_model_fc1", "conditioner.embedders.0.transformer.text_model.fc1"),
    ],
)
def test_kohyas_names_in_a_file_that_holds_a_pipeline(name, base):
    ours = adapter([f"{name}.weight"])
    theirs = model([f"{base}.weight", "first_stage_model.decoder.conv.weight"])
    assert pairs(ours, theirs) == {f"{name}.weight": f"{base}.weight"}


def test_underscores_are_dots_in_kohyas_names_alone():
    ours = adapter(["h.a_b.weight", "x.weight"])
    assert pairs(ours, model(["h_a.b.weight", "x.weight"]))["h.a_b.weight"] is None


def test_two_adapters_of_one_layer():
    ours = adapter(["x.lora.default.weight", "x.lora.other.weight", "y.lora.weight"])
    assert pairs(ours, model(["x.weight", "y.weight"])) == {
        "x.lora.default.weight": "x.weight",
        "x.lora.other.weight": "x.weight",
        "y.lora.weight": "y.weight",
    }


def test_the_bases_own_weight_beside_an_adapter():
    ours = model(["x.base_layer.weight", "y.weight"])
    found = matching(ours, model(["y.weight"]))
    assert found.matches[0].reason == "the base's own weight, kept beside the adapter"


def test_underscores_that_could_be_two_names():
    ours = "lora_unet_a_b_c.weight"
    assert pairs(adapter([ours]), model(["a.b_c.weight", "a_b.c.weight"])) == {ours: None}


NAMES = st.lists(
    st.text("abc.", min_size=1, max_size=5).filter(lambda t: ".." not in t and t.strip(".") == t),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(max_examples=60, deadline=None)
@given(first=NAMES, second=NAMES)
def test_nothing_is_lost_and_nobody_has_two_partners(first, second):
    ours, theirs = (model([f"{name}.weight" for name in names]) for names in (first, second))
    found = matching(ours, theirs)
    partners = [match.theirs.layer.tensor for match in found.matches if match.theirs]
    assert len(set(partners)) == len(partners)
    assert len(found.matches) == len(first)
    rest = [alone.task.layer.tensor for alone in found.rest]
    assert sorted(partners + rest) == sorted(f"{name}.weight" for name in second)
    for match in found.matches:
        name = match.ours.layer.tensor
        if name.removesuffix(".weight") in second:
            assert match.theirs.layer.tensor == name
        assert bool(match.theirs) != bool(match.reason)


@settings(max_examples=30, deadline=None)
@given(names=NAMES)
def test_a_model_matches_itself(names):
    names = [f"{name}.weight" for name in names]
    assert pairs(model(names), model(names)) == {name: name for name in names}
