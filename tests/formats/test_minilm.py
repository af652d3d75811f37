"""A trained model in other formats: the same bits, and the same numbers in every column."""

from __future__ import annotations

import flax.serialization
import flax.traverse_util
import h5py
import minilm
import numpy as np
import pytest
from torch_files import storage, tensor, torch_zip

import loaders
import wwfunc


@pytest.fixture(scope="module")
def arrays(minilm_path):
    return minilm.weights(minilm_path)


@pytest.fixture(scope="module")
def reference(analyses):
    return analyses["minilm"]


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_msgpack(path, arrays):
    tree = flax.traverse_util.unflatten_dict(arrays, sep=".")
    path.write_bytes(flax.serialization.msgpack_serialize(tree))


def write_pt(path, arrays):
    kinds = {np.dtype("f4"): "FloatStorage", np.dtype("i8"): "LongStorage"}
    tree = {
        name: tensor(storage(kinds[array.dtype], str(at), array.size), size=array.shape)
        for at, (name, array) in enumerate(arrays.items())
    }
    torch_zip(path, tree, {str(at): a.tobytes() for at, a in enumerate(arrays.values())})


WRITERS = {"npz": write_npz, "msgpack": write_msgpack, "pt": write_pt}


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_of_it(tmp_path, arrays, reference, suffix):
    path = tmp_path / f"model.{suffix}"
    WRITERS[suffix](path, arrays)
    minilm.check(path, arrays, reference)


def test_dense_layers_as_keras_2_writes_them(tmp_path, arrays, reference):
    layers = minilm.dense(arrays)
    assert len(layers) == 37
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(list(layers), "S")
        file.attrs["keras_version"], file.attrs["backend"] = b"2.15.0", b"tensorflow"
        for name, (weight, bias) in layers.items():
            group = file.create_group(name)
            names = [f"{name}/kernel:0", f"{name}/bias:0"]
            group.attrs["weight_names"] = np.array(names, "S")
            group[names[0]], group[names[1]] = weight.T, bias
    found = loaders.load(path)
    minilm.check_arrays(found, minilm.named(layers), transposed=True)
    same = dict(zip(layers, layers, strict=True))
    minilm.check_numbers(wwfunc.analyze(found), reference, same, ids=False)
