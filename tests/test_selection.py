"""Which layers are measured; the ids by which they are asked for; options that make no sense."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import wwfunc
from wwfunc import Checkpoint, OptionError, Options, SelectionError
from wwfunc.layers.find import find

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape)


MODEL = {
    "wte.weight": normal(40, 8),
    "h.0.attn.c_attn.weight": normal(10, 30),
    "h.0.ln.weight": np.ones(10),
    "h.0.attn.c_attn.bias": np.ones(30),
    "h.1.attn.c_attn.weight": normal(10, 30),
    "h.10.conv.weight": normal(9, 12, 3, 1),
    "h.10.small.weight": normal(5, 30),
    "lm_head.weight": normal(40, 9),
    "projection": normal(12, 20),
}
IDS = {
    "h.0.attn.c_attn": 1,
    "h.1.attn.c_attn": 3,
    "h.10.conv": 4,
    "h.10.small": 5,
    "lm_head": 6,
    "projection": 7,
    "wte": 8,
}


def names(layers, **options):
    return [record.longname for record in wwfunc.describe(MODEL, layers=layers, **options)]


def test_ids_count_weights_in_natural_order():
    """The norm between 1 and 3 counts; biases do not."""
    assert {r.longname: r.layer_id for r in wwfunc.describe(MODEL)} == IDS


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((), list(IDS)),
        (None, list(IDS)),
        (3, ["h.1.attn.c_attn"]),
        ([8, 1], ["h.0.attn.c_attn", "wte"]),
        (-4, [n for n in IDS if n != "h.10.conv"]),
        ([-4, -8], [n for n in IDS if n not in ("h.10.conv", "wte")]),
        (["h.*", -4], ["h.0.attn.c_attn", "h.1.attn.c_attn", "h.10.small"]),
        ("lm_head", ["lm_head"]),
        ("lm_head.weight", ["lm_head"]),
        ("conv2d", ["h.10.conv"]),
        ("embedding", ["wte"]),
        ("dense", [n for n in IDS if n != "h.10.conv"]),
        ("h.1*", ["h.1.attn.c_attn", "h.10.conv", "h.10.small"]),
        ("h.[01].*", ["h.0.attn.c_attn", "h.1.attn.c_attn"]),
        ("*.attn.*.weight", ["h.0.attn.c_attn", "h.1.attn.c_attn"]),
        (["embedding", 6, "*conv*", "wte"], ["h.10.conv", "lm_head", "wte"]),
        (iter(["wte", 7]), ["projection", "wte"]),
    ],
)
def test_layers(layers, expected):
    assert names(layers) == expected


def test_what_is_not_selected_is_not_measured():
    analysis = wwfunc.analyze(MODEL, layers="h.*")
    assert [record.longname for record in analysis] == list(IDS)[:4]
    reasons = {row.tensor: row.reason for row in analysis.coverage if row.rule != "bias"}
    assert reasons["wte.weight"] == reasons["projection"] == "not selected by layers="
    assert reasons["h.10.conv.weight"] == ""


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            "h.0.attn.c_atn",
            r"no layer fits 'h\.0\.attn\.c_atn'; the nearest name is 'h\.0\.attn\.c_at",
        ),
        ("zzz", "no layer fits 'zzz'$"),
        ("H.*", r"no layer fits 'H\.\*'"),
        (99, r"no layer has the id 99; there are 1 to 8"),
        (2, r"no layer has the id 2; .*norms and biases have no row"),
        (-99, "no layer has the id 99"),
        (["wte", "zzz"], "no layer fits 'zzz'"),
        ("h.0.ln", "no layer fits"),
        ([3, -3], "leaves out every layer that it takes"),
    ],
)
def test_a_selector_that_fits_nothing(layers, message):
    with pytest.raises(SelectionError, match=message):
        wwfunc.analyze(MODEL, layers=layers)


def test_nothing_to_select_from():
    with pytest.raises(SelectionError, match="no layer has the id 1 "):
        wwfunc.describe({"bias": np.ones(3)}, layers=1)


# Filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "skipped", "reason"),
    [
        ({}, ["h.10.small"], "skipped: 5 eigenvalues, min_evals is 8"),
        ({"min_evals": 5}, [], ""),
        ({"min_evals": 6}, ["h.10.small"], "skipped: 5 eigenvalues, min_evals is 6"),
        (
            {"min_evals": 1, "max_evals": 26},
            ["h.10.conv"],
            "skipped: 27 eigenvalues, max_evals is 26",
        ),
        ({"min_evals": 1, "max_evals": 27}, [], ""),
        ({"min_evals": 1, "max_N": 39}, ["lm_head", "wte"], "skipped: N is 40, max_N is 39"),
        ({"min_evals": 1, "max_N": 40}, [], ""),
    ],
)
@pytest.mark.parametrize("verb", [wwfunc.analyze, wwfunc.describe])
def test_filters_leave_a_row_with_the_reason(verb, options, skipped, reason):
    analysis = verb(MODEL, **options)
    assert {r.longname: r.layer_id for r in analysis} == IDS
    left_out = [r for r in analysis if r.status.startswith("skipped")]
    assert [r.longname for r in left_out] == skipped
    assert {r.status for r in left_out} <= {reason}
    assert all(math.isnan(r.alpha) and r.measures is None for r in left_out)
    rows = {row.longname: row for row in analysis.coverage}
    assert all((rows[n].status, rows[n].reason) == ("skipped", reason) for n in skipped)


def test_a_selection_changes_no_number():
    whole = wwfunc.analyze(MODEL)
    part = wwfunc.analyze(MODEL, layers=["h.10.conv", "wte"])
    assert [r.row() for r in part] == [whole[r.longname].row() for r in part]


# Ids ------------------------------------------------------------------------------------------

F8 = ml_dtypes.float8_e4m3fn
STORED = {
    "float32": {"weight": np.float32},
    "fp8": {"weight": F8, "weight_scale_inv": np.float32},
    "int8": {"weight": np.int8, "SCB": np.float32},
    "gptq": {"qweight": np.int32, "qzeros": np.int32, "scales": np.float16, "g_idx": np.int32},
    "compressed": {
        "weight_packed": np.int32,
        "weight_scale": F8,
        "weight_global_scale": np.float32,
    },
    "hqq": {"W_q": np.uint8, "scale": np.float16, "zero": np.float16},
}


@pytest.mark.parametrize("storage", STORED)
def test_ids_do_not_depend_on_how_a_weight_is_stored(storage):
    tensors = {n: np.ones((9, 8)) for n in ("embed.weight", "lm_head.weight", "h.2.bias")}
    tensors |= {f"h.{block}.norm.weight": np.ones(8) for block in (2, 10)}
    for module in ("h.2.q", "h.2.up", "h.10.q", "h.10.up"):
        for last, dtype in STORED[storage].items():
            tensors[f"{module}.{last}"] = np.ones((9, 8), dtype)
    ids = {f.layer.longname: f.layer.layer_id for f in find(Checkpoint(tensors)) if f.layer}
    assert (ids["embed"], ids["lm_head"]) == (1, 8)


def test_ids_do_not_depend_on_the_order_in_the_file():
    backwards = dict(reversed(MODEL.items()))
    assert wwfunc.describe(backwards).coverage == wwfunc.describe(MODEL).coverage
    assert {r.longname: r.layer_id for r in wwfunc.describe(backwards)} == IDS


def test_a_tied_tensor_is_one_layer_and_its_alias_keeps_its_id():
    shared, other = np.ones((16, 8)), np.ones((16, 8))
    found = find(Checkpoint({"wte.weight": shared, "lm_head.weight": shared, "x.weight": other}))
    assert [(f.tensor, f.rule, f.reason) for f in found] == [
        ("lm_head.weight", "torch_dense", ""),
        ("wte.weight", "tied", "the same tensor as 'lm_head.weight'"),
        ("x.weight", "torch_dense", ""),
    ]
    assert [f.layer.layer_id for f in found if f.layer] == [1, 3]


def test_equal_values_in_other_memory_are_not_tied():
    values = np.ones((16, 8))
    found = find(Checkpoint({"a.weight": values, "b.weight": values.copy(), "c.weight": values.T}))
    assert [f.rule for f in found] == ["torch_dense"] * 3


def test_empty_tensors_are_not_tied():
    """They may all start where the next tensor does."""
    nothing = np.ones((0, 8))
    statuses = [r.status for r in wwfunc.analyze({"a.weight": nothing, "b.weight": nothing})]
    assert statuses == ["skipped: an empty tensor"] * 2


# Options --------------------------------------------------------------------------------------

NO_COUNT = [0, -1, True, math.nan, math.inf, "8", [8]]
NO_NUMBER = [0, 0.0, -1, -0.5, True, math.nan, math.inf, "1", [1.0]]
BAD_VALUES = {
    "layers": [True, [True], 0, "", [None], [1.5], ["wte", 0], 3.5],
    "min_evals": [*NO_COUNT, None],
    "max_evals": NO_COUNT,
    "max_N": NO_COUNT,
    "xmin": NO_NUMBER,
    "xmin_min": NO_NUMBER,
    "xmax": [value for value in NO_NUMBER if value != -1] + [-2.5, False],
    "threshold": ["relativ", None, 1, True, ["absolute"]],
    "small_sample": ["", None, "MLE"],
    "engine": ["cpu", None, 1],
    "seed": [-1, 1.5, True, None, "0"],
    "mp_method": ["", None, "KDE", "johnstone", True],
    "conv2d_fft": [0, -1, 2.5, "32", math.nan, [32]],
    **{
        name: [None, 1, 0, "yes", math.nan, [True]]
        for name in (
            *("mp_fit", "randomize", "detX", "vectors", "ranks", "deltas"),
            *("pool", "inverse", "glorot_fix"),
        )
    },
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in BAD_VALUES.items() for v in vs])
def test_a_value_outside_its_range(name, value):
    with pytest.raises(OptionError, match=f"^{name}(=| is).*"):
        Options(**{name: value})
    with pytest.raises(OptionError, match=name):
        wwfunc.analyze(MODEL, **{name: value})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer", "there is no option 'layer'; did you mean 'layers'"),
        ("min_eval", "did you mean 'min_evals'"),
        ("xmn", "did you mean 'xmin'"),
        ("randomise", "did you mean 'randomize'"),
        ("mpfit", "did you mean 'mp_fit'"),
        ("detx", "did you mean 'detX'"),
        ("conv2d_ftt", "did you mean 'conv2d_fft'"),
        ("quux", "'quux'; there are layers, min_evals"),
    ],
)
@pytest.mark.parametrize("verb", [wwfunc.analyze, wwfunc.describe])
def test_an_unknown_option(verb, name, message):
    with pytest.raises(OptionError, match=message):
        verb(MODEL, **{name: 1})


@pytest.mark.parametrize(("given", "grid"), [(True, 32), (False, None), (None, None), (7, 7)])
def test_the_side_of_a_grid(given, grid):
    assert Options(conv2d_fft=given).conv2d_fft == grid


def test_changes_come_on_top_of_the_options():
    base = Options(layers="h.*", min_evals=5)
    assert [r.longname for r in wwfunc.describe(MODEL, base, layers="wte")] == ["wte"]
    assert wwfunc.describe(MODEL, base, layers="wte").options.min_evals == 5
    assert base.layers == ("h.*",)
