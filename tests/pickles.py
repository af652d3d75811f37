"""Pickles written opcode by opcode: an expression of Python values and of `Raw` opcodes."""

from __future__ import annotations

import struct


class Raw(bytes):
    """Opcodes that leave one object on the stack, put into a pickle as they are."""


def op(*parts):
    """Opcodes as they are: bytes stay, numbers below 256 become a byte."""
    return Raw(b"".join(bytes([part]) if isinstance(part, int) else part for part in parts))


def code(value):
    """The opcodes of protocol 2 (and BINBYTES of 3) that leave `value` on the stack."""
    return _WRITERS[type(value)](value)


def _integer(value):
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    octets = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(octets)]) + octets


def text(value):
    octets = value.encode("utf-8", "surrogatepass")
    return Raw(b"X" + struct.pack("<I", len(octets)) + octets)


def _items(values):
    return b"".join(code(value) for value in values)


_WRITERS = {
    Raw: lambda value: value,
    type(None): lambda _: b"N",
    bool: lambda value: b"\x88" if value else b"\x89",
    int: _integer,
    float: lambda value: b"G" + struct.pack(">d", value),
    str: text,
    bytes: lambda value: b"B" + struct.pack("<I", len(value)) + value,
    list: lambda value: b"](" + _items(value) + b"e",
    tuple: lambda value: b"(" + _items(value) + b"t",
    dict: lambda value: b"}(" + _items(part for pair in value.items() for part in pair) + b"u",
}


def mapping(*pairs):
    """A dict written item by item, whose keys may be `Raw` or stand twice."""
    return Raw(b"}(" + _items(part for pair in pairs for part in pair) + b"u")


def pickled(value, protocol=2):
    """A whole pickle; protocols 0 and 1 have no PROTO opcode."""
    head = bytes([0x80, protocol]) if protocol > 1 else b""
    return head + code(value) + b"."


def name(module, attribute):
    """GLOBAL: `module.attribute` by two lines of text."""
    return Raw(f"c{module}\n{attribute}\n".encode())


def stack_name(module, attribute):
    """STACK_GLOBAL of protocol 4; the parts may be any value."""
    return Raw(code(module) + code(attribute) + b"\x93")


def call(target, *arguments):
    """REDUCE: `target`, a `name` or "module.attribute", called with `arguments`."""
    if not isinstance(target, Raw):
        target = name(*target.rsplit(".", 1))
    return Raw(target + code(tuple(arguments)) + b"R")


def new(target, *arguments, state=None):
    """NEWOBJ of a class, and BUILD of its state if there is one."""
    made = name(*target.rsplit(".", 1)) + code(tuple(arguments)) + b"\x81"
    return Raw(made if state is None else made + code(state) + b"b")


def persistent(identity):
    """BINPERSID of any value."""
    return Raw(code(identity) + b"Q")
