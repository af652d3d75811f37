"""The mapping of names to handles: immutable, lazy, comparable, and a pytree of JAX."""

from __future__ import annotations

import os
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from files import encoded, framed, python, random_array, write

import loaders
import wwfunc
from wwfunc import checkpoint
from wwfunc.checkpoint import Checkpoint, TensorHint, as_handle

ARRAYS = {
    "b.weight": random_array("F32", (4, 3), 1),
    "a.weight": random_array("BF16", (3, 2), 2),
    "scale": random_array("F64", (), 3),
    "none": random_array("I8", (0, 5), 4),
}
DENSE, CONV, EMBEDDING = TensorHint("dense"), TensorHint("conv2d"), TensorHint("embedding")


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "model.safetensors", encoded(ARRAYS, {"format": "np"}))


@pytest.fixture
def ckpt(path):
    return loaders.load(path)


def finite(arrays):
    """The same shapes and types with small numbers in them."""
    return {name: np.ones_like(array) for name, array in arrays.items()}


def test_mapping(ckpt):
    assert list(ckpt) == list(ARRAYS)
    assert len(ckpt) == 4
    assert "scale" in ckpt
    assert "weight" not in ckpt
    assert [handle.shape for handle in ckpt.values()] == [(4, 3), (3, 2), (), (0, 5)]
    assert ckpt.get("weight") is None
    with pytest.raises(KeyError, match="weight"):
        ckpt["weight"]


def test_two_checkpoints_compare_by_identity(path, ckpt):
    twin = loaders.load(path)
    assert ckpt in [twin, ckpt]
    assert ckpt not in [twin]
    assert len({ckpt, twin}) == 2


@pytest.mark.parametrize("part", [None, "metadata", "config", "hints"])
def test_nothing_can_be_replaced(ckpt, part):
    mapping = getattr(ckpt, part) if part else ckpt
    with pytest.raises(TypeError, match="item assignment"):
        mapping["scale"] = 1
    with pytest.raises(TypeError, match="item deletion"):
        del mapping["scale"]


@pytest.mark.parametrize("name", ["b.weight", "a.weight"])
def test_tensors_of_a_file_and_of_memory_are_read_only(ckpt, name):
    for handle in ckpt[name], as_handle(ARRAYS[name].copy()):
        with pytest.raises(ValueError, match="read-only"):
            handle.read()[0] = 0


def test_later_changes_of_the_arguments_do_not_show():
    tensors, config = dict(ARRAYS), {"heads": 2}
    made = Checkpoint(tensors, config=config)
    tensors.clear()
    config["heads"] = 3
    assert list(made) == list(ARRAYS)
    assert made.config == {"heads": 2}


def test_repr(path, ckpt):
    assert repr(ckpt) == f"<Checkpoint of 4 tensors from {path}>"
    assert repr(Checkpoint({})) == "<Checkpoint of 0 tensors from memory>"


def test_read_outlives_the_file(path, ckpt):
    read = ckpt.with_hints({"*": DENSE}).read()
    os.truncate(path, 0)
    assert all(type(array) is np.ndarray for array in read.values())
    assert all(read[name].tobytes() == ARRAYS[name].tobytes() for name in ARRAYS)
    assert (read.metadata, read.source, read.hint("a")) == (ckpt.metadata, ckpt.source, DENSE)


def test_digest_is_of_the_contents_alone(tmp_path, ckpt, monkeypatch):
    backwards = dict(reversed(ARRAYS.items()))
    first, second = dict(list(ARRAYS.items())[:1]), dict(list(ARRAYS.items())[1:])
    write(tmp_path / "1.safetensors", second)
    write(tmp_path / "2.safetensors", first)
    weight_map = dict.fromkeys(first, "2.safetensors") | dict.fromkeys(second, "1.safetensors")
    text = f'{{"weight_map": {weight_map}}}'.replace("'", '"')
    digest = ckpt.digest()
    assert loaders.load(write(tmp_path / "x", encoded(backwards, pad=999))).digest() == digest
    assert loaders.load(write(tmp_path / "x.safetensors.index.json", text)).digest() == digest
    assert Checkpoint(ARRAYS).digest() == ckpt.read().digest() == digest
    monkeypatch.setattr(checkpoint, "_DIGEST_ROWS_BYTES", 20)
    assert ckpt.digest() == digest


def test_digest_is_of_the_numbers_whatever_their_byte_order():
    little = np.array([1, 2], "<i4")
    assert Checkpoint({"a": little.astype(">i4")}).digest() == Checkpoint({"a": little}).digest()
    swapped = little.view(">i4")
    assert Checkpoint({"a": swapped}).digest() != Checkpoint({"a": little}).digest()


OTHERS = {
    "bit": {"a": np.array([1, 2, 3, 5], np.int16)},
    "name": {"b": np.array([1, 2, 3, 4], np.int16)},
    "dtype": {"a": np.array([1, 2, 3, 4], np.uint16)},
    "shape": {"a": np.array([[1, 2], [3, 4]], np.int16)},
    "split": {"a": np.array([1, 2], np.int16), "b": np.array([3, 4], np.int16)},
    "empty": {"a": np.array([1, 2, 3, 4], np.int16), "b": np.empty((0, 3), np.int16)},
    "nothing": {},
}


def test_digests_differ():
    same = {"a": np.array([1, 2, 3, 4], np.int16)}
    assert len({Checkpoint(arrays).digest() for arrays in (same, *OTHERS.values())}) == 8


HINTS = [
    ({"*": DENSE, "conv*": CONV}, "conv1.weight", CONV),
    ({"conv*": CONV, "*": DENSE}, "conv1.weight", DENSE),
    ({"conv?.weight": CONV}, "conv12.weight", None),
    ({"layers.[0-3].*": EMBEDDING}, "layers.2.w", EMBEDDING),
    ({"A*": DENSE}, "a", None),
    ({}, "a", None),
]


@pytest.mark.parametrize(("hints", "name", "expected"), HINTS)
def test_the_last_hint_that_fits_decides(hints, name, expected):
    assert Checkpoint({}, hints=hints).hint(name) == expected
    assert Checkpoint({}).with_hints(hints).hint(name) == expected


def test_hints_of_the_user_come_on_top():
    made = Checkpoint({}, hints={"*": DENSE, "conv*": CONV})
    assert made.with_hints({"conv1": EMBEDDING}).hint("conv1") == EMBEDDING
    assert made.with_hints({"*": EMBEDDING}).hint("conv1") == EMBEDDING
    assert made.hint("conv1") == CONV


def test_pickling(path):
    write(path.parent / "config.json", '{"heads": 2}')
    whole = loaders.load(path.parent).with_hints({"*": DENSE})
    for made in whole, whole.read():
        copy = pickle.loads(pickle.dumps(made))
        assert list(copy) == list(made)
        assert copy.digest() == made.digest()
        assert (copy.metadata, copy.config) == ({"format": "np"}, {"heads": 2})
        assert (copy.hint("a"), copy.source) == (DENSE, str(path.parent))


def test_leaves_are_handles_and_structure_is_names(tmp_path, ckpt):
    other = encoded(finite(ARRAYS), {"other": "text"}, pad=500)
    other = loaders.load(write(tmp_path / "other", other)).with_hints({"*": CONV})
    leaves = jax.tree.leaves(ckpt)
    assert all(leaf is ckpt[name] for leaf, name in zip(leaves, sorted(ckpt), strict=True))
    assert jax.tree.structure(ckpt) == jax.tree.structure(other) == jax.tree.structure(other.read())
    renamed = Checkpoint({f"x.{name}": array for name, array in ARRAYS.items()})
    assert jax.tree.structure(ckpt) != jax.tree.structure(renamed)
    paths = [jax.tree_util.keystr(at) for at, _ in jax.tree_util.tree_leaves_with_path(ckpt)]
    assert paths == [f"['{name}']" for name in sorted(ARRAYS)]


def test_difference_of_two_files(tmp_path):
    one = finite(ARRAYS)
    a = loaders.load(write(tmp_path / "a", {name: array + array for name, array in one.items()}))
    b = loaders.load(write(tmp_path / "b", one))
    change = jax.tree.map(np.subtract, a.read(), b.read())
    assert isinstance(change, Checkpoint)
    assert all(np.array_equal(change[name], one[name]) for name in one)
    with pytest.raises(ValueError, match=r"structure|[Mm]ismatch"):
        jax.tree.map(np.subtract, a.read(), Checkpoint({"x": one["scale"]}))


def test_through_jit_and_grad(tmp_path):
    arrays = {name: array for name, array in finite(ARRAYS).items() if name.endswith("weight")}
    read = loaders.load(write(tmp_path / "x", arrays)).read()
    doubled = jax.jit(lambda model: jax.tree.map(lambda leaf: leaf * 2, model))(read)
    assert list(doubled) == sorted(arrays)
    assert all(np.array_equal(doubled[name], arrays[name] * 2) for name in arrays)
    slope = jax.grad(lambda model: jnp.sum(model["b.weight"] ** 2))(read)
    assert np.array_equal(slope["b.weight"], 2 * arrays["b.weight"])
    assert doubled.digest() == Checkpoint(doubled).digest() != read.digest()


ORDERS = {
    "jax first": "import jax, loaders; c = loaders.load(path)",
    "jax last": "import loaders; c = loaders.load(path); import jax, wwfunc; wwfunc.esd",
    "jax after, then read": "import loaders; c = loaders.load(path); import jax; c.read()",
    "by wwfunc": "import wwfunc; c = wwfunc.load(path); import jax; wwfunc.esd",
    "jax within": "import wwfunc; wwfunc.esd; c = wwfunc.load(path); import jax",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_registered_whatever_is_imported_first(path, order):
    code = f"import sys; path = sys.argv[1]; {order}; print(len(jax.tree.leaves(c)))"
    assert python("-c", code, path) == "4\n"


HEAVY = "jax torch tensorflow keras flax h5py matplotlib pandas scipy safetensors"


def test_loading_imports_no_framework(path):
    code = "import sys, loaders; loaders.load(sys.argv[1]).read().digest(); print(*sys.modules)"
    imported = set(python("-c", code, path).split())
    assert {"loaders", "numpy"} <= imported
    assert not imported & set(HEAVY.split())


# A process inherits the peak of the one that started it: a small one stands between.
ALONE = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"
MEMORY = """
import resource, sys, loaders
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = peak()
handle = loaders.load(sys.argv[1])["big.weight"]
last = handle.read(slice(16383, 16384)).sum()
described = peak()
handle.read(slice(0, 1024)).sum()
print(handle.shape, handle.nbytes, last, described - start, peak() - described)
"""


def test_two_gigabytes_are_described_without_being_read(tmp_path):
    size, unit = 1 << 31, 1 << 20 if os.uname().sysname == "Darwin" else 1 << 10
    entry = {"dtype": "F32", "shape": [16384, 32768], "data_offsets": [0, size]}
    path = write(tmp_path / "big.safetensors", framed({"big.weight": entry}))
    os.truncate(path, path.stat().st_size + size)
    said, described, read = python("-c", ALONE, MEMORY, path).rsplit(maxsplit=2)
    assert said == f"(16384, 32768) {size} 0.0"
    assert int(described) < 50 * unit
    assert int(read) > 100 * unit  # 1,024 rows are 128 MiB: what is read would show
    assert "32768" in python("-m", "wwfunc", "describe", path)


def test_loading_where_jax_is_blocked(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    assert len(loaders.load(path)) == 4


def test_example_in_the_package(digits_path):
    assert len(wwfunc.load(digits_path)) == 18


def test_two_orders_of_one_model_are_one_structure():
    tensors = {"b": np.ones((2, 2)), "a": np.full(3, 5.0)}
    one, other = Checkpoint(tensors), Checkpoint(dict(reversed(tensors.items())))
    difference = jax.tree.map(np.subtract, one.read(), other.read())
    assert list(difference) == ["a", "b"]
    assert not difference["a"].any()


@pytest.mark.parametrize("name", ["metadata", "config", "source", "anything"])
def test_attributes_cannot_be_set(name):
    with pytest.raises(AttributeError, match="immutable"):
        setattr(Checkpoint({"a": np.ones(2)}), name, {})
