"""Legacy files and plain pickles that PyTorch writes here and now, bit for bit."""

from __future__ import annotations

import collections
import io
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch
from pickles import persistent
from torch_files import tar_bytes, torch_tar

import loaders

DTYPES = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
    torch.complex64: np.complex64,
    torch.complex128: np.complex128,
    torch.uint16: np.uint16,
    torch.uint32: np.uint32,
    torch.uint64: np.uint64,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e5m2: ml_dtypes.float8_e5m2,
    torch.float8_e4m3fnuz: ml_dtypes.float8_e4m3fnuz,
    torch.float8_e5m2fnuz: ml_dtypes.float8_e5m2fnuz,
}
PROTOCOLS = [2, 3, 4, 5]


def bits(dtype, shape, seed=0):
    """A tensor of any bits, NaN among them."""
    rng = np.random.default_rng(seed)
    top = 2 if dtype is torch.bool else 256
    octets = rng.integers(0, top, int(np.prod(shape)) * dtype.itemsize, np.uint8)
    return torch.from_numpy(octets).view(dtype).reshape(shape)


def octets(tensor):
    """The bytes of a tensor in C order, as PyTorch itself gives them."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def assert_same(handle, tensor, message=""):
    found = handle.read()
    assert handle.shape == found.shape == tuple(tensor.shape), message
    assert handle.dtype == found.dtype == np.dtype(DTYPES[tensor.dtype]), message
    assert found.tobytes() == octets(tensor), message


def legacy(tmp_path, value, protocol=2):
    path = tmp_path / "x.pt"
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    assert loaders.detect(path) == "torch-legacy"
    return path


def plain(tmp_path, value, protocol=2):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert loaders.detect(path) == "pickle"
    return path


WRITERS = {"legacy": legacy, "plain": plain}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_element_type(tmp_path, write, protocol):
    state = {str(dtype): bits(dtype, (3, 4)) for dtype in DTYPES}
    checkpoint = loaders.load(write(tmp_path, state, protocol))
    assert list(checkpoint) == list(state)
    for name, tensor in state.items():
        assert_same(checkpoint[name], tensor, name)


def test_every_layout(tmp_path, write):
    base = bits(torch.float32, (4, 5, 6))
    pairs = [bits(torch.complex64, (3, 4), seed) for seed in range(3)]
    state = {
        "whole": base,
        "slice": base[1:3, ::2],
        "transposed": base.permute(2, 0, 1),
        "expanded": base[:1].expand(4, 5, 6),
        "scalar": base[0, 0, 0],
        "empty": base[:0],
        "real": pairs[0].real,
        "conjugate": pairs[1].conj(),
        "imaginary": pairs[2].conj().imag,
        "as strided": base.as_strided((3, 3), (1, 2), 5),
        "channels last": bits(torch.float16, (2, 3, 4, 5)).to(memory_format=torch.channels_last),
    }
    checkpoint = loaders.load(write(tmp_path, state))
    for name, tensor in state.items():
        assert_same(checkpoint[name], tensor, name)


def test_state_dict_of_a_module(tmp_path, write):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    checkpoint = loaders.load(write(tmp_path, model.state_dict()))
    assert list(checkpoint) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert_same(checkpoint[name], tensor, name)


def test_module(tmp_path, write):
    model = torch.nn.TransformerEncoderLayer(8, 2, 16)
    checkpoint = loaders.load(write(tmp_path, model))
    assert set(checkpoint) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert_same(checkpoint[name], tensor, name)


def test_training_state(tmp_path, write):
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    content = {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
        "log": collections.defaultdict(list, loss=[0.1, 0.2]),
    }
    checkpoint = loaders.load(write(tmp_path, content))
    assert list(checkpoint) == ["weight", "bias"]
    assert_same(checkpoint["weight"], model.weight)


def test_shared_storage(tmp_path):
    base = bits(torch.float32, (4, 4))
    state = {"a": base, "b": base, "c": base[1:]}
    checkpoint = loaders.load(legacy(tmp_path, state))
    assert checkpoint["a"].key == checkpoint["b"].key != checkpoint["c"].key


def test_big_endian_machine(tmp_path):
    """PyTorch takes the storages for little-endian, whatever the file says of its writer."""
    path = legacy(tmp_path, {"w": torch.arange(6.0)})
    content = path.read_bytes()
    changed = content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert changed != content
    path.write_bytes(changed)
    expected = torch.load(path)["w"]
    assert_same(loaders.load(path)["w"], expected)


def test_several_objects_in_one_list(tmp_path, write):
    state = [bits(torch.float32, (2, 2)), {"w": bits(torch.int8, (3,))}]
    checkpoint = loaders.load(write(tmp_path, state))
    assert list(checkpoint) == ["0", "1.w"]
    assert_same(checkpoint["1.w"], state[1]["w"])


def test_tar(tmp_path):
    """No PyTorch writes these any more, but all read them: what the tests write is one."""
    grid = bits(torch.float32, (2, 3))
    storages = [(3, "FloatStorage", 6, octets(grid))]
    tensors = [
        (7, 3, "FloatTensor", (2, 3), (3, 1), 0),
        (8, 3, "FloatTensor", (3, 2), (1, 3), 0),
        (9, 4, "FloatTensor", (2,), (1,), 1),
    ]
    tree = {"a": persistent(7), "b": persistent(8), "c": persistent(9)}
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(torch_tar(tree, tensors, storages, [(4, 3, 2, 3)])))
    expected = torch.load(path, weights_only=False)
    checkpoint = loaders.load(path)
    assert list(checkpoint) == list(expected) == ["a", "b", "c"]
    for name, tensor in expected.items():
        assert_same(checkpoint[name], tensor, name)


def test_buffer(tmp_path):
    """A file of `torch.save` into a buffer has no name inside; this format never has one."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    path = tmp_path / "x"
    path.write_bytes(buffer.getvalue())
    assert_same(loaders.load(path)["w"], torch.ones(2))
