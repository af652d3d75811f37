"""ONNX models of the `onnx` package and of PyTorch's exporter: bit for bit what these say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from loaders.onnx.model import load_onnx
from loaders.onnx.tensors import ELEMENTS
from wwfunc.layers.find import find

SHAPES = [(3, 5), (2, 3, 4), (), (7,), (0, 4)]
KINDS = sorted(ELEMENTS)


def codes(kind, shape):
    """Any bits that the type has."""
    bits = ELEMENTS[kind].bits
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    top = 2 if kind == TensorProto.BOOL else 1 << min(bits, 8)
    size = int(np.prod(shape)), dtype.itemsize
    return np.random.default_rng(kind).integers(0, top, size, np.uint8).view(dtype).reshape(shape)


def saved(path, tensors, nodes=(), **options):
    graph = helper.make_graph(list(nodes), "g", [], [], tensors)
    onnx.save(helper.make_model(graph), path, **options)
    return load_onnx(path)


def same(found, expected):
    if found.dtype != expected.dtype:  # NumPy has no integers of two bits
        assert expected.dtype.name in ("int2", "uint2")
        expected = expected.astype(found.dtype)
    return found.shape == expected.shape and found.tobytes() == expected.tobytes()


def test_every_type_of_the_package_is_known():
    known = {*ELEMENTS, TensorProto.UNDEFINED, TensorProto.STRING}
    assert known == set(TensorProto.DataType.values())


@pytest.mark.parametrize("kind", KINDS)
def test_raw_data(tmp_path, kind):
    tensors = [numpy_helper.from_array(codes(kind, shape), str(shape)) for shape in SHAPES]
    found = saved(tmp_path / "x", tensors)
    for tensor in tensors:
        assert tensor.HasField("raw_data")
        assert same(found[tensor.name].read(), numpy_helper.to_array(tensor))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_their_own(tmp_path, kind):
    tensors = []
    for shape in SHAPES:
        array = codes(kind, shape)
        array = np.nan_to_num(array) if array.dtype.kind in "fc" else array
        tensors.append(helper.make_tensor(str(shape), kind, shape, array.ravel()))
    found = saved(tmp_path / "x", tensors)
    for tensor in tensors:
        assert not tensor.HasField("raw_data")
        assert same(found[tensor.name].read(), numpy_helper.to_array(tensor))


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data(tmp_path, one_file):
    kinds = [kind for kind in KINDS if ELEMENTS[kind].bits >= 8]
    tensors = [numpy_helper.from_array(codes(kind, (6, 5)), f"t{kind}") for kind in kinds]
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    options = {"all_tensors_to_one_file": one_file, "size_threshold": 0}
    if one_file:
        options["location"] = "x.data"
    found = saved(tmp_path / "x", tensors, save_as_external_data=True, **options)
    assert len(list(tmp_path.iterdir())) == (2 if one_file else 1 + len(kinds))
    for name, array in expected.items():
        assert same(found[name].read(), array)
        assert found[name].path != tmp_path / "x"


class Everything(torch.nn.Module):
    """A layer of each kind."""

    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(10, 6)
        self.lstm = torch.nn.LSTM(6, 4, bidirectional=True, batch_first=True)
        self.conv = torch.nn.Conv1d(8, 5, 3)
        self.fc = torch.nn.Linear(5, 7)
        self.up = torch.nn.ConvTranspose1d(5, 3, 2)

    def forward(self, ids):
        states, _ = self.lstm(self.emb(ids))
        convolved = self.conv(states.transpose(1, 2))
        return self.fc(convolved.mean(-1)), self.up(convolved)


@pytest.mark.filterwarnings("ignore")
def test_export_of_pytorch(tmp_path):
    model = Everything().eval()
    ids = torch.zeros(1, 5, dtype=torch.long)
    torch.onnx.export(model, (ids,), tmp_path / "x.onnx", dynamo=False)
    checkpoint = load_onnx(tmp_path / "x.onnx")
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    for name in ("emb.weight", "conv.weight", "fc.weight", "up.weight"):
        assert same(checkpoint[name].read(), weights[name])
    found = {item.layer.kind: item for item in find(checkpoint) if item.rule == "hint"}
    assert set(found) == {"embedding", "conv1d", "dense"}
    recurrent = [one for one in checkpoint.values() if one.shape == (2, 16, 6)]
    rows = {tuple(map(float, row)) for row in recurrent[0].read().reshape(-1, 6)}
    both = np.concatenate([weights["lstm.weight_ih_l0"], weights["lstm.weight_ih_l0_reverse"]])
    assert rows == {tuple(map(float, row)) for row in both}  # the gates stand in another order


def test_dequantised_weights_are_what_the_reference_computes(tmp_path):
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    cases = {
        "whole": ((), 1, 0),
        "row": ((4,), 0, 0),
        "column": ((6,), 1, 0),
        "block": ((4, 3), 1, 2),
    }
    for name, (shape, axis, block) in cases.items():
        tensors = [
            numpy_helper.from_array(rng.integers(-128, 128, (4, 6), np.int8), "q"),
            numpy_helper.from_array(rng.random(shape).astype(np.float32), "s"),
            numpy_helper.from_array(rng.integers(-9, 9, shape, np.int8), "z"),
        ]
        node = helper.make_node(
            "DequantizeLinear", ["q", "s", "z"], ["w"], axis=axis, block_size=block
        )
        output = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 6])
        graph = helper.make_graph([node], "g", [], [output], tensors)
        model = helper.make_model(graph)
        onnx.save(model, tmp_path / name)
        (expected,) = ReferenceEvaluator(model).run(None, {})
        assert same(load_onnx(tmp_path / name)["q"].read(), expected), name
