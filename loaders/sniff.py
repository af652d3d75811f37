"""What a file is, by its content and never by its name alone."""

from __future__ import annotations

import struct
from pathlib import Path

from .files import read_bytes, require_file

_LOOK = 512

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (PyTorch .pt, Keras .keras, NumPy .npz)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file of the legacy format"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (
        b"version https://git-lfs",
        "a git-LFS pointer: the weights were not downloaded (git lfs pull)",
    ),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
)


def looks_like(path: Path) -> str:
    """The format of the file at `path`: "safetensors", or words for what it seems to be."""
    size = require_file(path)
    if size == 0:
        return "an empty file"
    head = read_bytes(path, min(size, _LOOK))
    if _is_safetensors(head, size):
        return "safetensors"
    for signature, words in _SIGNATURES:
        if head.startswith(signature):
            return words
    return _by_text(head)


def _by_text(head: bytes) -> str:
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "an HTML or XML page (a download that asked for a login?)"
    if start.startswith((b"{", b"[")):
        return "a JSON document"
    if head[8:9] == b"{":  # the length is absurd: let the reader name the damage
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "a Python pickle, which can run code when it is opened"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return "no format that is known"


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a header length that fits and an opening brace stand where safetensors has them.

    This is asked before any signature: a length can spell one, and 123 is an opening brace.
    """
    if len(head) < 8:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return length <= size - 8 and head[8:].lstrip()[:1] == b"{"
