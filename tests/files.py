"""Checkpoint files written by hand, and Python started on its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent

ELEMENTS = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F4": ml_dtypes.float4_e2m1fn,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
}
_NAMES = {np.dtype(scalar): name for name, scalar in ELEMENTS.items()}


def random_array(element, shape, seed=0):
    """An array of any bits, NaN among them; `element` is a name in safetensors."""
    dtype = np.dtype(ELEMENTS[element])
    rng = np.random.default_rng(seed)
    top = {"BOOL": 2, "F4": 16}.get(element, 256)
    octets = rng.integers(0, top, (int(np.prod(shape)), dtype.itemsize), np.uint8)
    return octets.view(dtype).reshape(shape)


def stored(array):
    """The bytes of an array in a file: two 4-bit elements share a byte, the first its low half."""
    octets = np.ascontiguousarray(array).tobytes()
    if array.dtype != ml_dtypes.float4_e2m1fn:
        return octets
    pairs = zip(octets[::2], octets[1::2], strict=True)
    return bytes(low | high << 4 for low, high in pairs)


def framed(header, data=b"", length=None):
    """A file from a header, given as bytes or as JSON, and what follows it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def encoded(arrays, metadata=None, pad=0):
    """The safetensors file of `arrays`, in their order, its header padded to `pad` bytes."""
    header = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, array in arrays.items():
        start, data = len(data), data + stored(array)
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, len(data)],
        }
    return framed(json.dumps(header).encode().ljust(pad), data)


def write(path, content):
    """`content`, as bytes or as arrays or as JSON text, in a file at `path`."""
    if isinstance(content, dict):
        content = encoded(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def python(*arguments):
    """What a fresh Python prints; it must end well, in a minute."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Made:
    """A tensor of 8 MiB that is made when it is read."""

    shape, dtype, nbytes = (1024, 1024), np.dtype(np.float64), 1 << 23

    def __init__(self, value):
        self.value = value

    @property
    def key(self):
        return self.value

    def read(self, rows=slice(None)):
        return np.full(self.shape, self.value)[rows]
