"""HDF5 structures that no writer makes, built byte by byte, each read in a child."""

from __future__ import annotations

import struct

import pytest
from files import write
from harness import refused
from hdf5_files import (
    ATTRIBUTE,
    CONTINUATION,
    DATATYPE,
    EXTERNAL,
    FILTERS,
    FLOAT32,
    LAYOUT,
    LINK_INFO,
    ONE,
    SYMBOL_TABLE,
    UNDEFINED,
    Image,
    attribute,
    dataspace,
    fixed_text,
    link,
    message,
    quads,
    superblock,
)

from loaders import errors

H, L, T, B = errors.HeaderError, errors.LayoutError, errors.TruncatedError, errors.BudgetError
E, U = errors.ElementTypeError, errors.UnsupportedError


def one_dense(make):
    """A `.weights.h5` file whose only variable is what `make` puts into the image."""

    def build(image):
        return image.weights(make(image))

    return build


def layout(*fields, kind=1):
    return bytes((3, kind)) + b"".join(fields)


def far_away(image):
    return image.dataset(ONE, layout=layout(quads(1 << 40, ONE.nbytes)))


def chunks_in_a_circle(image):
    tree = image.put(b"")
    node = struct.pack("<4s2BH", b"TREE", 1, 1, 1) + quads(UNDEFINED, UNDEFINED)
    image.put(node + bytes(32) + quads(tree) + bytes(32))
    return chunked_at(image, tree)


def chunks_of_nothing(image):
    return image.dataset(ONE, layout=layout(b"\3", quads(96), bytes(12), kind=2))


def type_elsewhere(image):
    shared = message(DATATYPE, quads(96), flags=2)
    return image.header(dataspace((2,)), shared, message(LAYOUT, layout(quads(96, 8))))


def chunked_at(image, tree, more=()):
    sides = struct.pack("<3I", 2, 3, 4)
    return image.dataset(ONE, layout=layout(b"\3", quads(tree), sides, kind=2), more=more)


def filtered(*codes):
    def make(image):
        steps = b"".join(struct.pack("<4H", code, 0, 0, 0) for code in codes)
        return chunked_at(image, 96, [message(FILTERS, bytes((1, len(codes))) + bytes(6) + steps)])

    return make


def float_with(**fields):
    """A float32 in which some bytes of the type are others."""

    def make(image):
        kind = bytearray(FLOAT32)
        for at, value in fields.items():
            kind[int(at[1:])] = value
        return image.dataset(ONE, kind=bytes(kind))

    return make


def header_in_a_circle(image):
    start = len(image.data)
    body = message(CONTINUATION, quads(start + 16, 24))
    return image.header(body)


def group_in_a_circle(image):
    """A B-tree of names whose only child is itself."""
    tree = image.put(b"")
    node = struct.pack("<4s2BH", b"TREE", 0, 1, 1) + quads(UNDEFINED, UNDEFINED)
    image.put(node + quads(0, tree, 0))
    heap = image.put(b"HEAP" + bytes(4) + quads(8, 0, 96))
    return image.header(message(SYMBOL_TABLE, quads(tree, heap)))


def names(size):
    """A group whose heap of names has so many bytes."""

    def build(image):
        heap = image.put(b"HEAP" + bytes(4) + quads(size, 0, 96))
        return image.header(message(SYMBOL_TABLE, quads(96, heap)))

    return build


def names_within_names(image):
    """A hundred thousand links whose names are one long text, each from its next byte."""
    count = 60_000
    text = image.put(b"x" * count + b"\0")
    heap = image.put(b"HEAP" + bytes(4) + quads(count + 1, 0, text))
    entries = b"".join(quads(at, 96) + bytes(24) for at in range(count))
    leaf = image.put(struct.pack("<4s2BH", b"SNOD", 1, 0, count) + entries)
    node = struct.pack("<4s2BH", b"TREE", 0, 0, 1) + quads(UNDEFINED, UNDEFINED)
    tree = image.put(node + quads(0, leaf, 0))
    return image.header(message(SYMBOL_TABLE, quads(tree, heap)))


def many(piece, count=0xFFFF):
    """Groups within groups, each of as many messages as it may have."""

    def build(image):
        group = image.group({})
        for _ in range(12):
            body = piece * (count - 2) + link("vars", group)
            group = image.put(struct.pack("<BxHII4x", 1, count, 1, len(body)) + body)
        return group

    return build


def text_at(collection, length):
    """An attribute whose text is in a heap elsewhere."""

    def build(image):
        kind = struct.pack("<B3BI", 0x19, 1, 0, 0, 16) + fixed_text(1)
        place = struct.pack("<IQI", length, collection, 1)
        parts = (b"layer_names\0", kind, struct.pack("<3B5x", 1, 0, 0))
        padded = b"".join(part + bytes(-len(part) % 8) for part in parts)
        head = struct.pack("<2B3H", 1, 0, *map(len, parts))
        return image.group({}, message(ATTRIBUTE, head + padded + place))

    return build


def dense_links(**changed):
    """A group of the newer form: a B-tree over a heap, of which some fields are others."""
    tree = {"node": 512, "record": 11, "depth": 0, "root": 96, "count": 1} | changed

    def build(image):
        table = struct.pack("<H2Q2HQH", 4, 512, 1 << 16, 32, 1, 96, 0)
        head = struct.pack("<4sB2HBI", b"FRHP", 0, 7, 0, 0, 4096)
        heap = image.put(head + bytes(96) + table)
        fields = (tree["node"], tree["record"], tree["depth"])
        head = struct.pack("<4s2BIHH2x", b"BTHD", 0, 5, *fields)
        index = image.put(head + struct.pack("<QHQ", tree["root"], tree["count"], 1))
        return image.header(message(LINK_INFO, b"\0\0" + quads(heap, index)))

    return build


def deep(image):
    group = image.group({"vars": image.group({"0": image.dataset(ONE)})})
    for _ in range(300):
        group = image.group({"a": group})
    return group


STRUCTURES = {
    "data behind the end": (one_dense(far_away), T, r"of 24 bytes at byte 1\d+ is not within"),
    "another size": (
        one_dense(lambda image: image.dataset(ONE, shape=(2, 4))),
        L,
        r"float32 of shape \[2, 4\] does not take 24 bytes",
    ),
    "a shape that overflows": (
        one_dense(lambda image: image.dataset(ONE, shape=(0, 1 << 62, 1 << 62))),
        L,
        "overflows",
    ),
    "33 sides": (one_dense(lambda image: image.dataset(ONE, shape=(1,) * 33)), L, "33 dimensions"),
    "two types": (
        one_dense(lambda image: image.dataset(ONE, more=[message(DATATYPE, FLOAT32)])),
        H,
        "2 messages of kind 3",
    ),
    "type elsewhere": (
        one_dense(type_elsewhere),
        U,
        "by reference",
    ),
    "external files": (
        one_dense(lambda image: image.dataset(ONE, more=[message(EXTERNAL, bytes(40))])),
        U,
        "in other files",
    ),
    "layout of the future": (
        one_dense(lambda image: image.dataset(ONE, layout=b"\6\1" + quads(96, 24))),
        U,
        "layout version 6",
    ),
    "chunks in a circle": (one_dense(chunks_in_a_circle), L, "wrong level|twice"),
    "chunks of nothing": (
        one_dense(chunks_of_nothing),
        L,
        r"chunks of the shape \[0, 0\]",
    ),
    "filter of a plugin": (one_dense(filtered(32015)), U, "the filter 32015; what is read is gzip"),
    "one filter again and again": (one_dense(filtered(3, 3)), H, "through one filter twice"),
    "more filters than there are": (one_dense(filtered(2, 1, 3, 3)), H, "4 filters in version 1"),
    "szip": (one_dense(filtered(1, 4)), U, "the filter 4"),
    "another bias": (one_dense(float_with(_16=100)), E, "8 exponent and 23 mantissa bits"),
    "mixed order": (one_dense(float_with(_1=0x61)), E, "which are not read"),
    "mantissa without its hidden bit": (one_dense(float_with(_1=0)), E, "which are not read"),
    "eight bits of float": (one_dense(float_with(_13=4, _15=3, _4=1, _10=8)), E, "4 exponent"),
    "class of the future": (one_dense(float_with(_0=0x1F)), E, "the unknown class 15"),
    "header in a circle": (header_in_a_circle, L, "the header of / goes in a circle"),
    "names in a circle": (group_in_a_circle, L, "its B-tree"),
    "a heap of a terabyte": (names(1 << 40), B, "header bytes are over"),
    "a heap of all that is left": (names(UNDEFINED), B, "header bytes are over"),
    "names within names": (names_within_names, H, "no name of up to 1024 bytes"),
    "empty messages": (many(struct.pack("<2HB3x", DATATYPE, 0, 0)), B, "header bytes"),
    "nothing but padding": (many(bytes(8)), B, "header bytes"),
    "text behind the end": (text_at(1 << 40, 8), T, "the heap of an attribute of / of 16 bytes at"),
    "text in no heap": (text_at(96, 8), H, "the heap of an attribute of / is not at"),
    "links in no tree": (dense_links(), H, "has no node at byte 96"),
    "a tree of 60,000 levels": (dense_links(depth=60_000), L, "60000 levels deep"),
    "nodes without room": (dense_links(node=5), H, "nodes too small"),
    "nodes of many records": (
        dense_links(count=0xFFFF, record=0xFFFF, node=1 << 20),
        B,
        "header bytes",
    ),
    "groups without end": (deep, B, "nested over 200 deep"),
    "a name twice": (
        lambda image: image.group({"a": 96}, link("a", 96)),
        L,
        "/ holds 'a' twice",
    ),
    "a name with a folder": (lambda image: image.group({"a/b": 96}), H, "impossible name 'a/b'"),
    "a name of nothing": (lambda image: image.group({"": 96}), H, "impossible name ''"),
    "a name that is no text": (lambda image: image.group({b"\xff": 96}), H, "not UTF-8"),
    "a link of another kind": (
        lambda image: image.group({"vars": link("vars", 96, 70)}),
        U,
        "a link of the user's own kind 70",
    ),
    "no object at all": (lambda image: image.put(bytes(64)), H, "no object header at byte"),
    "an attribute twice": (
        lambda image: image.group({}, attribute("a", ["b"]), attribute("a", ["c"])),
        L,
        "'a' stands twice",
    ),
    "neither group nor dataset": (
        lambda image: image.group({"vars": image.header(message(DATATYPE, FLOAT32))}),
        U,
        "/vars is neither a group nor a dataset",
    ),
}


@pytest.mark.parametrize(("build", "error", "match"), STRUCTURES.values(), ids=STRUCTURES)
def test_structures(weights, bad, build, error, match):
    image = Image()
    root = build(image)
    refused(weights, write(bad, image.finished(root)), error, match)


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (superblock(_8=9), U, "superblock version 9"),
        (superblock(_13=4), U, "addresses of 4 and 8 bytes"),
        (superblock(_45=1), T, "the file ends .* bytes before the end of its HDF5 data"),
        (superblock(_48=0), U, "in several parts"),
        (superblock(_64=0xF8, _71=0xFF), T, "the header of /"),
        (superblock()[:50], T, "the superblock of"),
        (superblock()[:-1], T, "the file ends 1 bytes before"),
    ],
    ids=["version", "width", "end", "driver", "root", "half", "cut off"],
)
def test_superblocks(weights, bad, content, error, match):
    refused(weights, write(bad, content), error, match)
