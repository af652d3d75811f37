"""Damage to a file: to its bytes, and to the structure that the bytes stand for."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import tarfile
import zipfile
from random import Random

import msgpack

INTEGERS = (0, 1, -1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
VALUES = (*INTEGERS, 2**63, 2**64, -(2**63), 1.5, 1e308, True, None, "", "x", "../x", "\0", [], {})
_METADATA = 1 << 14
"""Most formats say what they hold in their first bytes; damage to weights is no damage."""


def mutated(data: bytes, rng: Random) -> bytes:
    """`data` damaged once in its structure, or once to eight times in its bytes, or both."""
    zipped = (
        data[:2] == b"PK" or data[257:262] == b"ustar"
    )  # whose checksums hide from a reader what random bytes would do
    if rng.random() < (0.9 if zipped else 0.6):
        data = in_structure(data, rng)
    if rng.random() < (0.2 if zipped else 0.6):
        data = in_bytes(data, rng)
    return data


def in_bytes(data: bytes, rng: Random) -> bytes:
    octets = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(max(1, min(len(octets), rng.choice((64, 1024, _METADATA, 1 << 30)))))
        rng.choice(_BYTE_DAMAGE)(octets, at, rng)
    return bytes(octets)


def _flip(octets, at, rng):
    if octets:
        octets[at] ^= 1 << rng.randrange(8)


def _replace(octets, at, rng):
    octets[at : at + 1] = bytes([rng.randrange(256)])


def _integer(octets, at, rng):
    size = rng.choice(["<B", "<H", "<I", "<Q", ">I", ">Q"])
    width = struct.calcsize(size)
    octets[at : at + width] = struct.pack(size, rng.choice(INTEGERS) % 256**width)


def _cut(octets, at, rng):
    del octets[at:]


def _delete(octets, at, rng):
    del octets[at : at + rng.choice((1, 4, 8, 100))]


def _repeat(octets, at, rng):
    length = rng.choice((1, 4, 8, 100))
    octets[at:at] = octets[at : at + length] * rng.choice((1, 2, 50))


def _move(octets, at, rng):
    source = rng.randrange(max(1, len(octets)))
    octets[at : at + 8] = octets[source : source + 8]


_BYTE_DAMAGE = (_flip, _flip, _replace, _integer, _integer, _move, _repeat, _delete, _cut)


def in_structure(data: bytes, rng: Random) -> bytes:
    """Damage that keeps checksums, lengths and syntax right, so that it reaches further in."""
    known = (damage for fits, damage in _STRUCTURES if fits(data))
    return next(known, _in_fields)(data, rng)


def _in_fields(data, rng):
    """One aligned integer of a binary header."""
    octets = bytearray(data)
    at = rng.randrange(max(1, min(len(data), _METADATA) // 4)) * 4
    _integer(octets, at, rng)
    return bytes(octets)


def _in_zip(data, rng):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [[info.filename, archive.read(info)] for info in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError):
        return in_bytes(data, rng)
    if not members:
        return data
    chosen = rng.choice([m for m in members if m[0].endswith("data.pkl")] * 3 + members)
    damage = rng.random()
    if damage < 0.8:
        chosen[1] = mutated(chosen[1], rng)
    elif damage < 0.9:
        members.remove(chosen)
    else:
        chosen[0] = rng.choice(members)[0] + rng.choice(("", "x", "/../x"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((0, 0, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            with archive.open(zipfile.ZipInfo(name), "w") as entry:
                entry.write(content)
    return buffer.getvalue()


def _in_tar(data, rng):
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(info, archive.extractfile(info).read()) for info in archive]
    except (tarfile.TarError, AttributeError, EOFError, ValueError):
        return in_bytes(data, rng)
    chosen = rng.randrange(max(1, len(members)))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for at, (info, content) in enumerate(members):
            damaged = mutated(content, rng) if at == chosen else content
            info.size = len(damaged)
            archive.addfile(info, io.BytesIO(damaged))
    return buffer.getvalue()


def _in_safetensors(data, rng):
    (length,) = struct.unpack("<Q", data[:8])
    text = _in_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _in_json(text, rng):
    try:
        document = json.loads(text)
    except ValueError:
        return in_bytes(text, rng)
    return json.dumps(in_tree(document, rng)).encode()


def _in_msgpack(data, rng):
    try:
        tree = msgpack.unpackb(data, strict_map_key=False)
        return msgpack.packb(in_tree(tree, rng))
    except (ValueError, OverflowError, TypeError, msgpack.exceptions.ExtraData):
        return in_bytes(data, rng)


def in_tree(tree, rng):
    """The tree with one node replaced, removed or put elsewhere; an ext's payload is bytes."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        return _in_entry(tree, key, rng)
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        at = rng.randrange(len(tree))
        return [*tree[:at], in_tree(tree[at], rng), *tree[at + 1 :]]
    if isinstance(tree, msgpack.ExtType) and rng.random() < 0.8:
        return msgpack.ExtType(tree.code, in_structure(tree.data, rng))
    if isinstance(tree, bytes):
        return in_bytes(tree, rng)
    return rng.choice(VALUES) if rng.random() < 0.9 else [[tree]] * rng.choice((1, 3, 300))


def _in_entry(tree, key, rng):
    damage = rng.random()
    if damage < 0.1:
        return {other: value for other, value in tree.items() if other != key}
    if damage < 0.2:
        return {(rng.choice(("", "x", "../x")) if k == key else k): v for k, v in tree.items()}
    return {**tree, key: in_tree(tree[key], rng)}


def _in_pickle(data, rng):
    """Instructions removed, repeated, exchanged, or one argument replaced by another's."""
    try:
        starts = [at for _, _, at in pickletools.genops(data)]
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        return in_bytes(data, rng)
    ends = [*starts[1:], starts[-1] + 1]
    pieces = [data[start:end] for start, end in zip(starts, ends, strict=True)]
    at, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    damage = rng.randrange(5)
    if damage == 0:
        del pieces[at]
    elif damage == 1:
        pieces[at:at] = [pieces[at]] * rng.choice((1, 2, 1000))
    elif damage == 2:
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif damage == 3:
        pieces[at] = pieces[other]
    else:
        pieces[at] = pieces[at][:1] + in_bytes(pieces[at][1:] or b"\0", rng)
    return b"".join(pieces) + data[ends[-1] :]


_STRUCTURES = (
    (lambda data: data[:2] == b"PK", _in_zip),
    (lambda data: data[257:262] == b"ustar", _in_tar),
    (lambda data: data[8:9] == b"{", _in_safetensors),
    (lambda data: data[:1] == b"{", _in_json),
    (lambda data: data[:1] == b"\x80", _in_pickle),
    (lambda data: b"\x81" <= data[:1] <= b"\x8f", _in_msgpack),
)
