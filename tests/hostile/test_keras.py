"""Keras's files from a stranger, each in a child that is watched.

Other files that they name are pipes: who opens one waits for ever, and misses the deadline.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY
from files import python, write
from harness import MEMORY, SECONDS, accepted, refused
from hdf5_files import (
    ATTRIBUTE,
    CONTINUATION,
    DATATYPE,
    EXTERNAL,
    FILTERS,
    FLOAT32,
    LAYOUT,
    LINK_INFO,
    SYMBOL_TABLE,
    UNDEFINED,
    Image,
    attribute,
    dataspace,
    fixed_text,
    link,
    message,
    quads,
)

import loaders
from loaders import errors
from wwfunc.errors import CheckpointError

FIXTURES = REPOSITORY / "tests" / "fixtures" / "keras"
H, L, T, B = errors.HeaderError, errors.LayoutError, errors.TruncatedError, errors.BudgetError
E, U = errors.ElementTypeError, errors.UnsupportedError
ONE = np.ones((2, 3), np.float32)
GIB = 1 << 30


@pytest.fixture
def good(tmp_path):
    return shutil.copy(FIXTURES / "model.h5", tmp_path / "good.h5")


@pytest.fixture
def weights(tmp_path):
    return shutil.copy(FIXTURES / "split_00000.weights.h5", tmp_path / "good.weights.h5")


@pytest.fixture
def archived(tmp_path):
    return shutil.copy(FIXTURES / "int8.keras", tmp_path / "good.keras")


@pytest.fixture
def bad(tmp_path):
    return tmp_path / "bad.h5"


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


# Links and storage elsewhere ------------------------------------------------------------------


def legacy(path, weights=("kernel",)):
    """A weights file of one layer, open for what shall be in it."""
    file = h5py.File(path, "w")
    file.attrs["layer_names"] = np.array([b"dense"])
    group = file.create_group("dense")
    group.attrs["weight_names"] = np.array(weights, "S")
    return file, group


def test_external_link(good, bad, pipe):
    file, group = legacy(bad)
    with file:
        group["kernel"] = h5py.ExternalLink(pipe, "/secret")
    refused(good, bad, U, "/dense: 'kernel' is a link to another file, which is not followed")


def test_external_link_on_the_way(good, bad, pipe):
    file, group = legacy(bad, ["away/kernel"])
    with file:
        group["away"] = h5py.ExternalLink(pipe, "/")
    refused(good, bad, U, "'away' is a link to another file")


def test_external_link_among_weights(weights, bad, pipe):
    with h5py.File(bad, "w") as file:
        file["layers/dense/vars/0"] = ONE
        file["layers/dense/vars/1"] = h5py.ExternalLink(pipe, "/secret")
    refused(weights, bad, U, "/layers/dense/vars: '1' is a link to another file")


@pytest.mark.parametrize("target", ["/dense/kernel", "/elsewhere", "/"])
def test_soft_link(good, bad, target):
    file, group = legacy(bad)
    with file:
        group["kernel"] = h5py.SoftLink(target)
    refused(good, bad, U, "'kernel' is a soft link")


def test_external_storage(good, bad, pipe):
    file, group = legacy(bad)
    with file:
        group.create_dataset("kernel", (4,), "f4", external=[(bytes(pipe), 0, 16)])
    refused(good, bad, U, "/dense/kernel keeps its elements in other files")


def test_virtual_dataset(good, bad, pipe):
    file, group = legacy(bad)
    with file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(pipe, "secret", (4,))
        group.create_virtual_dataset("kernel", layout)
    refused(good, bad, U, "/dense/kernel is a view of other datasets")


def test_hard_link_to_itself(weights, bad):
    with h5py.File(bad, "w") as file:
        file["layers/dense/vars/0"] = ONE
        file["layers/dense/round"] = file["layers"]
    refused(weights, bad, L, "/layers is met within itself")


def test_more_paths_than_atoms(weights, bad):
    with h5py.File(bad, "w", libver="latest") as file:
        group = file.create_group("layers")
        for _ in range(100):
            below = group.create_group("a")
            group["b"] = below
            group = below
        group["vars/0"] = ONE
    refused(weights, bad, B, "header bytes are over the budget")


# What datasets claim --------------------------------------------------------------------------


def claimed(bad, make):
    file, group = legacy(bad)
    with file:
        make(group)
    return bad


def created(*arguments, **options):
    return lambda group: group.create_dataset("kernel", *arguments, **options)


def gzip_bomb(group):
    """A GiB of zeros in a MiB."""
    side = 1 << 24
    made = group.create_dataset(
        "kernel", (GIB // 4,), "f4", chunks=(side,), compression="gzip", shuffle=False
    )
    packed = zlib.compress(bytes(4 * side), 9)
    for start in range(0, GIB // 4, side):
        made.id.write_direct_chunk((start,), packed)


def long_chunk(group):
    """The chunk inflates to more than it is: a GiB for 4 KiB."""
    made = group.create_dataset("kernel", (1024,), "f4", chunks=(1024,), compression="gzip")
    engine = zlib.compressobj(9)
    block = bytes(1 << 20)
    packed = b"".join(engine.compress(block) for _ in range(256)) + engine.flush()
    made.id.write_direct_chunk((0,), packed)


CLAIMS = {
    "never written": (created((1 << 35,), "f4"), L, "137,?438,?953,?472 bytes were never written"),
    "chunks never written": (
        created((1 << 40,), "f4", chunks=(1 << 20,)),
        L,
        "its chunks were never written",
    ),
    "zeros that deflate well": (gzip_bomb, B, "bytes of tensors in .* bytes of file are over"),
    "text": (created(data=np.array([b"abc"])), E, "/dense/kernel holds text, which are no numbers"),
    "text of any length": (created(data=["abc"]), E, "sequences of variable length"),
    "records": (created((2,), [("r", "f4"), ("i", "f4")]), E, "records"),
    "complex": (created(data=np.ones(2, "c8")), E, "records"),
    "references": (created((2,), h5py.ref_dtype), E, "references"),
    "enumeration": (created((2,), h5py.enum_dtype({"A": 0, "B": 1}, "i1")), E, "an enumeration"),
    "no data": (created(data=h5py.Empty("f4")), U, "null dataspace"),
    "opaque": (created(data=np.zeros(2, "V2")), E, "does not say of what type.*dtype='bfloat16'"),
    "opaque of any size": (created(data=np.zeros(2, "V200")), E, "opaque"),
    "a group": (lambda group: group.create_group("kernel"), L, "/dense/kernel is no dataset"),
}


@pytest.mark.parametrize(("make", "error", "match"), CLAIMS.values(), ids=CLAIMS)
def test_what_a_dataset_claims(good, bad, make, error, match):
    refused(good, claimed(bad, make), error, match)


def test_a_chunk_inflates_to_more_than_it_is(good, bad):
    refused(good, claimed(bad, long_chunk), L, "does not inflate to")


# Names in attributes --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/dense/kernel", "", "a//b", "../dense/kernel", "a/./b"])
def test_weight_names_that_are_no_paths(good, bad, name):
    file, group = legacy(bad, [name or "\0"])
    with file:
        group["kernel"] = ONE
    refused(good, bad, L, "is no path within a group")


def test_a_layer_that_is_missing(good, bad):
    file, _ = legacy(bad)
    with file:
        file.attrs["layer_names"] = np.array([b"dense", b"other"])
        file["dense/kernel"] = ONE
    refused(good, bad, L, "/ holds no 'other'")


def test_a_layer_that_is_listed_twice(good, bad):
    file, group = legacy(bad)
    with file:
        file.attrs["layer_names"] = np.array([b"dense", b"dense"])
        group["kernel"] = ONE
    refused(good, bad, L, "lists a layer twice")


def test_a_weight_that_is_listed_nowhere(good, bad):
    file, group = legacy(bad)
    with file:
        group["kernel"] = group["hidden"] = ONE
    refused(good, bad, L, "/dense/hidden is listed as a weight of no layer")


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (np.arange(3), H, "attribute 'layer_names' is no text"),
        (np.array([[b"dense"]]), H, "has 2 dimensions"),
        (np.array([b"\xff"]), H, "not UTF-8"),
        (h5py.Empty("S4"), U, "null dataspace"),
    ],
    ids=["numbers", "a table", "no UTF-8", "no data"],
)
def test_layer_names_of_another_type(good, bad, value, error, match):
    file, group = legacy(bad)
    with file:
        file.attrs["layer_names"] = value
        group["kernel"] = ONE
    refused(good, bad, error, match)


def test_layer_names_that_refer_to_objects(good, bad):
    file, group = legacy(bad)
    with file:
        file.attrs.create("layer_names", [group.ref], dtype=h5py.ref_dtype)
        group["kernel"] = ONE
    refused(good, bad, H, "attribute 'layer_names' is no text")


def test_no_weight_names(good, bad):
    file, group = legacy(bad)
    with file:
        del group.attrs["weight_names"]
        group["kernel"] = ONE
    refused(good, bad, H, "/dense has no weight_names")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": NaN}', "NaN is no JSON number"),
    ],
    ids=["cut off", "array", "deep", "NaN"],
)
def test_configurations_that_are_none(good, bad, config, match):
    file, group = legacy(bad)
    with file:
        file.attrs["model_config"] = config
        group["kernel"] = ONE
    refused(good, bad, errors.ConfigError, match)


def test_a_configuration_that_is_too_large(good, bad):
    file, group = legacy(bad)
    with file:
        file.attrs["model_config"] = '{"a": "' + "x" * (8 << 20) + '"}'
        group["kernel"] = ONE
    refused(good, bad, B, "config bytes are over the budget")


# Structures by hand ---------------------------------------------------------------------------


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


def superblock(**fields):
    """A file of one weight whose superblock has other bytes at some places."""
    image = Image()
    content = bytearray(image.finished(image.weights(image.dataset(ONE))))
    for at, value in fields.items():
        content[int(at[1:])] = value
    return bytes(content)


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


# Archives and indices -------------------------------------------------------------------------


def archive(path, method=zipfile.ZIP_STORED, **parts):
    content = {"model.weights.h5": superblock(), "config.json": "{}", "metadata.json": "{}"}
    names = {"config": "config.json", "weights": "model.weights.h5"}
    content |= {names[name]: part for name, part in parts.items()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, part in content.items():
            if part is not None:
                file.writestr(name, part)
    return path


def test_archive_with_code_in_its_configuration(archived, tmp_path):
    """A marshalled function, and a class of a module that must not be imported."""
    layers = [
        {"class_name": "Lambda", "config": {"name": "a", "function": ["4wEAAAA=", None, None]}},
        {"module": "antigravity", "class_name": "x", "config": {"name": "b"}},
        {"class_name": "__lambda__", "config": {"value": "import os; os.abort()"}},
    ]
    accepted(archived, archive(tmp_path / "x.keras", config=json.dumps({"layers": layers})))


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ({"config": "{"}, errors.ConfigError, "not valid JSON"),
        ({"config": " " * (9 << 20)}, B, "config bytes are over"),
        ({"weights": b"\x89HDF\r\n\x1a\n"}, T, "the superblock"),
        ({"weights": b"none"}, H, "no HDF5 signature"),
        ({"weights": None}, U, "without Keras weights"),
    ],
    ids=["config", "large config", "cut off", "no HDF5", "no weights"],
)
def test_archives(archived, tmp_path, parts, error, match):
    refused(archived, archive(tmp_path / "x.keras", **parts), error, match)


def test_archive_that_inflates_to_too_much(archived, tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("config.json", "metadata.json"):
            file.writestr(name, "{}")
        with file.open("model.weights.h5", "w") as part:
            part.write(superblock())
            for _ in range(32):
                part.write(bytes(4 << 20))
    refused(archived, path, B, "free bytes are over the budget of 50,331,648")


def split(folder, shard):
    shutil.copytree(FIXTURES, folder)
    index = folder / "split.weights.json"
    content = json.loads(index.read_text())
    content["weight_map"]["/layers/dense/vars"] = [shard]
    write(index, json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("shard", "match"),
    [
        ("../good.h5", "not the plain name"),
        ("/etc/passwd.weights.h5", "not the plain name"),
        ("a/b.weights.h5", "not the plain name"),
        ("..\\b.weights.h5", "not the plain name"),
        (".weights.h5", "not the plain name"),
        (7, "not the plain name"),
        ("model.h5", "not the plain name"),
        ("missing.weights.h5", "is missing"),
        ("x" * 300 + ".weights.h5", "is missing"),
        ("split_00001.weights.h5", "'/layers/dense.*/vars' is not where the index has it"),
    ],
)
def test_indices(tmp_path, shard, match):
    folder = split(tmp_path / "split", shard)
    with pytest.raises(errors.ShardError, match=match):
        loaders.load_keras_index(folder / "split.weights.json")


def test_index_to_a_pipe(tmp_path):
    folder = split(tmp_path / "split", "pipe.weights.h5")
    os.mkfifo(folder / "pipe.weights.h5")
    with pytest.raises(errors.NotReadableError, match="not a regular file"):
        loaders.load_keras_index(folder / "split.weights.json")


def test_shards_share_one_budget(tmp_path):
    places = {}
    for number in range(5):
        name = f"s{number}.weights.h5"
        with h5py.File(tmp_path / name, "w") as file:
            for layer in range(1_000):
                file.create_group(f"layers/n{number}_{layer}")
            file[f"layers/n{number}/vars/0"] = ONE
        places[f"/layers/n{number}/vars"] = [name]
    index = write(tmp_path / "x.weights.json", json.dumps({"weight_map": places}))
    budget = loaders.Budget(header_bytes=1 << 20)
    assert len(loaders.load_keras_weights(tmp_path / name, budget=budget)) == 1
    with pytest.raises(B, match="header bytes are over"):
        loaders.load_keras_index(index, budget=budget)


# Damage ---------------------------------------------------------------------------------------


def damaged(content, seed):
    """A copy with some other bytes, and some words of it over others."""
    dice = random.Random(seed)
    copy = bytearray(content)
    top = len(copy) if seed % 2 else min(len(copy), 14_000)
    for _ in range(dice.randint(1, 8)):
        copy[dice.randrange(top)] = dice.choice((0, 1, 255, dice.randrange(256)))
    for _ in range(dice.randint(0, 3) * (seed % 3 == 0)):
        here, there = dice.randrange(top // 8) * 8, dice.randrange(top // 8) * 8
        copy[here : here + 8] = copy[there : there + 8]
    return bytes(copy)


def outcome(path):
    try:
        for handle in loaders.load(path).values():
            handle.read()
    except CheckpointError as error:
        return str(error)
    return str(path)


@pytest.mark.parametrize("name", ["model.h5", "keras1.h5", "keras2.h5", "split_00000.weights.h5"])
def test_damaged_files_are_read_or_a_checkpoint_error(tmp_path, name):
    content = (FIXTURES / name).read_bytes()
    path = tmp_path / "bad.h5"
    for seed in range(500):
        assert outcome(write(path, damaged(content, seed))).startswith(str(path))


# The worst that is inside the budget ----------------------------------------------------------


def many_weights(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        for number in range(12_000):
            group.create_dataset(str(number), (), "f4", data=0)


def many_names(path):
    with h5py.File(path, "w", libver="latest") as file:
        file["layers/dense/vars/0"] = ONE
        group = file.create_group("layers/other/vars")
        for number in range(28_000):
            group[str(number)] = file["layers/dense/vars/0"]


def many_chunks(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.zeros(70_000, "u1"), chunks=(1,))


OPENING = """
import sys, time, loaders
sys.path.insert(0, "tests")
from harness import _peak
loaders.load(sys.argv[1]).read()
before, start = _peak(), time.process_time()
loaders.load(sys.argv[2])
print(time.process_time() - start, _peak() - before)
"""


@pytest.mark.parametrize("build", [many_weights, many_names, many_chunks])
def test_the_most_that_is_allowed(weights, bad, build):
    build(bad)
    seconds, growth = python("-c", OPENING, weights, bad).split()
    assert float(seconds) < SECONDS
    assert int(growth) < MEMORY


def in_chunks(path, shape, chunk, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "layers/dense/vars/0", data=np.zeros(shape, "f4"), chunks=chunk, **options
        )
    return path


ALL_FILTERS = {"compression": "gzip", "shuffle": True, "fletcher32": True}


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [((20_000,), (1,)), ((960, 4_096), (960, 4_096)), ((1_920, 4_096), (320, 4_096))],
    ids=["many", "a large one", "several"],
)
def test_chunks_are_unpacked_in_little_room(weights, bad, shape, chunk):
    accepted(weights, in_chunks(bad, shape, chunk, **ALL_FILTERS))


@pytest.mark.parametrize("options", [ALL_FILTERS, {"compression": "gzip", "shuffle": True}])
def test_a_chunk_that_takes_several_times_its_tensor(weights, bad, options):
    in_chunks(bad, (4_000, 4_096), (4_000, 4_096), **options)
    refused(weights, bad, B, "196,608,000 bytes of tensors in .* bytes of file are over")


CRC, NBYTES = (14, 16), (22, 24)
"""Where they stand in the entry's own header, and in the directory."""


def deflated(path, places=(), change=0):
    """An archive of some MiB, deflated, that may say other things of the weights in both places."""
    image = Image()
    noise = np.random.default_rng(0).integers(0, 4, (1 << 20, 3)).astype(np.float32)
    content = image.finished(image.weights(image.dataset(noise)))
    archive(path, zipfile.ZIP_DEFLATED, weights=content)
    data = bytearray(path.read_bytes())
    for start, place in zip((0, data.index(b"PK\1\2")), places, strict=False):
        (old,) = struct.unpack_from("<I", data, start + place)
        struct.pack_into("<I", data, start + place, old + change)
    return write(path, bytes(data)), noise


def test_deflated_weights(archived, tmp_path):
    path, noise = deflated(tmp_path / "x.keras")
    assert np.array_equal(loaders.load(path)["dense.kernel"].read(), noise)
    accepted(archived, path)


@pytest.mark.parametrize(("places", "change"), [(NBYTES, 1), (NBYTES, -1), (CRC, 1)])
def test_deflated_weights_of_another_size_or_sum(archived, tmp_path, places, change):
    path, _ = deflated(tmp_path / "x.keras", places, change)
    refused(archived, path, errors.ArchiveError, "does not inflate to its")
