"""Files of the JAX world written by hand: msgpack, .npy, OCDBT and Orbax folders."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import msgpack
import numpy as np

MANIFEST_MAGIC, NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE


def ext(shape, dtype, data, code=1):
    """An array as Flax writes it: an extension with a shape, a name and bytes."""
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def npy(header, data=b"", version=1):
    """A .npy file with any header, given as text or as its three fields."""
    text = header if isinstance(header, bytes) else str(header).encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def fields(descr="<f4", shape=(2,), fortran=False):
    return {"descr": descr, "fortran_order": fortran, "shape": shape}


def npz(path, method=zipfile.ZIP_STORED, **entries):
    """An archive of .npy files given as bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


def crc32c(data):
    """Bit by bit, as the polynomial is defined."""
    state = 0xFFFFFFFF
    for octet in data:
        state ^= octet
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def varint(number):
    octets = []
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def varints(numbers):
    return b"".join(map(varint, numbers))


def framed(magic, body, compression=0, version=0):
    """A manifest or a node of OCDBT: header, body, checksum."""
    end = varint(version) + varint(compression) + body
    data = magic.to_bytes(4, "big") + (len(end) + 16).to_bytes(8, "little") + end
    return data + crc32c(data).to_bytes(4, "little")


def table(names, bases=None):
    """The data files that a node refers to, without compression of their names."""
    names = [name.encode() for name in names]
    lengths = [*map(len, names)]
    shared = [0] * (len(names) - 1)
    heads = varints([len(names), *shared, *lengths, *(bases or [0] * len(names))])
    return heads + b"".join(names)


def leaf(entries, names=()):
    """A leaf of keys to bytes, or to (file, offset, length)."""
    keys, values = [key.encode() for key in entries], [*entries.values()]
    outside = [value for value in values if isinstance(value, tuple)]
    inside = [value for value in values if isinstance(value, bytes)]
    body = b"\0" + table(names) + varints([len(keys), *[0] * (len(keys) - 1), *map(len, keys)])
    body += b"".join(keys)
    body += varints(v[2] if isinstance(v, tuple) else len(v) for v in values)
    body += varints(int(isinstance(v, tuple)) for v in values)
    body += varints(v[0] for v in outside) + varints(v[1] for v in outside)
    return framed(NODE_MAGIC, body + b"".join(inside))


def inner(height, children, names, bases=None):
    """An inner node of keys to (file, offset, length, length of the common prefix)."""
    keys, places = [key.encode() for key in children], [*children.values()]
    body = bytes([height]) + table(names, bases)
    body += varints([len(keys), *[0] * (len(keys) - 1), *map(len, keys)])
    body += varints(place[3] for place in places) + b"".join(keys)
    body += b"".join(varints(place[field] for place in places) for field in range(3))
    return framed(NODE_MAGIC, body + varints([1] * 3 * len(keys)))


def manifest_body(root, name="d/0", height=0, kind=0, base=0):
    """What a manifest says: no compression, one version, its root at (offset, length)."""
    body = bytes(16) + varints([kind, 1024, 100_000_000]) + b"\x04" + varint(0)
    body += table([name], [base]) + varints([1, 1]) + bytes([height])
    return body + varints([0, *root, 1, 1, 1]) + bytes(8) + varint(0)


def write_all(folder, files):
    """Files by their path below `folder`."""
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def tree(*names, kind="np.ndarray", ocdbt=False, **more):
    """What `_METADATA` says of leaves; a name is a text, or a tuple of keys."""
    entries = {}
    for name in names:
        keys = (name,) if isinstance(name, str) else name
        entries[str(keys)] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {"value_type": kind, "skip_deserialize": False},
        }
    return {"tree_metadata": entries, "use_ocdbt": ocdbt, **more}


def zarray(shape=(2, 3), chunks=None, dtype="<f4", **more):
    """Metadata of zarr 2, of an array that is not compressed."""
    return {
        "chunks": list(shape if chunks is None else chunks),
        "compressor": None,
        "dtype": dtype,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": list(shape),
        "zarr_format": 2,
        **more,
    }


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def zarr3(shape=(2, 3), chunks=None, dtype="float32", codecs=(LITTLE,), **more):
    """Metadata of zarr 3, of an array that is not compressed."""
    grid = {"chunk_shape": list(shape if chunks is None else chunks)}
    return {
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default"},
        "codecs": list(codecs),
        "data_type": dtype,
        "fill_value": 0,
        "node_type": "array",
        "shape": list(shape),
        "zarr_format": 3,
        **more,
    }


VALUES = np.arange(6, dtype="<f4").reshape(2, 3)


def plain_orbax(folder, **files):
    """A folder with one array `w`; `files` replace or, where None, remove some of its files."""
    content = {"_METADATA": tree("w"), "w/.zarray": zarray(), "w/0.0": VALUES.tobytes()}
    content |= {name.replace("__", "/"): value for name, value in files.items()}
    return write_all(folder, {n: value for n, value in content.items() if value is not None})


def ocdbt_orbax(folder, node=None, manifest=None, **files):
    """The same in an OCDBT store, with another node or another manifest."""
    if node is None:
        node = leaf({"w/.zarray": json.dumps(zarray()).encode(), "w/0.0": VALUES.tobytes()})
    if manifest is None:
        manifest = framed(MANIFEST_MAGIC, manifest_body((0, len(node))))
    content = {"_METADATA": tree("w", ocdbt=True), "manifest.ocdbt": manifest, "d/0": node}
    return write_all(folder, content | files)
