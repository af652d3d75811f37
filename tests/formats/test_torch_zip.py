"""Files of `torch.save` since PyTorch 1.6: by PyTorch itself (fixtures), and by hand."""

from __future__ import annotations

import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from files import python
from pickles import Raw, call, code, mapping, name, new, op, pickled
from torch_files import hooks, storage, tensor, torch_entries, torch_zip
from zips import Entry, write_zip

import loaders
import wwfunc
from loaders import errors
from loaders.pytorch.zip import load_torch_zip, read_tensors

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "torch"
GRID = np.arange(6, dtype=np.float32).reshape(2, 3)
FLOATS = storage("FloatStorage", "0", 6)
W = tensor(FLOATS)
DATA = {"0": GRID.tobytes()}


def same(found, expected):
    """Equal shape, element type and bits, and not to be written to."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    assert not found.flags.writeable


def both(handle, expected):
    """All of a tensor, and its rows."""
    assert (handle.shape, handle.dtype, handle.nbytes) == (
        expected.shape,
        expected.dtype,
        expected.nbytes,
    )
    same(handle.read(), expected)
    if expected.shape:
        same(handle.read(slice(1, 2)), expected[1:2])
        same(handle.read(slice(0, None, 2)), expected[::2])


# What PyTorch wrote; `fixtures/make_torch.py` says what that is.

KINDS = """float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64
float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz bool complex64 complex128"""
PAIRS = np.array([[0.5, 1.0, 1.5, 2.0], [3.0, 4.0, 6.0, -6.0]])
TYPES = {
    **{kind: GRID.astype(getattr(ml_dtypes, kind, kind)) for kind in KINDS.split()},
    "float4_e2m1fn_x2": PAIRS.astype(ml_dtypes.float4_e2m1fn),
    "whole": GRID,
    "row": GRID[1],
    "transposed": GRID.T,
    "repeated": np.repeat(GRID[:, :1], 4, axis=1),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.5, np.float32),
    "conjugate": np.array([0 - 1j, 2 - 3j, 4 - 5j], np.complex64),
    "negated": np.array([-1, -3, -5], np.float32),
    "parameter": GRID,
}


@pytest.mark.parametrize("file", ["types.pt", "deflated.pt"])
def test_every_element_type_and_view(tmp_path, file):
    path = FIXTURES / "types.pt"
    if file == "deflated.pt":
        path = deflated(path, tmp_path / file)
    checkpoint = loaders.load(path)
    assert list(checkpoint) == list(TYPES)
    for title, expected in TYPES.items():
        both(checkpoint[title], expected)
    copy = pickle.loads(pickle.dumps(checkpoint))
    for title, expected in TYPES.items():
        same(copy[title].read(), expected)


def deflated(path, target):
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in source.namelist():
            out.writestr(entry, source.read(entry))
    return target


def test_tied_tensors_have_equal_keys():
    types = loaders.load(FIXTURES / "types.pt")
    assert types["whole"].key == types["parameter"].key
    assert len({types[title].key for title in types}) == len(types) - 1
    module = loaders.load(FIXTURES / "module.pt")
    assert module["tied.weight"].key == module["inner.first.weight"].key


@pytest.mark.parametrize("kind", ["qint8", "quint8", "qint32", "rows", "columns", "quint4x2"])
def test_quantised(kind):
    both(loaders.load(FIXTURES / "quantised.pt")[kind], GRID)


MATRIX = np.array([[0, 1, 0, 0], [2, 0, 0, 3], [0, 0, 0, 0], [0, 4, 5, 0]], np.float32)
SPARSE = {
    **dict.fromkeys(("coo", "csr", "csc", "bsr", "bsc"), MATRIX),
    "twice": np.array([[0, 0, 3], [3, 0, 0]], np.float32),
    "hybrid": np.array([[3, 4], [1, 2], [0, 0]], np.float32),
    "batch": np.stack([MATRIX, MATRIX]),
}


@pytest.mark.parametrize("layout", SPARSE)
def test_sparse(layout):
    both(loaders.load(FIXTURES / "sparse.pt")[layout], SPARSE[layout])


LAYER = ["weight", "bias"]
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
MODULE = [
    "kept",
    *(f"inner.first.{part}" for part in LAYER),
    *(f"inner.norm.{part}" for part in NORM),
    *(f"tied.{part}" for part in LAYER),
]


def test_module_of_a_class_that_is_not_here():
    """Its names are those of its `state_dict()`, and no class is looked for."""
    before = set(sys.modules)
    module = loaders.load(FIXTURES / "module.pt")
    assert list(module) == MODULE
    both(module["inner.first.weight"], GRID)
    assert not {title for title in set(sys.modules) - before if not title.startswith("loaders")}


IMPORTS = """
import sys, loaders
loaders.load(sys.argv[1]).read()
print(sorted({"torch", "omegaconf", "lightning", "numpy.random"} & set(sys.modules)))
"""


def test_reading_imports_no_framework():
    assert python("-c", IMPORTS, FIXTURES / "training.pt") in ("[]\n", "['numpy.random']\n")


def test_training_state():
    found = loaders.load(FIXTURES / "training.pt")
    assert list(found) == MODULE
    assert found.metadata == {
        "epoch": "3",
        "global_step": "120",
        "pytorch-lightning_version": "2.5.0",
        "left_out": "optimizer_states (12 tensors)",
    }
    moments = loaders.load(FIXTURES / "training.pt", key="optimizer_states")
    assert "0.state.0.exp_avg" in moments
    assert moments["0.state.0.exp_avg"].shape == (2, 3)


def test_torchscript():
    found = loaders.load(FIXTURES / "script.pt")
    assert list(found) == ["first.weight", "first.bias"]
    both(found["first.weight"], GRID)


def test_one_parameter():
    found = loaders.load(FIXTURES / "parameter.pt")
    assert list(found) == ["tensor"]
    both(found["tensor"], GRID)


def test_layers_by_wwfunc():
    records = wwfunc.describe(FIXTURES / "module.pt").records
    assert [record.longname for record in records if record.tensor.endswith("weight")][:1] == [
        "inner.first"
    ]


# By hand.

BIG = {
    "DoubleStorage": ">f8",
    "FloatStorage": ">f4",
    "HalfStorage": ">f2",
    "LongStorage": ">i8",
    "IntStorage": ">i4",
    "ShortStorage": ">i2",
    "ComplexFloatStorage": ">c8",
    "ComplexDoubleStorage": ">c16",
}


@pytest.mark.parametrize("kind", BIG)
def test_big_endian(tmp_path, kind):
    stored = GRID.astype(BIG[kind])
    tree = {"w": tensor(storage(kind, "0", 6), (3, 2), (1, 3))}
    path = torch_zip(tmp_path / "x.pt", tree, {"0": stored.tobytes()}, byteorder=b"big")
    both(loaders.load(path)["w"], GRID.T.astype(stored.dtype.newbyteorder("=")))


def test_big_endian_bfloat16(tmp_path):
    tree = {"w": tensor(storage("BFloat16Storage", "0", 2), (2,))}
    path = torch_zip(tmp_path / "x.pt", tree, {"0": b"\x3f\xc0\xc0\x20"}, byteorder=b"big")
    both(loaders.load(path)["w"], np.array([1.5, -2.5], ml_dtypes.bfloat16))


def test_without_a_byte_order_it_is_little(tmp_path):
    path = torch_zip(tmp_path / "x.pt", {"w": W}, DATA, byteorder=None)
    both(loaders.load(path)["w"], GRID)


def test_every_byte_but_0_is_true(tmp_path):
    tree = {"w": tensor(storage("BoolStorage", "0", 4), (4,))}
    path = torch_zip(tmp_path / "x.pt", tree, {"0": b"\x00\x01\x02\xff"})
    both(loaders.load(path)["w"], np.array([False, True, True, True]))


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_first_rebuild(tmp_path, module):
    stored = storage(name(module, "FloatStorage"), "0", 6)
    made = call("torch._utils._rebuild_tensor", stored, 3, (3,), (1,))
    path = torch_zip(tmp_path / "x.pt", {"w": made}, DATA)
    both(loaders.load(path)["w"], GRID[1])


WRAPPED = {
    "_rebuild_parameter": call("torch._utils._rebuild_parameter", W, True, hooks()),
    "_rebuild_parameter_with_state": call(
        "torch._utils._rebuild_parameter_with_state", W, True, hooks(), {"a": 1}
    ),
    "_rebuild_from_type_v2": call(
        "torch._tensor._rebuild_from_type_v2",
        name("torch._utils", "_rebuild_parameter"),
        name("strange.place", "Weird"),
        (W, True, hooks()),
        {"note": W},
    ),
    "_rebuild_device_tensor_from_cpu_tensor": call(
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        W,
        name("torch", "float32"),
        "xla:0",
        False,
    ),
    "Size": tensor(FLOATS, call("torch.Size", [2, 3]), (3, 1)),
    "lists": tensor(FLOATS, [2, 3], [3, 1]),
    "0.3 tensor": new("torch.FloatTensor", state=(FLOATS, 0, (2, 3), (3, 1))),
    "0.3 variable": new("torch.nn.parameter.Parameter", state=(W, "name", hooks(), True, False)),
    "numpy": call(
        "torch._utils._rebuild_device_tensor_from_numpy",
        call(
            "numpy._core.numeric._frombuffer",
            GRID.tobytes(),
            Raw(call("numpy.dtype", "f4", False, True) + b"(J\x03\0\0\0X\x01\0\0\0<tb"),
            (2, 3),
            "C",
        ),
        name("torch", "float32"),
        "xla:0",
        False,
    ),
}


@pytest.mark.parametrize("form", WRAPPED)
def test_tensors_in_other_words(tmp_path, form):
    path = torch_zip(tmp_path / "x.pt", {"w": WRAPPED[form]}, DATA)
    both(loaders.load(path)["w"], GRID)


def test_a_storage_alone_is_a_vector(tmp_path):
    path = torch_zip(tmp_path / "x.pt", {"w": FLOATS}, DATA)
    both(loaders.load(path)["w"], GRID.ravel())


def test_arrays_of_numpy(tmp_path):
    """Long ones stay in the file, also where NumPy wrote them in another order."""
    arrays = {
        "c": np.arange(300.0).reshape(20, 15),
        "fortran": np.asfortranarray(np.arange(300, dtype=np.int16).reshape(20, 15)),
        "big": np.arange(300, dtype=">f4"),
        "short": GRID,
        "bool": np.array([True, False]),
    }
    path = write_zip(tmp_path / "x.pt", torch_entries(pickle.dumps({**arrays, "s": "text"}, 4)))
    found = loaders.load(path)
    assert list(found) == list(arrays)
    for title, array in arrays.items():
        both(found[title], array.astype(array.dtype.newbyteorder("=")))
    again = loaders.load(deflated(path, tmp_path / "deflated.pt"))
    same(again["fortran"].read(), arrays["fortran"])


PERMUTED = np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_whose_axes_are_permuted(tmp_path, protocol):
    content = pickle.dumps({"w": PERMUTED, "b": PERMUTED.transpose(0, 2, 1)}, protocol)
    found = loaders.load(write_zip(tmp_path / "x.pt", torch_entries(content)))
    for title, array in pickle.loads(content).items():
        both(found[title], array)


def permuted(axes, order="K"):
    """What protocol 5 has for an array, with other axes."""
    element = call("numpy.dtype", "f4", False, True)
    octets = b"\0" * 24
    return call("numpy._core.numeric._frombuffer", octets, element, (2, 3), order, axes)


@pytest.mark.parametrize(
    "axes", [(0,), (0, 0), (0, 2), (1, -2), (True, 0), "10", [1, 0], None, (1, 0, 2)]
)
def test_axes_that_are_no_permutation(tmp_path, axes):
    array = permuted(axes)
    with pytest.raises(errors.PickleError, match="tensor 'w': the state of a NumPy array"):
        loaders.load(torch_zip(tmp_path / "x.pt", {"w": array}))
    assert loaders.load(torch_zip(tmp_path / "y.pt", {"w": permuted((1, 0))}))["w"].shape == (3, 2)


ODD_ARRAYS = {
    "longdouble": np.ones((2, 2), np.longdouble),
    "longcomplex": np.ones(2, np.clongdouble),
    "fields": np.zeros(2, [("a", "f4"), ("b", "i4")]),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", ODD_ARRAYS)
def test_arrays_that_are_not_read_are_not_lost(tmp_path, kind, protocol):
    content = pickle.dumps({"w": GRID, "x": ODD_ARRAYS[kind]}, protocol)
    path = write_zip(tmp_path / "x.pt", torch_entries(content))
    with pytest.raises(errors.ElementTypeError, match="tensor 'x': a NumPy array of"):
        loaders.load(path)


def test_arrays_of_no_numbers(tmp_path):
    arrays = {
        "text": np.array(["cat", "dog"]),
        "bytes": np.array([b"cat"]),
        "objects": np.array([None, "x"], object),
        "dates": np.array(["2024-01-02"], "datetime64[D]"),
    }
    for protocol in (2, 5):
        content = pickle.dumps({"w": GRID, **arrays}, protocol)
        path = write_zip(tmp_path / "x.pt", torch_entries(content))
        assert list(loaders.load(path)) == ["w"]


def jax_array(function, *more):
    element = op(
        call("numpy.dtype", "f4", False, True), code((3, "<", *[None] * 3, -1, -1, 0)), b"b"
    )
    made = (name("numpy", "ndarray"), (0,), b"b")
    state = (1, (2, 3), element, False, GRID.tobytes())
    return call("jax._src.array._reconstruct_array", function, made, state, {"weak_type": False})


def test_arrays_of_jax(tmp_path):
    array = jax_array(name("numpy._core.multiarray", "_reconstruct"))
    found = loaders.load(torch_zip(tmp_path / "x.pt", {"w": array, "b": array}))
    same(found["w"].read(), GRID)
    bad = torch_zip(tmp_path / "bad.pt", {"w": jax_array(name("os", "system"))})
    with pytest.raises(errors.UnsafeGlobalError, match=r"os\.system"):
        loaders.load(bad)
    with pytest.raises(errors.PickleError, match="tensor 'w'"):
        loaders.load(bad, inert=True)


def test_a_distributed_tensor(tmp_path):
    kind = name("torch.distributed.tensor", "DTensor")
    wrapper = name("torch._utils", "_rebuild_wrapper_subclass")
    inner = tensor(storage("FloatStorage", "0", 6))
    made = call("torch._tensor._rebuild_from_type_v2", wrapper, kind, (), (None, {"local": inner}))
    path = torch_zip(tmp_path / "x.pt", {"w": made}, {"0": GRID.tobytes()})
    with pytest.raises(errors.UnsupportedError, match=r"'w' is a distributed.*full_tensor\(\)"):
        loaders.load(path)


@pytest.mark.parametrize("attributes", [{}, {"v": tensor(storage("FloatStorage", "0", 6))}])
def test_constants_of_frozen_torchscript(tmp_path, attributes):
    """Their storages have the same numbers as those of the modules, and lie in another folder."""
    root = new("__torch__.Net", state=attributes)
    constants = pickled((tensor(storage("FloatStorage", "0", 6)), 3))
    extra = [Entry("archive/constants.pkl", constants), Entry("archive/constants/0", bytes(24))]
    storages = {"0": GRID.tobytes()} if attributes else {}
    found = loaders.load(torch_zip(tmp_path / "x.pt", root, storages, extra=extra))
    assert list(found) == [*attributes, "constants.0"]
    same(found["constants.0"].read(), np.zeros((2, 3), np.float32))
    for title in attributes:
        same(found[title].read(), GRID)


@pytest.mark.parametrize("deflate", [False, True])
def test_arrays_within_constants(tmp_path, deflate):
    arrays = {"a": np.arange(100.0)}, {"b": np.arange(100.0) + 100}
    root = new("__torch__.Net", state={"n": Raw(pickle.dumps(arrays[0], 3)[2:-1])})
    extra = [Entry("archive/constants.pkl", pickle.dumps(arrays[1], 3))]
    path = torch_zip(tmp_path / "x.pt", root, extra=extra)
    found = loaders.load(deflated(path, tmp_path / "deflated.pt") if deflate else path)
    same(found["n.a"].read(), arrays[0]["a"])
    same(found["constants.b"].read(), arrays[1]["b"])


def test_a_hole_of_two_gigabytes(tmp_path):
    """Neither opening nor reading a row costs more than the row."""
    count = 1 << 29
    tree = {"w": tensor(storage("FloatStorage", "0", count), (count // 1024, 1024), (1024, 1))}
    path = torch_zip(tmp_path / "x.pt", tree, {"0": 4 * count})
    assert path.stat().st_size > 4 * count
    script = (
        "import resource, sys, time, loaders, loaders.pytorch.zip\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, start = used(), time.perf_counter()\n"
        "handle = loaders.load(sys.argv[1])['w']\n"
        "row = handle.read(slice(5, 6))\n"
        "print(time.perf_counter() - start, used() - before, handle.nbytes, row.any())\n"
    )
    seconds, kilobytes, nbytes, seen = python("-c", script, path).split()
    assert (int(nbytes), seen) == (4 * count, "False")
    assert float(seconds) < 0.3
    assert int(kilobytes) < 50_000


def test_crc_of_storages_on_request(tmp_path):
    damaged = DATA["0"][:-1] + b"\x7f"
    entries = torch_entries(pickled({"w": W}), DATA)
    entries[2].packed = damaged
    path = write_zip(tmp_path / "x.pt", entries)
    assert loaders.load(path)["w"].read()[1, 2] != 5
    with pytest.raises(errors.ArchiveError, match="CRC of 'archive/data/0' is wrong"):
        loaders.load(path, check_crc=True)
    good = torch_zip(tmp_path / "good.pt", {"w": W}, DATA)
    both(loaders.load(good, check_crc=True)["w"], GRID)


def test_crc_of_the_pickle_always(tmp_path):
    entries = torch_entries(pickled({"w": W}), DATA)
    entries[0].packed = entries[0].data.replace(b"storage", b"Storage")
    with pytest.raises(errors.ArchiveError, match=r"CRC of 'archive/data\.pkl' is wrong"):
        loaders.load(write_zip(tmp_path / "x.pt", entries))


def test_shard(tmp_path):
    path = torch_zip(tmp_path / "pytorch_model-00001-of-00002.bin", {"w": W, "v": W}, DATA)
    found = read_tensors(path, loaders.Budget())
    assert list(found) == ["w", "v"]
    both(found["v"], GRID)


OTHER = {
    "data/weights/model_weights_config.json": r"\.pt2",
    "model.json": "PyTorch 1.0",
}


@pytest.mark.parametrize("entry", OTHER)
def test_other_formats_in_a_zip(tmp_path, entry):
    path = tmp_path / "x.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"x/{entry}", "{}")
    with pytest.raises(errors.UnsupportedError, match=OTHER[entry]):
        load_torch_zip(path)


def test_part_of_a_distributed_checkpoint(tmp_path):
    path = torch_zip(tmp_path / "__0_0.distcp", {"w": W}, DATA)
    with pytest.raises(errors.UnsupportedError, match="dcp_to_torch_save"):
        load_torch_zip(path)


TWO_NAMES = {
    "case of the pickle": ("archive/DATA.PKL", "archive/data.pkl", "not called data.pkl"),
    "case of a storage": ("archive/data/0", "archive/DATA/0", "differ in case alone"),
    "beside the root": ("archive/version", "version", "beside the folder"),
}


@pytest.mark.parametrize("case", TWO_NAMES)
def test_names_that_pytorch_may_take_for_others(tmp_path, case):
    first, second, match = TWO_NAMES[case]
    entries = torch_entries(pickled({"w": W}), DATA)
    if case == "case of the pickle":
        entries[0].name = first
    else:
        entries.append(type(entries[0])(second, b"3\n"))
    with pytest.raises(errors.ArchiveError, match=match):
        loaders.load(write_zip(tmp_path / "x.pt", entries))


def test_an_expansion_is_counted_view_by_view(tmp_path):
    wide = tensor(FLOATS, (1 << 20, 6), (0, 1))
    path = torch_zip(tmp_path / "x.pt", {"a": wide, "b": wide}, DATA)
    assert loaders.load(path)["b"].nbytes == 24 << 20
    path = torch_zip(tmp_path / "y.pt", {f"w{n}": wide for n in range(3)}, DATA)
    with pytest.raises(errors.BudgetError, match="bytes of tensors"):
        loaders.load(path)
    assert len(loaders.load(path, budget=loaders.Budget(free_bytes=73 << 20))) == 3


def test_a_deflated_storage_counts_for_every_view(tmp_path):
    """Each view inflates all of it when it is read."""
    half = storage("FloatStorage", "0", 1 << 22)
    views = {f"w{n}": tensor(half, (1,), (1,)) for n in range(5)}
    path = torch_zip(tmp_path / "x.pt", views, {"0": bytes(1 << 24)})
    assert len(loaders.load(path)) == 5
    with pytest.raises(errors.BudgetError, match="bytes of tensors"):
        loaders.load(deflated(path, tmp_path / "y.pt"))


def test_opening_is_quick(tmp_path):
    """5,000 tensors of a flat parameter: one storage, one view each."""
    count = 5000
    flat = storage("FloatStorage", "0", 4 * count)
    tree = mapping(
        *((f"layers.{n}.weight", tensor(flat, (2, 2), (2, 1), 4 * n)) for n in range(count))
    )
    values = np.arange(4 * count, dtype=np.float32)
    path = torch_zip(tmp_path / "x.pt", tree, {"0": values.tobytes()})
    start = time.process_time()
    found = loaders.load(path)
    assert time.process_time() - start < 2.0
    same(found["layers.4999.weight"].read(), values[-4:].reshape(2, 2))
    assert struct.unpack("<f", found["layers.1.weight"].read().tobytes()[:4]) == (4.0,)
