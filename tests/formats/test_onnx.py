"""ONNX models: every place of a tensor, what operators say of it, external files, budgets."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from files import write
from onnx_files import (
    BOOL,
    DOUBLE,
    FLOAT,
    HALF,
    INT8,
    INT32,
    INT64,
    TEXT,
    attribute,
    external,
    floats,
    initializer,
    integer,
    message,
    model,
    node,
    small,
    tensor,
    varint,
)

import loaders
from loaders import errors
from loaders.onnx.model import load_onnx
from wwfunc.checkpoint import TensorHint
from wwfunc.layers.find import find

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "onnx"


def ramp(*shape):
    """What make_onnx.py wrote."""
    return ((np.arange(np.prod(shape)) % 23 - 11) / 4).reshape(shape).astype(np.float32)


DEQUANTISED = np.concatenate([(np.arange(-6, 0) + 1) * 0.5, (np.arange(6) - 3) * 2.0])
WEIGHTS = {
    "table": (ramp(9, 5), TensorHint("embedding")),
    "conv": (ramp(4, 3, 2, 2), TensorHint("conv2d")),
    "conv_bias": (ramp(4), None),
    "deconv": (ramp(4, 2, 3), TensorHint("conv1d", (1,), (0,))),
    "lstm_w": (ramp(1, 8, 2), TensorHint("dense", (1,), (2,))),
    "lstm_r": (ramp(1, 8, 2), TensorHint("dense", (1,), (2,))),
    "codes": (DEQUANTISED.reshape(2, 6), TensorHint("dense", (1,), (0,))),
    "scale": (np.array([0.5, 2]), None),
    "zero": (np.array([-1, 3]), None),
    "shared": (ramp(7, 4), TensorHint("dense")),
    "constant": (ramp(6, 6), TensorHint("dense", (1,), (0,))),
    "choice.then_branch.inner": (ramp(6, 4), TensorHint("dense", (1,), (0,))),
    "choice.else_branch.inner": (ramp(6, 4), TensorHint("dense", (1,), (0,))),
}


@pytest.mark.parametrize("name", ["model.onnx", "external.onnx"])
def test_model_of_the_library(name):
    found = load_onnx(FIXTURES / name)
    assert set(found) == set(WEIGHTS)
    for tensor_name, (array, hint) in WEIGHTS.items():
        assert (found[tensor_name].read() == array).all()
        assert found[tensor_name].shape == array.shape
        assert found.hint(tensor_name) == hint
    assert found["codes"].dtype == np.float32
    assert found["zero"].dtype == np.int8


def test_metadata():
    found = load_onnx(FIXTURES / "model.onnx").metadata
    expected = {"producer_name": "make_onnx", "producer_version": "1", "licence": "none"}
    assert expected.items() <= found.items()
    assert found["empty"] == ""
    assert found["words"] == "a tensor of text, which is not read"
    assert int(found["opset_import.ai.onnx"]) > 20
    assert int(found["ir_version"]) > 9


def test_layers_are_found_by_the_hints():
    found = {finding.tensor: finding.layer for finding in find(load_onnx(FIXTURES / "model.onnx"))}
    layers = {name for name, (_, hint) in WEIGHTS.items() if hint}
    assert {name for name, layer in found.items() if layer} == layers
    assert (found["codes"].N, found["codes"].M, found["conv"].rf) == (6, 2, 4)


def opened(tmp_path, *graph):
    return load_onnx(write(tmp_path / "x.onnx", model(*graph)))


TYPED = [
    (FLOAT, message(4, floats(1.5, -2)), np.float32, [1.5, -2]),
    (FLOAT, b"\x25" + floats(3), np.float32, [3]),
    (DOUBLE, message(10, struct.pack("<2d", 0.1, 7)), np.float64, [0.1, 7]),
    (14, message(4, floats(1, -2, 3, 4)), np.complex64, [1 - 2j, 3 + 4j]),
    (15, message(10, struct.pack("<2d", 5, 6)), np.complex128, [5 + 6j]),
    (INT8, message(5, varint(-128), varint(127)), np.int8, [-128, 127]),
    (5, message(5, varint(-2)), np.int16, [-2]),
    (INT32, message(5, varint(-(2**31)), varint(300)), np.int32, [-(2**31), 300]),
    (2, message(5, varint(255)), np.uint8, [255]),
    (4, message(5, varint(65535)), np.uint16, [65535]),
    (12, message(11, varint(2**32 - 1)), np.uint32, [2**32 - 1]),
    (13, message(11, varint(2**64 - 1), varint(1)), np.uint64, [2**64 - 1, 1]),
    (INT64, message(7, varint(-1), varint(2**40)), np.int64, [-1, 2**40]),
    (BOOL, message(5, b"\0\1\1"), np.bool_, [False, True, True]),
    (HALF, message(5, varint(0xC000), varint(0x3C00)), np.float16, [-2, 1]),
    (16, message(5, varint(0x3FC0)), ml_dtypes.bfloat16, [1.5]),
    (17, message(5, varint(0x7E)), ml_dtypes.float8_e4m3fn, [448]),
    (18, message(5, varint(0x7F)), ml_dtypes.float8_e4m3fnuz, [240]),
    (19, message(5, varint(0x7B)), ml_dtypes.float8_e5m2, [57344]),
    (20, message(5, varint(0x7F)), ml_dtypes.float8_e5m2fnuz, [57344]),
    (21, message(5, varint(0xF1), varint(0x03)), ml_dtypes.uint4, [1, 15, 3]),
    (22, message(5, varint(0xF1)), ml_dtypes.int4, [1, -1]),
    (23, message(5, varint(0x72)), ml_dtypes.float4_e2m1fn, [1, 6]),
    (24, message(5, varint(0x80)), ml_dtypes.float8_e8m0fnu, [2]),
    (25, message(5, varint(0b11100100), varint(2)), np.uint8, [0, 1, 2, 3, 2]),
    (26, message(5, varint(0b11100100)), np.int8, [0, 1, -2, -1]),
    (27, message(5, varint(0x08), varint(0x28)), ml_dtypes.float6_e2m3fn, [1, -1]),
    (28, message(5, varint(0x0C)), ml_dtypes.float6_e3m2fn, [1]),
]


@pytest.mark.parametrize(("kind", "field", "dtype", "values"), TYPED)
def test_elements_in_fields_of_their_own(tmp_path, kind, field, dtype, values):
    handle = opened(tmp_path, message(5, tensor("a", (len(values),), kind, None, field)))["a"]
    assert handle.dtype == dtype
    array = handle.read()
    assert array.tolist() == np.array(values, dtype).tolist()
    assert handle.read(slice(0, 1)).tolist() == array[:1].tolist()
    assert not array.flags.writeable


RAW = [
    (21, b"\x21\x03", ml_dtypes.uint4, [1, 2, 3]),
    (22, b"\xf8\x07", ml_dtypes.int4, [-8, -1, 7]),
    (23, b"\x21\xf7", ml_dtypes.float4_e2m1fn, [0.5, 1, 6, -6]),
    (25, b"\x1b\x01", np.uint8, [3, 2, 1, 0, 1]),
    (26, b"\x1b", np.int8, [-1, -2, 1, 0]),
    (27, b"\x08\x0a\x00", ml_dtypes.float6_e2m3fn, [1, -1, 0]),
    (28, b"\x4c", ml_dtypes.float6_e3m2fn, [1]),
    (16, b"\xc0\x3f", ml_dtypes.bfloat16, [1.5]),
    (DOUBLE, struct.pack("<d", 0.1), np.float64, [0.1]),
]


@pytest.mark.parametrize(("kind", "octets", "dtype", "values"), RAW)
def test_elements_as_bytes(tmp_path, kind, octets, dtype, values):
    handle = opened(tmp_path, initializer("a", (len(values),), kind, octets))["a"]
    assert handle.dtype == dtype
    assert handle.read().tolist() == np.array(values, dtype).tolist()
    assert handle.read(slice(1, None)).shape == (len(values) - 1,)


def test_many_numbers_of_any_length(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.integers(-(2**63), 2**63 - 1, 200_000) >> rng.integers(0, 64, 200_000)
    octets = b"".join(varint(int(number)) for number in numbers)
    field = message(7, octets)
    handle = opened(tmp_path, message(5, tensor("a", (400, 500), INT64, None, field)))["a"]
    assert (handle.read() == numbers.reshape(400, 500)).all()


def test_many_elements_of_six_bits(tmp_path):
    codes = np.random.default_rng(0).integers(0, 64, 300_000, np.uint8)
    bits = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :6]
    octets = np.packbits(bits.ravel(), bitorder="little").tobytes()
    handle = opened(tmp_path, initializer("a", (300, 1000), 28, octets))["a"]
    assert handle.read().tobytes() == codes.tobytes()


def test_raw_data_are_mapped_and_not_copied(tmp_path):
    handle = opened(tmp_path, initializer("a", (2,), FLOAT, floats(1, 2)))["a"]
    octets = (tmp_path / "x.onnx").read_bytes()
    with open(tmp_path / "x.onnx", "r+b") as file:
        file.seek(octets.index(floats(1, 2)))
        file.write(floats(5))
    assert handle.read().tolist() == [5, 2]


def test_dims_may_be_packed_and_fields_stand_in_any_order(tmp_path):
    shuffled = message(9, floats(1, 2)) + message(8, "a") + message(1, b"\x02\x01") + integer(2, 1)
    assert opened(tmp_path, message(5, shuffled))["a"].read().tolist() == [[1], [2]]


def test_unknown_fields_are_passed_over(tmp_path):
    strange = (
        message(77, b"x") + integer(78, 2**63) + b"\xf9\x04" + bytes(8) + b"\xfd\x04" + bytes(4)
    )
    found = opened(tmp_path, strange, initializer("a", (), FLOAT, floats(1), strange))
    assert found["a"].read() == 1


def test_empty_tensors_and_scalars(tmp_path):
    found = opened(
        tmp_path,
        initializer("none", (0, 3)),
        initializer("empty", (2, 0), INT64, b""),
        initializer("scalar", (), INT64, struct.pack("<q", -5)),
    )
    assert [handle.read().shape for handle in found.values()] == [(0, 3), (2, 0), ()]
    assert found["scalar"].read() == -5


def test_tensors_in_attributes_functions_and_training(tmp_path):
    one = [tensor(str(value), (1,), FLOAT, floats(value)) for value in range(5)]
    held = node("Custom", (), ("y",), attribute("both", message(10, one[0]), message(10, one[1])))
    constant = node("Constant", (), ("c",), attribute("value", message(5, one[2])))
    training = message(20, message(1, message(5, one[3])), message(2, message(5, one[4])))
    function = message(25, message(1, "f"), message(7, constant[2:]))
    octets = model(held, constant, more=training + function)
    found = load_onnx(write(tmp_path / "x", octets))
    assert {name: handle.read()[0] for name, handle in found.items()} == {
        "Custom_0.both.0": 0,
        "Custom_0.both.1": 1,
        "c": 2,
        "training_0.initialization.3": 3,
        "training_0.algorithm.4": 4,
        "function_1.c": 2,
    }


def matrix(name, *dims):
    return initializer(name, dims, FLOAT, bytes(4 * int(np.prod(dims))))


HINTS = [
    (node("Gemm", "xw"), (2, 3), TensorHint("dense", (1,), (0,))),
    (node("Gemm", "xw", "y", attribute("transB", integer(3, 1))), (2, 3), TensorHint("dense")),
    (node("Gemm", "wx"), (2, 3), TensorHint("dense", (0,), (1,))),
    (
        node("Gemm", "wx", "", attribute("transA", integer(3, 1))),
        (2, 3),
        TensorHint("dense", (1,), (0,)),
    ),
    (node("MatMul", "xw"), (5, 2, 3), TensorHint("dense", (2,), (1,))),
    (node("MatMul", "xw"), (3,), None),
    (node("FusedMatMul", "xw", domain="com.microsoft"), (2, 3), TensorHint("dense", (1,), (0,))),
    (node("MatMul", "xw", domain="other"), (2, 3), None),
    (node("Conv", "xw"), (2, 3, 4, 5, 6), TensorHint("conv3d")),
    (node("Conv", "xxw"), (2, 3, 4), None),
    (node("Gather", "wx"), (2, 3), TensorHint("embedding")),
    (node("Gather", "wx", "", attribute("axis", integer(3, 1))), (2, 3), None),
    (node("GRU", "xxw"), (2, 6, 3), TensorHint("dense", (1,), (2,))),
    (node("Cast", "w", "v") + node("Conv", "xv"), (2, 3, 4), TensorHint("conv1d")),
    (node("Transpose", "w", "v") + node("MatMul", "xv"), (2, 3), TensorHint("dense", (1,), (0,))),
    (node("Transpose", "w", "v") + node("Conv", "xv"), (2, 3, 4), None),
    (node("Relu", "w", "v") + node("Conv", "xv"), (2, 3, 4), None),
]


@pytest.mark.parametrize(("nodes", "dims", "hint"), HINTS)
def test_operators_give_hints(tmp_path, nodes, dims, hint):
    assert opened(tmp_path, nodes, matrix("w", *dims)).hint("w") == hint


def test_the_first_use_decides(tmp_path):
    found = opened(tmp_path, node("Gather", "wx"), node("MatMul", "xw"), matrix("w", 2, 3))
    assert found.hint("w") == TensorHint("embedding")


def test_inner_names_hide_outer_ones_to_the_end_of_their_graph(tmp_path):
    inner = message(6, matrix("w", 2, 3, 4), node("Conv", "xw"))
    choice = node("If", "c", "y", attribute("then_branch", inner), name="if")
    found = opened(tmp_path, choice, node("MatMul", "xw"), matrix("w", 2, 3))
    assert found.hints == {
        "if.then_branch.w": TensorHint("conv1d"),
        "w": TensorHint("dense", (1,), (0,)),
    }


def quantised(tmp_path, dims, scales, *attributes, zero=None, kind=INT8, codes=None):
    """The tensor of codes 0, 1, 2, ... under a DequantizeLinear node."""
    shape = np.shape(scales)
    parts = [
        node("DequantizeLinear", "qsz" if zero else "qs", "w", *attributes),
        initializer("q", dims, kind, codes or bytes(range(int(np.prod(dims))))),
        initializer("s", shape, FLOAT, floats(*np.ravel(scales))),
    ]
    if zero:
        parts.append(initializer("z", shape, kind, bytes(np.ravel(zero).tolist())))
    return opened(tmp_path, *parts)["q"]


def test_codes_with_one_scale(tmp_path):
    handle = quantised(tmp_path, (2, 3), 0.5, zero=2)
    assert handle.read().tolist() == [[-1, -0.5, 0], [0.5, 1, 1.5]]
    assert handle.read(slice(1, 2)).tolist() == [[0.5, 1, 1.5]]
    assert pickle.loads(pickle.dumps(handle)) == handle


def test_codes_with_a_scale_for_each_column(tmp_path):
    handle = quantised(tmp_path, (2, 3), [1, 2, 3])
    assert handle.read().tolist() == [[0, 2, 6], [3, 8, 15]]
    assert handle.read(slice(1, 2)).tolist() == [[3, 8, 15]]


def test_codes_with_a_scale_for_each_row(tmp_path):
    handle = quantised(tmp_path, (2, 2, 2), [1, 10], attribute("axis", integer(3, -3)), zero=[1, 2])
    assert handle.read().tolist() == [[[-1, 0], [1, 2]], [[20, 30], [40, 50]]]
    assert handle.read(slice(1, 2)).tolist() == [[[20, 30], [40, 50]]]


def test_codes_with_a_scale_for_each_block(tmp_path):
    attributes = attribute("block_size", integer(3, 2)), attribute("axis", integer(3, 1))
    handle = quantised(tmp_path, (2, 3), [[1, 10], [2, 20]], *attributes)
    assert handle.read().tolist() == [[0, 1, 20], [6, 8, 100]]
    assert handle.read(slice(1, 2)).tolist() == [[6, 8, 100]]
    by_rows = attribute("block_size", integer(3, 2)), attribute("axis", integer(3, 0))
    handle = quantised(tmp_path, (3, 2), [[1, 10], [2, 20]], *by_rows)
    assert handle.read().tolist() == [[0, 10], [2, 30], [8, 100]]


def test_a_block_may_be_longer_than_the_axis(tmp_path):
    attributes = attribute("block_size", integer(3, 1 << 62)), attribute("axis", integer(3, 1))
    handle = quantised(tmp_path, (2, 3), [[1], [10]], *attributes, zero=[[1], [2]])
    assert handle.read().tolist() == [[-1, 0, 1], [10, 20, 30]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_codes_in_blocks_are_those_of_a_scale_for_each(tmp_path, axis):
    dims, sides = (5, 7, 4), [5, 7, 4]
    sides[axis] = -(-sides[axis] // 3)
    scales = ramp(*sides) + 1
    attributes = attribute("block_size", integer(3, 3)), attribute("axis", integer(3, axis))
    handle = quantised(tmp_path, dims, scales, *attributes, codes=bytes(range(100)) + bytes(40))
    spread = np.repeat(scales, 3, axis).take(range(dims[axis]), axis).astype(np.float32)
    wanted = np.frombuffer(bytes(range(100)) + bytes(40), np.int8).reshape(dims) * spread
    for rows in (slice(None), slice(1, 4), slice(None, None, -2), slice(3, 3)):
        assert handle.read(rows).tolist() == wanted[rows].tolist()


def test_codes_of_few_bits_may_take_many_times_their_room(tmp_path):
    """As a model in four bits does, whose file is an eighth of its numbers."""
    path = write(
        tmp_path / "x.onnx",
        model(
            initializer("q", (64, 1024), 22, bytes(32 * 1024)),
            initializer("s", (), FLOAT, floats(1)),
            node("DequantizeLinear", "qs", "w"),
        ),
    )
    assert load_onnx(path, budget=loaders.Budget(free_bytes=0))["q"].nbytes == 64 * 1024 * 4


def test_the_numbers_of_all_nodes_count(tmp_path):
    scales = [initializer(f"s{i}", (), FLOAT, floats(i)) for i in range(9)]
    nodes = [node("DequantizeLinear", ("q", f"s{i}"), (f"w{i}",)) for i in range(9)]
    content = model(initializer("q", (1_000,), INT8, bytes(1_000)), *scales, *nodes)
    path = write(tmp_path / "x.onnx", content)
    load_onnx(path)
    with pytest.raises(errors.BudgetError, match=r"bytes of tensors in .* are over"):
        load_onnx(path, budget=loaders.Budget(free_bytes=20_000))


def test_packed_codes(tmp_path):
    handle = quantised(tmp_path, (3,), 2.0, kind=22, codes=b"\xf1\x08")
    assert handle.read().tolist() == [2, -2, -16]


@pytest.mark.parametrize("scales", [[1, 2], [[1, 2, 3]], [1, 2, 3, 4]])
def test_codes_whose_scale_does_not_fit_stay_codes(tmp_path, scales):
    handle = quantised(tmp_path, (2, 3), scales)
    assert handle.dtype == np.int8
    assert handle.read().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_codes_with_two_scales_are_two_tensors(tmp_path):
    found = opened(
        tmp_path,
        node("DequantizeLinear", "qs", "v"),
        node("DequantizeLinear", "qs", "u"),
        node("DequantizeLinear", "qt", "w"),
        initializer("q", (2, 1), INT8, b"\1\xff"),
        initializer("s", (), FLOAT, floats(2)),
        initializer("t", (), FLOAT, floats(3)),
    )
    assert set(found) == {"q", "s", "t", "w"}
    assert found["q"].read().tolist() == [[2], [-2]]
    assert found["w"].read().tolist() == [[3], [-3]]


def test_external_files(tmp_path):
    (tmp_path / "other.bin").write_bytes(b"....." + floats(1, 2, 3))
    whole = message(5, tensor("a", (3,), FLOAT, None, external("other.bin", 5, 12)))
    rest = message(5, tensor("b", (2,), FLOAT, None, external("other.bin", 9)))
    found = opened(tmp_path, whole, rest)
    assert found["a"].read().tolist() == [1, 2, 3]
    assert found["b"].read().tolist() == [2, 3]
    assert found["a"].path == tmp_path / "other.bin"


def test_handles_outlive_a_change_of_folder(tmp_path, monkeypatch):
    for path in FIXTURES.glob("external.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = load_onnx("external.onnx")
    monkeypatch.chdir("/")
    assert (found["table"].read() == ramp(9, 5)).all()
    assert (found["conv_bias"].read() == ramp(4)).all()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_external_files_are_refused(tmp_path, link):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = write(tmp_path / "secret", bytes(64))
    link(secret, folder / "weights")
    octets = model(message(5, tensor("a", (2,), FLOAT, None, external("weights"))))
    path = write(folder / "x.onnx", octets)
    with pytest.raises(errors.UnsupportedError, match="'a': its external file 'weights' is a link"):
        load_onnx(path)


def test_handles_travel_and_are_read_by_many():
    for handle in load_onnx(FIXTURES / "model.onnx").values():
        copy = pickle.loads(pickle.dumps(handle))
        assert copy == handle
        assert copy.key == handle.key
        with ThreadPoolExecutor(4) as pool:
            arrays = list(pool.map(lambda _, one=copy: one.read(), range(8)))
        assert all((array == handle.read()).all() for array in arrays)


def test_budgets_are_raised_as_the_message_says(tmp_path):
    path = write(tmp_path / "x", model(matrix("a", 1), matrix("b", 1)))
    for limit, amount in {"tensors": 2, "fields": 13}.items():
        load_onnx(path, budget=loaders.Budget(**{limit: amount}))
        with pytest.raises(errors.BudgetError, match=rf"Budget\({limit}={amount}\)"):
            load_onnx(path, budget=loaders.Budget(**{limit: amount - 1}))
    with pytest.raises(errors.BudgetError, match="header bytes are over the budget of 10"):
        load_onnx(path, budget=loaders.Budget(header_bytes=10))


def test_text_tensors_count_and_are_named(tmp_path):
    found = opened(tmp_path, message(5, tensor("t", (2,), TEXT, None, message(6, "a"))))
    assert dict(found) == {}
    assert found.metadata["t"] == "a tensor of text, which is not read"


VALID = model(
    node("If", "c", "y", attribute("then_branch", message(6, matrix("w", 1, 1)))),
    node("DequantizeLinear", "qs", "w", attribute("axis", integer(3, 0))),
    initializer("q", (2,), INT8, b"\1\2"),
    message(5, tensor("s", (2,), FLOAT, None, message(4, floats(1, 2)))),
    message(5, tensor("i", (2,), INT64, None, message(7, varint(-1), varint(300)))),
    message(5, tensor("e", (1,), FLOAT, None, external("none", 0, 4)))[:0],
)


def test_any_flipped_bit_loads_or_is_a_checkpoint_error(tmp_path):
    for place in range(len(VALID)):
        for bit in range(8):
            damaged = bytearray(VALID)
            damaged[place] ^= 1 << bit
            path = write(tmp_path / "x", bytes(damaged))
            with suppress(errors.CheckpointError):
                load_onnx(path).read()


def test_any_truncation_is_a_checkpoint_error(tmp_path):
    for size in range(len(VALID)):
        with pytest.raises(errors.CheckpointError):
            load_onnx(write(tmp_path / "x", VALID[:size])).read()


def test_small_is_valid(tmp_path):
    assert load_onnx(write(tmp_path / "x", small()))["a"].read().tolist() == [[1, 2], [3, 4]]
