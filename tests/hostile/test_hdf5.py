"""HDF5 files from a stranger, each in a child that is watched.

Other files that they name are pipes: who opens one waits for ever, and misses the deadline.
"""

from __future__ import annotations

import random
import zlib

import h5py
import numpy as np
import pytest
from files import python, write
from harness import MEMORY, SECONDS, accepted, refused
from hdf5_files import KERAS, ONE, legacy

import loaders
from loaders import errors
from wwfunc.errors import CheckpointError

L, B = errors.LayoutError, errors.BudgetError
E, U = errors.ElementTypeError, errors.UnsupportedError
GIB = 1 << 30


# Links and storage elsewhere ------------------------------------------------------------------


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
    content = (KERAS / name).read_bytes()
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
