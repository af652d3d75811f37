"""Transforms of whole models: what changes, what stays bit by bit, and what is said of it."""

from __future__ import annotations

import gc
import pickle
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import wwfunc
from wwfunc.checkpoint import ArrayHandle, Checkpoint, TensorHint, as_handle
from wwfunc.lowrank import LowRank
from wwfunc.matrices import fold, unfold
from wwfunc.saving import save
from wwfunc.transforms.handles import changes
from wwfunc.transforms.models import sharpen, smooth
from wwfunc.transforms.smoothing import smooth_matrix


def gaussian(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


KINDS = {
    "dense": ("a.weight", (20, 12), TensorHint("dense")),
    "wide": ("a.weight", (12, 20), TensorHint("dense")),
    "flax dense": ("a.kernel", (12, 20), TensorHint("dense", rows=(1,), cols=(0,))),
    "embedding": ("embeddings.weight", (30, 8), TensorHint("embedding")),
    "torch conv": ("c.weight", (16, 9, 3, 2), TensorHint("conv2d")),
    "flax conv": ("conv.kernel", (3, 2, 9, 16), TensorHint("conv2d", rows=(3,), cols=(2,))),
    "conv1d": ("c.weight", (16, 9, 3), TensorHint("conv1d")),
    "conv3d": ("c.weight", (8, 9, 2, 2, 2), TensorHint("conv3d")),
    "heads": ("x", (12, 3, 4), TensorHint("dense", rows=(1, 2), cols=(0,))),
}


@pytest.mark.parametrize("case", KINDS)
def test_every_kind_of_layer_is_unfolded_and_folded(case):
    name, shape, hint = KINDS[case]
    W = gaussian(*shape)
    given = {"hints": {"x": hint}} if name == "x" else {}
    result = smooth({name: W}, 5, **given)[name].read()
    expected = fold(smooth_matrix(unfold(W, hint), 5), shape, hint)
    assert result.dtype == W.dtype
    np.testing.assert_array_equal(result, expected)
    stack = unfold(result.astype(np.float64), hint)
    assert np.linalg.matrix_rank(stack, tol=1e-5).sum() == 5
    assert not np.array_equal(result, W)


def test_an_array_in_an_array_out():
    W = gaussian(20, 12)
    np.testing.assert_array_equal(smooth(W, 3), smooth_matrix(W, 3))
    assert isinstance(smooth(jax.numpy.asarray(W), 3), jax.Array)
    for transform in (lambda **k: smooth(W, 3, **k), lambda **k: sharpen(W, **k)):
        for extra in ({"layers": "a"}, {"hints": {}}):
            with pytest.raises(wwfunc.OptionError, match="not of an array"):
                transform(**extra)


def test_an_array_of_another_library_is_read_or_refused():
    class Foreign:
        def __init__(self, array, readable=True):
            self.array, self.readable = array, readable
            self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes

        def __array__(self, dtype=None, copy=None):
            if not self.readable:
                raise RuntimeError("it requires grad")
            return self.array

    W = gaussian(20, 12)
    for transform in (lambda w: smooth(w, 3), sharpen):
        np.testing.assert_array_equal(transform(Foreign(W)), transform(W))
        with pytest.raises(wwfunc.InputError, match="a Foreign that cannot be read: it requires"):
            transform(Foreign(W, readable=False))


SELECTORS = {
    "text": ("a", "['a']"),
    "generator": ((name for name in "ab"), "['a', 'b']"),
    "array": (np.array(["a", "b"]), "['a', 'b']"),
    "ids": (np.array([1, 2]), "[1, 2]"),
    "empty": ([], ""),
    "none": (None, ""),
}


@pytest.mark.parametrize("case", SELECTORS)
def test_selectors_of_every_sort_are_noted_alike(case):
    layers, words = SELECTORS[case]
    note = smooth({"a": gaussian(9, 9), "b": gaussian(9, 9)}, 2, layers=layers).metadata["wwfunc"]
    assert note == "Smoothing(keep=2)" + (f", layers={words}" if words else "")


def test_no_selector_is_none_for_an_array_too():
    W = gaussian(20, 12)
    for layers in ([], None, np.array([])):
        np.testing.assert_array_equal(smooth(W, 3, layers=layers), smooth(W, 3))


def test_all_other_tensors_are_the_same_handles(digits_path):
    model = wwfunc.load(digits_path)
    before = model.digest()
    result = smooth(model, 4, layers=["dense*", -6])
    assert list(result) == list(model)
    touched = {name for name in model if result[name] is not model[name]}
    assert touched == {f"dense{i}.kernel" for i in (1, 3, 4)}
    for name in set(model) - touched:
        assert result[name] is model[name]
    assert (result.config, result.hints, result.source) == (model.config, model.hints, model.source)
    assert dict(result.metadata) == {
        **model.metadata,
        "wwfunc": "Smoothing(keep=4), layers=['dense*', -6]",
    }
    assert model.digest() == before


def test_what_was_done_is_noted_behind_what_was_done_before():
    twice = sharpen(smooth({"a.weight": gaussian(20, 12)}, -1), seed=3)
    assert twice.metadata["wwfunc"] == "Smoothing(keep=-1); Sharpening(seed=3)"


def test_changes_are_those_of_the_latest_transform():
    model = {"a.weight": gaussian(20, 12), "b.weight": gaussian(20, 12, seed=1)}
    assert {change.words for change in changes(model)} == {"not transformed"}
    twice = smooth(smooth(model, 5), 5, layers="b")
    for result in (twice, pickle.loads(pickle.dumps(twice))):
        words = [change.words for change in changes(result)]
        assert words == ["not selected", "kept 5 of 12 singular values"]


def test_tied_tensors_stay_tied_and_change_together(tmp_path):
    W = gaussian(20, 12)
    result = smooth({"a.weight": W, "b.bias": W[0], "lm_head.weight": W, "c.weight": W.copy()}, 3)
    assert result["a.weight"] is result["lm_head.weight"]
    assert result["a.weight"].key != result["c.weight"].key
    coverage = {row.tensor: row for row in wwfunc.describe(result).coverage}
    assert coverage["lm_head.weight"].reason == "the same tensor as 'a.weight'"
    save(result, tmp_path / "x.safetensors")
    written = wwfunc.load(tmp_path / "x.safetensors").read()
    np.testing.assert_array_equal(written["lm_head.weight"], smooth_matrix(W, 3))
    np.testing.assert_array_equal(written["lm_head.weight"], written["a.weight"])
    np.testing.assert_array_equal(written["b.bias"], W[0])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ">f4"])
def test_the_type_is_kept(dtype):
    W = gaussian(20, 12).astype(dtype)
    for result in (smooth({"w": W}, 3)["w"], sharpen({"w": W})["w"]):
        assert (result.dtype, result.shape, result.nbytes) == (W.dtype, W.shape, W.nbytes)
        assert result.read().dtype == W.dtype


def test_it_is_what_analyze_sees_and_what_is_written(tmp_path):
    W = gaussian(60, 40, dtype=np.float64)
    result = smooth({"w": W, "v": gaussian(60, 40, seed=1)}, 0.5)
    old, new = (wwfunc.analyze(m)["w"].measures.esd.evals for m in ({"w": W}, result))
    np.testing.assert_allclose(new[20:], old[20:], rtol=1e-10)
    assert new[:20].max() < 1e-12 * old[-1]
    save(result, tmp_path / "x.safetensors")
    assert wwfunc.load(tmp_path / "x.safetensors").digest() == result.digest()
    again = smooth(wwfunc.load(tmp_path / "x.safetensors"), 20)["w"].read()
    np.testing.assert_allclose(again, result["w"].read(), atol=1e-12)


def test_what_cannot_be_changed_stays_as_it_was_and_says_why():
    factors = ArrayHandle(np.eye(2))
    nan = gaussian(20, 12)
    nan[3, 4] = np.nan
    spiked = gaussian(64, 64) + 1.0
    model = Checkpoint(
        {
            "adapter": LowRank(factors, factors, 1.0, (2, 2)),
            "codes.weight": np.ones((9, 9), np.int8),
            "empty.weight": np.ones((0, 4), np.float32),
            "nan.weight": nan,
            "narrow.weight": gaussian(9, 9).astype(ml_dtypes.float8_e4m3fn),
            "noise.weight": gaussian(64, 64),
            "other.weight": spiked.copy(),
            "spiked.weight": spiked,
        }
    )
    result = smooth(model, "mp", layers=-7)
    found = {change.layer.tensor: change for change in changes(result)}
    assert list(found) == [name for name in model if not name.startswith("codes")]
    assert found["spiked.weight"].words == "kept 1 of 64 singular values"
    assert found["spiked.weight"].number == 63
    reasons = {
        "adapter": "a low-rank change by an adapter",
        "empty.weight": "an empty tensor",
        "nan.weight": "failed: NaN or infinity",
        "narrow.weight": "float8_e4m3fn elements are too coarse",
        "noise.weight": "keep='mp' would keep none of 64",
        "other.weight": "not selected",
    }
    for name, words in reasons.items():
        assert found[name].words.startswith(words)
        assert found[name].number == 0
        old, new = (as_handle(m[name]).read() for m in (model, result))
        np.testing.assert_array_equal(new, old)
    assert {name for name in found if found[name].failed} == {"nan.weight", "noise.weight"}
    assert result["codes.weight"] is model["codes.weight"]


def test_a_layer_that_loses_nothing_is_unchanged():
    W = gaussian(20, 12)
    result = smooth({"w": W}, 12)
    assert changes(result)[0].words == "kept 12 of 12 singular values"
    assert changes(result)[0].number == 0
    assert np.shares_memory(result["w"].read(), W)


def test_rows_pickles_and_trees():
    W = gaussian(20, 12)
    result = smooth({"w": W}, 3)
    whole = smooth_matrix(W, 3)
    np.testing.assert_array_equal(result["w"].read(slice(4, 9)), whole[4:9])
    with pytest.raises(ValueError, match="read-only"):
        result["w"].read()[0, 0] = 1
    restored = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(restored["w"].read(), whole)
    old = Checkpoint({"w": ArrayHandle(W)})
    moved = jax.tree.map(lambda a, b: np.abs(a.read() - b.read()).max(), old, result)
    assert moved["w"] == np.abs(W - whole).max() > 0


def test_nothing_is_computed_before_it_is_read():
    class Counted(ArrayHandle):
        reads = 0

        def read(self, rows=slice(None)):
            Counted.reads += 1
            return super().read(rows)

    result = smooth(Checkpoint({"a": Counted(gaussian(20, 12)), "b": Counted(gaussian(9, 9))}), 2)
    wwfunc.describe(result)
    assert Counted.reads == 0
    first = result["a"].read()
    assert result["a"].read().base is first.base, "it is there as long as somebody holds it"
    assert Counted.reads == 1
    assert [change.number for change in changes(result)] == [10, 7]
    assert Counted.reads == 2


def test_results_are_not_held():
    result = smooth({f"w{i}": gaussian(600, 30, seed=i, dtype=np.float64) for i in range(20)}, 3)
    changes(smooth({"w": gaussian(600, 30)}, 3))  # what is made once is made here
    gc.collect()
    tracemalloc.start()
    changes(result)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 600 * 30 * 8 < peak


BAD = {
    "keep": (lambda m: smooth(m, 1.5), wwfunc.OptionError, "keep is a count"),
    "seed": (lambda m: sharpen(m, seed=-1), wwfunc.OptionError, "seed is a whole number"),
    "layers": (lambda m: smooth(m, 1, layers="x"), wwfunc.SelectionError, "no layer fits 'x'"),
    "selector": (lambda m: smooth(m, 1, layers=1.5), wwfunc.OptionError, "layers= takes"),
    "hints": (lambda m: smooth(m, 1, hints={"x": None}), wwfunc.OptionError, "no tensor fits"),
    "model": (lambda m: smooth({}, 1), wwfunc.InputError, "no named arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused_at_once(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call({"w": gaussian(9, 9)})


# Sharpening -----------------------------------------------------------------------------------


def trapped():
    """Noise with three elements far over what noise has, and a convolution with one."""
    dense, conv = gaussian(300, 200), gaussian(64, 48, 3, 3, seed=1)
    dense[[7, 90, 250], [3, 150, 60]] = 60.0, -55.0, 50.0
    conv[5, 6, 1, 2] = 40.0
    return {"dense.weight": dense, "dense.bias": dense[0].copy(), "conv.weight": conv}


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_planted_elements_are_removed_and_nothing_else(dtype):
    model = {name: array.astype(dtype) for name, array in trapped().items()}
    result = sharpen(model)
    dense, conv = (result[name].read() for name in ("dense.weight", "conv.weight"))
    where = np.argwhere(dense != model["dense.weight"]).tolist()
    assert where == [[7, 3], [90, 150], [250, 60]]
    assert np.argwhere(conv != model["conv.weight"]).tolist() == [[5, 6, 1, 2]]
    assert not dense[[7, 90, 250], [3, 150, 60]].any()
    assert [change.number for change in changes(result)] == [1, 3]
    np.testing.assert_array_equal(result["dense.bias"].read(), model["dense.bias"])


def test_layers_without_traps_keep_every_bit(tmp_path):
    save_file({"a.weight": gaussian(80, 60)}, tmp_path / "in.safetensors")
    result = sharpen(tmp_path / "in.safetensors", seed=5)
    assert result.digest() == wwfunc.load(tmp_path / "in.safetensors").digest()
    assert changes(result)[0].number == 0
    assert not changes(result)[0].failed


def test_one_array_is_sharpened_too():
    W = trapped()["dense.weight"]
    assert np.argwhere(sharpen(W, seed=2) != W).tolist() == [[7, 3], [90, 150], [250, 60]]
    assert isinstance(sharpen(jax.numpy.asarray(W)), jax.Array)


def test_nan_is_a_failed_layer():
    W = gaussian(30, 20)
    W[1, 2] = np.inf
    change = changes(sharpen({"w": W}))[0]
    assert (change.number, change.failed) == (0, True)
    assert "NaN or infinity" in change.words
