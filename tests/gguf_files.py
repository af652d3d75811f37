"""GGUF files written by hand."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
FORMS = dict(zip(range(13), "BbHhIifB  Qqd", strict=True))


@dataclass
class File:
    """The parts of a file; each may be wrong."""

    order: str = "<"
    version: int = 3
    magic: bytes = b"GGUF"
    keys: list[bytes] = field(default_factory=list)
    infos: list[bytes] = field(default_factory=list)
    data: bytes = b""
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def pack(self, form, *values):
        return struct.pack(self.order + form, *values)

    def text(self, octets):
        octets = octets.encode() if isinstance(octets, str) else octets
        return self.pack("Q", len(octets)) + octets

    def key(self, name, kind, value):
        """Add a key; a value given as bytes is written as it is."""
        if not isinstance(value, bytes):
            value = self.text(value) if kind == TEXT else self.pack(FORMS[kind], value)
        self.keys.append(self.text(name) + self.pack("I", kind) + value)
        return self

    def array(self, name, kind, octets, length):
        return self.key(name, ARRAY, self.pack("IQ", kind, length) + octets)

    def tensor(self, name, dims, kind=0, offset=0):
        """Add a tensor; `dims` in the order of the file."""
        places = self.pack(f"I{len(dims)}Q", len(dims), *dims)
        self.infos.append(self.text(name) + places + self.pack("IQ", kind, offset))
        return self

    def header(self):
        counts = (
            len(self.infos) if self.n_tensors is None else self.n_tensors,
            len(self.keys) if self.n_keys is None else self.n_keys,
        )
        start = self.magic + self.pack("IQQ", self.version, *counts)
        return start + b"".join(self.keys) + b"".join(self.infos)

    def encoded(self):
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data


def small():
    """A valid file with one tensor of four numbers."""
    return File(data=struct.pack("<4f", 1, 2, 3, 4)).tensor("a", (2, 2))
