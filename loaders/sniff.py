"""What a file is: by its content, and never by its name alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

from .archive import entry_names
from .budget import Budget
from .errors import UnknownFormatError, UnsupportedError
from .files import read_bytes, require_file

_LOOK = 512
_READ = "safetensors, PyTorch, Keras, Flax, Orbax, NumPy, GGUF and ONNX"
_PICKLED_MAGIC = (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"L119547037146038801333356L\n.")
_HDF5 = b"\x89HDF\r\n\x1a\n"

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "gguf"),
    (b"\x93NUMPY", "npz"),
    (_HDF5, "hdf5"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive: unpack it first"),
    (
        b"version https://git-lfs",
        "a git-LFS pointer: the weights were not downloaded (git lfs pull)",
    ),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
    (b"\x08\x00\x00\x00TFL3", "a TensorFlow Lite model"),
    (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model"),
    (b"ggml", "a GGML file, from before GGUF"),
    (b"tjgg", "a GGML file, from before GGUF"),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
_TEXT_PICKLES = (b"(dp", b"(lp", b"(dq", b"}q", b"]q", b"ccollections\n", b"(i", b"(d", b"(l")
_WEIGHT_MAP = re.compile(rb'"weight_map"\s*:\s*\{\s*(?:"((?:[^"\\]|\\.)*)"\s*:\s*(["\[])|\})')
_ONNX_FIELDS = b"\x12\x1a\x22\x28\x2a\x32\x3a\x42\x72\xca"


def detect_file(path: Path, budget: Budget) -> str:
    """The name in `FORMATS` of the file at `path`.

    Raises
    ------
    UnknownFormatError
        If it is none of them; the message says what it looks like.
    UnsupportedError
        If it is a known kind of checkpoint that is not read.
    """
    size = require_file(path)
    head = read_bytes(path, min(size, _LOOK))
    if _is_safetensors(head, size):
        return "safetensors"
    found = next((name for start, name in _SIGNATURES if head.startswith(start)), "")
    if found == "zip":
        return _in_zip(path, budget)
    if found == "hdf5" or _has_user_block(path, size):
        return _in_hdf5(path, budget)
    found = found or _by_structure(head, path, size, budget)
    if found:
        return found
    raise UnknownFormatError(f"{path}: this looks like {_stranger(head)}; what is read is {_READ}")


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a header length that fits and an opening brace stand where safetensors has them.

    This is asked before any signature: a length can spell one, and 123 is an opening brace.
    """
    if len(head) < 8:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return length <= size - 8 and head[8:].lstrip()[:1] == b"{"


def _in_zip(path: Path, budget: Budget) -> str:
    if path.suffix == ".distcp":  # several archives in a row
        raise UnsupportedError(
            f"{path}: a part of a distributed checkpoint (DCP), which is not read"
        )
    names = entry_names(path, budget)
    ends = {name.rpartition("/")[2].lower() for name in names}
    if any(name.endswith("/model_weights_config.json") for name in names):
        raise UnsupportedError(f"{path}: a .pt2 export, which is not read; save its state_dict")
    if "data.pkl" in ends:
        return "torchscript" if "constants.pkl" in ends else "torch-zip"
    if "model.json" in ends:
        raise UnsupportedError(f"{path}: TorchScript of PyTorch 1.0, which is not read")
    if {"config.json", "model.weights.h5"} & ends and "metadata.json" in ends:
        return "keras-zip"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise UnknownFormatError(
        f"{path}: this looks like a zip archive of no kind that is known "
        f"(PyTorch has data.pkl in it, Keras config.json, NumPy .npy files)"
    )


def _has_user_block(path: Path, size: int) -> bool:
    """HDF5 may start behind a block of the user's, at 512, 1024, 2048, ... bytes."""
    starts = (512 << power for power in range(12))
    return any(start + 8 <= size and read_bytes(path, 8, start) == _HDF5 for start in starts)


def _in_hdf5(path: Path, budget: Budget) -> str:
    from .keras.h5 import layout_of

    return layout_of(path, budget)


def _by_structure(head: bytes, path: Path, size: int, budget: Budget) -> str:
    """Formats without a signature of their own, or an empty text."""
    found = next((name for name, fits in _STRUCTURES.items() if fits(head)), "")
    if not found and head.startswith(_TEXT_PICKLES) and read_bytes(path, 1, size - 1) == b".":
        found = "pickle"
    if not found and (head.lstrip()[:1] == b"{" or path.name.endswith(".index.json")):
        return _by_index(path, size, budget)
    if not found and head[8:9] == b"{":
        found = "safetensors"  # its length is absurd: let the reader name the damage
    return found


def _by_index(path: Path, size: int, budget: Budget) -> str:
    """An index of shards gives a tensor one file; that of Keras gives a path a list of files."""
    if path.name.endswith(".index.json"):  # if it is damaged, let its reader name the damage
        return "shards"
    budget.check("index_bytes", size, path)
    found = _WEIGHT_MAP.search(read_bytes(path, size))
    if found is None:
        return ""
    path_or_name, opening = found.groups(b"")
    keras = opening == b"[" or path_or_name[:1] == b"/" or path.name.endswith(".weights.json")
    return "keras-shards" if keras else "shards"


def _is_msgpack(head: bytes) -> bool:
    """A map with a first key of text: what Flax writes, whatever the tree."""
    if head[:1] and 0x81 <= head[0] <= 0x8F:
        key = head[1:2]
    elif head[:1] == b"\xde":
        key = head[3:4]
    elif head[:1] == b"\xdf":
        key = head[5:6]
    else:
        return False
    return bool(key) and (0xA0 <= key[0] <= 0xBF or key[0] in (0xD9, 0xDA, 0xDB))


def _is_onnx(head: bytes) -> bool:
    """A first field with the version of the format, then another field of the model."""
    return len(head) > 2 and head[0] == 8 and 0 < head[1] < 32 and head[2] in _ONNX_FIELDS


def _stranger(head: bytes) -> str:
    if not head:
        return "an empty file"
    found = next((words for start, words in _STRANGERS if head.startswith(start)), "")
    start = head.lstrip().lower()
    if start.startswith(_PAGES):
        return "an HTML or XML page (a download that asked for a login?)"
    if start.startswith((b"{", b"[")):
        return "a JSON document without weights"
    return found or "no format that is known"


_STRUCTURES: dict[str, Callable[[bytes], bool]] = {
    "torch-legacy": lambda head: any(magic in head[:32] for magic in _PICKLED_MAGIC),
    "torch-tar": lambda head: head[257:262] == b"ustar",
    "pickle": lambda head: head[:1] == b"\x80" and b"\0" < head[1:2] <= b"\x05",
    "flax-msgpack": _is_msgpack,
    "onnx": _is_onnx,
}
