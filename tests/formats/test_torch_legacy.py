"""PyTorch's legacy files: by PyTorch itself (fixtures), by hand, and by Python's own pickler."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from pickles import Raw, name, op, persistent, pickled
from torch_files import MAGIC, SYS_INFO, hooks, legacy_bytes, legacy_storage, tensor

import loaders
from loaders import errors

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "torch_legacy"
GRID = np.arange(6, dtype="<f4").reshape(2, 3)
STORED = [("0", 6, GRID.tobytes())]


def opened(tmp_path, content, **options):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    return loaders.load(path, **options)


def values(checkpoint):
    return {name: handle.read() for name, handle in checkpoint.items()}


def assert_same(found, expected):
    """Equal shape, element type and bits."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


# What PyTorch wrote; what it wrote is in `fixtures/make_torch_legacy.py`.

KINDS = "float64 float16 int64 int32 int16 int8 uint8 bool complex64 complex128"
EXPECTED = {
    **{kind: GRID.astype(kind) for kind in KINDS.split()},
    "bfloat16": GRID.astype(ml_dtypes.bfloat16),
    "whole": GRID,
    "row": GRID[1],
    "transposed": GRID.T,
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.5, np.float32),
    "conjugate": np.array([0 - 1j, 2 - 3j, 4 - 5j], np.complex64),
}


@pytest.mark.parametrize("file", ["state.pt", "pickle2.pkl", "pickle4.pkl"])
def test_state_by_torch(file):
    checkpoint = loaders.load(FIXTURES / file)
    assert set(checkpoint) == set(EXPECTED)
    for title, expected in EXPECTED.items():
        handle = checkpoint[title]
        assert (handle.shape, handle.dtype) == (expected.shape, expected.dtype)
        assert_same(handle.read(), expected)
        if expected.shape:
            assert_same(handle.read(slice(1, 2)), expected[1:2])


def test_formats_are_told_apart():
    assert loaders.detect(FIXTURES / "state.pt") == "torch-legacy"
    assert loaders.detect(FIXTURES / "pickle2.pkl") == "pickle"


def test_module_by_torch():
    """A whole module: its class is not looked for, its tensors are."""
    before = set(sys.modules)
    checkpoint = loaders.load(FIXTURES / "module.pt")
    layers = {"first.weight", "first.bias", "norm.weight", "norm.bias"}
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert set(checkpoint) == layers | statistics
    assert_same(checkpoint["first.weight"].read(), GRID)
    assert not [module for module in set(sys.modules) - before if module.startswith("torch")]
    assert "torch" not in sys.modules


def test_handles_are_values(tmp_path):
    checkpoint = loaders.load(FIXTURES / "state.pt")
    for handle in checkpoint.values():
        copy = pickle.loads(pickle.dumps(handle))
        assert copy == handle
        assert copy.key == handle.key
        assert not handle.read().flags.writeable
    assert checkpoint["whole"].key != checkpoint["row"].key


# Written by hand.


def test_storages_in_the_order_of_their_list(tmp_path):
    """The object meets them in another order than the one they lie in."""
    tree = {
        "late": tensor(legacy_storage("DoubleStorage", "9", 2), (2,)),
        "early": tensor(legacy_storage("ShortStorage", "1", 3), (3,)),
        "middle": tensor(legacy_storage("CharStorage", "5", 1), (1,)),
    }
    parts = {
        "1": ("ShortStorage", np.array([1, -2, 3], "<i2")),
        "5": ("CharStorage", np.array([-7], "i1")),
        "9": ("DoubleStorage", np.array([0.5, 1e300])),
    }
    stored = [(key, len(array), array.tobytes()) for key, (_, array) in parts.items()]
    found = values(opened(tmp_path, legacy_bytes(tree, stored)))
    assert_same(found["late"], parts["9"][1])
    assert_same(found["early"], parts["1"][1])
    assert_same(found["middle"], parts["5"][1])


def test_views(tmp_path):
    """Elements 2 to 5 of the storage are a storage of their own, as PyTorch 0.1 to 0.4 wrote."""
    view = legacy_storage("FloatStorage", "0", 6, ("view", 2, 3))
    whole = legacy_storage("FloatStorage", "0", 6)
    tree = {"view": tensor(view, (2,), offset=1), "whole": tensor(whole)}
    checkpoint = opened(tmp_path, legacy_bytes(tree, STORED))
    assert_same(checkpoint["view"].read(), GRID.ravel()[3:5])
    assert_same(checkpoint["whole"].read(), GRID)


def test_tied_tensors_have_one_key(tmp_path):
    stored = legacy_storage("FloatStorage", "0", 6)
    tree = {"a": tensor(stored), "b": tensor(stored), "c": tensor(stored, (3, 2))}
    checkpoint = opened(tmp_path, legacy_bytes(tree, STORED))
    assert checkpoint["a"].key == checkpoint["b"].key != checkpoint["c"].key


def test_the_order_of_the_machine_is_not_that_of_the_file(tmp_path):
    """A big-endian machine writes little-endian storages too; PyTorch 2.13 reads them so."""
    tree = {"w": tensor(legacy_storage("FloatStorage", "0", 6))}
    content = legacy_bytes(tree, STORED, info={**SYS_INFO, "little_endian": False})
    assert_same(opened(tmp_path, content)["w"].read(), GRID)


def short(value):
    return op(b"U", len(value), value)


def test_python_2(tmp_path):
    """Texts of eight bits, and a LONG as the number of elements, as PyTorch 0.4 wrote them."""
    identity = Raw(
        b"("
        + short(b"storage")
        + b"ctorch\nFloatStorage\n"
        + short(b"45640624")
        + short(b"cpu")
        + b"\x8a\x01\x06"
        + b"Nt"
    )
    rebuilt = Raw(
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + identity
        + b"QK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
    )
    tree = Raw(b"}(" + short(b"layer.weight") + rebuilt + short(b"b\xc5\xbc\xff") + b"K\x02u")
    system = Raw(b"}(" + short(b"little_endian") + b"\x88u")
    keys = Raw(b"](" + short(b"45640624") + b"e")
    content = legacy_bytes(tree, [("45640624", 6, GRID.tobytes())], info=system, keys=keys)
    checkpoint = opened(tmp_path, content)
    assert list(checkpoint) == ["layer.weight"]
    assert_same(checkpoint["layer.weight"].read(), GRID)


def test_module_with_its_source(tmp_path):
    """A class that comes with its source text is a class; the text is no code here."""
    source = "raise SystemExit('run!')"
    layer = persistent(("module", name("my.models", "Layer"), "/home/me/models.py", source))
    weight = tensor(legacy_storage("FloatStorage", "0", 6))
    state = {"_parameters": {"weight": weight}, "_buffers": {}, "_modules": {}}
    made = Raw(layer + b")\x81" + pickled(state)[2:-1] + b"b")
    checkpoint = opened(tmp_path, legacy_bytes({"model": made}, STORED))
    assert list(checkpoint) == ["weight"]
    assert_same(checkpoint["weight"].read(), GRID)


def test_a_part_by_its_key(tmp_path):
    stored = legacy_storage("FloatStorage", "0", 6)
    tree = {"ema": {"w": tensor(stored)}, "model": {"v": tensor(stored)}}
    content = legacy_bytes(tree, STORED)
    with pytest.raises(errors.AmbiguousError, match=r"ema[\s\S]*model"):
        opened(tmp_path, content)
    assert list(opened(tmp_path, content, key="ema")) == ["w"]
    assert list(opened(tmp_path, content, key="model")) == ["v"]


def test_an_unknown_call_on_request(tmp_path):
    tree = {"w": tensor(legacy_storage("FloatStorage", "0", 6)), "x": Raw(b"ca\nb\n)R")}
    content = legacy_bytes(tree, STORED)
    with pytest.raises(errors.UnsafeGlobalError, match=r"a\.b"):
        opened(tmp_path, content)
    assert list(opened(tmp_path, content, inert=True)) == ["w"]


def test_a_bare_storage(tmp_path):
    content = legacy_bytes({"w": legacy_storage("FloatStorage", "0", 6)}, STORED)
    assert_same(opened(tmp_path, content)["w"].read(), GRID.ravel())


# Written by Python's own pickler, for which PyTorch's functions stand in.


class Storage:
    """Stands for a storage: an id in a legacy file, a legacy file itself in a plain pickle."""

    def __reduce__(self):
        inner = legacy_bytes(legacy_storage("FloatStorage", "0", 6), STORED)
        return sys.modules["torch.storage"]._load_from_bytes, (inner,)


class Tensor:
    def __init__(self, stored):
        self.stored = stored

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (self.stored, 0, (2, 3), (3, 1), False, OrderedDict())


@pytest.fixture
def torch(monkeypatch):
    """Names that the pickler looks up; none of them does anything."""
    for title, attribute in [
        ("torch", "FloatStorage"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "_load_from_bytes"),
    ]:
        module = types.ModuleType(title)
        made = type(attribute, (), {}) if attribute == "FloatStorage" else lambda: None
        made.__module__, made.__qualname__, made.__name__ = title, attribute, attribute
        setattr(module, attribute, made)
        monkeypatch.setitem(sys.modules, title, module)
    return sys.modules["torch"]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_protocol(tmp_path, torch, monkeypatch, protocol):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if type(value) is Storage:
                return ("storage", torch.FloatStorage, "0", "cpu", 6, None)
            return None

    buffer = io.BytesIO()
    stored = Storage()
    tree = OrderedDict(a=Tensor(stored), b=Tensor(stored))
    tree.extra = {"_metadata": 1}
    for part in (MAGIC, 1001, SYS_INFO, tree, ["0"]):
        Pickler(buffer, protocol).dump(part)
    monkeypatch.undo()
    content = buffer.getvalue() + struct.pack("<q", 6) + GRID.tobytes()
    checkpoint = opened(tmp_path, content)
    assert_same(checkpoint["a"].read(), GRID)
    assert checkpoint["a"].key == checkpoint["b"].key


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickle(tmp_path, torch, monkeypatch, protocol):
    shared = Tensor(Storage())
    tree = {"a": Tensor(Storage()), "b": shared, "c": shared, "step": 3, "name": "x"}
    content = pickle.dumps(tree, protocol)
    monkeypatch.undo()
    checkpoint = opened(tmp_path, content)
    assert list(checkpoint) == ["a", "b", "c"]
    for title in "abc":
        assert_same(checkpoint[title].read(), GRID)
    assert checkpoint["b"].key == checkpoint["c"].key != checkpoint["a"].key


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickle_of_numpy_arrays(tmp_path, protocol):
    """Small and long, in either byte order and memory order."""
    arrays = {
        "small": GRID,
        "long": np.arange(400.0).reshape(20, 20),
        "big-endian": np.arange(200, dtype=">i4").reshape(10, 20),
        "by columns": np.asfortranarray(np.arange(400, dtype=np.int16).reshape(20, 20)),
        "empty": np.empty((0, 3), np.uint8),
        "flag": np.array([True, False]),
    }
    found = opened(tmp_path, pickle.dumps(arrays, protocol))
    assert list(found) == list(arrays)
    for title, expected in arrays.items():
        array = found[title].read()
        np.testing.assert_array_equal(array, expected)
        assert array.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")


def test_nested_files_that_are_long(tmp_path):
    """Bytes that are not copied out of the pickle, but mapped."""
    array = np.arange(1000, dtype="<f8")
    inner = legacy_bytes(legacy_storage("DoubleStorage", "k", 1000), [("k", 1000, array.tobytes())])
    load = Raw(b"ctorch.storage\n_load_from_bytes\n" + pickled((inner,))[2:-1] + b"R")
    checkpoint = opened(tmp_path, pickled({"w": tensor(load, (10, 100)), "v": hooks()}))
    assert_same(checkpoint["w"].read(), array.reshape(10, 100))
    assert checkpoint["w"].key == checkpoint["w"].key
