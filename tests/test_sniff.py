"""What is no checkpoint gets one clear error; what is one loads under any name."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from files import REPOSITORY, encoded, framed, random_array, write

import loaders
from loaders import errors


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."

STRANGERS = {
    "pickle 2": (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.", "a Python pickle, which can run"),
    "pickle 5": (b"\x80\x05\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", "a Python pickle"),
    "system call": (b"\x80\x03cposix\nsystem\nX\x02\0\0\0lsq\0\x85R.", "a Python pickle"),
    "torch zip": (zipped(), "a zip archive .PyTorch .pt"),
    "torch legacy": (LEGACY, "a PyTorch file of the legacy format"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + b"{" * 88, "an HDF5 file .Keras"),
    "GGUF of 123 tensors": (b"GGUF\x03\0\0\0{\0\0\0\0\0\0\0" + bytes(8), "a GGUF file"),
    "gzip": (gzip.compress(b"{}", mtime=0), "a gzip archive"),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr': '<f4', }", "a NumPy .npy array"),
    "HTML": ("\n<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML or XML page"),
    "XML": ("<?xml version='1.0'?><Error>AccessDenied</Error>", "an HTML or XML page"),
    "LFS pointer": (LFS, "a git-LFS pointer: .* not downloaded .git lfs pull"),
    "JSON": ('{"weights": [1, 2]}', "a JSON document"),
    "JSON with a brace where a header begins": ('{"data":{"a": 1}}', "a JSON document"),
    "JSON array": ("[1, 2, 3]", "a JSON document"),
    "tar": (tarred(), "a tar archive"),
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
    assert "what can be loaded is a safetensors file, an index" in str(caught.value)
    assert "\n" not in str(caught.value)


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
    path = write(tmp_path / "x.safetensors.index.json", encoded({}))
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
