"""GGUF files: every plain type in both byte orders, quantised ones described, keys and limits."""

from __future__ import annotations

import pickle
import struct
import time
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from files import python, write
from gguf_files import BOOL, F32, F64, I8, I16, I64, TEXT, U16, U64, File, small

import loaders
from loaders import errors
from loaders.gguf.file import load_gguf
from wwfunc.checkpoint import TensorHint
from wwfunc.layers.find import find

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "gguf"
FLOATS = {
    "blk.0.attn_q.weight": np.float32,
    "blk.0.attn_k.weight": np.float16,
    "blk.0.ffn_up.weight": np.float64,
}
INTEGERS = {f"codes.{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)}


def ramp(*shape):
    """What make_gguf.py wrote, in quarters where it is a float."""
    return (np.arange(np.prod(shape)) % 23 - 11).reshape(shape)


@pytest.mark.parametrize("name", ["little.gguf", "big.gguf"])
def test_plain_types_of_both_byte_orders(name):
    found = load_gguf(FIXTURES / name)
    assert list(found) == [*FLOATS, *INTEGERS, "token_embd.weight"]
    for tensor, dtype in FLOATS.items():
        assert found[tensor].dtype == dtype
        assert (found[tensor].read() == ramp(6, 5) * 0.25).all()
    for tensor, dtype in INTEGERS.items():
        assert found[tensor].dtype == dtype
        assert (found[tensor].read() == ramp(6, 5)).all()
    assert found["token_embd.weight"].dtype == ml_dtypes.bfloat16
    assert (found["token_embd.weight"].read().astype(float) == ramp(4, 3) * 0.25).all()


@pytest.mark.parametrize("name", ["little.gguf", "big.gguf"])
def test_handles_travel_and_are_read_by_rows(name):
    for handle in load_gguf(FIXTURES / name).values():
        copy = pickle.loads(pickle.dumps(handle))
        assert copy == handle
        assert copy.key == handle.key
        part = copy.read(slice(1, 3))
        assert (part == handle.read()[1:3]).all()
        assert part.dtype.isnative
        assert not part.flags.writeable


def test_keys_become_metadata_and_numbers_of_the_architecture_config():
    found = load_gguf(FIXTURES / "little.gguf")
    assert found.config == {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 0.5,
        "llama.feed_forward_length": [96, 128],
    }
    assert found.metadata["general.name"] == "a small model"
    assert found.metadata["llama.block_count"] == "2"
    assert found.metadata["tokenizer.ggml.add_bos_token"] == "True"
    assert found.metadata["tokenizer.ggml.tokens"] == "300 values of text"
    assert found.metadata["tokenizer.ggml.scores"] == "300 values of f32"


def test_quantised_tensors_have_their_shape_and_are_layers():
    found = load_gguf(FIXTURES / "quantised.gguf")
    names = [f"blk.1.{kind}.weight" for kind in ("q4_0", "q8_0", "tq2_0")]
    for name in names:
        assert found[name].shape == (16, 256)
        assert found[name].dtype == np.float32
        assert found[name].nbytes == 16 * 256 * 4
        assert pickle.loads(pickle.dumps(found[name])) == found[name]
    layers = {finding.tensor for finding in find(found) if finding.layer}
    assert set(names) < layers


READ = """
import sys, loaders, wwfunc
sys.modules["gguf"] = None  # as if it were not installed
found = loaders.load(sys.argv[1])
print(found["blk.0.attn_q.weight"].read()[0, 0])
try:
    found["blk.1.q4_0.weight"].read()
except wwfunc.errors.MissingExtraError as error:
    print(error)
"""


def test_quantised_tensors_ask_for_the_package_when_they_are_read():
    found = python("-c", READ, FIXTURES / "quantised.gguf")
    assert found.startswith("-2.75\n")
    assert "'blk.1.q4_0.weight' is quantised as Q4_0" in found
    assert "pip install 'wwfunc[gguf]'" in found


ANALYZE = """
import sys, wwfunc
sys.modules["gguf"] = None
for record in wwfunc.analyze(sys.argv[1]).records:
    if record.layer.tensor in ("blk.0.attn_q.weight", "blk.1.q8_0.weight"):
        print(record.status)
"""


def test_without_the_package_the_row_of_a_quantised_tensor_says_so():
    plain, quantised = python("-c", ANALYZE, FIXTURES / "quantised.gguf").splitlines()
    assert "failed" not in plain
    assert quantised.startswith("failed: MissingExtraError: ")


def test_a_plain_file_is_opened_without_the_package():
    script = "import sys, loaders; loaders.load(sys.argv[1]).read(); print('gguf' in sys.modules)"
    assert python("-c", script, FIXTURES / "little.gguf") == "False\n"


def test_every_kind_of_value(tmp_path):
    file = small().key("a", I8, -3).key("b", U16, 65535).key("c", I16, -32768)
    file.key("d", U64, 2**64 - 1).key("e", I64, -(2**63)).key("f", F64, 0.1).key("g", BOOL, 0)
    file.key("h", F32, float("nan")).key("i", TEXT, file.text(b"\xff!")).key("j", TEXT, "x" * 3000)
    file.array("k", BOOL, b"\1\0", 2).array("l", TEXT, b"", 0)
    found = load_gguf(write(tmp_path / "x", file.encoded())).metadata
    assert dict(found) == {
        "a": "-3",
        "b": "65535",
        "c": "-32768",
        "d": "18446744073709551615",
        "e": "-9223372036854775808",
        "f": "0.1",
        "g": "False",
        "h": "nan",
        "i": "\\xff!",
        "j": "x" * 1023 + "…",
        "k": "[True, False]",
        "l": "0 values of text",
    }


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
@pytest.mark.parametrize("order", "<>")
def test_alignment(tmp_path, order, alignment):
    data = struct.pack(f"{order}2f", 1.5, -2).ljust(alignment, b"\0")
    file = File(order, alignment=alignment).key("general.alignment", 4, alignment)
    file.tensor("a", (2,)).tensor("b", (1, 1), 0, len(data))
    file.data = data + struct.pack(f"{order}f", 8)
    found = load_gguf(write(tmp_path / "x", file.encoded()))
    assert found["a"].read().tolist() == [1.5, -2]
    assert found["b"].read().tolist() == [[8]]


def test_version_2_scalars_and_empty_tensors(tmp_path):
    file = small().tensor("scalar", (), 0, 0).tensor("empty", (3, 0), 0, 32)
    file.version, file.infos = 2, file.infos[1:]
    found = load_gguf(write(tmp_path / "x", file.encoded()))
    assert found["scalar"].read().shape == ()
    assert found["scalar"].read() == 1
    assert found["empty"].read().shape == (0, 3)


def test_tensors_may_stand_in_any_order_with_room_between(tmp_path):
    file = File(data=struct.pack("<f28xf60xf", 1, 2, 3))
    file.tensor("c", (1,), 0, 96).tensor("a", (1,)).tensor("b", (1,), 0, 32)
    found = load_gguf(write(tmp_path / "x", file.encoded()))
    assert [handle.read()[0] for handle in found.values()] == [3, 1, 2]


def test_other_magic(tmp_path):
    path = write(tmp_path / "x", File(magic=b"GGUX").encoded())
    with pytest.raises(errors.HeaderError, match=f"{path}: does not start with GGUF"):
        load_gguf(path)


def test_names_of_tables_and_of_heads_give_hints(tmp_path):
    file = File()
    for name in ("token_types.weight", "v.position_embd.weight", "blk.0.attn_rel_b.weight"):
        file.tensor(name, (0, 2))
    file.tensor("blk.3.attn_k_b.weight", (0, 2, 3)).tensor("blk.3.attn_k.weight", (0, 2))
    found = load_gguf(write(tmp_path / "x", file.encoded()))
    table, stack = TensorHint("embedding"), TensorHint("dense", (1,), (2,))
    assert [found.hint(name) for name in found] == [table, table, table, stack, None]


def test_vocabulary_of_a_large_model_is_passed_over_quickly(tmp_path):
    words = [b"%x" % (index * 7919) for index in range(150_000)]
    file = small()
    file.array("tokens", TEXT, b"".join(file.text(word) for word in words), len(words))
    file.array("scores", F32, bytes(4 * len(words)), len(words))
    pairs = b"".join(file.text(word + b" " + word) for word in words)
    file.array("merges", TEXT, pairs, len(words))
    path = write(tmp_path / "x", file.encoded())
    start = time.process_time()
    found = load_gguf(path)
    assert time.process_time() - start < 1.5
    assert found.metadata["merges"] == "150,000 values of text"
    assert found["a"].read().tolist() == [[1, 2], [3, 4]]


def test_budgets_are_raised_as_the_message_says(tmp_path):
    file = small().tensor("b", (0,)).array("words", TEXT, bytes(80), 10)
    path = write(tmp_path / "x", file.encoded())
    needed = {"tensors": 2, "index_bytes": 80, "header_bytes": len(file.header()) - 80}
    for limit, amount in needed.items():
        loaders.load(path, budget=loaders.Budget(**{limit: amount}))
        with pytest.raises(errors.BudgetError, match=rf"Budget\({limit}={amount}\)"):
            loaders.load(path, budget=loaders.Budget(**{limit: amount - 1}))


def test_any_flipped_bit_loads_or_is_a_checkpoint_error(tmp_path):
    valid = small().key("general.alignment", 4, 32).array("t", TEXT, bytes(8), 1)
    octets = valid.key("b", BOOL, 1).encoded()
    for place in range(len(octets)):
        for bit in range(8):
            damaged = bytearray(octets)
            damaged[place] ^= 1 << bit
            path = write(tmp_path / "x", bytes(damaged))
            with suppress(errors.CheckpointError):
                load_gguf(path).read()


def test_any_truncation_is_a_checkpoint_error(tmp_path):
    octets = small().key("general.name", TEXT, "abc").encoded()
    for size in range(len(octets)):
        with pytest.raises(errors.CheckpointError):
            load_gguf(write(tmp_path / "x", octets[:size]))
