"""A trained model as torch and keras themselves write it."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import minilm
import pytest
import torch

import loaders
import wwfunc


@pytest.fixture(scope="module")
def arrays(minilm_path):
    return minilm.weights(minilm_path)


@pytest.fixture(scope="module")
def reference(analyses):
    return analyses["minilm"]


@pytest.mark.parametrize("zipped", [True, False])
def test_torch(tmp_path, arrays, reference, zipped):
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    torch.save(state, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    minilm.check(tmp_path / "model.pt", arrays, reference)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("suffix", ["keras", "h5", "weights.h5"])
def test_keras(tmp_path, arrays, reference, suffix):
    layers = minilm.dense(arrays)
    plain = {name.replace(".", "-"): pair for name, pair in layers.items()}
    pairs = {
        name: (keras.Input(weight.shape[1:]), keras.layers.Dense(len(weight), name=name))
        for name, (weight, _) in plain.items()
    }
    model = keras.Model(
        [given for given, _ in pairs.values()], [layer(given) for given, layer in pairs.values()]
    )
    for name, (weight, bias) in plain.items():
        model.get_layer(name).set_weights([weight.T, bias])
    path = tmp_path / f"model.{suffix}"
    model.save_weights(path) if suffix == "weights.h5" else model.save(path)
    found = loaders.load(path)
    minilm.check_arrays(found, minilm.named(plain), transposed=True)
    analysis = wwfunc.analyze(found)
    assert len(analysis) == len(layers)
    minilm.check_numbers(analysis, reference, dict(zip(plain, layers, strict=True)), ids=False)
