"""Whatever a user hands over becomes the same checkpoint, and stays as it was."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict
from safetensors.numpy import save_file

import wwfunc
from wwfunc import Checkpoint, InputError
from wwfunc.checkpoint import as_handle
from wwfunc.sources import as_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(3)
FIRST = RNG.standard_normal((16, 12)).astype(np.float32)
SECOND = RNG.standard_normal((12, 10)).astype(np.float32)
FLAT = {"a.weight": FIRST, "b.weight": SECOND}
BF16 = FIRST.astype(ml_dtypes.bfloat16)


def contents(model) -> dict[str, np.ndarray]:
    return {name: as_handle(leaf).read() for name, leaf in as_checkpoint(model).items()}


class Module:
    """Like a torch module: no mapping, no pytree, but a `state_dict`."""

    def state_dict(self):
        return OrderedDict(FLAT)


MODELS = {
    "flat": FLAT,
    "nested": {"a": {"weight": FIRST}, "b": {"weight": SECOND}},
    "checkpoint": Checkpoint(FLAT),
    "read-only mapping": MappingProxyType(FLAT),
    "frozen dict": FrozenDict({"a": {"weight": FIRST}, "b": {"weight": SECOND}}),
    "jax arrays": {name: jnp.asarray(array) for name, array in FLAT.items()},
    "None leaves": {**FLAT, "b.bias": None, "c": {"bias": None}},
    "handles": {name: as_handle(array) for name, array in FLAT.items()},
    "state dict": Module(),
    "beside numbers and texts": {"a": {"weight": FIRST}, "epoch": 3, "b": {"weight": SECOND}},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_tensors_from_every_source(name):
    found = contents(MODELS[name])
    assert sorted(found) == sorted(FLAT)
    for key, array in FLAT.items():
        np.testing.assert_array_equal(found[key], array)
        assert not found[key].flags.writeable


@pytest.mark.parametrize("as_path", [str, Path])
def test_paths(as_path, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(FLAT, file)
    assert sorted(contents(as_path(file))) == sorted(FLAT)
    assert wwfunc.analyze(as_path(file)).provenance.source == str(file)
    assert wwfunc.analyze(FLAT).provenance.source is None


def test_lists_and_tuples_are_numbered():
    assert list(contents([FIRST, (SECOND, None, {"w": FIRST})])) == ["0", "1.0", "1.2.w"]


def test_number_keys():
    assert list(contents({1: {"w": FIRST}, 0: {"w": SECOND}})) == ["1.w", "0.w"]


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_bfloat16_is_read_bit_for_bit(make):
    (found,) = contents({"w": make(BF16)}).values()
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.view(np.uint16), BF16.view(np.uint16))
    wide = wwfunc.analyze({"w": BF16.astype(np.float64)}).records[0]
    assert wwfunc.analyze({"w": make(BF16)}).records[0].alpha == wide.alpha


def test_nothing_is_copied():
    assert all(np.shares_memory(contents(FLAT)[name], array) for name, array in FLAT.items())


# Flax -----------------------------------------------------------------------------------------


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(20, 12)(x)
        x = nn.LayerNorm()(x)
        x = nn.MultiHeadDotProductAttention(num_heads=2)(x)
        return nn.BatchNorm(use_running_average=False)(nn.Dense(10)(x))


def test_linen_variables():
    shapes = jax.eval_shape(Linen().init, jax.random.key(0), jnp.zeros((1, 5), int))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    rows = {r.tensor: r.rule for r in wwfunc.describe(variables).coverage if r.longname}
    attention = "params.MultiHeadDotProductAttention_0"
    assert rows == {
        "params.Dense_0.kernel": "flax_dense",
        "params.Embed_0.embedding": "flax_embedding",
        **{f"{attention}.{n}.kernel": "flax_attention" for n in ("key", "out", "query", "value")},
    }


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(20, 12, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(2, 12, decode=False, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(12, 16, rngs=rngs)])
        self.conv = nnx.Conv(9, 10, (2,), rngs=rngs)
        self.norm = nnx.BatchNorm(12, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.tied = self.embed


@pytest.mark.parametrize(
    "view",
    [
        lambda m: m,
        nnx.state,
        lambda m: nnx.state(m, nnx.Param),
        lambda m: nnx.to_pure_dict(nnx.state(m, nnx.Param)),
    ],
)
def test_nnx_modules_and_their_states(view):
    """Typed random keys of a dropout among them, which have no NumPy dtype."""
    model = Nnx(nnx.Rngs(0))
    analysis = wwfunc.analyze(view(model), min_evals=1)
    assert {r.layer.tensor: (r.layer.rule, r.N, r.M, r.rf) for r in analysis} == {
        "attn.key.kernel": ("flax_attention", 12, 12, 1),
        "attn.out.kernel": ("flax_attention", 12, 12, 1),
        "attn.query.kernel": ("flax_attention", 12, 12, 1),
        "attn.value.kernel": ("flax_attention", 12, 12, 1),
        "blocks.0.kernel": ("flax_dense", 16, 12, 1),
        "conv.kernel": ("flax_conv", 10, 9, 2),
        "embed.embedding": ("flax_embedding", 20, 12, 1),
    }
    kernel = np.asarray(model.blocks[0].kernel[...], np.float64)
    assert analysis["blocks.0"].norm == pytest.approx(np.square(kernel).sum(), rel=1e-12)


def test_a_key_named_value_is_a_key():
    tree = [{"attn": {"query": FIRST, "value": SECOND}}]
    assert list(contents(tree)) == ["0.attn.query", "0.attn.value"]


# A tensor of another framework, known by its methods alone -------------------------------------


class Tensor:
    """Refuses what torch refuses: `numpy()` with a gradient, and of a bfloat16."""

    def __init__(self, array, requires_grad=False):
        self.array = array
        self.requires_grad = requires_grad
        self.shape = array.shape
        self.dtype = f"torch.{array.dtype.name}"
        self.layout = "torch.strided"
        self.is_meta = False

    def __getitem__(self, rows):
        return Tensor(self.array[rows], self.requires_grad)

    def detach(self):
        return Tensor(self.array)

    def cpu(self):
        return self

    def resolve_conj(self):
        return self

    def resolve_neg(self):
        return self

    def is_conj(self):
        return False

    def is_neg(self):
        return False

    def view(self, dtype):
        return Tensor(self.array.view(dtype), self.requires_grad)

    def numpy(self):
        if self.requires_grad or self.dtype == "torch.bfloat16":
            raise TypeError("cannot be converted")
        return self.array

    def numel(self):
        return self.array.size

    def element_size(self):
        return self.array.itemsize

    def data_ptr(self):
        return self.array.ctypes.data

    def stride(self):
        return tuple(step // self.array.itemsize for step in self.array.strides)


@pytest.mark.parametrize("array", [FIRST, BF16, FIRST.T, FIRST[::2], FIRST.astype(np.float16)])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_tensors_known_by_their_methods(array, requires_grad, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(int16=np.int16, uint8=np.uint8))
    handle = as_checkpoint({"w": Tensor(array, requires_grad)})["w"]
    assert (handle.shape, handle.dtype, handle.nbytes) == (array.shape, array.dtype, array.nbytes)
    found = handle.read()
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable != np.shares_memory(found, array)
    np.testing.assert_array_equal(handle.read(slice(2, 5)), array[2:5])


def test_tensors_of_one_memory_are_tied():
    arrays = [FIRST, FIRST, FIRST.copy(), FIRST.T]
    rules = [row.rule for row in wwfunc.describe([Tensor(a) for a in arrays]).coverage]
    assert rules == ["matrix", "tied", "matrix", "matrix"]


@pytest.mark.parametrize("name", ["bits8", "float4_e2m1fn_x2"])
def test_a_tensor_type_that_cannot_be_read_is_named(name):
    odd = Tensor(FIRST)
    odd.dtype = f"torch.{name}"
    with pytest.raises(InputError, match=rf"'a\.w' of torch\.{name} cannot be read"):
        wwfunc.analyze({"a": {"w": odd}})


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [3.0, None, object(), {}, [], {"a": {}}, {"a": None}, {"a": 1.0, "b": "x"}, [[1.0, 2.0]]],
)
def test_no_arrays(model):
    with pytest.raises(InputError, match=f"no named arrays in a {type(model).__name__}"):
        wwfunc.analyze(model)


def test_names_that_collide_once_they_are_joined():
    with pytest.raises(InputError, match=r"two arrays have the name 'a\.b'"):
        wwfunc.analyze({"a.b": FIRST, "a": {"b": SECOND}})


def test_shapes_without_contents():
    with pytest.raises(InputError, match="'w' is a ShapeDtypeStruct, which holds no array"):
        wwfunc.analyze({"w": jax.eval_shape(lambda: FIRST)})


def test_inside_jit_there_is_nothing_to_read():
    """`wwfunc.measure` is for that; here a row that failed would be a silent NaN."""
    with pytest.raises(InputError, match=r"'w' is a \w*Tracer, which holds no array"):
        jax.jit(lambda w: wwfunc.analyze({"w": w}).records[0].alpha)(FIRST)


# What must not change -------------------------------------------------------------------------


@pytest.mark.parametrize("array", [FIRST, BF16, FIRST.T, np.asfortranarray(SECOND), FIRST[::2]])
def test_inputs_stay_as_they_were(array):
    mine = array.copy(order="K")
    flags = str(mine.flags)
    wwfunc.analyze({"w": mine})
    assert mine.tobytes() == array.tobytes()
    assert str(mine.flags) == flags


# A package of the same name as ours -----------------------------------------------------------

FOREIGN = """
import pathlib, sys, warnings
sys.path.insert(0, {folder!r})
if {imported}:
    import loaders
    assert loaders.FOREIGN
import wwfunc
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        print(len(wwfunc.load({path!r})))
told = [w for w in caught if "another package is named 'loaders'" in str(w.message)]
print(len(told), pathlib.Path(told[0].filename).name)
print("wwfunc._loaders" in sys.modules, getattr(sys.modules.get("loaders"), "FOREIGN", None))
"""


@pytest.mark.parametrize(("imported", "left"), [(True, "True"), (False, "None")])
def test_a_foreign_package_named_loaders(imported, left, tmp_path, digits_path):
    package = tmp_path / "loaders"
    package.mkdir()
    text = "FOREIGN = True\n" if imported else "raise SystemExit('executed')\n"
    (package / "__init__.py").write_text(text)
    code = FOREIGN.format(folder=str(tmp_path), path=str(digits_path), imported=imported)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.stdout.split() == ["18", "18", "1", "<string>", "True", left], done.stderr


def test_an_array_has_no_name():
    with pytest.raises(InputError, match="without a name"):
        wwfunc.analyze(np.ones((20, 20)))


def test_keys_that_cannot_be_sorted():
    with pytest.raises(InputError, match="is no pytree"):
        wwfunc.analyze({"a": 1.0, 3: np.ones((20, 20))})


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        (3, "maps name patterns"),
        ({"zzz*": wwfunc.TensorHint("dense")}, "no tensor fits the pattern"),
    ],
)
def test_hints_that_hint_at_nothing(hints, message):
    with pytest.raises(wwfunc.OptionError, match=message):
        wwfunc.describe({"w": np.ones((20, 20))}, hints=hints)


def test_options_are_a_record():
    with pytest.raises(wwfunc.OptionError, match="takes an Options record"):
        wwfunc.describe({"w": np.ones((20, 20))}, "conv*")
