"""Orbax folders: what Orbax and TensorStore wrote, and every way to be malformed."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from files import python
from jax_files import (
    LITTLE,
    MANIFEST_MAGIC,
    NODE_MAGIC,
    VALUES,
    crc32c,
    framed,
    inner,
    leaf,
    manifest_body,
    ocdbt_orbax,
    plain_orbax,
    table,
    tree,
    varint,
    varints,
    write_all,
    zarr3,
    zarray,
)
from jax_trees import cut_tree, orbax_tree, ramp
from test_safetensors import same

import loaders.orbax.crc32c
from loaders import Budget, errors
from loaders.orbax.tree import load_orbax as load

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "jax"
LAYOUTS = ["zarr2", "zarr3", "ocdbt", "ocdbt_zarr3"]


def named(value, name=""):
    """The arrays of a tree by the names that they should have."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from named(item, f"{name}.{key}" if name else str(key))
    elif value is not None and not isinstance(value, str):
        yield name, np.asarray(value)


ARRAYS = dict(named(orbax_tree()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tree_that_orbax_saved(layout):
    found = load(FIXTURES / layout)
    assert found.keys() == ARRAYS.keys()
    assert found.metadata == {"note": "text"}
    for name, expected in ARRAYS.items():
        handle = found[name]
        assert same(handle.read(), expected), name
        assert (handle.shape, handle.dtype) == (expected.shape, expected.dtype)
        assert handle.nbytes == expected.nbytes
        assert not handle.read().flags.writeable


ROWS = [
    slice(None),
    slice(3, 7),
    slice(7, 1, -3),
    slice(5, None),
    slice(2, 2),
    slice(None, None, -1),
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", cut_tree())
def test_rows_of_an_array_with_a_chunk_for_each_of_four_devices(name, rows):
    handle, expected = load(FIXTURES / "devices")[name], cut_tree()[name]
    assert len(handle.chunks) == 4
    assert same(handle.read(rows), expected[rows])


READ = """
import sys, loaders
for path in sys.argv[1:]:
    loaders.load(path).read()
print(sorted({"jax", "flax", "orbax", "tensorstore", "msgpack"} & set(sys.modules)))
"""


def test_no_framework_is_imported():
    files = [FIXTURES / name for name in ("tree.msgpack", "stored.npz", *LAYOUTS)]
    found = python("-c", READ, *files)
    assert found == "[]\n"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_handles_travel(layout):
    handle = load(FIXTURES / layout)["types.bfloat16"]
    copy = pickle.loads(pickle.dumps(handle))
    assert (copy, copy.key) == (handle, handle.key)
    assert same(copy.read(), ramp((2, 3), ml_dtypes.bfloat16))


def test_steps_of_a_manager_are_chosen_by_key():
    with pytest.raises(errors.AmbiguousError, match=r"2 steps or items; .* \['9', '10'\]"):
        load(FIXTURES / "steps")
    for key, value in {"9": 9, "10": 10, "10/default": 10}.items():
        assert load(FIXTURES / "steps", key=key)["w"].read().tolist() == [[value] * 2] * 2
    assert load(FIXTURES / "steps" / "9")["w"].read()[0, 0] == 9
    for key in ("8", "../steps/9", "9/other"):
        with pytest.raises(errors.AmbiguousError, match="is none of them"):
            load(FIXTURES / "steps", key=key)
    with pytest.raises(
        errors.AmbiguousError, match="nothing is left to choose by key='9/default/x'"
    ):
        load(FIXTURES / "steps", key="9/default/x")


def test_what_was_never_finished(tmp_path):
    one = plain_orbax(tmp_path / "7.orbax-checkpoint-tmp-3" / "default")
    for path in (one, one.parent):
        with pytest.raises(errors.TruncatedError, match="never finished writing"):
            load(path)
    plain_orbax(tmp_path / "6" / "default")
    assert load(tmp_path)["w"].read().tolist() == VALUES.tolist()


def test_arrays_without_a_tree(tmp_path):
    names = {"target.a": VALUES, "target.b": VALUES + 1}
    for name, values in names.items():
        files = {f"{name}/.zarray": zarray(), f"{name}/0.0": values.tobytes()}
        write_all(tmp_path / "old", files)
    found = load(tmp_path / "old")
    assert {name: found[name].read().tolist() for name in found} == {
        name: values.tolist() for name, values in names.items()
    }
    with pytest.raises(errors.UnsupportedError, match="a checkpoint of an old Orbax"):
        load(write_all(tmp_path / "old", {"checkpoint": b""}))
    with pytest.raises(errors.UnknownFormatError, match="no _METADATA"):
        load(write_all(tmp_path / "old", {"_sharding": b""}))


def test_store_without_a_tree(tmp_path):
    folder = ocdbt_orbax(tmp_path)
    (folder / "_METADATA").unlink()
    assert {name: handle.read().tolist() for name, handle in load(folder).items()} == {
        "w": VALUES.tolist()
    }


SHARDED = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [2, 3],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "index_location": "start",
    },
}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
WRITTEN = {
    "zarr gzip F": ("zarr", {"compressor": {"id": "gzip", "level": 1}, "order": "F"}),
    "zarr zlib": ("zarr", {"compressor": {"id": "zlib", "level": 1}}),
    "zarr raw /": ("zarr", {"compressor": None, "dimension_separator": "/"}),
    "zarr big": ("zarr", {"compressor": {"id": "zstd"}, "dtype": ">f4"}),
    "zarr3 raw": ("zarr3", {"codecs": [LITTLE]}),
    "zarr3 big": ("zarr3", {"codecs": [BIG]}),
    "zarr3 gzip": ("zarr3", {"codecs": [LITTLE, {"name": "gzip"}, {"name": "crc32c"}]}),
    "zarr3 crc zstd": ("zarr3", {"codecs": [LITTLE, {"name": "crc32c"}, {"name": "zstd"}]}),
    "zarr3 turned": (
        "zarr3",
        {"codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}}, LITTLE]},
    ),
    "zarr3 shards": ("zarr3", {"codecs": [SHARDED]}),
    "zarr3 v2 keys": (
        "zarr3",
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}}},
    ),
}


def of_tensorstore(folder, driver, metadata, values, chunks):
    """An array that TensorStore writes, and the tree that names it."""
    if driver == "zarr":
        metadata = {"dtype": "<f4", **metadata, "chunks": chunks, "shape": [*values.shape]}
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        metadata = {"chunk_grid": grid, "data_type": "float32", **metadata}
        metadata["shape"] = [*values.shape]
    kvstore = {"driver": "file", "path": f"{folder}/w/"}
    spec = {"driver": driver, "kvstore": kvstore, "metadata": metadata, "create": True}
    ts.open(spec).result().write(values).result()
    return write_all(folder, {"_METADATA": tree("w")})


@pytest.mark.parametrize("case", WRITTEN)
def test_encoding_that_tensorstore_writes(tmp_path, case):
    driver, metadata = WRITTEN[case]
    values = np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)
    folder = of_tensorstore(tmp_path, driver, metadata, values, [4, 6])
    handle = load(folder)["w"]
    assert same(handle.read(), values)
    assert same(handle.read(slice(3, 6)), values[3:6])


def test_chunks_that_are_left_out_are_zeros_or_damage(tmp_path):
    values = np.zeros((8, 6), np.float32)
    values[5, 1] = 2
    folder = of_tensorstore(tmp_path, "zarr", {"compressor": None, "fill_value": 0}, values, [4, 6])
    assert not (folder / "w" / "0.0").exists()
    assert same(load(folder)["w"].read(), values)
    write_all(folder, {"_METADATA": tree("w", store_array_data_equal_to_fill_value=True)})
    with pytest.raises(errors.TruncatedError, match=r"tensor 'w' lacks its chunk 0\.0"):
        load(folder)


def test_inner_chunks_that_are_left_out_are_zeros_or_damage(tmp_path):
    values = np.zeros((4, 6), np.float32)
    values[0, 1] = 2
    folder = of_tensorstore(tmp_path, "zarr3", {"codecs": [SHARDED]}, values, [4, 6])
    assert same(load(folder)["w"].read(), values)
    write_all(folder, {"_METADATA": tree("w", store_array_data_equal_to_fill_value=True)})
    with pytest.raises(errors.TruncatedError, match="lacks a part of its shard"):
        load(folder)["w"].read()


def test_tree_of_many_nodes_that_tensorstore_writes(tmp_path):
    """Small nodes make a high tree; its keys are prefix-compressed on each level."""
    config = {"max_decoded_node_bytes": 400, "max_inline_value_bytes": 30}
    kvstore = {
        "driver": "ocdbt",
        "base": {"driver": "file", "path": f"{tmp_path}/"},
        "config": config,
    }
    store = ts.KvStore.open(kvstore).result()
    names = [f"layers.{number}.w" for number in range(60)]
    with ts.Transaction() as transaction:
        written = store.with_transaction(transaction)
        for number, name in enumerate(names):
            written[f"{name}/.zarray"] = json.dumps(zarray()).encode()
            written[f"{name}/0.0"] = (VALUES + number).tobytes()
    write_all(tmp_path, {"_METADATA": tree(*names, ocdbt=True)})
    dump = ts.ocdbt.dump(store.base).result()
    assert dump["versions"][-1]["root_height"] > 1
    found = load(tmp_path)
    assert all(same(found[n].read(), VALUES + number) for number, n in enumerate(names))


@pytest.mark.parametrize("size", [0, 1, 3, 255, 256, 257, 4095, 5000])
def test_crc_is_that_of_the_polynomial(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert loaders.orbax.crc32c.crc32c(data) == crc32c(data)


H, T, L = errors.HeaderError, errors.TruncatedError, errors.LayoutError
E, S, U = errors.ElementTypeError, errors.ShardError, errors.UnsupportedError
A, N = errors.ArchiveError, errors.NotReadableError
LEAF = {"key_metadata": [{"key": "w"}], "value_metadata": {"value_type": "np.ndarray"}}
Z = "w__.zarray"
PLAIN = {
    "tree no JSON": ({"_METADATA": b"{"}, H, "_METADATA: not valid JSON"),
    "tree a list": ({"_METADATA": [1]}, H, "expected a JSON object"),
    "no leaves": ({"_METADATA": {"use_ocdbt": False}}, H, "no tree_metadata"),
    "leaf no object": ({"_METADATA": {"tree_metadata": {"('w',)": 5}}}, H, r"'w',.* has no keys"),
    "key a number": (
        {"_METADATA": {"tree_metadata": {"w": {**LEAF, "key_metadata": [{"key": 1}]}}}},
        H,
        "'w' has no keys or no type",
    ),
    "leaf twice": (
        {"_METADATA": {"tree_metadata": {"a": LEAF, "b": LEAF}}},
        H,
        "two leaves are named 'w'",
    ),
    "store denied": ({"_METADATA": tree("w", ocdbt=True)}, S, "manifest.ocdbt is missing, which"),
    "array missing": ({"_METADATA": tree("w", "v")}, S, "the array 'v' is not there"),
    "array in two formats": ({"w__zarr.json": zarr3()}, S, "the array 'w' is in two formats"),
    "text missing": ({"_METADATA": tree("t", kind="string")}, N, "_strings.json: cannot be read"),
    "text a number": (
        {"_METADATA": tree("t", kind="string"), "_strings.json": {"t": 5}},
        S,
        "no text is named 't'",
    ),
    "name upwards": ({"_METADATA": tree("../w")}, S, "'../w/.zarray' is no plain path"),
    "name absolute": ({"_METADATA": tree("/etc")}, S, "'/etc/.zarray' is no plain path"),
    "name with NUL": ({"_METADATA": tree("w\0")}, S, "is no plain path"),
    "name of 5000": ({"_METADATA": tree("w" * 5_000)}, N, "cannot be read: File name too long"),
    "no number of format": ({Z: {**zarray(), "zarr_format": 3}}, H, "not of zarr format 2"),
    "metadata of 100 kB": ({Z: zarray(more="x" * 100_000)}, H, "the metadata of 'w' is 100,"),
    "chunk 0": ({Z: zarray(chunks=(0, 3))}, H, r"chunk shape \[0, 3\] is not a list of numbers"),
    "chunk a float": ({Z: zarray(chunks=(2.0, 3))}, H, r"chunk shape \[2\.0, 3\] is not"),
    "side negative": ({Z: zarray((-2, 3), (2, 3))}, H, r"shape \[-2, 3\] is not"),
    "side true": ({Z: zarray((True, 3), (2, 3))}, H, r"shape \[True, 3\] is not"),
    "two shapes": ({Z: zarray(chunks=(6,))}, L, "2 dimensions in chunks of 1"),
    "33 sides": ({Z: zarray((1,) * 33)}, H, "shape has 33 dimensions"),
    "shape overflows": ({Z: zarray((2**40, 2**40))}, L, "overflows"),
    "chunk overflows": ({Z: zarray(chunks=(2**40, 2**40))}, L, "overflows"),
    "objects": ({Z: zarray(dtype="|O")}, E, r"\.zarray: the unknown element type '\|O'"),
    "records": ({Z: zarray(dtype=[["a", "<f4"]])}, E, "unknown element type"),
    "subarray": ({Z: zarray(dtype="(9,9)f4")}, E, "unknown element type"),
    "order": ({Z: zarray(order="A")}, H, "the order 'A'"),
    "filters": ({Z: zarray(filters=[{"id": "delta"}])}, U, "filters, which are not read"),
    "compressor": ({Z: zarray(compressor={"id": "blosc"})}, U, "the compression 'blosc'"),
    "compressor a text": ({Z: zarray(compressor="zstd")}, U, "the compression None"),
    "separator": ({Z: zarray(dimension_separator="..")}, H, r"the separator '\.\.'"),
    "chunk a byte short": ({"w__0.0": bytes(23)}, L, "'w': a chunk of 24 bytes has 23"),
    "fill left out": ({Z: zarray(fill_value=1), "w__0.0": None}, U, "are not zero"),
}
V3 = {
    "node type": (zarr3(node_type="group"), H, "the node type 'group'"),
    "extension": (zarr3(storage_transformers=[{"name": "x"}]), U, "'storage_transformers', which"),
    "grid": (zarr3(chunk_grid={"name": "rectangular"}), U, "the chunk grid 'rectangular'"),
    "grid a number": (zarr3(chunk_grid=5), H, "the chunk grid 5"),
    "type": (zarr3(dtype="r16"), E, "unknown element type 'r16'"),
    "names": (zarr3(chunk_key_encoding={"name": "fan"}), U, "the names of chunks 'fan'"),
    "no codecs": (zarr3(codecs=[]), H, r"the codecs \[\]"),
    "codec unknown": (zarr3(codecs=["vlen-utf8"]), U, "the codecs .*, which are not read"),
    "packing unknown": (zarr3(codecs=[LITTLE, "blosc"]), U, r"the codecs \['blosc'\]"),
    "packed twice": (zarr3(codecs=[LITTLE, "zstd", "zstd"]), U, r"the codecs \['zstd', 'zstd'\]"),
    "no byte order": (zarr3(codecs=["bytes"]), H, "the byte order None"),
    "axes": (
        zarr3(codecs=[{"name": "transpose", "configuration": {"order": [0, 0]}}, LITTLE]),
        H,
        r"the order of axes \[0, 0\]",
    ),
    "shards do not fit": (zarr3((4, 4), codecs=[SHARDED]), L, r"\[4, 4\] in chunks of \[2, 3\]"),
    "shards in shards": (
        zarr3(
            codecs=[
                {
                    "name": "sharding_indexed",
                    "configuration": {**SHARDED["configuration"], "codecs": [SHARDED]},
                }
            ]
        ),
        U,
        "the codecs .*, which are not read",
    ),
}


@pytest.mark.parametrize(("files", "error", "match"), PLAIN.values(), ids=PLAIN)
def test_malformed_folder(tmp_path, files, error, match):
    is_refused(plain_orbax(tmp_path / "x", **files), error, match)


@pytest.mark.parametrize(("metadata", "error", "match"), V3.values(), ids=V3)
def test_malformed_zarr3(tmp_path, metadata, error, match):
    files = {"w__.zarray": None, "w__zarr.json": metadata}
    is_refused(plain_orbax(tmp_path / "x", **files), error, match)


def is_refused(folder, error, match):
    with pytest.raises(error, match=f"^{re.escape(str(folder))}.*{match}") as caught:
        load(folder).read()
    assert caught.type is error
    assert len(str(caught.value)) < len(str(folder)) + 450


def packed(method, data):
    return {"w__.zarray": zarray(compressor={"id": method}), "w__0.0": data}


CHUNKS = {
    "zstd of nothing": (packed("zstd", b""), L, "chunk 0 of tensor 'w' has 0 bytes where 24"),
    "zstd damaged": (packed("zstd", b"\x28\xb5\x2f\xfd\0\0"), L, "has 0 bytes where 24"),
    "no zstd": (packed("zstd", b"x" * 24), A, "chunk 0 of tensor 'w' is damaged"),
    "no gzip": (packed("gzip", b"x" * 24), A, "chunk 0 of tensor 'w' is damaged"),
}


@pytest.mark.parametrize(("files", "error", "match"), CHUNKS.values(), ids=CHUNKS)
def test_damaged_chunk_is_seen_when_it_is_read(tmp_path, files, error, match):
    is_refused(plain_orbax(tmp_path / "x", **files), error, match)


def test_wrong_checksum_of_a_chunk(tmp_path):
    folder = of_tensorstore(tmp_path, *WRITTEN["zarr3 gzip"], np.ones((4, 6), np.float32), [4, 6])
    chunk = folder / "w" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    is_refused(folder, A, "chunk 0 of tensor 'w' is damaged: its CRC is wrong")


GOOD = leaf({"w/.zarray": json.dumps(zarray()).encode(), "w/0.0": VALUES.tobytes()})
ROOT = manifest_body((0, len(GOOD)))


def node(body, **options):
    return {"node": framed(NODE_MAGIC, body, **options)}


def manifest(body, **options):
    return {"manifest": framed(MANIFEST_MAGIC, body, **options)}


ONE = b"\0" + table([])
REF = leaf({"w/.zarray": json.dumps(zarray()).encode(), "w/0.0": (0, 0, 24)}, ["../x"])
STORE = {
    "manifest empty": ({"manifest": b""}, H, "manifest.ocdbt is not what OCDBT writes: it is cut"),
    "other start": ({"manifest": framed(NODE_MAGIC, ROOT)}, H, "another start or length"),
    "other length": (
        {"manifest": framed(MANIFEST_MAGIC, ROOT) + b"\0"},
        H,
        "another start or length",
    ),
    "other version": (manifest(ROOT, version=1), H, "another start or length"),
    "other compression": (manifest(ROOT, compression=2), H, "the compression 2 is unknown"),
    "no zstd": (manifest(ROOT, compression=1), A, "manifest.ocdbt is damaged"),
    "wrong CRC": (
        {"manifest": framed(MANIFEST_MAGIC, ROOT)[:-1] + b"\0"},
        A,
        "manifest.ocdbt is damaged: its CRC is wrong",
    ),
    "manifest in files": (
        manifest(manifest_body((0, len(GOOD)), kind=1)),
        U,
        "a manifest in several files",
    ),
    "no version": (manifest(ROOT[:26] + table([]) + b"\0"), H, "lists no version|cut off"),
    "root outside": (manifest(manifest_body((0, 9), "../x")), L, "the file '../x', which is no"),
    "root absolute": (manifest(manifest_body((0, 9), "/etc/passwd")), L, "the file '/etc/passwd'"),
    "root with NUL": (manifest(manifest_body((0, 9), "d\0")), L, "is no plain path"),
    "root missing": (manifest(manifest_body((0, 9), "d/1")), N, "d/1: cannot be read"),
    "root a folder": (manifest(manifest_body((0, 9), "d")), N, "d: not a regular file"),
    "root too long": (manifest(manifest_body((0, 10**6))), T, "refers to 1,000,000 bytes at"),
    "root at 2^64": (manifest(manifest_body((2**64 - 2, 9))), T, "at byte 18,446,744,073,709,551"),
    "root too high": (manifest(manifest_body((0, len(GOOD)), height=1)), H, "its height is not 1"),
    "node of no entries": (node(ONE + b"\0"), H, "the OCDBT node at byte 0 .*: it has no entries"),
    "number of 80 bits": (node(b"\0" + b"\x80" * 11 + b"\1"), H, "a number does not end"),
    "number of 65 bits": (node(b"\0" + b"\xff" * 9 + b"\2"), H, "more than 64 bits"),
    "a billion entries": (node(ONE + varint(10**9)), errors.BudgetError, "1,000,000,001 archive"),
    "a billion files": (node(b"\0" + varint(10**9)), errors.BudgetError, "1,000,000,001 archive"),
    "cut off": (node(ONE + varints([40_000])), H, "it is cut off"),
    "shares too much": (
        node(ONE + varints([2, 3, 1, 1]) + b"ab" + varints([0, 0, 0, 0])),
        H,
        "shares more with the one before",
    ),
    "key twice": (
        node(ONE + varints([2, 1, 1, 0]) + b"a" + varints([0, 0, 0, 0])),
        H,
        "the key b'a' stands twice",
    ),
    "kind of value": (node(ONE + varints([1, 1]) + b"a" + varints([0, 2])), H, "of no known kind"),
    "file unknown": (
        node(ONE + varints([1, 1]) + b"a" + varints([5, 1, 0, 0])),
        H,
        "it refers to file 0 of 0",
    ),
    "bytes follow": (node(ONE + varints([1, 1]) + b"a" + varints([0, 0, 9])), H, "1 bytes follow"),
    "value outside": ({"node": REF}, L, "the file '../x', which is no plain path"),
    "value too long": (
        {"node": leaf({"w/0.0": (0, 9, 10**9)}, ["d/0"])},
        T,
        "d/0: OCDBT refers to 1,000,000,000 bytes at byte 9",
    ),
    "array missing": ({"node": leaf({"v/.zarray": b"{}"})}, S, "the array 'w' is not there"),
}


@pytest.mark.parametrize(("parts", "error", "match"), STORE.values(), ids=STORE)
def test_malformed_store(tmp_path, parts, error, match):
    if "manifest" not in parts:
        size = len(parts["node"])
        parts = {**parts, "manifest": framed(MANIFEST_MAGIC, manifest_body((0, size)))}
    is_refused(ocdbt_orbax(tmp_path / "x", **parts), error, match)


def test_node_that_is_reached_twice(tmp_path):
    top = inner(1, {"a": (0, 0, len(GOOD), 0), "b": (0, 0, len(GOOD), 0)}, ["d/0"])
    manifest = framed(MANIFEST_MAGIC, manifest_body((0, len(top)), "d/1", height=1))
    folder = ocdbt_orbax(tmp_path / "x", manifest=manifest, **{"d/1": top})
    is_refused(folder, H, "the OCDBT node at byte 0 is reached twice")


def test_node_in_a_folder_of_its_own(tmp_path):
    """Names below a node start from the base of the file that it stands in."""
    low = leaf({"w/.zarray": json.dumps(zarray()).encode(), "w/0.0": (0, 2, 24)}, ["d/3"])
    top = inner(1, {"": (0, 0, len(low), 0)}, ["p/d/2"], bases=[2])
    manifest = framed(MANIFEST_MAGIC, manifest_body((0, len(top)), "d/1", height=1))
    files = {"d/1": top, "p/d/2": low, "p/d/3": b"xx" + VALUES.tobytes()}
    found = load(ocdbt_orbax(tmp_path, manifest=manifest, **files))
    assert same(found["w"].read(), VALUES)


BUDGETS = {"tensors": 0, "archive_entries": 0, "header_bytes": 60, "free_bytes": -100}


@pytest.mark.parametrize("limit", BUDGETS)
@pytest.mark.parametrize("kind", [plain_orbax, ocdbt_orbax])
def test_over_the_budget_as_the_message_says(tmp_path, kind, limit):
    folder = kind(tmp_path)
    with pytest.raises(errors.BudgetError, match=rf"Budget\({limit}="):
        load(folder, budget=Budget(**{limit: BUDGETS[limit], "expansion": 0}))
