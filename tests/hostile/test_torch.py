"""Hostile trees, views and storages in PyTorch files."""

from __future__ import annotations

import struct
import sys
import zipfile

import pytest
from harness import accepted, watched
from pickles import Raw, call, code, mapping, name, new, op, persistent, pickled, text
from torch_attacks import DATA, FLOATS, W, says
from torch_files import hooks, storage, tensor, torch_zip
from zips import Entry, write_zip

import loaders
from loaders import errors

P, B, H = errors.PickleError, errors.BudgetError, errors.HeaderError
L, E, U = errors.LayoutError, errors.ElementTypeError, errors.UnsupportedError
X = errors.UnsafeGlobalError


@pytest.fixture
def good(tmp_path):
    return torch_zip(tmp_path / "good.pt", {"w": W}, DATA)


# Trees and names.

TREES = {
    "None as the name of a tensor": (mapping((None, W)), P, "None"),
    "a float as the name of a tensor": (mapping((0.5, W)), P, "0.5"),
    "a tuple as the name of a tensor": (mapping((("a", "b"), W)), P, "a"),
    "bytes as the name of a tensor": (mapping((b"a", W)), P, "a"),
    "two names that become one": ({"a.b": W, "a": {"b": W}}, P, r"a\.b"),
    "a number and its digits": (mapping((1, W), ("1", W)), P, "1"),
    "several models": ({"ema": {"w": W}, "model": {"w": W}}, errors.AmbiguousError, "ema.*model"),
    "no tensor": ({"x": 1}, P, "tensor"),
    "a number": (1, P, "tensor"),
    "a name alone": (name("os", "system"), P, "tensor"),
    "a scalar where a tensor's storage belongs": ({"w": tensor(1)}, P, "tensor 'w'"),
    "a rebuild of nothing": ({"w": call("torch._utils._rebuild_tensor_v2")}, P, "tensor 'w'"),
    "meta tensor": (
        {
            "w": call(
                "torch._utils._rebuild_meta_tensor_no_storage",
                name("torch", "float32"),
                (2**30, 2**30),
                (2**30, 1),
                False,
            )
        },
        U,
        "no data",
    ),
    "wrapper": (
        {
            "w": call(
                "torch._utils._rebuild_wrapper_subclass",
                name("a", "B"),
                name("torch", "float32"),
                (2,),
                (1,),
                0,
                name("torch", "strided"),
                call("torch.device", "cpu"),
                False,
            )
        },
        U,
        "no data",
    ),
}


@pytest.mark.parametrize("case", TREES)
def test_tree(good, tmp_path, case):
    tree, error, match = TREES[case]
    says(good, torch_zip(tmp_path / "bad.pt", tree, DATA), error, match)


# Views and storages.

BIG = 2**62
VIEWS = {
    "more elements than the storage": (tensor(FLOATS, (2, 4)), L, "tensor 'w'.*storage of 6"),
    "an offset beyond": (tensor(FLOATS, (1,), offset=6), L, "tensor 'w'.*element 6"),
    "an offset of 2^62": (tensor(FLOATS, (1,), offset=BIG), L, "tensor 'w'"),
    "a negative offset": (tensor(FLOATS, (1,), offset=-1), L, "tensor 'w'.*natural"),
    "a negative size": (tensor(FLOATS, (-2, -3), (3, 1)), L, "tensor 'w'.*natural"),
    "a negative stride": (tensor(FLOATS, (2,), (-1,), 1), L, "tensor 'w'.*natural"),
    "a size that overflows": (tensor(FLOATS, (2**32, 2**32), (0, 0)), L, "tensor 'w'"),
    "a stride that overflows": (tensor(FLOATS, (2**31, 2), (2**33, 1)), L, "tensor 'w'"),
    "a size over 2^64": (tensor(FLOATS, (2**70,)), L, "tensor 'w'"),
    "a size that is a float": (tensor(FLOATS, (2.0, 3)), L, "tensor 'w'"),
    "a size that is no tuple": (tensor(FLOATS, 6, (1,)), L, "tensor 'w'"),
    "more strides than sides": (tensor(FLOATS, (6,), (1, 1)), L, "tensor 'w'"),
    "65 sides": (tensor(FLOATS, (1,) * 65), L, "tensor 'w'"),
    "10^12 elements of four bytes": (
        tensor(storage("FloatStorage", "0", 6), (10**6, 10**6), (0, 0)),
        B,
        "bytes of tensors",
    ),
    "a storage that claims more": (tensor(storage("FloatStorage", "0", 7)), L, "tensor 'w'"),
    "a storage that claims less": (tensor(storage("FloatStorage", "0", 5), (5,)), L, "tensor 'w'"),
    "a storage of 2^62": (tensor(storage("FloatStorage", "0", BIG)), L, "tensor 'w'"),
    "a storage of -6": (tensor(storage("FloatStorage", "0", -6)), L, "tensor 'w'"),
    "a storage of 6.0": (tensor(storage("FloatStorage", "0", 6.0)), L, "tensor 'w'"),
    "a record that is not there": (tensor(storage("FloatStorage", "1", 6)), L, "1"),
    "a record by a path": (tensor(storage("FloatStorage", "../data/0", 6)), L, r"\.\."),
    "a record by an empty name": (tensor(storage("FloatStorage", "", 6)), L, "tensor 'w'"),
    "a storage of no type that exists": (
        tensor(storage("StringStorage", "0", 6)),
        E,
        "StringStorage",
    ),
    "a storage of a type of another module": (
        tensor(storage(name("os", "FloatStorage"), "0", 6)),
        E,
        r"os\.FloatStorage",
    ),
    "a storage whose type is a text": (
        tensor(storage(Raw(text("FloatStorage")), "0", 6)),
        E,
        "class 'FloatStorage'",
    ),
    "a storage without a location": (
        tensor(persistent(("storage", name("torch", "FloatStorage"), "0", 6))),
        P,
        "tensor 'w'",
    ),
    "a record by a number": (tensor(storage("FloatStorage", 0, 6)), P, "names no storage"),
    "an id that is no tuple": (tensor(persistent("0")), P, "tensor 'w'"),
    "an id of something else": (tensor(storage("FloatStorage", "0", 6, tag="thing")), P, "thing"),
    "complex32": (
        call(
            "torch._utils._rebuild_tensor_v3",
            storage(name("torch.storage", "UntypedStorage"), "0", 24),
            0,
            (6,),
            (1,),
            False,
            hooks(),
            name("torch", "complex32"),
        ),
        E,
        "complex32",
    ),
    "bits": (
        call(
            "torch._utils._rebuild_tensor_v3",
            storage(name("torch.storage", "UntypedStorage"), "0", 24),
            0,
            (24,),
            (1,),
            False,
            hooks(),
            name("torch", "bits8"),
        ),
        E,
        "bits8",
    ),
    "metadata that is not known": (
        tensor(FLOATS, metadata={"what": True}),
        U,
        "'what'",
    ),
}


@pytest.mark.parametrize("case", VIEWS)
def test_view(good, tmp_path, case):
    tree, error, match = VIEWS[case]
    bad = torch_zip(tmp_path / "bad.pt", {"w": tree}, DATA)
    says(good, bad, error, match)


def test_one_record_with_two_types(good, tmp_path):
    tree = {"w": W, "v": tensor(storage("IntStorage", "0", 6))}
    bad = torch_zip(tmp_path / "bad.pt", tree, DATA)
    says(good, bad, L, "'0'")


def test_views_that_repeat_a_little(good, tmp_path):
    tree = {"w": tensor(FLOATS, (1000, 6), (0, 1))}
    path = torch_zip(tmp_path / "x.pt", tree, DATA)
    accepted(good, path)
    assert loaders.load(path)["w"].shape == (1000, 6)


def test_a_storage_that_thousands_repeat(good, tmp_path):
    """Each view is counted: together they are more than the file can stand for."""
    view = tensor(FLOATS, (1 << 18, 6), (0, 1))
    bad = torch_zip(tmp_path / "bad.pt", {f"w{n}": view for n in range(100)}, DATA)
    says(good, bad, B, "bytes of tensors")


@pytest.mark.parametrize("order", [b"middle", b"", b"LITTLE", b"little\n", b"\xff"])
def test_byte_order_that_there_is_not(good, tmp_path, order):
    bad = torch_zip(tmp_path / "bad.pt", {"w": W}, DATA, byteorder=order)
    says(good, bad, H, "byte order")


@pytest.mark.parametrize("order", [b"big", b"little", None])
def test_byte_orders_that_there_are(good, tmp_path, order):
    accepted(good, torch_zip(tmp_path / "x.pt", {"w": W}, DATA, byteorder=order))


# Quantised and sparse tensors.

AFFINE = name("torch", "per_tensor_affine")
CHANNELS = name("torch", "per_channel_affine")
SMALL = storage("QInt8Storage", "q", 6)


def quantised(parameters, stored=SMALL):
    return call(
        "torch._utils._rebuild_qtensor", stored, 0, (2, 3), (3, 1), parameters, False, hooks()
    )


def longs(key, count):
    return tensor(storage("LongStorage", key, count), (count,))


def doubles(key, count):
    return tensor(storage("DoubleStorage", key, count), (count,))


def sparse(layout, *parts):
    kind = call("torch.serialization._get_layout", f"torch.sparse_{layout}")
    return call("torch._utils._rebuild_sparse_tensor", kind, parts)


MORE = {
    "q": bytes(6),
    "two": struct.pack("<2q", 0, 0),
    "three": struct.pack("<3q", 0, 1, 2),
    "scales": struct.pack("<2d", 1.0, 2.0),
    "nine": struct.pack("<2q", 9, 0),
    "below": struct.pack("<2q", -1, 0),
    "values": struct.pack("<2f", 1.0, 2.0),
    "falling": struct.pack("<3q", 0, 2, 1),
    **DATA,
}
VALUES = tensor(storage("FloatStorage", "values", 2), (2,))
ENCODED = {
    "an axis out of range": (
        quantised((CHANNELS, doubles("scales", 2), longs("two", 2), 2)),
        L,
        "axis",
    ),
    "a negative axis": (
        quantised((CHANNELS, doubles("scales", 2), longs("two", 2), -3)),
        L,
        "axis",
    ),
    "scales for another axis": (
        quantised((CHANNELS, doubles("scales", 2), longs("two", 2), 1)),
        L,
        "tensor 'w'",
    ),
    "fewer zero points than scales": (
        quantised((CHANNELS, doubles("scales", 2), longs("two", 1), 0)),
        L,
        "tensor 'w'",
    ),
    "no scheme that exists": (
        quantised((name("torch", "per_planet"), 1.0, 0)),
        U,
        "planet",
    ),
    "a scale that is a text": (quantised((AFFINE, "1", 0)), P, "tensor 'w'"),
    "an index beyond the shape": (
        sparse("coo", tensor(storage("LongStorage", "nine", 2), (1, 2)), VALUES, (6,)),
        L,
        "tensor 'w'",
    ),
    "an index below zero": (
        sparse("coo", tensor(storage("LongStorage", "below", 2), (1, 2)), VALUES, (6,)),
        L,
        "tensor 'w'",
    ),
    "more values than indices": (
        sparse("coo", tensor(storage("LongStorage", "two", 2), (1, 1)), VALUES, (6,)),
        L,
        "tensor 'w'",
    ),
    "a column beyond the shape": (
        sparse("csr", longs("three", 3), longs("nine", 2), VALUES, (2, 2)),
        L,
        "tensor 'w'",
    ),
    "row pointers that fall": (
        sparse("csr", longs("falling", 3), longs("two", 2), VALUES, (2, 2)),
        L,
        "tensor 'w'",
    ),
    "too few row pointers": (
        sparse("csr", longs("two", 2), longs("two", 2), VALUES, (2, 2)),
        L,
        "tensor 'w'",
    ),
    "a sparse tensor that is huge when dense": (
        sparse("coo", tensor(storage("LongStorage", "two", 2), (1, 2)), VALUES, (2**40,)),
        B,
        "bytes of tensors",
    ),
    "a layout that there is not": (sparse("xyz", VALUES, VALUES, (2,)), U, "xyz"),
}


@pytest.mark.parametrize("case", ENCODED)
def test_encoded_tensor(good, tmp_path, case):
    tree, error, match = ENCODED[case]
    used = {key: data for key, data in MORE.items() if f"{key}".encode() in bytes(code(tree))}
    bad = torch_zip(tmp_path / "bad.pt", {"w": tree}, used)
    says(good, bad, error, match)


# Parts that thousands share, and tensors that are small in the file alone.


def reference(value, place):
    """`value`, and the opcodes that put it on the stack again."""
    return op(value, b"r", struct.pack("<I", place)), op(b"j", struct.pack("<I", place))


def test_a_list_that_thousands_share(good, tmp_path):
    shared, again = reference(code([*[None] * 250_000, W]), 7)
    accepted(good, torch_zip(tmp_path / "x.pt", {"a": [shared] + [again] * 5000}, DATA))


def test_a_deep_part_that_thousands_share(good, tmp_path):
    deep = W
    for _ in range(190):
        deep = code({"": Raw(deep)})
    shared, again = reference(deep, 7)
    bad = torch_zip(tmp_path / "bad.pt", [shared] + [again] * 38_000, DATA)
    says(good, bad, B, "opcodes")


@pytest.mark.parametrize("attributes", [{}, {"_parameters": None, "_modules": None}])
def test_a_state_that_thousands_share(good, tmp_path, attributes):
    state, again = reference(code({**attributes, **dict.fromkeys(range(60_000))}), 7)
    kind = name("m", "M")
    made = [op(kind, b")\x81", again, b"b")] * 1500
    bad = torch_zip(tmp_path / "bad.pt", [W, state, *made], DATA)
    says(good, bad, B, "opcodes")


def expanded(kind, key, shape, *more):
    return tensor(storage(f"{kind}Storage", key, 1), shape, (0,) * len(shape), 0, *more)


EIGHT = {"l": bytes(8), "f": bytes(4), "b": bytes(1), "c": bytes(8), "z": bytes(16)}
MILLION = 1_000_000
CODES = "torch._utils._rebuild_qtensor"


def expanded_codes(kind, key, side):
    codes = storage(f"{kind}Storage", key, 1)
    return call(CODES, codes, 0, (side, side), (0, 0), (AFFINE, 0.1, 0), False, hooks())


EXPANDED = {
    "a million batches of no rows": sparse(
        "csr",
        expanded("Long", "l", (MILLION, 1)),
        expanded("Long", "l", (MILLION, 0)),
        expanded("Float", "f", (MILLION, 0)),
        (MILLION, 0, 1),
    ),
    "a million batches of a row": sparse(
        "csr",
        expanded("Long", "l", (MILLION, 2)),
        expanded("Long", "l", (MILLION, 0)),
        expanded("Float", "f", (MILLION, 0)),
        (MILLION, 1, 1),
    ),
    "millions of elements of one place": sparse(
        "coo", expanded("Long", "l", (1, 7 * MILLION)), expanded("Byte", "b", (7 * MILLION,)), (1,)
    ),
    "narrow indices": sparse(
        "coo",
        expanded("Char", "b", (1, 30 * MILLION)),
        expanded("Byte", "b", (30 * MILLION,)),
        (1,),
    ),
    "two large rows": sparse(
        "coo",
        expanded("Long", "l", (1, 2)),
        expanded("Float", "f", (2, 5 * MILLION)),
        (1, 5 * MILLION),
    ),
    "conjugated": expanded("ComplexFloat", "c", (2800, 2800), {"conj": True}),
    "conjugated and negated": expanded(
        "ComplexDouble", "z", (1990, 1990), {"conj": True, "neg": True}
    ),
    "codes of a byte": expanded_codes("QInt8", "b", 3960),
    "codes of four bytes": expanded_codes("QInt32", "f", 3960),
    "truth values": expanded("Bool", "b", (7900, 7900)),
}


@pytest.mark.parametrize("case", EXPANDED)
def test_reading_takes_no_more_than_the_values(good, tmp_path, case):
    tree = EXPANDED[case]
    used = {key: data for key, data in EIGHT.items() if code(key) in bytes(tree)}
    path = torch_zip(tmp_path / "x.pt", {"w": tree}, used)
    found = watched(good, path, {})
    if found["error"] is None:
        accepted(good, path)
    else:
        says(good, path, B if case != "narrow indices" else L, "tensor")


def test_arrays_that_share_bytes(good, tmp_path):
    """In a deflated pickle they are taken out of it once."""
    octets, again = reference(code(bytes(7 << 20)), 7)
    element = call("numpy.dtype", "u1", False, True)
    arrays = [
        call("numpy._core.numeric._frombuffer", part, element, (7 << 20,), "C")
        for part in (octets, *[again] * 5)
    ]
    path = torch_zip(tmp_path / "plain.pt", arrays)
    small = tmp_path / "x.pt"
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new_file,
    ):
        for entry in old.namelist():
            new_file.writestr(entry, old.read(entry))
    accepted(good, small)


def test_a_frozen_file_whose_constants_are_hostile(good, tmp_path):
    for constants, error, match in (
        (pickled((call("os.system", "x"),)), X, r"os\.system"),
        (pickled((W,)), L, "no storage"),
        (b"\x80\x02", P, "constants.pkl"),
    ):
        extra = [Entry("archive/constants.pkl", constants)]
        bad = torch_zip(tmp_path / "bad.pt", new("a.B", state={}), DATA, extra=extra)
        says(good, bad, error, match)


# Formats that are like PyTorch's and are not read.


def test_relatives_that_are_named(good, tmp_path):
    export = [Entry("m/data/weights/model_weights_config.json", b"{}"), Entry("m/version", b"6")]
    says(good, write_zip(tmp_path / "a.pt2", export), U, "pt2")
    script = [Entry("m/model.json", b"{}"), Entry("m/tensors/0", bytes(4))]
    says(good, write_zip(tmp_path / "b.pt", script), U, "TorchScript")
    folder = tmp_path / "dcp"
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickled({}))
    (folder / "__0_0.distcp").write_bytes(good.read_bytes())
    says(good, folder, U, "distributed|DCP")


# Whole modules.


def test_a_module_of_an_unknown_class(tmp_path):
    """Its tensors are read; its class is looked for nowhere."""
    layer = new("no_such_package.Layer", state={"_parameters": {"weight": W}, "_modules": {}})
    model = new("no_such_package.Model", state={"_parameters": {}, "_modules": {"layer": layer}})
    path = torch_zip(tmp_path / "x.pt", model, DATA)
    before = set(sys.modules)
    checkpoint = loaders.load(path)
    assert list(checkpoint) == ["layer.weight"]
    assert checkpoint["layer.weight"].read().shape == (2, 3)
    assert not [module for module in set(sys.modules) - before if "such" in module]
