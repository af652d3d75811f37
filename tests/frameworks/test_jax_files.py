"""What Flax, Orbax and NumPy write here and now is read bit by bit as they read it themselves."""

from __future__ import annotations

import subprocess
import sys

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from files import REPOSITORY

import loaders

NAMES = [
    *["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
    *["float16", "float32", "float64", "complex64", "complex128", "bfloat16", "int4", "uint4"],
    *["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"],
    *["float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn"],
]
SHAPES = [(), (5,), (3, 4), (2, 1, 3, 2)]
# TensorStore has no names for these.
NOT_IN_ZARR = {"uint4", "float8_e4m3"}
LAYOUTS = {
    "zarr": {"use_ocdbt": False},
    "zarr3": {"use_ocdbt": False, "use_zarr3": True},
    "ocdbt": {"use_ocdbt": True},
    "ocdbt zarr3": {"use_ocdbt": True, "use_zarr3": True},
}


def array(name, shape, seed=0):
    """Random values that the element type holds; NaN and both zeros among them where it has."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    values = np.random.default_rng(seed).normal(0, 2, shape)
    values = np.where(np.abs(values) < 0.3, np.float64(-0.0), values)
    kind = np.dtype(dtype).kind
    if kind in "biu" or "int" in name:
        values = np.abs(np.round(values))
    if name == "float8_e8m0fnu":
        values = np.abs(values) + 1
    return np.asarray(values).astype(dtype)


ARRAYS = {f"{name}_{len(shape)}": array(name, shape) for name in NAMES for shape in SHAPES}


def same(found, expected):
    expected = np.asarray(expected)
    return (found.shape, found.dtype, found.tobytes()) == (
        expected.shape,
        expected.dtype,
        expected.tobytes(),
    )


def test_flax_every_type_and_shape(tmp_path):
    path = tmp_path / "x.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(ARRAYS))
    found, expected = loaders.load(path), flax.serialization.msgpack_restore(path.read_bytes())
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert same(found[name].read(), expected[name]), name
        assert same(found[name].read(), array), name


def test_flax_arrays_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 20)
    path = tmp_path / "x.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(ARRAYS))
    found = loaders.load(path)
    assert all(same(found[name].read(), ARRAYS[name]) for name in ARRAYS)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x).mean((1, 2))
        return nn.Dense(5)(nn.BatchNorm(use_running_average=True)(x))


def variables():
    return Model().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_flax_model(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.to_bytes(variables()))
    flat = flax.traverse_util.flatten_dict(variables(), sep=".")
    found = loaders.load(path)
    assert found.keys() == flat.keys()
    assert all(same(found[name].read(), flat[name]) for name in flat)


def stored():
    """What TensorStore has names for."""
    names = {name for name in NAMES if name not in NOT_IN_ZARR}
    return {key: value for key, value in ARRAYS.items() if key.rsplit("_", 1)[0] in names}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_orbax_every_type_and_shape(tmp_path, layout):
    arrays = stored()
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**LAYOUTS[layout])).save(tmp_path / "x", arrays)
    found = loaders.load(tmp_path / "x")
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "x")
    assert found.keys() == arrays.keys()
    for name in arrays:
        assert same(found[name].read(), restored[name]), name
        assert same(found[name].read(), arrays[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_orbax_model(tmp_path, layout):
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**LAYOUTS[layout])).save(
        tmp_path / "x", variables()
    )
    flat = flax.traverse_util.flatten_dict(variables(), sep=".")
    found = loaders.load(tmp_path / "x")
    assert found.keys() == flat.keys()
    assert all(same(found[name].read(), flat[name]) for name in flat)


def test_orbax_manager_with_several_items(tmp_path):
    arrays = {"w": array("float32", (3, 4))}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(arrays),
            ema=ocp.args.StandardSave({"w": arrays["w"] + 1}),
            notes=ocp.args.JsonSave({"a": 1}),
        )
        manager.save(5, args=items)
    with pytest.raises(loaders.errors.AmbiguousError, match=r"\['ema', 'params'\]"):
        loaders.load(tmp_path / "run" / "5")
    for key, expected in {"params": arrays["w"], "ema": arrays["w"] + 1}.items():
        assert same(loaders.load(tmp_path / "run" / "5", key=key)["w"].read(), expected)
        assert same(loaders.load(tmp_path / "run", key=f"5/{key}")["w"].read(), expected)


ON_DEVICES = """
import sys, jax, numpy as np, orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
w = np.arange(16 * 12, dtype=np.float32).reshape(16, 12)
specs = {"both": P("x", "y"), "rows": P("x"), "cols": P(None, "y"), "none": P()}
put = {k: jax.device_put(w, NamedSharding(mesh, spec)) for k, spec in specs.items()}
for ocdbt in (False, True):
    for zarr3 in (False, True):
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)
        ocp.Checkpointer(handler).save(f"{sys.argv[1]}/{ocdbt}{zarr3}", put)
"""


def test_orbax_arrays_on_eight_devices(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_DEVICES, str(tmp_path)]
    subprocess.run(command, env=flags, cwd=REPOSITORY, check=True, capture_output=True)
    expected = np.arange(16 * 12, dtype=np.float32).reshape(16, 12)
    for layout in ("FalseFalse", "FalseTrue", "TrueFalse", "TrueTrue"):
        found = loaders.load(tmp_path / layout)
        assert len(found["both"].chunks) == 8
        for name in ("both", "rows", "cols", "none"):
            assert same(found[name].read(), expected), (layout, name)
            assert same(found[name].read(slice(3, 11)), expected[3:11]), (layout, name)


NUMPY = [name for name in NAMES if not hasattr(ml_dtypes, name)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_every_type_and_shape(tmp_path, save):
    arrays = {key: value for key, value in ARRAYS.items() if key.rsplit("_", 1)[0] in NUMPY}
    save(tmp_path / "x.npz", **arrays)
    found, expected = loaders.load(tmp_path / "x.npz"), np.load(tmp_path / "x.npz")
    assert [*found] == [*expected]
    assert all(same(found[name].read(), expected[name]) for name in expected)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(ml_dtypes, name)])
def test_numpy_type_that_is_lost(tmp_path, name):
    np.savez(tmp_path / "x.npz", w=array(name, (3, 4)))
    found = loaders.load(tmp_path / "x.npz", dtype=name)["w"].read()
    assert same(found, array(name, (3, 4)))
