"""Every layer and element type that Keras itself saves, in each of its formats, bit for bit."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"  # the only one with float64 as it comes

import keras
import numpy as np
import pytest
from keras import layers

import loaders
from wwfunc.layers.find import find

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not have:UserWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def save(model, path):
    model.save_weights(path) if path.name.endswith((".weights.h5", ".json")) else model.save(path)
    return path


def expected(model):
    """The variables under the names that Keras gives them, without that of the model."""
    prefix = f"{model.name}/"
    named = {v.path.removeprefix(prefix).replace("/", "."): v for v in model.weights}
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in named.items()}


def same(handle, array):
    found = handle.read()
    is_same = found.tobytes() == array.tobytes() and found.dtype.name == array.dtype.name
    return is_same and found.shape == array.shape and handle.shape == array.shape


def check(model, path):
    found, wanted = loaders.load(save(model, path)), expected(model)
    ours = {name for name in found if not name.startswith("optimizer.")}
    assert ours == set(wanted)
    for name, array in wanted.items():
        assert same(found[name], array), name
    return found


ALL = ["model.h5", "model.keras", "model.weights.h5"]
TEXT, IMAGE, SERIES = (4, 3), (8, 8, 3), (4, 6, 6, 2)
KINDS = {
    "dense": ((4,), lambda: layers.Dense(3)),
    "conv1d": (TEXT, lambda: layers.Conv1D(4, 3)),
    "conv2d": (IMAGE, lambda: layers.Conv2D(4, 3, use_bias=False)),
    "conv3d": ((5, 5, 5, 2), lambda: layers.Conv3D(4, 3)),
    "conv1d_transpose": (TEXT, lambda: layers.Conv1DTranspose(4, 3)),
    "conv2d_transpose": (IMAGE, lambda: layers.Conv2DTranspose(4, 3)),
    "conv3d_transpose": ((5, 5, 5, 2), lambda: layers.Conv3DTranspose(4, 3)),
    "depthwise_conv1d": (TEXT, lambda: layers.DepthwiseConv1D(3)),
    "depthwise_conv2d": (IMAGE, lambda: layers.DepthwiseConv2D(3)),
    "separable_conv1d": (TEXT, lambda: layers.SeparableConv1D(4, 3)),
    "separable_conv2d": (IMAGE, lambda: layers.SeparableConv2D(4, 3)),
    "lstm": (TEXT, lambda: layers.LSTM(2)),
    "gru": (TEXT, lambda: layers.GRU(2)),
    "simple_rnn": (TEXT, lambda: layers.SimpleRNN(2)),
    "conv_lstm1d": ((4, 6, 2), lambda: layers.ConvLSTM1D(2, 3)),
    "conv_lstm2d": (SERIES, lambda: layers.ConvLSTM2D(2, 3)),
    "bidirectional": (TEXT, lambda: layers.Bidirectional(layers.GRU(2))),
    "time_distributed": (TEXT, lambda: layers.TimeDistributed(layers.Dense(2))),
    "rnn of a cell": (TEXT, lambda: layers.RNN(layers.LSTMCell(2))),
    "rnn of cells": (TEXT, lambda: layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)])),
    "batch_normalization": ((4,), layers.BatchNormalization),
    "layer_normalization": ((4,), layers.LayerNormalization),
    "group_normalization": ((4, 4), lambda: layers.GroupNormalization(2)),
    "rms_normalization": ((4,), layers.RMSNormalization),
    "normalization": ((4,), layers.Normalization),
    "p_re_lu": (TEXT, layers.PReLU),
    "einsum_dense": (TEXT, lambda: layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")),
}
TABLES = {
    "embedding": lambda: layers.Embedding(5, 3),
    "reversible_embedding": lambda: layers.ReversibleEmbedding(5, 3, tie_weights=False),
}


def sequential(shape, *parts, **options):
    return keras.Sequential([layers.Input(shape, **options), *parts], name="m")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer(tmp_path, kind, name):
    shape, make = KINDS[kind]
    check(sequential(shape, make()), tmp_path / name)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", TABLES)
def test_tables(tmp_path, kind, name):
    found = check(sequential((4,), TABLES[kind](), dtype="int32"), tmp_path / name)
    assert {f.task.hint.kind for f in find(found)} == {"embedding"}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_element_types(tmp_path, dtype, name):
    found = check(sequential((4,), layers.Dense(3, dtype=dtype, name="d")), tmp_path / name)
    assert found["d.kernel"].dtype.name == dtype


def attention(tokens):
    x = layers.Embedding(9, 8, name="table")(tokens)
    x = layers.MultiHeadAttention(2, 3, name="multi")(x, x)
    x = layers.GroupQueryAttention(4, 4, 2, name="grouped")(x, x)
    return layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="heads")(x)


@pytest.mark.parametrize("name", ALL)
def test_attention_is_measured_as_matrices(tmp_path, name):
    tokens = layers.Input((6,), dtype="int32")
    found = check(keras.Model(tokens, attention(tokens), name="m"), tmp_path / name)
    sides = {
        f.tensor: (f.task.layer.N, f.task.layer.M, f.task.layer.rf) for f in find(found) if f.task
    }
    configured = {"heads.kernel": (8, 6, 1)} if found.config else {}
    assert sides == configured | {
        "table.embeddings": (9, 8, 1),
        "multi.query.kernel": (8, 6, 1),
        "multi.key.kernel": (8, 6, 1),
        "multi.value.kernel": (8, 6, 1),
        "multi.attention_output.kernel": (8, 6, 1),
        "grouped.query.kernel": (16, 8, 1),
        "grouped.key.kernel": (8, 8, 1),
        "grouped.value.kernel": (8, 8, 1),
        "grouped.attention_output.kernel": (16, 8, 1),
    }


def nested():
    inner = sequential((3,), layers.Dense(4, name="a"), layers.Dense(4, name="b"))
    outer = keras.Sequential([layers.Input((3,)), inner, layers.Dense(2, name="a")], name="outer")
    outer.compile("adam", "mse")
    outer.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    return outer


@pytest.mark.parametrize("name", ALL)
def test_models_in_models_and_state_of_an_optimiser(tmp_path, name):
    found = loaders.load(save(nested(), tmp_path / name))
    names = {n for n in found if not n.startswith("optimizer.")}
    parts = ("m.a", "m.b", "a")
    assert names == {f"{part}.{weight}" for part in parts for weight in ("kernel", "bias")}
    state = set(found) - names
    assert len(state) == 2 + 2 * len(names)
    assert {f.rule for f in find(found) if f.tensor in state} == {"optimiser"}


class Mine(keras.Model):
    """A model with layers in lists and dictionaries, and a weight of its own."""

    def __init__(self):
        super().__init__(name="mine")
        self.first = layers.Dense(3, name="first")
        self.blocks = [layers.Dense(3, name=f"block_{i}") for i in range(12)]
        self.deep = {"a": [layers.Dense(2, name="deep"), [layers.Dense(2, name="deeper")]]}
        self.own = self.add_weight(shape=(2, 2), name="own")

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.deep["a"][1][0](self.deep["a"][0](x)) @ self.own


@pytest.mark.parametrize("name", ALL[1:])
def test_lists_of_layers(tmp_path, name):
    model = Mine()
    model(np.zeros((1, 3)))
    found = loaders.load(save(model, tmp_path / name))
    kernels = {n: handle for n, handle in found.items() if n.endswith(("kernel", "first.vars.0"))}
    wanted = {layer.name: layer for layer in model._flatten_layers() if hasattr(layer, "kernel")}
    assert len(kernels) == len(wanted) == 15
    for tensor, handle in kernels.items():
        layer = tensor.removesuffix(".vars.0").removesuffix(".kernel").split(".")[-1]
        assert same(handle, keras.ops.convert_to_numpy(wanted[layer].kernel)), tensor
    assert same(found["vars.0"], keras.ops.convert_to_numpy(model.own))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_codes_are_never_weights(tmp_path, mode, name):
    parts = (layers.Dense(6, name="a"), layers.Dense(6, name="b", use_bias=False))
    model = sequential((8,), *parts)
    model.quantize(mode)
    found = check(model, tmp_path / name)
    assert all(finding.task is None for finding in find(found))


@pytest.mark.parametrize("name", ALL)
def test_float8_training_keeps_the_weights(tmp_path, name):
    model = sequential((8,), layers.Dense(6, name="a"), layers.Dense(6, use_bias=False, name="b"))
    model.quantize("float8")
    found = check(model, tmp_path / name)
    assert [f.tensor for f in find(found) if f.task] == ["a.kernel", "b.kernel"]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("embedding", "int8"), ("embedding", "int4"), ("reversible_embedding", "int8")],
)
def test_coded_tables(tmp_path, kind, mode):
    model = sequential((4,), TABLES[kind](), dtype="int32")
    model.quantize(mode)
    found = check(model, tmp_path / "model.keras")
    assert all(finding.task is None for finding in find(found))


def test_the_parts_of_a_coded_table_are_known(tmp_path):
    model = sequential((4,), TABLES["reversible_embedding"](), dtype="int32")
    model.quantize("int4")
    check(model, tmp_path / "model.keras")


def test_a_spectral_norm_is_measured_once(tmp_path):
    model = sequential((4,), layers.SpectralNormalization(layers.Dense(3, name="d")))
    found = loaders.load(save(model, tmp_path / "model.keras"))
    assert [f.tensor for f in find(found) if f.task] == ["spectral_normalization.d.kernel"]


def test_split_weights(tmp_path):
    model = sequential((8,), *(layers.Dense(8, name=f"d{i}") for i in range(6)))
    path = tmp_path / "x.weights.json"
    model.save_weights(path, max_shard_size=1e-6)
    assert len(list(tmp_path.glob("x_*.weights.h5"))) > 1
    found = loaders.load_keras_index(path)
    for name, array in expected(model).items():
        assert same(found[name], array)


def test_unpacked_folder(tmp_path):
    from keras.src.saving import saving_lib

    model = sequential((8,), layers.Dense(2, name="d"))
    saving_lib.save_model(model, tmp_path / "folder", zipped=False)
    found = loaders.load(tmp_path / "folder")
    assert same(found["d.kernel"], expected(model)["d.kernel"])
    assert found.metadata["keras_version"] == keras.__version__


def test_lists_too_long_for_one_attribute(tmp_path):
    long = "a_name_of_a_layer_that_is_as_long_as_names_can_be_in_practice_" * 4
    parts = [layers.Dense(2, name=f"{long}{i}") for i in range(300)]
    found = check(sequential((2,), *parts), tmp_path / "model.h5")
    assert len(found) == 600


def test_a_low_rank_adapter_is_merged(tmp_path):
    dense = layers.Dense(6, name="d")
    model = sequential((8,), dense)
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones((2, 6)))
    found = loaders.load(save(model, tmp_path / "model.keras"))
    assert np.array_equal(found["d.kernel"].read(), keras.ops.convert_to_numpy(dense.kernel))
