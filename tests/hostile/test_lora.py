"""Hostile adapters: each is refused for its own reason, and cheaply."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from files import REPOSITORY, encoded, framed, python, write
from harness import MEMORY, SECONDS, accepted, refused
from torch_files import torch_zip

from loaders import errors

FACTORS = {
    "base_model.model.q.lora_A.weight": np.ones((2, 4), np.float32),
    "base_model.model.q.lora_B.weight": np.ones((6, 2), np.float32),
}
GOOD = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def adapter(folder, config=GOOD, tensors=FACTORS):
    folder.mkdir()
    text = config if isinstance(config, (str, bytes)) else json.dumps(config)
    write(folder / "adapter_config.json", text)
    write(folder / "adapter_model.safetensors", tensors)
    return folder


@pytest.fixture
def good(tmp_path):
    return adapter(tmp_path / "good")


def filled(item, count=230_000):
    """A configuration with a long list that nobody reads."""
    return json.dumps(GOOD)[:-1] + ', "x": [' + ",".join([item] * count) + "]}"


E, U, B, C = errors.AdapterError, errors.UnsupportedError, errors.BudgetError, errors.ConfigError
CONFIGS = {
    "pattern that runs for ever": (GOOD | {"alpha_pattern": {"(a+)+$": 1}}, E, "the pattern"),
    "pattern with a look behind": (GOOD | {"rank_pattern": {"(?<=a)b": 1}}, E, "the pattern"),
    "patterns without end": (
        GOOD | {"rank_pattern": {f"[a-z]*x?{i}": 1 for i in range(50_000)}},
        B,
        "too many for 1 modules",
    ),
    "names without end": (
        GOOD | {"alpha_pattern": {f"m{i}": 1 for i in range(150_000)}},
        B,
        "too many for 1 modules",
    ),
    "alpha NaN": (json.dumps(GOOD | {"lora_alpha": float("nan")}), C, "NaN is no JSON number"),
    "alpha infinite": (json.dumps(GOOD).replace("4", "1e999"), E, "lora_alpha is inf"),
    "alpha of 4,000 digits": (json.dumps(GOOD).replace("4", "4" * 4000), E, "lora_alpha is 4444"),
    "alpha text": (GOOD | {"lora_alpha": "4"}, E, "lora_alpha is '4'"),
    "alpha 0": (GOOD | {"lora_alpha": 0}, E, "lora_alpha is 0"),
    "rank 0": (GOOD | {"r": 0}, E, "r is 0"),
    "rank of another file": (GOOD | {"r": 4}, E, "the config says 4"),
    "rank without end": (GOOD | {"r": 2**62}, E, "r is 4611686018427387904"),
    "pissa": (GOOD | {"init_lora_weights": "pissa"}, U, "'pissa', which also changes"),
    "kind": (GOOD | {"peft_type": ["LORA"]}, E, "peft_type is"),
    "deep": (b'{"a":' + b"[" * 100_000, C, "nested too deep"),
    "huge": (json.dumps(GOOD | {"x": "y" * (9 << 20)}), B, "config bytes are over the budget"),
    "lists": (filled("[]", 700_000), B, "json items are over the budget"),
    "no object": ("[]", C, "expected a JSON object"),
    "name twice": ('{"r": 2, "r": 3}', C, "the name 'r' stands twice"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), C, "not valid JSON"),
}


@pytest.mark.parametrize(("config", "error", "match"), CONFIGS.values(), ids=CONFIGS)
def test_configs(good, tmp_path, config, error, match):
    refused(good, adapter(tmp_path / "bad", config), error, match)


def numbers(count, names, shapes=((1, 1), (1, 1)), element="F8_E4M3"):
    """The file of `count` modules with tensors of so many names and shapes, one byte each."""
    header, end = {}, 0
    for at in range(count):
        for name, shape in zip(names, shapes, strict=True):
            span = [end, end + 1]
            header[f"{at:x}{name}"] = {"dtype": element, "shape": shape, "data_offsets": span}
            end += 1
    return framed(json.dumps(header, separators=(",", ":")).encode(), b"\x38" * end)


def vectors(side):
    """Two vectors whose product is a matrix of that side."""
    long = np.ones((side, 1), ml_dtypes.float8_e4m3fn)
    return {"q.lora_A.weight": long.T, "q.lora_B.weight": long}


WEIGHTS = {
    "one factor": (encoded(dict([*FACTORS.items()][:1])), E, "without the other one"),
    "ranks": (
        encoded(FACTORS | {"base_model.model.q.lora_B.weight": np.ones((6, 3), np.float32)}),
        E,
        "have different ranks",
    ),
    "truncated": (encoded(FACTORS)[:-1], errors.TruncatedError, "ends at byte"),
    "pickled": (b"\x80\x02cos\nsystem\n.", B, "header bytes are over the budget"),
    "names without end": (
        encoded({f"base_model.model.{'a.' * 100_000}lora_A.weight": np.ones((2, 2), np.float32)}),
        E,
        "no tensor has the name of a LoRA factor",
    ),
}


@pytest.mark.parametrize(("weights", "error", "match"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(good, tmp_path, weights, error, match):
    refused(good, adapter(tmp_path / "bad", tensors=weights), error, match)


def test_product_of_terabytes(good, tmp_path):
    bad = adapter(tmp_path / "bad", GOOD | {"r": 1}, vectors(1_000_000))
    refused(good, bad, B, "takes 4,000,000,000,000 bytes when it is formed")


def test_dora_without_its_magnitudes(good, tmp_path):
    bad = adapter(tmp_path / "bad", GOOD | {"use_dora": True})
    refused(good, bad, E, "lacks its lora_magnitude_vector")


def test_code_in_the_pickled_weights(tmp_path):
    bad = adapter(tmp_path / "bad")
    (bad / "adapter_model.safetensors").unlink()
    marker = tmp_path / "marker"
    code = f"cos\nsystem\n(S'touch {marker}'\ntR."
    torch_zip(bad / "adapter_model.bin", b"\x80\x02" + code.encode())
    good = REPOSITORY / "tests" / "fixtures" / "lora" / "pickled"
    refused(good, bad, errors.UnsafeGlobalError, "system")
    assert not marker.exists()


WORST = {
    "lists in the config": (filled("[]"), FACTORS),
    "numbers in the config": (filled("1.1", 690_000), FACTORS),
    "text in the config": (json.dumps(GOOD | {"x": "y" * (8 * 10**6)}), FACTORS),
}


@pytest.mark.parametrize(("config", "tensors"), WORST.values(), ids=WORST)
def test_largest_adapters_that_are_read(good, tmp_path, config, tensors):
    accepted(good, adapter(tmp_path / "large", config, tensors))


def single(tmp_path, name, content):
    return write(tmp_path / f"{name}.safetensors", content)


KOHYA = {"x.lora_down.weight": np.ones((2, 4), np.float32), "x.lora_up.weight": np.ones((6, 2))}
FILES = {
    "alpha NaN": (KOHYA | {"x.alpha": np.array(np.nan)}, {}, E, "'x.alpha' is nan"),
    "alpha of many": (KOHYA | {"x.alpha": np.ones(9)}, {}, E, "'x.alpha' is float64 of shape"),
    "one factor": ({"x.lora_up.weight": np.ones((6, 2))}, {}, E, "without the other one"),
    "terabytes": (vectors(1_000_000), {}, B, "takes 4,000,000,000,000 bytes"),
    "deep metadata": (KOHYA, '{"a":' + "[" * 100_000, E, "nested too deep"),
    "metadata pattern": (
        {f"unet.{name}": tensor for name, tensor in KOHYA.items()},
        json.dumps({"unet.r": 2, "unet.lora_alpha": 2, "unet.alpha_pattern": {"(x+)+$": 1}}),
        E,
        "the pattern",
    ),
}


@pytest.mark.parametrize(("tensors", "metadata", "error", "match"), FILES.values(), ids=FILES)
def test_files(tmp_path, tensors, metadata, error, match):
    metadata = {"lora_adapter_metadata": metadata} if metadata else None
    good = single(tmp_path, "good", KOHYA)
    refused(good, single(tmp_path, "bad", encoded(tensors, metadata)), error, match)


LARGE = {
    "pairs": ((".lora_A.weight", ".lora_B.weight"), ((1, 1), (1, 1)), 18_000),
    "alphas": (
        (".lora_up.weight", ".lora_down.weight", ".alpha"),
        ((1, 1), (1, 1), ()),
        12_000,
    ),
    "parts of long names": (
        (f"{'.a' * 240}.lora_A.weight", f"{'.a' * 240}.lora_B.weight"),
        ((1, 1), (1, 1)),
        7_000,
    ),
    "lone factors": ((".lora_E",), ((1,),), 35_000),
}
OPEN = """
import re, sys, time
from pathlib import Path
import loaders

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

loaders.load(sys.argv[1])
before, start = peak(), time.process_time()
loaders.load(sys.argv[2])
print(time.process_time() - start, peak() - before)
"""


def assert_opens_cheaply(good, large):
    """Only open it: to map tens of thousands of tensors one by one takes seconds."""
    seconds, growth = python("-c", OPEN, good, large).split()
    assert float(seconds) < SECONDS
    assert int(growth) < MEMORY


@pytest.mark.parametrize(("names", "shapes", "count"), LARGE.values(), ids=LARGE)
def test_largest_files_that_are_opened(good, tmp_path, names, shapes, count):
    assert_opens_cheaply(good, single(tmp_path, "large", numbers(count, names, shapes)))


def test_patterns_of_many_modules(good, tmp_path):
    config = GOOD | {"r": 1, "rank_pattern": {f"{at:x}$": 1 for at in range(40)}}
    large = numbers(4_000, (".lora_A.weight", ".lora_B.weight"))
    assert_opens_cheaply(good, adapter(tmp_path / "large", config, large))


def test_parameters_of_many_modules(good, tmp_path):
    config = GOOD | {"r": 1, "target_parameters": [f"p{at}.w" for at in range(100_000)]}
    large = numbers(7_000, *LARGE["parts of long names"][:2])
    assert_opens_cheaply(good, adapter(tmp_path / "large", config, large))
