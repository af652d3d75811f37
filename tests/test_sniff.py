"""What is no checkpoint gets one clear error; what is one loads under any name."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile

import msgpack
import pytest
from files import REPOSITORY, encoded, framed, random_array, write

import loaders
import wwfunc
from loaders import errors


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


MAGIC = 0x1950A86A20F9469CFC6C
DETECTED = {
    "pickle 2": (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.", "pickle"),
    "pickle 5": (pickle.dumps({"a": 1}, 5), "pickle"),
    "pickle 0": (pickle.dumps({"a": 1}, 0), "pickle"),
    "system call": (b"\x80\x03cposix\nsystem\nX\x02\0\0\0lsq\0\x85R.", "pickle"),
    "torch zip": (zipped("archive/data.pkl", "archive/version"), "torch-zip"),
    "torch zip of upper case": (zipped("archive/DATA.PKL"), "torch-zip"),
    "TorchScript": (zipped("m/data.pkl", "m/constants.pkl", "m/code/x.py"), "torchscript"),
    "Keras zip": (zipped("metadata.json", "config.json", "model.weights.h5"), "keras-zip"),
    "npz": (zipped("a.npy", "b/c.npy"), "npz"),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr': '<f4', }", "npz"),
    "torch legacy": (pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2), "torch-legacy"),
    "torch legacy, protocol 0": (pickle.dumps(MAGIC, 0) + pickle.dumps(1001, 0), "torch-legacy"),
    "torch legacy, protocol 4": (pickle.dumps(MAGIC, 4) + pickle.dumps(1001, 4), "torch-legacy"),
    "torch tar": (tarred(), "torch-tar"),
    "GGUF of 123 tensors": (b"GGUF\x03\0\0\0{\0\0\0\0\0\0\0" + bytes(8), "gguf"),
    "msgpack": (msgpack.packb({"params": {"kernel": 1}}), "flax-msgpack"),
    "msgpack of many": (msgpack.packb({str(i): i for i in range(70_000)}), "flax-msgpack"),
    "ONNX": (b"\x08\x0a\x12\x07pytorch:\0", "onnx"),
    "index": ('{"metadata": {}, "weight_map": {"a\\"b": "x.safetensors"}}', "shards"),
    "Keras index": ('{"weight_map": {"/layers/dense/vars": ["x.weights.h5"]}}', "keras-shards"),
    "Keras index of one file": ('{"weight_map": {"/layers/a/vars": "x.h5"}}', "keras-shards"),
    "safetensors": (encoded({}), "safetensors"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ""])
@pytest.mark.parametrize(("content", "name"), DETECTED.values(), ids=DETECTED)
def test_format_is_told_by_the_content(tmp_path, content, name, suffix):
    assert loaders.detect(write(tmp_path / f"model{suffix}", content)) == name


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"

STRANGERS = {
    "gzip": (gzip.compress(b"{}", mtime=0), "a gzip archive: unpack"),
    "bzip2": (bz2.compress(b"{}"), "a bzip2 archive: unpack"),
    "HTML": ("\n<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML or XML page"),
    "XML": ("<?xml version='1.0'?><Error>AccessDenied</Error>", "an HTML or XML page"),
    "LFS pointer": (LFS, "a git-LFS pointer: .* not downloaded .git lfs pull"),
    "JSON": ('{"weights": [1, 2]}', "a JSON document"),
    "JSON with a brace where a header begins": ('{"data":{"a": 1}}', "a JSON document"),
    "JSON array": ("[1, 2, 3]", "a JSON document"),
    "zip of texts": (zipped("a.txt"), "a zip archive of no kind that is known"),
    "empty zip": (zipped(), "a zip archive of no kind that is known"),
    "empty": (b"", "an empty file"),
    "one byte": (b"\0", "no format that is known"),
    "text": ("weights of a model\n", "no format that is known"),
    "zeros": (bytes(600), "no format that is known"),
    "random": (bytes.fromhex("9a1f7c0058e2d3b4c6e5f70819"), "no format that is known"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize(("content", "match"), STRANGERS.values(), ids=STRANGERS)
def test_stranger_is_named(tmp_path, content, match, suffix):
    path = write(tmp_path / f"model{suffix}", content)
    with pytest.raises(errors.UnknownFormatError, match=f"looks like {match}") as caught:
        loaders.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "PyTorch" in str(caught.value)
    assert "\n" not in str(caught.value)


UNREAD = {
    "pt2": (zipped("m/version", "m/data/weights/model_weights_config.json"), "a .pt2 export"),
    "TorchScript 1.0": (zipped("m/model.json", "m/tensors/0"), "TorchScript of PyTorch 1.0"),
}


@pytest.mark.parametrize(("content", "match"), UNREAD.values(), ids=UNREAD)
def test_known_and_not_read(tmp_path, content, match):
    with pytest.raises(errors.UnsupportedError, match=match):
        loaders.load(write(tmp_path / "x", content))


FOLDERS = {
    "peft": (["adapter_config.json", "adapter_model.safetensors"], "peft"),
    "adapter beside a model": (["adapter_config.json", "model.safetensors"], "model-folder"),
    "orbax": (["_METADATA", "manifest.ocdbt"], "orbax"),
    "steps of a run": (["10/default/_METADATA", "20/default/_METADATA"], "orbax"),
    "items of any name": (["7/model/_METADATA"], "orbax"),
    "arrays without a tree": (["params.w/.zarray", "params.w/0.0"], "orbax"),
    "keras": (["config.json", "metadata.json", "model.weights.h5"], "keras-folder"),
    "model": (["config.json", "pytorch_model.bin"], "model-folder"),
    "one rank": (["consolidated.00.pth"], "model-folder"),
}


def filled(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, b"")
    return folder


@pytest.mark.parametrize(("names", "expected"), FOLDERS.values(), ids=FOLDERS)
def test_folder_is_told_by_its_files(tmp_path, names, expected):
    assert loaders.detect(filled(tmp_path, names)) == expected


UNREAD_FOLDERS = {
    "distributed": ([".metadata", "__0_0.distcp"], "a distributed PyTorch checkpoint"),
    "SavedModel": (["saved_model.pb", "variables/x"], "a TensorFlow SavedModel"),
    "ranks": (["consolidated.00.pth", "consolidated.01.pth"], "tensor-parallel"),
}


@pytest.mark.parametrize(("names", "match"), UNREAD_FOLDERS.values(), ids=UNREAD_FOLDERS)
def test_folder_known_and_not_read(tmp_path, names, match):
    with pytest.raises(errors.UnsupportedError, match=match):
        loaders.load(filled(tmp_path, names))


def test_keras_model_without_weights(tmp_path):
    text = '{"metadata": {"total_size": 0}, "weight_map": {}}'
    assert dict(loaders.load(write(tmp_path / "x.weights.json", text))) == {}


def test_an_option_of_another_format(tmp_path):
    path = write(tmp_path / "x", {"a": random_array("F32", (2,))})
    with pytest.raises(wwfunc.OptionError, match="a safetensors file has no option 'key'"):
        loaders.load(path, key="ema")


def test_each_reader_is_public():
    readers = {format.reader.rpartition(".")[2] for format in loaders.FORMATS.values()}
    public = {name for name in loaders.__all__ if name.startswith("load_")}
    assert public == readers | {"load_lora"}, "factors of adapters come in files of several formats"
    for name in loaders.__all__:
        assert getattr(loaders, name).__doc__, name


UNREADABLE = {
    "missing": (lambda here: here / "no", "No such file"),
    "NUL": (lambda here: f"{here}/a\0b", "null"),
    "too long": (lambda here: here / ("x" * 300), "File name too long"),
    "under a file": (lambda here: write(here / "file", b"") / "x", "Not a directory"),
    "device": (lambda here: "/dev/null", "not a regular file"),
    "link to nothing": (lambda here: linked(here / "link", "no"), "No such file"),
    "link to itself": (lambda here: linked(here / "link", "link"), "symbolic links"),
}


def linked(path, target):
    path.symlink_to(target)
    return path


@pytest.mark.parametrize(("make", "match"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("kind", [str, os.fspath], ids=["text", "path"])
def test_unreadable(tmp_path, make, match, kind):
    path = make(tmp_path)
    with pytest.raises(errors.NotReadableError, match=match) as caught:
        loaders.load(kind(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "wwfunc", "describe", tmp_path / "pipe.safetensors"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"wwfunc: {tmp_path}/pipe.safetensors: not a regular file\n"


def test_index_is_known_by_its_name(tmp_path):
    path = write(tmp_path / "x.safetensors.index.json", "weights")
    with pytest.raises(errors.ShardError, match="not valid JSON"):
        loaders.load(path)


SUFFIXES = ["", ".safetensors", ".pt", ".bin", ".h5", ".zip", ".json", ".gguf", ".part"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_safetensors_under_any_suffix(tmp_path, suffix):
    path = write(tmp_path / f"model{suffix}", {"a": random_array("F32", (2, 2))})
    assert loaders.load(path)["a"].shape == (2, 2)


LENGTHS = {"{": 0x7B, "[": 0x5B, "blank and {": 0x7B20, "pickle": 0x0280, "gzip": 0x8B1F}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_length_that_spells_something_else(tmp_path, length):
    path = write(tmp_path / "x", encoded({"a": random_array("U8", (4,))}, pad=length))
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert loaders.load(path)["a"].shape == (4,)


DAMAGED = [
    (framed(b"{}", length=2**63), errors.BudgetError),
    (framed(b"{}", length=300), errors.TruncatedError),
    (framed(b"{}", b"\0"), errors.LayoutError),
    (framed(b' {"a": }'), errors.HeaderError),
]


@pytest.mark.parametrize(("content", "error"), DAMAGED)
def test_damaged_safetensors_is_still_one(tmp_path, content, error):
    with pytest.raises(error):
        loaders.load(write(tmp_path / "x", content))
