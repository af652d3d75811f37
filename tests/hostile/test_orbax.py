"""Hostile Orbax folders, each in a process of its own that is watched.

A named pipe stands where no reader should look: whoever opens it waits for ever.
"""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress

import pytest
import zstandard
from harness import accepted, refused
from jax_files import (
    MANIFEST_MAGIC,
    NODE_MAGIC,
    VALUES,
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

from loaders import errors
from loaders.orbax.tree import load_orbax
from wwfunc.errors import CheckpointError

H, T, L, B = errors.HeaderError, errors.TruncatedError, errors.LayoutError, errors.BudgetError
N, S, A = errors.NotReadableError, errors.ShardError, errors.AmbiguousError
ZSTD = zstandard.ZstdCompressor(level=1)
PACKED = {"id": "zstd"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orbax")
    node = leaf(
        {"w/.zarray": json.dumps(zarray(compressor=PACKED)).encode(), "w/0.0": (0, 0, 33)}, ["x"]
    )
    body = ZSTD.compress(node[14:-4])
    node = framed(NODE_MAGIC, body, 1)
    manifest = framed(MANIFEST_MAGIC, ZSTD.compress(manifest_body((0, len(node)))), 1)
    data = ZSTD.compress(VALUES.tobytes())
    assert len(data) == 33
    return ocdbt_orbax(folder / "good", node, manifest, x=data)


def test_good_store_is_read(good):
    assert load_orbax(good)["w"].read().tolist() == VALUES.tolist()


def zeros(count):
    """zstd of so many zeros, without a size in its header that could be looked at first."""
    engine = ZSTD.compressobj()
    return b"".join(engine.compress(bytes(1 << 20)) for _ in range(count >> 20)) + engine.flush()


METADATA = {
    "a terabyte": (zarray((2**20, 2**18), compressor=PACKED), B, "bytes of tensors in"),
    "a terabyte in one chunk of nothing": (zarray(chunks=(2**20, 2**20)), L, "a chunk of 4,398"),
    "a billion chunks": (zarray((10**9,), (1,)), B, "1,000,000,000 archive entries"),
    "shape of 10^18": (zarray((10**9, 10**8), (1, 1)), B, "archive entries"),
    "33 sides": (zarray((1,) * 33), H, "shape has 33 dimensions"),
    "a million sides": (zarray((1,) * 30_000), H, "the metadata of 'w' is"),
    "deep": (b"[" * 60_000, H, "nested too deep|not valid JSON"),
}


@pytest.mark.parametrize(("metadata", "error", "match"), METADATA.values(), ids=METADATA)
def test_metadata(tmp_path, good, metadata, error, match):
    refused(good, plain_orbax(tmp_path / "bad", **{"w__.zarray": metadata}), error, match)


def shards(count):
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    options = {"chunk_shape": [1], "codecs": [little], "index_codecs": [little]}
    return zarr3((count,), codecs=[{"name": "sharding_indexed", "configuration": options}])


def test_a_billion_shards(tmp_path, good):
    files = {"w__.zarray": None, "w__zarr.json": shards(10**9)}
    refused(good, plain_orbax(tmp_path / "bad", **files), B, "1,000,000,000 archive entries")


def test_index_of_shards_that_points_outside(tmp_path, good):
    index = (2**64 - 8).to_bytes(8, "little") + (8).to_bytes(8, "little")
    files = {"w__.zarray": None, "w__zarr.json": shards(1), "w/c/0": b"1234" + index}
    refused(good, plain_orbax(tmp_path / "bad", **files), T, "has parts beyond its end")


def test_chunk_that_expands_to_a_gigabyte(tmp_path, good):
    files = {"w__.zarray": zarray(compressor=PACKED), "w__0.0": zeros(1 << 30)}
    refused(good, plain_orbax(tmp_path / "bad", **files), L, "expands to more than 24 bytes")


def test_chunk_that_claims_a_gigabyte(tmp_path, good):
    claim = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1 << 28))
    files = {"w__.zarray": zarray(compressor=PACKED), "w__0.0": claim}
    refused(good, plain_orbax(tmp_path / "bad", **files), L, "expands to more than 24 bytes")


def test_pipes_are_not_opened(tmp_path, good):
    for number, name in enumerate(["w/0.0", "w/.zarray", "_METADATA"]):
        folder = plain_orbax(tmp_path / str(number))
        (folder / name).unlink()
        os.mkfifo(folder / name)
        refused(good, folder, N, "not a regular file")


def test_pipe_in_a_store_is_not_opened(tmp_path, good):
    folder = ocdbt_orbax(tmp_path / "bad")
    (folder / "d/0").unlink()
    os.mkfifo(folder / "d/0")
    refused(good, folder, N, "not a regular file")


OUTSIDE = ["../pipe", "/pipe", "d/../../pipe", "d//0", "./d/0", "d\\0", "C:pipe", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_data_file_outside_the_folder(tmp_path, good, name):
    os.mkfifo(tmp_path / "pipe")
    name = name.replace("/pipe", f"{tmp_path}/pipe") if name == "/pipe" else name
    node = leaf({"w/.zarray": json.dumps(zarray()).encode(), "w/0.0": (0, 0, 24)}, [name])
    refused(good, ocdbt_orbax(tmp_path / "value", node), L, "no plain path within the folder")
    manifest = framed(MANIFEST_MAGIC, manifest_body((0, 9), name))
    refused(good, ocdbt_orbax(tmp_path / "node", manifest=manifest), L, "no plain path within")


def test_array_outside_the_folder(tmp_path, good):
    os.mkfifo(tmp_path / ".zarray")
    bad = plain_orbax(tmp_path / "bad", _METADATA=tree(".."))
    refused(good, bad, S, "no plain path within the folder")


def test_key_leads_nowhere_else(tmp_path, good):
    os.mkfifo(tmp_path / "_METADATA")
    for step in ("1", "2"):
        plain_orbax(tmp_path / "run" / step)
    refused(good, tmp_path / "run", A, "none of them", key="..")


def test_tree_that_branches_into_itself(tmp_path, good):
    """Eleven small nodes that TensorStore would list as 20^11 keys."""
    files, low = {}, leaf({"k": b"v"})
    for height in range(1, 12):
        files[f"d/{height - 1}"] = low
        children = {f"{number:02}": (0, 0, len(low), 2) for number in range(20)}
        low = inner(height, children, [f"d/{height - 1}"])
    manifest = framed(MANIFEST_MAGIC, manifest_body((0, len(low)), "d/11", height=11))
    files["d/11"] = low
    refused(good, ocdbt_orbax(tmp_path / "bad", manifest=manifest, **files), H, "reached twice")


def test_node_that_is_its_own_child(tmp_path, good):
    size = len(inner(1, {"a": (0, 0, 50, 0)}, ["d/0"]))
    node = inner(1, {"a": (0, 0, size, 0)}, ["d/0"])
    assert len(node) == size
    manifest = framed(MANIFEST_MAGIC, manifest_body((0, size), height=1))
    refused(
        good, ocdbt_orbax(tmp_path / "bad", node, manifest), H, "its height is not 0|reached twice"
    )


ONE = b"\0" + table([])
MANY = varint(45_000)
BODIES = {
    "a gigabyte of zeros": (zeros(1 << 30), L, "expands to more than 8,388,608 bytes"),
    "2^28 entries": (ZSTD.compress(ONE + varint(1 << 28) + bytes(1 << 22)), B, "archive entries"),
    "2^26 files": (ZSTD.compress(b"\0" + varint(1 << 26) + bytes(1 << 22)), B, "archive entries"),
    "keys that grow": (
        ZSTD.compress(ONE + MANY + varints(range(44_999)) + b"\1" * 45_000 + bytes(45_000 * 3)),
        B,
        "header bytes are over",
    ),
    "the same key": (ZSTD.compress(ONE + MANY + bytes(1 << 20)), H, "stands twice"),
}


@pytest.mark.parametrize(("body", "error", "match"), BODIES.values(), ids=BODIES)
def test_compressed_node(tmp_path, good, body, error, match):
    node = framed(NODE_MAGIC, body, 1)
    refused(good, ocdbt_orbax(tmp_path / "bad", node), error, match)


def test_compressed_manifest(tmp_path, good):
    manifest = framed(MANIFEST_MAGIC, zeros(1 << 30), 1)
    refused(good, ocdbt_orbax(tmp_path / "bad", manifest=manifest), L, "expands to more than")


def test_prefix_that_all_children_repeat(tmp_path, good):
    """A long start of a key, which each of many children would hold once more."""
    names = {"x" * 60_000 + f"{number:05}": (0, 0, 9, 60_005) for number in range(1)}
    low = inner(1, {f"{number:05}": (0, 0, 9, 5) for number in range(1_000)}, ["d/9"])
    names = {name: (0, 0, len(low), 60_000) for name in names}
    top = inner(2, names, ["d/1"])
    manifest = framed(MANIFEST_MAGIC, manifest_body((0, len(top)), "d/2", height=2))
    files = {"d/1": low, "d/2": top}
    bad = ocdbt_orbax(tmp_path / "bad", manifest=manifest, **files)
    refused(good, bad, B, "header bytes are over")


def test_tree_that_names_a_million_leaves(tmp_path, good):
    entry = {"key_metadata": [], "value_metadata": {"value_type": "None"}}
    leaves = {str(number): entry for number in range(90_000)}
    bad = plain_orbax(tmp_path / "bad", _METADATA={"tree_metadata": leaves})
    refused(good, bad, B, "header bytes|json items")


def test_folders_without_end(tmp_path, good):
    for number in range(4_100):
        (tmp_path / "bad" / str(number)).mkdir(parents=True)
    write_all(tmp_path / "bad", {"_CHECKPOINT_METADATA": {}})
    refused(good, tmp_path / "bad", B, "4,100 shards")


def test_link_to_its_own_folder(tmp_path, good):
    write_all(tmp_path / "bad", {"_CHECKPOINT_METADATA": {}})
    (tmp_path / "bad" / "0").symlink_to(tmp_path / "bad")
    refused(good, tmp_path / "bad", errors.UnknownFormatError, "no _METADATA")


def test_many_arrays(tmp_path, good):
    names = [f"layers.{number}.w" for number in range(2_000)]
    files = {"_METADATA": tree(*names)}
    for name in names:
        files |= {f"{name}/.zarray": zarray(), f"{name}/0.0": VALUES.tobytes()}
    accepted(good, write_all(tmp_path / "many", files))


def test_many_chunks(tmp_path, good):
    files = {"w__.zarray": zarray((10_000,), (1,), fill_value=0), "w__0.0": None}
    accepted(good, plain_orbax(tmp_path / "many", **files))


NODE = json.dumps(zarray()).encode()
SMALL = leaf({"w/.zarray": NODE, "w/0.0": VALUES.tobytes(), "x": (0, 0, 9)}, ["d/0"])[14:-4]


def test_any_other_byte_in_a_store_loads_or_is_a_checkpoint_error(tmp_path):
    """The checksums are right each time: it is the reader that must see the damage."""
    draw = random.Random(0)
    manifest = manifest_body((0, len(SMALL) + 18))
    for _ in range(250):
        bodies = {"node": bytearray(SMALL), "manifest": bytearray(manifest)}
        body = bodies[draw.choice([*bodies])]
        for _ in range(draw.choice([1, 1, 4])):
            body[draw.randrange(len(body))] = draw.choice(
                [0, 1, 127, 128, 255, draw.randrange(256)]
            )
        parts = {
            "node": framed(NODE_MAGIC, bytes(bodies["node"])),
            "manifest": framed(MANIFEST_MAGIC, bytes(bodies["manifest"])),
        }
        with suppress(CheckpointError):
            load_orbax(ocdbt_orbax(tmp_path, **parts)).read()
