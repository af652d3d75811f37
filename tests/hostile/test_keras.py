"""Keras's own names, configurations, archives and indices from a stranger."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile

import h5py
import numpy as np
import pytest
from files import write
from harness import accepted, refused
from hdf5_files import KERAS, ONE, Image, legacy, superblock

import loaders
from loaders import errors

H, L, T, B = errors.HeaderError, errors.LayoutError, errors.TruncatedError, errors.BudgetError
U = errors.UnsupportedError


# Names in attributes --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/dense/kernel", "", "a//b", "../dense/kernel", "a/./b"])
def test_weight_names_that_are_no_paths(good, bad, name):
    file, group = legacy(bad, [name or "\0"])
    with file:
        group["kernel"] = ONE
    refused(good, bad, L, "is no path within a group")


def test_a_layer_that_is_missing(good, bad):
    file, _ = legacy(bad)
    with file:
        file.attrs["layer_names"] = np.array([b"dense", b"other"])
        file["dense/kernel"] = ONE
    refused(good, bad, L, "/ holds no 'other'")


def test_a_layer_that_is_listed_twice(good, bad):
    file, group = legacy(bad)
    with file:
        file.attrs["layer_names"] = np.array([b"dense", b"dense"])
        group["kernel"] = ONE
    refused(good, bad, L, "lists a layer twice")


def test_a_weight_that_is_listed_nowhere(good, bad):
    file, group = legacy(bad)
    with file:
        group["kernel"] = group["hidden"] = ONE
    refused(good, bad, L, "/dense/hidden is listed as a weight of no layer")


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (np.arange(3), H, "attribute 'layer_names' is no text"),
        (np.array([[b"dense"]]), H, "has 2 dimensions"),
        (np.array([b"\xff"]), H, "not UTF-8"),
        (h5py.Empty("S4"), U, "null dataspace"),
    ],
    ids=["numbers", "a table", "no UTF-8", "no data"],
)
def test_layer_names_of_another_type(good, bad, value, error, match):
    file, group = legacy(bad)
    with file:
        file.attrs["layer_names"] = value
        group["kernel"] = ONE
    refused(good, bad, error, match)


def test_layer_names_that_refer_to_objects(good, bad):
    file, group = legacy(bad)
    with file:
        file.attrs.create("layer_names", [group.ref], dtype=h5py.ref_dtype)
        group["kernel"] = ONE
    refused(good, bad, H, "attribute 'layer_names' is no text")


def test_no_weight_names(good, bad):
    file, group = legacy(bad)
    with file:
        del group.attrs["weight_names"]
        group["kernel"] = ONE
    refused(good, bad, H, "/dense has no weight_names")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": NaN}', "NaN is no JSON number"),
    ],
    ids=["cut off", "array", "deep", "NaN"],
)
def test_configurations_that_are_none(good, bad, config, match):
    file, group = legacy(bad)
    with file:
        file.attrs["model_config"] = config
        group["kernel"] = ONE
    refused(good, bad, errors.ConfigError, match)


def test_a_configuration_that_is_too_large(good, bad):
    file, group = legacy(bad)
    with file:
        file.attrs["model_config"] = '{"a": "' + "x" * (8 << 20) + '"}'
        group["kernel"] = ONE
    refused(good, bad, B, "config bytes are over the budget")


# Archives and indices -------------------------------------------------------------------------


def archive(path, method=zipfile.ZIP_STORED, **parts):
    content = {"model.weights.h5": superblock(), "config.json": "{}", "metadata.json": "{}"}
    names = {"config": "config.json", "weights": "model.weights.h5"}
    content |= {names[name]: part for name, part in parts.items()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, part in content.items():
            if part is not None:
                file.writestr(name, part)
    return path


def test_archive_with_code_in_its_configuration(archived, tmp_path):
    """A marshalled function, and a class of a module that must not be imported."""
    layers = [
        {"class_name": "Lambda", "config": {"name": "a", "function": ["4wEAAAA=", None, None]}},
        {"module": "antigravity", "class_name": "x", "config": {"name": "b"}},
        {"class_name": "__lambda__", "config": {"value": "import os; os.abort()"}},
    ]
    accepted(archived, archive(tmp_path / "x.keras", config=json.dumps({"layers": layers})))


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ({"config": "{"}, errors.ConfigError, "not valid JSON"),
        ({"config": " " * (9 << 20)}, B, "config bytes are over"),
        ({"weights": b"\x89HDF\r\n\x1a\n"}, T, "the superblock"),
        ({"weights": b"none"}, H, "no HDF5 signature"),
        ({"weights": None}, U, "without Keras weights"),
    ],
    ids=["config", "large config", "cut off", "no HDF5", "no weights"],
)
def test_archives(archived, tmp_path, parts, error, match):
    refused(archived, archive(tmp_path / "x.keras", **parts), error, match)


def test_archive_that_inflates_to_too_much(archived, tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("config.json", "metadata.json"):
            file.writestr(name, "{}")
        with file.open("model.weights.h5", "w") as part:
            part.write(superblock())
            for _ in range(32):
                part.write(bytes(4 << 20))
    refused(archived, path, B, "free bytes are over the budget of 50,331,648")


def split(folder, shard):
    shutil.copytree(KERAS, folder)
    index = folder / "split.weights.json"
    content = json.loads(index.read_text())
    content["weight_map"]["/layers/dense/vars"] = [shard]
    write(index, json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("shard", "match"),
    [
        ("../good.h5", "not the plain name"),
        ("/etc/passwd.weights.h5", "not the plain name"),
        ("a/b.weights.h5", "not the plain name"),
        ("..\\b.weights.h5", "not the plain name"),
        (".weights.h5", "not the plain name"),
        (7, "not the plain name"),
        ("model.h5", "not the plain name"),
        ("missing.weights.h5", "is missing"),
        ("x" * 300 + ".weights.h5", "is missing"),
        ("split_00001.weights.h5", "'/layers/dense.*/vars' is not where the index has it"),
    ],
)
def test_indices(tmp_path, shard, match):
    folder = split(tmp_path / "split", shard)
    with pytest.raises(errors.ShardError, match=match):
        loaders.load_keras_index(folder / "split.weights.json")


def test_index_to_a_pipe(tmp_path):
    folder = split(tmp_path / "split", "pipe.weights.h5")
    os.mkfifo(folder / "pipe.weights.h5")
    with pytest.raises(errors.NotReadableError, match="not a regular file"):
        loaders.load_keras_index(folder / "split.weights.json")


def test_shards_share_one_budget(tmp_path):
    places = {}
    for number in range(5):
        name = f"s{number}.weights.h5"
        with h5py.File(tmp_path / name, "w") as file:
            for layer in range(1_000):
                file.create_group(f"layers/n{number}_{layer}")
            file[f"layers/n{number}/vars/0"] = ONE
        places[f"/layers/n{number}/vars"] = [name]
    index = write(tmp_path / "x.weights.json", json.dumps({"weight_map": places}))
    budget = loaders.Budget(header_bytes=1 << 20)
    assert len(loaders.load_keras_weights(tmp_path / name, budget=budget)) == 1
    with pytest.raises(B, match="header bytes are over"):
        loaders.load_keras_index(index, budget=budget)


CRC, NBYTES = (14, 16), (22, 24)
"""Where they stand in the entry's own header, and in the directory."""


def deflated(path, places=(), change=0):
    """An archive of some MiB, deflated, that may say other things of the weights in both places."""
    image = Image()
    noise = np.random.default_rng(0).integers(0, 4, (1 << 20, 3)).astype(np.float32)
    content = image.finished(image.weights(image.dataset(noise)))
    archive(path, zipfile.ZIP_DEFLATED, weights=content)
    data = bytearray(path.read_bytes())
    for start, place in zip((0, data.index(b"PK\1\2")), places, strict=False):
        (old,) = struct.unpack_from("<I", data, start + place)
        struct.pack_into("<I", data, start + place, old + change)
    return write(path, bytes(data)), noise


def test_deflated_weights(archived, tmp_path):
    path, noise = deflated(tmp_path / "x.keras")
    assert np.array_equal(loaders.load(path)["dense.kernel"].read(), noise)
    accepted(archived, path)


@pytest.mark.parametrize(("places", "change"), [(NBYTES, 1), (NBYTES, -1), (CRC, 1)])
def test_deflated_weights_of_another_size_or_sum(archived, tmp_path, places, change):
    path, _ = deflated(tmp_path / "x.keras", places, change)
    refused(archived, path, errors.ArchiveError, "does not inflate to its")
