"""HDF5 as h5py writes it, in every form of groups and of storage, and as written by hand."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
import pytest
from files import write
from hdf5_files import CONTINUATION, FILTERS, Image, attribute, message, quads
from hypothesis import given, settings
from hypothesis import strategies as st

import loaders
from loaders import Budget, errors
from loaders.hdf5 import is_hdf5, open_hdf5
from wwfunc.errors import CheckpointError

VERSIONS = ["earliest", "v108", "v110", "latest"]
BOTH_ORDERS = [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "u4", "i8")]
ELEMENTS = [*BOTH_ORDERS, "i1", "u1", "<i4", "<u2", "<u8", "?"]


def random_bits(element, shape, seed=0):
    """Any bits, NaN among them; only 0 and 1 for booleans."""
    dtype = np.dtype(element)
    octets = np.random.default_rng(seed).integers(
        0, 2 if element == "?" else 256, (*shape, dtype.itemsize), np.uint8
    )
    return octets.view(dtype).reshape(shape)


def tensor(path, *names):
    with open_hdf5(path, Budget()) as file:
        dataset = file.root.at(names).dataset
        return dataset.tensor("it", dataset.dtype)


def same(found, wanted):
    return found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.h5"


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_element_types(path, element, libver):
    array = random_bits(element, (3, 4))
    with h5py.File(path, "w", libver=libver) as file:
        file["x"] = array
    handle = tensor(path, "x")
    assert (handle.shape, handle.dtype, handle.nbytes) == ((3, 4), array.dtype, array.nbytes)
    assert same(handle.read(), array)
    assert not handle.read().flags.writeable


STORAGES = {
    "contiguous": {},
    "one chunk": {"chunks": (13, 7)},
    "chunks": {"chunks": (4, 3)},
    "gzip": {"chunks": (5, 7), "compression": "gzip"},
    "shuffle": {"chunks": (4, 3), "shuffle": True},
    "checksums": {"chunks": (3, 3), "fletcher32": True},
    "all filters": {"chunks": (4, 2), "compression": 9, "shuffle": True, "fletcher32": True},
    "chunks beyond the edges": {"chunks": (20, 20), "maxshape": (20, 20)},
}
ROWS = [slice(None), slice(2, 9), slice(4, 5), slice(9, 2), slice(None, None, 3), slice(-1, 1, -2)]


@pytest.mark.parametrize("options", STORAGES.values(), ids=STORAGES)
@pytest.mark.parametrize("element", ["<f4", ">f8", "<u1"])
def test_storages(path, options, element):
    array = random_bits(element, (13, 7))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, **options)
    handle = tensor(path, "x")
    assert same(handle.read(), array)
    for rows in ROWS:
        assert same(handle.read(rows), array[rows]), rows


@pytest.mark.parametrize("options", ["contiguous", "one chunk"])
@pytest.mark.parametrize("libver", VERSIONS)
def test_storages_of_newer_versions(path, options, libver):
    array = random_bits("<f4", (13, 7))
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("x", data=array, **STORAGES[options])
        file.create_dataset("z", data=array, compression="gzip", chunks=array.shape)
    assert same(tensor(path, "x").read(), array)
    assert same(tensor(path, "z").read(), array)


def test_compact_scalar_and_empty(path):
    values = np.arange(5.0)
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(values.shape)
        made = h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F64LE, space, plist)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        file["scalar"] = np.float32(7)
        file.create_dataset("empty", (0, 4), "f4")
        file.create_dataset("no chunks", (0, 4), "f4", chunks=(2, 2), maxshape=(None, 4))
    assert same(tensor(path, "compact").read(), values)
    assert tensor(path, "scalar").read().shape == ()
    assert tensor(path, "scalar").read() == 7
    assert tensor(path, "empty").read().shape == (0, 4)
    assert tensor(path, "no chunks").read().shape == (0, 4)


@pytest.mark.parametrize("userblock", [0, 512, 4096])
@pytest.mark.parametrize("libver", VERSIONS)
def test_large_groups_and_many_attributes(path, libver, userblock):
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        for number in range(600):
            file[f"many/name {number}"] = np.float32(number)
        for number in range(40):
            file["many"].attrs[f"text {number}"] = "é" * number
            file["many"].attrs[f"list {number}"] = ["a" * number, "b"]
            file["many"].attrs[f"fixed {number}"] = np.array([b"ab", b"c"])
    assert is_hdf5(path)
    with open_hdf5(path, Budget()) as file:
        many = file.root.child("many")
        assert set(many.links) == {f"name {number}" for number in range(600)}
        found = [many.child(f"name {i}").dataset.tensor("it", np.dtype("<f4")) for i in range(600)]
        assert [float(handle.read()) for handle in found] == [*range(600)]
        for number in range(40):
            assert many.attributes.text(f"text {number}") == "é" * number
            assert many.attributes.texts(f"list {number}") == ["a" * number, "b"]
            assert many.attributes.texts(f"fixed {number}") == ["ab", "c"]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    chunk=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    element=st.sampled_from(ELEMENTS),
    filters=st.fixed_dictionaries(
        {"shuffle": st.booleans(), "fletcher32": st.booleans()},
        optional={"compression": st.just("gzip")},
    ),
    ends=st.tuples(st.integers(-10, 10), st.integers(-10, 10), st.sampled_from([-2, -1, 1, 3])),
)
def test_law_any_chunks_are_put_together(tmp_path_factory, shape, chunk, element, filters, ends):
    path = tmp_path_factory.mktemp("law") / "x.h5"
    array = random_bits(element, shape)
    cut = tuple(min(side, most) for side, most in zip(chunk, shape, strict=False))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, chunks=cut, **filters)
    assert same(tensor(path, "x").read(), array)
    assert same(tensor(path, "x").read(slice(*ends)), array[slice(*ends)])


def test_one_dataset_under_two_names_has_one_key(path):
    with h5py.File(path, "w") as file:
        file["a"] = file["b"] = np.ones(3)
        file["b2"] = file["b"]
        file.create_dataset("c", data=np.ones((4, 4)), chunks=(2, 2))
        file["c2"] = file["c"]
    assert tensor(path, "b").key == tensor(path, "b2").key != tensor(path, "a").key
    assert tensor(path, "c").key == tensor(path, "c2").key


def test_a_wrong_checksum_is_found(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            "x", data=random_bits("<u1", (64,)), chunks=(64,), fletcher32=True
        )
        place = made.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 5] ^= 1
    write(path, bytes(content))
    with pytest.raises(errors.LayoutError, match=r"/x: the chunk at byte \d+: its checksum is"):
        tensor(path, "x").read()


def chunked(path, data, mask=0, **options):
    """One chunk of 64 bytes in the file as it is given."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (64,), "u1", chunks=(64,), **options)
        made.id.write_direct_chunk((0,), data, filter_mask=mask)
    return path


def test_a_chunk_may_skip_filters(path):
    plain = random_bits("<u1", (64,))
    chunked(path, plain.tobytes(), mask=0b1, compression="gzip")
    assert same(tensor(path, "x").read(), plain)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (zlib.compress(bytes(63)), "has 63 bytes, 64 were expected"),
        (zlib.compress(bytes(1 << 16)), "does not inflate to"),
        (zlib.compress(bytes(64))[:-6], "does not inflate to"),
        (b"no zlib at all", "is damaged"),
    ],
    ids=["short", "long", "cut off", "no zlib"],
)
def test_chunks_of_another_size(path, data, match):
    handle = tensor(chunked(path, data, compression="gzip"), "x")
    with pytest.raises(errors.LayoutError, match=match):
        handle.read()


def by_hand():
    """Header continued elsewhere, link messages, and an attribute, without h5py."""
    image = Image()
    array = np.arange(6, dtype="f4").reshape(2, 3)
    data = image.dataset(array)
    more = image.put(attribute("name", ["mine", "other"]))
    place = message(CONTINUATION, quads(more, len(image.data) - more))
    return image.finished(image.group({"x": data}, place)), array


def test_written_by_hand_as_h5py_reads_it(path):
    content, array = by_hand()
    with h5py.File(write(path, content)) as file:
        assert same(file["x"][()], array)
        assert file.attrs["name"].tolist() == [b"mine", b"other"]
    assert same(tensor(path, "x").read(), array)
    with open_hdf5(path, Budget()) as file:
        assert file.root.attributes.texts("name") == ["mine", "other"]


def test_truncation_is_never_anything_else(path):
    content, _ = by_hand()
    for size in range(len(content)):
        write(path, content[:size])
        with pytest.raises((errors.TruncatedError, errors.HeaderError)):
            tensor(path, "x")


def outcome(path):
    """The path if the file can be read, else what is wrong with it."""
    try:
        loaders.load_keras_weights(path).read()
    except CheckpointError as error:
        return str(error)
    return str(path)


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_read_or_a_checkpoint_error(path, bit):
    image = Image()
    variables = [image.dataset(np.ones((2, 3), "f4")), image.dataset(np.ones(3, "f4"))]
    content = image.finished(image.weights(*variables))
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        assert outcome(write(path, bytes(changed))).startswith(str(path))


def test_signature_behind_a_block_of_the_users(path):
    assert not is_hdf5(write(path, b"\x89HDF\r\n\x1a"))
    assert not is_hdf5(write(path, bytes(700) + b"\x89HDF\r\n\x1a\n"))
    assert is_hdf5(write(path, bytes(1024) + b"\x89HDF\r\n\x1a\n"))


def test_filters_without_chunks(path):
    image = Image()
    gzip = message(FILTERS, b"\1\1" + bytes(6) + b"\1\0\0\0\0\0\0\0")
    data = image.dataset(np.ones(3, "f4"), more=[gzip])
    write(path, image.finished(image.group({"x": data})))
    with pytest.raises(errors.LayoutError, match="/x has filters but no chunks"):
        tensor(path, "x")
