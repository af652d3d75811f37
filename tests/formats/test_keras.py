"""Keras's files: what Keras 3 saved, and files of Keras 1 and 2 built from their layouts.

The arrays to expect were written by Keras itself, by the names of its variables.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from conftest import REPOSITORY
from files import write

import loaders
from loaders import errors
from loaders.keras.h5 import layout_of
from loaders.keras.layers import Weight, hint, kind_of, meanings
from wwfunc import OptionError, TensorHint
from wwfunc.layers.find import find

FOLDER = REPOSITORY / "tests" / "fixtures" / "keras"
WEIGHTS, CONFIG, METADATA = "model.weights.h5", "config.json", "metadata.json"


def unpacked(folder):
    with zipfile.ZipFile(FOLDER / "model.keras") as archive:
        archive.extractall(folder)
    return folder


def deflated(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in unpacked(path.parent / "parts").iterdir():
            archive.write(part, part.name)
    return path


@pytest.fixture(params=["legacy", "archive", "deflated", "folder", "weights"])
def model(request, tmp_path):
    """The same model in all the forms that Keras 3 gives it."""
    if request.param == "legacy":
        return loaders.load(FOLDER / "model.h5")
    if request.param == "archive":
        return loaders.load(FOLDER / "model.keras")
    if request.param == "deflated":
        return loaders.load(deflated(tmp_path / "again.keras"))
    folder = unpacked(tmp_path / "folder")
    return loaders.load(folder if request.param == "folder" else folder / WEIGHTS)


def expected():
    with np.load(FOLDER / "expected.npz") as stored:
        arrays = {name.replace("/", "."): stored[name] for name in stored}
    return {
        name: array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array
        for name, array in arrays.items()
    }


def same(found, wanted):
    bits = found.astype(found.dtype.newbyteorder("<")).tobytes()
    return (found.shape, found.dtype, bits) == (wanted.shape, wanted.dtype, wanted.tobytes())


def without_state(names):
    return {name for name in names if not name.startswith("optimizer.")}


def test_every_variable_under_its_name_bit_for_bit(model):
    wanted = expected()
    assert without_state(model) == set(wanted)
    assert len(wanted) == 27
    for name, array in wanted.items():
        found = model[name]
        assert same(found.read(), array), name
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        assert found.nbytes == array.nbytes
        assert not found.read().flags.writeable
        assert same(found.read(slice(1, 3)), array[1:3])


def test_handles_outlive_the_reader_and_a_pickle(model):
    again = pickle.loads(pickle.dumps(dict(model)))
    assert all(same(again[name].read(), model[name].read()) for name in model)
    keys = [handle.key for handle in model.values()]
    assert len(set(keys)) == len(keys)
    in_file = all(hasattr(handle.stored, "path") for handle in model.values())
    assert ([handle.key for handle in again.values()] == keys) == in_file


def test_axes_of_what_is_no_plain_matrix(model):
    turned = {name: model.hint(name) for name in model if model.hint(name)}
    table = turned.pop("table.embeddings")
    assert table == TensorHint("embedding")
    assert turned.pop("wider.kernel") == TensorHint("conv1d", rows=(1,), cols=(2,))
    for part in ("query", "key", "value"):
        hint = turned.pop(f"attention.{part}.kernel")
        assert hint == TensorHint("dense", rows=(1, 2), cols=(0,))
    out = turned.pop("attention.attention_output.kernel")
    assert out == TensorHint("dense", rows=(2,), cols=(0, 1))
    heads = turned.pop("heads.kernel", None)  # only the configuration knows the equation
    assert heads == (TensorHint("dense", rows=(1, 2), cols=(0,)) if model.config else None)
    assert set(turned.values()) == {TensorHint("dense", rows=(1,), cols=(0,))}
    assert all(name.endswith("recurrent_kernel") for name in turned)


def test_state_of_an_optimiser_is_told_apart(model):
    state = set(model) - without_state(model)
    assert len(state) == 2
    assert {f.rule for f in find(model) if f.tensor in state} == {"optimiser"}


def test_configuration_and_version():
    legacy = loaders.load(FOLDER / "model.h5")
    archive = loaders.load(FOLDER / "model.keras")
    assert legacy.metadata["keras_version"] == archive.metadata["keras_version"]
    assert legacy.metadata["backend"] == "jax"
    assert legacy.config["class_name"] == archive.config["class_name"] == "Functional"


def test_stored_weights_are_mapped_where_they_lie():
    handle = loaders.load(FOLDER / "model.keras")["table.embeddings"]
    assert Path(handle.stored.path) == FOLDER / "model.keras"
    content = (FOLDER / "model.keras").read_bytes()
    start = handle.stored.offset
    assert content[start : start + handle.nbytes] == expected()["table.embeddings"].tobytes()


def test_split_weights():
    found = loaders.load_keras_index(FOLDER / "split.weights.json")
    shapes = {name: handle.shape for name, handle in found.items()}
    assert shapes == {
        "a.kernel": (8, 6),
        "a.bias": (6,),
        "dense.kernel": (6, 2),
        "dense.bias": (2,),
    }
    files = {Path(handle.stored.path).name for handle in found.values()}
    assert files == {"split_00000.weights.h5", "split_00001.weights.h5"}
    for name, place in {"a.kernel": "dense/vars/0", "dense.kernel": "dense_1/vars/0"}.items():
        shard = Path(found[name].stored.path)
        with h5py.File(shard) as file:
            assert same(found[name].read(), file[f"layers/{place}"][()])


def test_split_weights_of_a_model_without_any(tmp_path):
    path = write(tmp_path / "x.weights.json", json.dumps({"metadata": {}, "weight_map": {}}))
    assert dict(loaders.load_keras_index(path)) == {}
    write(path, json.dumps({"metadata": {}, "weight_map": []}))
    with pytest.raises(errors.ShardError, match="no weight_map"):
        loaders.load_keras_index(path)


def test_codes_of_a_quantised_layer_are_no_weights():
    found = loaders.load(FOLDER / "int8.keras")
    assert {name: handle.dtype.name for name, handle in found.items()} == {
        "codes.kernel": "int8",
        "codes.bias": "float32",
        "codes.kernel_scale": "float32",
    }
    assert all(finding.task is None for finding in find(found))


def counted(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_keras_2():
    found = loaders.load(FOLDER / "keras2.h5")
    shapes = {
        "dense.kernel": (3, 2),
        "dense.bias": (2,),
        "conv2d.kernel": (2, 2, 1, 3),
        "inner.deep.kernel": (2, 5),
        "optimizer.training.Adam.m_0": (3, 2),
    }
    assert all(same(found[name].read(), counted(shape)) for name, shape in shapes.items())
    assert set(found) == set(shapes)
    assert found.hint("conv2d.kernel") == TensorHint("conv2d", rows=(3,), cols=(2,))
    assert dict(found.metadata) == {"keras_version": "2.4.0", "backend": "tensorflow"}


def test_keras_1():
    found = loaders.load(FOLDER / "keras1.h5")
    assert {name: handle.shape for name, handle in found.items()} == {
        "convolution2d_1.kernel": (3, 1, 2, 2),
        "convolution2d_1.bias": (3,),
        "convolution2d_2.kernel": (2, 2, 1, 3),
        "embedding_1.embeddings": (5, 2),
        "dense_1.kernel": (4, 2),
        "dense_1.bias": (2,),
        "lstm_1.W_i": (2, 2),
        "lstm_1.U_i": (2, 2),
        "lstm_1.b_i": (2,),
    }
    assert found.hint("convolution2d_1.kernel") == TensorHint("conv2d", rows=(0,), cols=(1,))
    assert found.hint("convolution2d_2.kernel") == TensorHint("conv2d", rows=(3,), cols=(2,))
    assert found.hint("embedding_1.embeddings") == TensorHint("embedding")


def legacy(path, layers, **attributes):
    """A weights file of Keras 2: layer to name of a weight to its array."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"layer_names": np.array([*layers], "S"), **attributes})
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([*weights], "S")
            for name, array in weights.items():
                group[name] = array
    return path


def weights_file(path, groups):
    """A `.weights.h5` file: group to key to array."""
    with h5py.File(path, "w") as file:
        for group, variables in groups.items():
            made = file.create_group(f"{group}/vars")
            for key, array in variables.items():
                made[key] = array
    return path


ONE = np.float32([[1, 2]])


def test_names_of_layers_with_folders_in_them_and_of_submodels(tmp_path):
    path = legacy(
        tmp_path / "x.h5",
        {
            "block/conv": {"block/conv/kernel:0": ONE},
            "dense": {"model/dense/kernel:0": ONE, "model/dense/bias:0": ONE[0]},
            "shared": {"other/kernel:0": ONE},
        },
    )
    names = {"block.conv.kernel", "dense.kernel", "dense.bias", "shared.other.kernel"}
    assert set(loaders.load(path)) == names


def test_two_weights_of_one_name_keep_their_whole_paths(tmp_path):
    weights = {"a/dense/kernel:0": ONE, "b/dense/kernel:0": ONE * 2}
    found = loaders.load(legacy(tmp_path / "x.h5", {"dense": weights}))
    assert set(found) == {"dense.a.dense.kernel:0", "dense.b.dense.kernel:0"}
    assert found["dense.b.dense.kernel:0"].read()[0, 0] == 2


def test_positions_are_numbers_and_not_text(tmp_path):
    variables = {str(i): np.float32([i]) for i in range(12)}
    found = loaders.load(weights_file(tmp_path / "x.weights.h5", {"layers/mine": variables}))
    assert list(found) == [f"mine.vars.{i}" for i in range(12)]
    assert [float(handle.read()[0]) for handle in found.values()] == [*range(12)]


def test_a_position_alone_is_no_name(tmp_path):
    groups = {
        "layers/dense": {"0": np.zeros((2, 2, 2), "f4")},  # no dense layer has three axes
        "layers/dense_1": {"1": ONE},  # the first variable is missing
        "layers/stranger": {"0": ONE, "1": ONE[0]},
        "_layer_checkpoint_dependencies/dense_2": {"0": ONE},
    }
    found = loaders.load(weights_file(tmp_path / "x.weights.h5", groups))
    names = {"dense.vars.0", "dense_1.vars.1", "stranger.vars.0", "stranger.vars.1"}
    assert set(found) == names | {"dense_2.kernel"}


OPAQUE = np.array([0x3F80, 0x4000], np.uint16).view("V2")
POLICY = json.dumps({"class_name": "Dense", "config": {"name": "dense", "dtype": "bfloat16"}})


def test_bfloat16_is_marked_or_told(tmp_path):
    path = legacy(tmp_path / "bare.h5", {"dense": {"dense/kernel": OPAQUE}})
    with pytest.raises(
        errors.ElementTypeError, match=r"2 bytes and does not say.*dtype='bfloat16'"
    ):
        loaders.load_keras_h5(path)
    told = loaders.load_keras_h5(path, dtype="bfloat16")["dense.kernel"]
    assert told.dtype == ml_dtypes.bfloat16
    assert told.read().astype(float).tolist() == [1.0, 2.0]
    legacy(path, {"dense": {"dense/kernel": OPAQUE}}, model_config=POLICY)
    known = loaders.load_keras_h5(path)["dense.kernel"]
    assert known.read().astype(float).tolist() == [1.0, 2.0]


def test_an_unmarked_float8_is_never_guessed(tmp_path):
    one = np.zeros(2, "V1")
    path = legacy(tmp_path / "x.h5", {"dense": {"dense/kernel": one}}, model_config=POLICY)
    with pytest.raises(errors.ElementTypeError, match="elements of 1 bytes"):
        loaders.load_keras_h5(path)
    with pytest.raises(OptionError, match="'float9' is no element type"):
        loaders.load_keras_h5(path, dtype="float9")
    assert loaders.load_keras_h5(path, dtype="float8_e4m3fn")["dense.kernel"].shape == (2,)


def test_code_in_a_configuration_is_only_text(tmp_path):
    folder = unpacked(tmp_path / "evil")
    call = {"module": "os", "class_name": "system", "config": {"name": "evil", "args": ["false"]}}
    lambda_ = {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAA==", None]}}
    write(folder / CONFIG, json.dumps({"config": {"layers": [call, lambda_]}}))
    found = loaders.load(folder)
    assert same(found["head.kernel"].read(), expected()["head.kernel"])
    assert found.config["config"]["layers"][0]["class_name"] == "system"


def test_layouts_are_told_apart(tmp_path):
    assert layout_of(FOLDER / "model.h5") == layout_of(FOLDER / "keras1.h5") == "keras-h5"
    assert layout_of(unpacked(tmp_path / "f") / WEIGHTS) == "keras-weights"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = ONE
    with pytest.raises(errors.UnknownFormatError, match="not of Keras"):
        layout_of(tmp_path / "other.h5")


def array(*shape, dtype="f4"):
    return Weight(shape, np.dtype(dtype))


MEANINGS = [
    ("dense", [array(2, 3), array(3)], "kernel bias"),
    ("dense", [array(2, 3)], "kernel"),
    ("dense", [array(3)], None),
    ("dense", [array(2, 3, dtype="i1"), array(3)], "kernel kernel_scale"),
    ("dense", [array(2, 3, dtype="i1"), array(3), array(3)], "kernel bias kernel_scale"),
    (
        "einsum_dense",
        [array(2, 3, dtype="i1"), array(1, 3), array(1, 3, dtype="u1"), array(2)],
        "kernel kernel_scale kernel_zero g_idx",
    ),
    (
        "dense",
        [array(3), array(2, 3, dtype="u1"), array(3, 1), array(3, 1, dtype="u1"), array(2)],
        "bias quantized_kernel kernel_scale kernel_zero g_idx",
    ),
    ("embedding", [array(5, 2)], "embeddings"),
    ("embedding", [array(5, 2, dtype="i1"), array(5)], "embeddings embeddings_scale"),
    (
        "reversible_embedding",
        [
            *(array(5, 2, dtype="i1"), array(5, 1), array(5, 1, dtype="i1"), array(2)),
            *(array(2, 5, dtype="i1"), array(1, 5)),
        ],
        "embeddings embeddings_scale embeddings_zero g_idx "
        "reverse_embeddings reverse_embeddings_scale",
    ),
    ("dense", [array(3), array(2, 3, dtype="i1")], None),
    ("spectral_normalization", [array(4, 3), array(1, 3)], "kernel_orig kernel_u"),
    ("conv2d", [array(3, 3, 1, 2), array(2)], "kernel bias"),
    ("conv2d", [array(3, 3, 1)], None),
    ("separable_conv1d", [array(3, 2, 1), array(1, 2, 4)], "depthwise_kernel pointwise_kernel"),
    ("lstm_cell", [array(2, 8), array(2, 8), array(8)], "kernel recurrent_kernel bias"),
    ("lstm_cell", [array(2, 8), array(8)], None),
    ("batch_normalization", [array(2)] * 4, "gamma beta moving_mean moving_variance"),
    ("batch_normalization", [array(2)] * 3, None),
    ("my_layer", [array(2, 2)], None),
    ("", [], None),
]


@pytest.mark.parametrize(("kind", "weights", "names"), MEANINGS)
def test_meaning_of_positions(kind, weights, names):
    assert meanings(kind, weights) == (None if names is None else tuple(names.split()))


def test_class_of_a_layer():
    assert kind_of(None, "dense_12", "head") == "dense"
    assert kind_of(None, "fc1", "dense_3") == "dense"
    assert kind_of(None, "query_dense", "query") == "einsum_dense"
    assert kind_of(None, "conv1d", "x") == "conv1d"


@pytest.mark.parametrize(
    ("kind", "name", "rank", "wanted"),
    [
        ("conv2d", "kernel", 4, TensorHint("conv2d", rows=(3,), cols=(2,))),
        ("conv2d_transpose", "kernel", 4, TensorHint("conv2d", rows=(2,), cols=(3,))),
        ("conv3d_transpose", "kernel", 5, TensorHint("conv3d", rows=(3,), cols=(4,))),
        ("depthwise_conv2d", "depthwise_kernel", 4, TensorHint("conv2d", rows=(3,), cols=(2,))),
        ("conv_lstm2d", "recurrent_kernel", 4, TensorHint("conv2d", rows=(3,), cols=(2,))),
        ("reversible_embedding", "reverse_embeddings", 2, TensorHint("embedding", (1,), (0,))),
        ("conv2d", "bias", 1, None),
        ("my_layer", "kernel", 4, None),
    ],
)
def test_axes_by_class(kind, name, rank, wanted):
    assert hint(kind, "", name, rank, None) == wanted
