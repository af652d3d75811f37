"""ONNX models written by hand, field by field of the wire format."""

from __future__ import annotations

import struct

FLOAT, UINT8, INT8, INT32, INT64, TEXT, BOOL, HALF, DOUBLE = 1, 2, 3, 6, 7, 8, 9, 10, 11


def varint(number):
    """Seven bits a byte; negative numbers in two's complement of 64 bits."""
    number &= 2**64 - 1
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def integer(field, number):
    return varint(field << 3) + varint(number)


def message(field, *parts):
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def floats(*numbers):
    return struct.pack(f"<{len(numbers)}f", *numbers)


def tensor(name, dims=(), kind=FLOAT, raw=None, *more):
    """A TensorProto: dims, data_type, name, raw_data, and further fields."""
    return b"".join(
        (
            *(integer(1, side) for side in dims),
            integer(2, kind),
            message(8, name),
            b"" if raw is None else message(9, raw),
            *more,
        )
    )


def initializer(*arguments):
    return message(5, tensor(*arguments))


def attribute(name, *content):
    return message(5, message(1, name), *content)


def node(operator, inputs=(), outputs=(), *attributes, name="", domain=""):
    return message(
        1,
        *(message(1, one) for one in inputs),
        *(message(2, one) for one in outputs),
        message(3, name) if name else b"",
        message(4, operator),
        *attributes,
        message(7, domain) if domain else b"",
    )


def external(location, offset=None, length=None, *more):
    """The fields of a tensor whose elements lie in another file."""
    entries = {"location": location, "offset": offset, "length": length}
    pairs = [(key, value) for key, value in entries.items() if value is not None]
    return b"".join(
        (
            *(message(13, message(1, key), message(2, str(value))) for key, value in pairs),
            integer(14, 1),
            *more,
        )
    )


def model(*graph, more=b""):
    """A ModelProto around the fields of a graph."""
    return integer(1, 9) + message(2, "by hand") + message(7, *graph) + more


def small():
    """A valid model with one tensor of four numbers."""
    return model(initializer("a", (2, 2), FLOAT, floats(1, 2, 3, 4)))
