"""What is not written: tensors that a format has no place for, and over what must stay."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from files import Made
from safetensors.numpy import load_file, save_file

import wwfunc
from loaders.errors import ElementTypeError, HeaderError, UnsupportedError
from wwfunc.checkpoint import ArrayHandle, Checkpoint
from wwfunc.lowrank import LowRank
from wwfunc.saving import check_target, save
from wwfunc.transforms.models import smooth

EYE = np.eye(2)
LOW = LowRank(ArrayHandle(EYE), ArrayHandle(EYE), 1.0, (2, 2))
REFUSED = {
    "complex": ("x.safetensors", {"w": EYE.astype(complex)}, ElementTypeError, "no complex128"),
    "float8": (
        "x.safetensors",
        {"w": EYE.astype(ml_dtypes.float8_e3m4)},
        ElementTypeError,
        "no float8_e3m4",
    ),
    "float6": (
        "x.safetensors",
        {"w": EYE.astype(ml_dtypes.float6_e2m3fn)},
        ElementTypeError,
        "no float6",
    ),
    "text": ("x.safetensors", {"w": np.array(["a"])}, ElementTypeError, "no str"),
    "odd": (
        "x.safetensors",
        {"w": np.ones(3, ml_dtypes.float4_e2m1fn)},
        ElementTypeError,
        "whole bytes",
    ),
    "reserved": ("x.safetensors", {"__metadata__": EYE}, HeaderError, "no name"),
    "surrogate": ("x.safetensors", {"\ud800": EYE}, HeaderError, "no Unicode"),
    "adapter": ("x.safetensors", {"w": LOW}, UnsupportedError, "low-rank change"),
    "bfloat16": ("x.npz", {"w": EYE.astype(ml_dtypes.bfloat16)}, ElementTypeError, "write .safet"),
    "entry": ("x.npz", {"a\0b": EYE}, HeaderError, "no name"),
    "absolute": ("x.npz", {"/abs": EYE}, HeaderError, "no name"),
    "upwards": ("x.npz", {"../e": EYE}, HeaderError, "no name"),
    "backslash": ("x.npz", {"a\\b": EYE}, HeaderError, "no name"),
    "long": ("x.npz", {"a" * 70_000: EYE}, HeaderError, "no name"),
    "two": ("x.npy", {"a": EYE, "b": EYE}, wwfunc.OptionError, "takes one array"),
    "format": ("x.pt", {"a": EYE}, wwfunc.OptionError, "'x.safetensors'"),
    "suffix": ("model", {"a": EYE}, wwfunc.OptionError, "'model.safetensors'"),
    "folder": ("no/x.npz", {"a": EYE}, wwfunc.OptionError, "no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_has_no_place_for_is_refused_before_anything_is_written(case, tmp_path):
    name, tensors, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        save(Checkpoint(tensors), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(HeaderError, match="not all text"):
        save(Checkpoint({"a": EYE}, metadata={"n": 3}), tmp_path / "x.safetensors")


def test_a_header_longer_than_others_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("loaders.saving._LONGEST_HEADER", 1000)
    save(Checkpoint({"a": EYE}, metadata={"n": "x" * 900}), tmp_path / "x.safetensors")
    with pytest.raises(HeaderError, match="1,000 at most"):
        save(Checkpoint({"a": EYE}, metadata={"n": "x" * 1000}), tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize("lost", [1.0, "pt"])
def test_a_value_that_would_be_lost_is_refused_and_a_function_is_not(lost, tmp_path):
    with pytest.raises(wwfunc.InputError, match="1 leaves hold no array and would be lost: a;"):
        save({"a": lost, "b": EYE}, tmp_path / "x.safetensors")
    save({"activation": np.tanh, "b": EYE}, tmp_path / "x.safetensors")


@pytest.mark.parametrize("path", [3, b"x.npz", "\0.npz", "a" * 300 + ".npz", "x.npz/y.npz"])
def test_what_is_no_path_is_an_option_error(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").touch()
    with pytest.raises(wwfunc.OptionError):
        save({"a": EYE}, path)


def test_the_adapter_may_be_written_as_the_change_that_it_is(tmp_path):
    save(Checkpoint({"w": LOW}).read(), tmp_path / "x.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["w"], EYE)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(wwfunc.OptionError, match="a folder"):
        save({"a": EYE}, tmp_path / "x.safetensors")


def test_the_file_that_is_read_from_is_never_written(tmp_path):
    path = tmp_path / "in.safetensors"
    save_file({"a": EYE, "b": EYE}, path)
    (tmp_path / "link.safetensors").symlink_to(path)
    (tmp_path / "hard.safetensors").hardlink_to(path)
    loaded = wwfunc.load(path)
    before = path.read_bytes()
    parts = Checkpoint({"x": loaded["a"], "y": np.ones(3)})  # its source is not known
    for model in (loaded, parts, path, smooth(loaded, 1)):
        for name in ("in", "link", "hard"):
            with pytest.raises(wwfunc.OptionError, match="read from this file"):
                save(model, tmp_path / f"{name}.safetensors")
            with pytest.raises(wwfunc.OptionError, match="read from this file"):
                check_target(model, tmp_path / f"{name}.safetensors")
    assert path.read_bytes() == before


def test_shards_become_one_file_and_none_of_them_is_written(tmp_path):
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": EYE}, tmp_path / "one.safetensors")
    save_file({"b": 2 * EYE}, tmp_path / "two.safetensors")
    model = wwfunc.load(tmp_path)
    with pytest.raises(wwfunc.OptionError, match="read from this file"):
        save(model, tmp_path / "two.safetensors")
    (tmp_path / "new").mkdir()
    save(model, tmp_path / "new" / "whole.safetensors")
    assert wwfunc.load(tmp_path / "new").digest() == model.digest()


def test_nothing_is_written_into_the_folder_that_the_model_was_opened_as(tmp_path):
    """Else the folder, opened again, would be another model, or two of which none is meant."""
    folder = tmp_path / "model"
    folder.mkdir()
    save({"a": EYE}, folder / "foo.safetensors")
    (tmp_path / "alias").symlink_to(folder)
    (tmp_path / "out.npz").symlink_to(folder / "bar.npz")
    (folder / "away.npz").symlink_to(tmp_path / "away.npz")
    for path in ("model/bar.npz", "alias/model.safetensors", "out.npz", "model/away.npz"):
        with pytest.raises(wwfunc.OptionError, match="opened as the folder"):
            check_target(wwfunc.load(folder), tmp_path / path)
    save(folder / "foo.safetensors", folder / "bar.npz")  # a file was opened, not the folder


def test_a_failure_leaves_what_was_there(tmp_path):
    class Broken(Made):
        def read(self, rows=slice(None)):
            raise OSError(5, "disk")

    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    for name in ("x.safetensors", "x.npz"):
        with pytest.raises(OSError, match="disk"):
            save(Checkpoint({"a": Made(1.0), "b": Broken(2.0)}), tmp_path / name)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "read", [np.zeros((2, 2)), np.zeros(Made.shape, np.int64)], ids=["shape", "type"]
)
def test_a_handle_that_reads_something_else_is_caught(read, tmp_path):
    class Liar(Made):
        def read(self, rows=slice(None)):
            return read

    for name in ("x.safetensors", "x.npz", "x.npy"):
        with pytest.raises(HeaderError, match=f"read as {read.dtype} of shape"):
            save(Checkpoint({"a": Liar(1.0)}), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
