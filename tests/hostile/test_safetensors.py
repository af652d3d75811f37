"""safetensors files, indices and paths from a stranger, each in a child that is watched."""

from __future__ import annotations

import gzip
import json
import os
import shutil

import pytest
from files import encoded, framed, random_array, write
from harness import accepted, refused
from test_malformed import MALFORMED

from loaders import errors

NOT_EVEN_ALIKE = ("length 0", "no file at all", "half a length", "BOM", "array", "null")
"""Content alone does not tell that these were meant to be safetensors."""


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.safetensors", {"w": random_array("F32", (4, 4))})


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(good, tmp_path, case):
    content, error, match = MALFORMED[case]
    if case in NOT_EVEN_ALIKE:
        error, match = errors.UnknownFormatError, "looks like"
    refused(good, write(tmp_path / "bad.safetensors", content), error, match)


RENAMED = {
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "web page": (b"<!DOCTYPE html>", "HTML"),
    "gzip": (gzip.compress(b"{}"), "gzip archive"),
    "empty": (b"", "an empty file"),
}


@pytest.mark.parametrize(("content", "match"), RENAMED.values(), ids=RENAMED)
def test_something_else_under_this_name(good, tmp_path, content, match):
    bad = write(tmp_path / "bad.safetensors", content)
    refused(good, bad, errors.UnknownFormatError, match)


def test_pipe(good, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(good, tmp_path / "pipe", errors.NotReadableError, "not a regular file")


def text_of(size, item):
    """As many different items as fill `size` bytes; {} in an item is its number."""
    length = len(item.format(1_000_000)) + 1
    return ",".join(item.format(1_000_000 + i) for i in range(size // length))


TENSOR = '"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
ITEMS, HEADER, WIDE = 700_000, 8 << 20, 4 << 20
WORST = {
    "tensors": "{" + text_of(ITEMS // 18 * 60, TENSOR) + "}",
    "metadata": '{"__metadata__":{'
    + text_of((ITEMS - 60) // 5 * 20, '"{0}":"{0}"')
    + "},"
    + TENSOR.format("a")
    + "}",
}
HEAVY = {
    "one text": '{"a":"' + "x" * (HEADER - 20) + '"}',
    "one wide text": '{"a":"' + "x" * (WIDE - 20) + '\U0001d11e"}',
    "one escaped text": '{"a":"' + "x" * (WIDE - 20) + '\\ud834\\udd1e"}',
    "numbers": '{"a":[' + text_of(HEADER - 100, "{}000000000") + "]}",
    "lists": '{"a":[' + text_of(ITEMS, "[]") + "]}",
}


@pytest.mark.parametrize("case", WORST)
def test_largest_header_that_is_read(good, tmp_path, case):
    accepted(good, write(tmp_path / "worst", framed(WORST[case].encode())))


@pytest.mark.parametrize("case", HEAVY)
def test_largest_header_that_is_not_read(good, tmp_path, case):
    bad = write(tmp_path / "worst", framed(HEAVY[case].encode()))
    refused(good, bad, errors.HeaderError, "lacks dtype")


BOMBS = {
    "tensors": "{" + text_of(HEADER - 100, TENSOR) + "}",
    "lists": '{"a":[' + "[]," * 2_000_000 + "0]}",
    "wide": '{"a":"' + "é" * (WIDE // 2) + '"}',
}


@pytest.mark.parametrize("case", BOMBS)
def test_header_over_the_budget(good, tmp_path, case):
    bad = write(tmp_path / "bomb", framed(BOMBS[case].encode()))
    refused(good, bad, errors.BudgetError, "over the budget")


@pytest.fixture
def model(tmp_path):
    """A good folder of one shard, beside a file that must not be reached."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(tmp_path / "secret.safetensors", {"a": random_array("U8", (2,))})
    write(folder / "x.safetensors", {"a": random_array("U8", (2,))})
    index(folder, {"a": "x.safetensors"})
    return folder


def index(folder, places):
    write(folder / "model.safetensors.index.json", json.dumps({"weight_map": places}))
    return folder


PLACES = {
    "above": ("../secret.safetensors", "not the plain name"),
    "absolute": ("/etc/secret.safetensors", "not the plain name"),
    "folder": ("a/b.safetensors", "not the plain name"),
    "backslash": ("..\\secret.safetensors", "not the plain name"),
    "missing": ("y.safetensors", "is missing"),
}


@pytest.mark.parametrize(("place", "match"), PLACES.values(), ids=PLACES)
def test_index_that_leads_astray(model, tmp_path, place, match):
    bad = tmp_path / "bad"
    bad.mkdir()
    refused(model, index(bad, {"a": place}), errors.ShardError, match)


def test_tensor_that_is_in_no_shard_or_in_two(model, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    write(bad / "x.safetensors", encoded({"a": random_array("U8", (2,))}))
    refused(model, index(bad, {"b": "x.safetensors"}), errors.ShardError, "'b' is not in")
    write(bad / "y.safetensors", encoded({"a": random_array("U8", (2,))}))
    both = index(bad, {"a": "x.safetensors", "b": "y.safetensors"})
    refused(model, both, errors.ShardError, "stands in 'x.safetensors' and in 'y.safetensors'")


CONFIGS = {
    "deep": ('{"a":' * 100_000, errors.ConfigError, "nested too deep"),
    "wide": ("[" * (8 << 20), errors.BudgetError, "json items"),
    "long": (" " * (8 << 20) + "{}", errors.BudgetError, "config bytes"),
}


@pytest.mark.parametrize(("text", "error", "match"), CONFIGS.values(), ids=CONFIGS)
def test_config_that_is_a_bomb(model, tmp_path, text, error, match):
    bad = shutil.copytree(model, tmp_path / "bad")
    write(bad / "config.json", text)
    refused(model, bad, error, match)
