"""HDF5 files that Keras would read; those by hand, in the older form, may lie in any field."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np

KERAS = Path(__file__).parent / "fixtures" / "keras"
UNDEFINED = (1 << 64) - 1
DATASPACE, LINK_INFO, DATATYPE, FILL, LINK, EXTERNAL = 1, 2, 3, 5, 6, 7
LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 8, 11, 12, 16, 17
ONE = np.ones((2, 3), np.float32)
FLOAT32 = struct.pack("<B3BI2H4BI", 0x11, 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)
UINT8 = struct.pack("<B3BI2H", 0x10, 0, 0, 0, 1, 0, 8)


def message(kind, data, flags=0):
    """A message of an object header, padded to eight bytes."""
    data += bytes(-len(data) % 8)
    return struct.pack("<2HB3x", kind, len(data), flags) + data


def dataspace(shape):
    return message(DATASPACE, struct.pack("<3B5x", 1, len(shape), 0) + quads(*shape))


def quads(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def fixed_text(size):
    return struct.pack("<B3BI", 0x13, 0, 0, 0, size)


def attribute(name, texts):
    """A list of texts of one size."""
    data = [text.encode() for text in texts]
    size = max(map(len, data), default=1)
    parts = [
        name.encode() + b"\0",
        fixed_text(size),
        struct.pack("<3B5x", 1, 1, 0) + quads(len(data)),
    ]
    head = struct.pack("<2B3H", 1, 0, *map(len, parts))
    padded = b"".join(part + bytes(-len(part) % 8) for part in parts)
    values = b"".join(text.ljust(size, b"\0") for text in data)
    return message(ATTRIBUTE, head + padded + values)


def link(name, address, kind=0):
    """A hard link, or the start of one of another kind."""
    text = name if isinstance(name, bytes) else name.encode()
    head = struct.pack("<2B", 1, 8 | 1) + struct.pack("<BH", kind, len(text))
    return message(LINK, head + text + quads(address))


class Image:
    """A file that grows; what is put into it gives its address."""

    def __init__(self):
        self.data = bytearray(96)

    def put(self, data):
        self.data += bytes(-len(self.data) % 8)
        address = len(self.data)
        self.data += data
        return address

    def header(self, *messages):
        """An object of these messages."""
        body = b"".join(messages)
        return self.put(struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body)

    def group(self, links, *messages):
        """A group with links by name to addresses, or to whole messages."""
        empty = message(LINK_INFO, b"\0\0" + quads(UNDEFINED, UNDEFINED))
        made = [
            target if isinstance(target, bytes) else link(name, target)
            for name, target in links.items()
        ]
        return self.header(empty, *made, *messages)

    def dataset(self, array, *, kind=None, shape=None, layout=None, more=()):
        """A contiguous dataset, of which type, shape and layout may be given as they are not."""
        array = np.ascontiguousarray(array)
        kind = {"f4": FLOAT32, "u1": UINT8}[array.dtype.str[1:]] if kind is None else kind
        if layout is None:
            layout = b"\3\1" + quads(self.put(array.tobytes()), array.nbytes)
        shape = array.shape if shape is None else shape
        return self.header(
            dataspace(shape), message(DATATYPE, kind), message(LAYOUT, layout), *more
        )

    def weights(self, *variables):
        """The root of a `.weights.h5` file of one dense layer."""
        links = {str(i): address for i, address in enumerate(variables)}
        return self.group(
            {"layers": self.group({"dense": self.group({"vars": self.group(links)})})}
        )

    def finished(self, root):
        """The bytes of the file whose root group is at that address."""
        head = b"\x89HDF\r\n\x1a\n" + struct.pack("<5x2Bx2HI", 8, 8, 4, 16, 0)
        head += quads(0, UNDEFINED, len(self.data), UNDEFINED)
        self.data[:96] = head + quads(0, root) + bytes(24)
        return bytes(self.data)


def legacy(path, weights=("kernel",)):
    """A weights file of one layer, open for what shall be in it."""
    file = h5py.File(path, "w")
    file.attrs["layer_names"] = np.array([b"dense"])
    group = file.create_group("dense")
    group.attrs["weight_names"] = np.array(weights, "S")
    return file, group


def superblock(**fields):
    """A file of one weight whose superblock has other bytes at some places."""
    image = Image()
    content = bytearray(image.finished(image.weights(image.dataset(ONE))))
    for at, value in fields.items():
        content[int(at[1:])] = value
    return bytes(content)
