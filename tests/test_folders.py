"""Model folders and shards: what is found, what fits together, and which names are refused."""

from __future__ import annotations

import json
import os
import re
import time

import numpy as np
import pytest
from files import encoded, framed, random_array, write

import loaders
import wwfunc
from loaders import errors

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
ARRAYS = {name: random_array("F32", (4, 3), seed) for seed, name in enumerate("abcd")}
PLACES = {"a": TWO, "b": ONE, "c": TWO, "d": ONE}


def part(names, metadata=None):
    return encoded({name: ARRAYS[name] for name in names}, metadata)


def index(places):
    return json.dumps({"metadata": {"total_size": 192}, "weight_map": places})


def sharded(folder, places=PLACES, one="bd", two="ac", text=None):
    """A folder of two shards; `places` is what the index says, `text` replaces all of it."""
    write(folder / ONE, part(one))
    write(folder / TWO, part(two))
    write(folder / INDEX, index(places) if text is None else text)
    return folder


def check(found, names="abcd"):
    assert sorted(found) == list(names)
    assert all(np.array_equal(found[name].read(), ARRAYS[name], equal_nan=True) for name in names)


@pytest.mark.parametrize("names", ["abcd", "dcba", "cadb"])
@pytest.mark.parametrize("path", ["", INDEX])
def test_shards_in_any_order(tmp_path, names, path):
    sharded(tmp_path, {name: PLACES[name] for name in names})
    found = loaders.load(tmp_path / path)
    check(found)
    assert found.source == str(tmp_path)
    assert found["a"].path.name == TWO


def test_metadata_of_all_shards(tmp_path):
    sharded(tmp_path)
    write(tmp_path / ONE, part("bd", {"format": "np"}))
    write(tmp_path / TWO, part("ac", {"more": "text"}))
    assert loaders.load(tmp_path).metadata == {"format": "np", "more": "text"}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "diffusion_pytorch_model.safetensors", "an odd name.safetensors"]
)
def test_single_file(tmp_path, name):
    write(tmp_path / name, part("ab"))
    write(tmp_path / "README.md", "text")
    write(tmp_path / "pytorch_model.bin", b"\x80\x04.")
    check(loaders.load(tmp_path), "ab")


def test_the_usual_name_comes_first(tmp_path):
    write(tmp_path / "model.safetensors", part("a"))
    write(tmp_path / "adapter.safetensors", part("b"))
    check(loaders.load(tmp_path), "a")
    sharded(tmp_path)
    check(loaders.load(tmp_path))


@pytest.mark.parametrize(
    "make", [sharded, lambda folder: write(folder / "model.safetensors", part("a"))]
)
def test_config_is_plain_json(tmp_path, make):
    make(tmp_path)
    assert loaders.load(tmp_path).config == {}
    write(tmp_path / "config.json", '{"auto_map": {"AutoModel": "x.y"}, "num_attention_heads": 12}')
    config = loaders.load(tmp_path).config
    assert config == {"auto_map": {"AutoModel": "x.y"}, "num_attention_heads": 12}


CONFIGS = [
    ("[1]", errors.ConfigError, "expected a JSON object, found list"),
    ("", errors.ConfigError, "not valid JSON"),
    ('{"a": 1,}', errors.ConfigError, "not valid JSON"),
    ('{"a": 1, "a": 2}', errors.ConfigError, "the name 'a' stands twice"),
    ('{"a":' + "[" * 100_000, errors.ConfigError, "nested too deep"),
    (b'{"a": "\xff"}', errors.ConfigError, "codec can't decode"),
    (" " * 101, errors.BudgetError, r"Budget\(config_bytes=101\)"),
]


@pytest.mark.parametrize(("text", "error", "match"), CONFIGS)
def test_bad_config(tmp_path, text, error, match):
    write(tmp_path / "model.safetensors", part("a"))
    path = write(tmp_path / "config.json", text)
    budget = loaders.Budget(config_bytes=100 if error is errors.BudgetError else 1 << 20)
    with pytest.raises(error, match=f"^{re.escape(str(path))}: .*{match}"):
        loaders.load(tmp_path, budget=budget)


def test_config_that_is_a_pipe(tmp_path):
    write(tmp_path / "model.safetensors", part("a"))
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(errors.NotReadableError, match=r"config.json: not a regular file"):
        loaders.load(tmp_path)


def test_several_files_and_no_index(tmp_path):
    for name in ("b.safetensors", "a.safetensors"):
        write(tmp_path / name, part("a"))
    with pytest.raises(errors.UnknownFormatError, match=r"\(a.safetensors, b.safetensors\); give"):
        loaders.load(tmp_path)


@pytest.mark.parametrize("others", [(), ("config.json", "README.md")])
def test_folder_without_weights(tmp_path, others):
    for name in others:
        write(tmp_path / name, "{}")
    with pytest.raises(errors.UnknownFormatError, match="a folder without weights"):
        loaders.load(tmp_path)


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(errors.NotReadableError, match="no: cannot be read: No such file"):
        loaders.load_folder(tmp_path / "no")


NAMES = [
    "../x.safetensors",
    "/x.safetensors",
    "a/b.safetensors",
    "a\\b.safetensors",
    "C:x.safetensors",
    "..",
    "",
    ".safetensors",
    "x\0.safetensors",
    "x.exe",
    None,
    3,
    [ONE],
    {"file": ONE},
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_shard_that_is_no_plain_name(tmp_path, name):
    """A file lies where each name leads: it is the name that is refused."""
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    for target in (tmp_path / "x.safetensors", folder / "a" / "b.safetensors", folder / "x.exe"):
        write(target, part("a"))
    sharded(folder, PLACES | {"a": name})
    with pytest.raises(errors.ShardError, match=r"tensor 'a' is placed in .* not the plain name"):
        loaders.load(folder)


def nested(depth):
    return "[" * depth + "]" * depth


INDICES = [
    ("{}", "no weight_map"),
    ('{"weight_map": {}}', "no weight_map"),
    ('{"weight_map": ["a"]}', "no weight_map"),
    ('{"weight_map": null}', "no weight_map"),
    ("[]", "expected a JSON object, found list"),
    ("", "not valid JSON"),
    (f'{{"weight_map": {{"a": "{ONE}", "a": "{TWO}"}}}}', "the name 'a' stands twice"),
    (f'{{"weight_map": {{"a": {nested(300)}}}}}', "tensor 'a' is placed in"),
    (f'{{"weight_map": {{"a": {nested(100_000)}}}}}', "nested too deep"),
    (index({"a": "no.safetensors"}), "the shard 'no.safetensors' is missing"),
    (index({"a": "x" * 300 + ".safetensors"}), "the shard 'x*.safetensors' is missing"),
    (index(PLACES | {"e": ONE}), f"tensor 'e' is not in '{ONE}', where the index has it"),
    (index(PLACES | {"a": ONE}), f"tensor 'a' is not in '{ONE}', where the index has it"),
]


@pytest.mark.parametrize(("text", "match"), INDICES)
def test_index_that_does_not_fit(tmp_path, text, match):
    sharded(tmp_path, text=text)
    with pytest.raises(errors.ShardError, match=match) as caught:
        loaders.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / INDEX}: ")
    assert len(str(caught.value)) < len(str(tmp_path)) + 600


def test_tensor_in_two_shards(tmp_path):
    sharded(tmp_path, two="abc")
    with pytest.raises(errors.ShardError, match=f"tensor 'b' stands in '{ONE}' and in '{TWO}'"):
        loaders.load(tmp_path)


def test_damage_in_a_shard_shows_at_once(tmp_path):
    write(sharded(tmp_path) / TWO, framed(b"{}", b"\0"))
    with pytest.raises(errors.LayoutError, match=f"{TWO}: 1 bytes follow"):
        loaders.load(tmp_path)


BUDGETS = [("shards", 1), ("tensors", 3), ("index_bytes", 100)]


@pytest.mark.parametrize(("limit", "allowed"), BUDGETS)
def test_over_the_budget(tmp_path, limit, allowed):
    sharded(tmp_path)
    with pytest.raises(errors.BudgetError, match=rf"Budget\({limit}=\d+\)"):
        loaders.load(tmp_path, budget=loaders.Budget(**{limit: allowed}))


def test_links_of_a_hub_cache(tmp_path):
    """Files of a snapshot are links into a folder of blobs without suffixes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    contents = {INDEX: index(PLACES), ONE: part("bd"), TWO: part("ac"), "config.json": '{"k": 1}'}
    for number, (name, content) in enumerate(contents.items()):
        write(blobs / str(number), content)
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    found = loaders.load(snapshot)
    check(found)
    assert found.config == {"k": 1}


def test_link_that_leads_nowhere(tmp_path):
    sharded(tmp_path)
    (tmp_path / ONE).unlink()
    (tmp_path / ONE).symlink_to("../../blobs/none")
    with pytest.raises(errors.ShardError, match=f"the shard '{ONE}' is missing"):
        loaders.load(tmp_path)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", [INDEX, ONE, "model.safetensors"])
def test_pipe_or_folder_under_the_name_of_a_file(tmp_path, name, make):
    if name != "model.safetensors":
        sharded(tmp_path)
        (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(errors.NotReadableError, match=f"{name}: not a regular file"):
        loaders.load(tmp_path)


@pytest.mark.parametrize("total", [192, None, 191, 192.0, "192"])
def test_another_total_size_is_a_warning(tmp_path, caplog, total):
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": PLACES})
    check(loaders.load(sharded(tmp_path, text=text)))
    expected = ["total_size is 191, the shards hold 192 bytes"] if total == 191 else []
    assert [m.partition(": ")[2] for m in caplog.messages] == expected


VARIANTS = [
    "model.safetensors.index.fp16.json",
    "model.fp16.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
]


@pytest.mark.parametrize("name", VARIANTS)
def test_an_index_of_a_variant(tmp_path, name):
    sharded(tmp_path)
    (tmp_path / INDEX).rename(tmp_path / name)
    check(loaders.load(tmp_path))


def test_infinity_in_a_config_is_no_reason_to_refuse_the_weights(tmp_path):
    write(tmp_path / "model.safetensors", part("a"))
    write(tmp_path / "config.json", '{"time_step_limit": [0.0, Infinity]}')
    assert loaders.load(tmp_path).config == {"time_step_limit": [0.0, float("inf")]}


def test_many_shards_take_no_more_time_each(tmp_path):
    places = {}
    for number in range(1_200):
        names = {f"t{number}.{at}": np.zeros(1, "u1") for at in range(20)}
        write(tmp_path / f"{number}.safetensors", names)
        places |= dict.fromkeys(names, f"{number}.safetensors")
    write(tmp_path / INDEX, index(places))
    start = time.process_time()
    assert len(loaders.load(tmp_path)) == 24_000
    assert time.process_time() - start < 3.0, "every shard compared with all before takes 7 s"


def test_shards_share_a_budget(tmp_path):
    """Each is within the limits of a file, but not within its share of those of all."""
    sharded(tmp_path)
    places = dict(PLACES)
    for number in range(8):
        notes = {f"{number}.{at}": "" for at in range(100)}
        write(tmp_path / f"{number}.safetensors", encoded({f"n{number}": ARRAYS["a"]}, notes))
        places[f"n{number}"] = f"{number}.safetensors"
    write(tmp_path / INDEX, index(places))
    assert len(loaders.load(tmp_path, budget=loaders.Budget(json_items=2_000))) == 12
    with pytest.raises(errors.BudgetError, match="all shards together may ask for 4 times"):
        loaders.load(tmp_path, budget=loaders.Budget(json_items=800))


def test_too_many_notes_in_shards(tmp_path):
    sharded(tmp_path)
    notes = {str(at): "" for at in range(10_001)}
    write(tmp_path / ONE, part("bd", notes))
    with pytest.raises(errors.ShardError, match="over 10,000 texts in the metadata"):
        loaders.load(tmp_path)


def test_options_reach_the_shards(tmp_path):
    with pytest.raises(wwfunc.OptionError, match="a safetensors file has no option 'key'"):
        loaders.load(sharded(tmp_path), key="ema")


def test_no_path_is_no_folder():
    with pytest.raises(errors.NotReadableError, match="an empty path"):
        loaders.load("")
