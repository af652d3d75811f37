"""Files that PyTorch writes here and now: every element type and layout, bit for bit."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import loaders
from loaders import errors

SHAPES = [(2, 3), (4,), (), (3, 0), (2, 1, 3, 2)]
KINDS = """float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool
float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu complex64 complex128"""
DTYPES = KINDS.split()
pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch: deprecated, or in beta


def bits(name, shape, seed=0):
    """A tensor of any bits, NaN among them."""
    dtype = getattr(torch, name)
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape)) * dtype.itemsize
    octets = rng.integers(0, 2 if name == "bool" else 256, count, np.uint8)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(octets).view(dtype).reshape(shape)


def octets(tensor):
    """Its elements in C order."""
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""


def saved(tmp_path, value, **options):
    path = tmp_path / "x.pt"
    torch.save(value, path, **options)
    return loaders.load(path)


def same(handle, tensor):
    """Equal shape, element type and bits."""
    name = str(tensor.dtype).removeprefix("torch.")
    found = handle.read()
    assert handle.shape == found.shape == tuple(tensor.shape)
    assert handle.dtype == found.dtype == np.dtype(getattr(ml_dtypes, name, name))
    assert np.ascontiguousarray(found).tobytes() == octets(tensor)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types(tmp_path, dtype, shape):
    tensor = bits(dtype, shape)
    same(saved(tmp_path, {"w": tensor})["w"], tensor)


VIEWS = {
    "transposed": lambda w: w.transpose(0, 2),
    "permuted": lambda w: w.permute(1, 2, 0),
    "sliced": lambda w: w[1:, ::2, 1],
    "row": lambda w: w[2],
    "expanded": lambda w: w[:, :1].expand(4, 5, 6),
    "diagonal": lambda w: w[0].diagonal(),
    "empty": lambda w: w[4:],
    "strided": lambda w: torch.as_strided(w, (3, 3), (7, 2), 5),
    "conv, channels last": lambda w: w.reshape(1, 4, 5, 6).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "bool", "complex64"])
@pytest.mark.parametrize("view", VIEWS)
def test_views(tmp_path, view, dtype):
    tensor = VIEWS[view](bits(dtype, (4, 5, 6)))
    handle = saved(tmp_path, {"w": tensor})["w"]
    if dtype == "bfloat16" or view != "expanded":  # its contiguous copy has other strides
        same(handle, tensor)
    rows = handle.read(slice(1, 3))
    assert np.ascontiguousarray(rows).tobytes() == octets(tensor[1:3])


def test_conjugated_and_negated(tmp_path):
    for dtype in ("complex64", "complex128"):
        tensor = bits(dtype, (3, 4)).nan_to_num()
        same(saved(tmp_path, {"w": tensor.conj().T})["w"], tensor.conj().T)
        same(saved(tmp_path, {"w": tensor.conj().imag})["w"], tensor.conj().imag)


def test_packed_pairs(tmp_path):
    tensor = bits("uint8", (3, 4))
    found = saved(tmp_path, {"w": tensor.view(torch.float4_e2m1fn_x2)})["w"]
    low, high = tensor & 15, tensor >> 4
    codes = torch.stack([low, high], -1).reshape(3, 8).numpy()
    assert found.shape == (3, 8)
    assert found.read().dtype == ml_dtypes.float4_e2m1fn
    assert found.read().view(np.uint8).tobytes() == codes.tobytes()
    assert found.read(slice(1, 2)).view(np.uint8).tobytes() == codes[1:2].tobytes()


def affine(kind):
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    scales, zeros = torch.rand(6) + 0.1, torch.arange(6) - 2
    columns, shifts = torch.rand(10) + 0.1, torch.arange(10)
    return {
        "qint8": lambda: torch.quantize_per_tensor(weight, 0.013, 7, torch.qint8),
        "quint8": lambda: torch.quantize_per_tensor(weight, 0.021, 100, torch.quint8),
        "qint32": lambda: torch.quantize_per_tensor(weight, 1e-6, 12345, torch.qint32),
        "rows": lambda: torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8),
        "columns": lambda: torch.quantize_per_channel(weight, columns, shifts, 1, torch.quint8),
        "quint4x2": lambda: torch.quantize_per_channel(
            weight, scales, torch.rand(6) * 9, 0, torch.quint4x2
        ),
        "view": lambda: torch.quantize_per_tensor(weight, 0.013, 7, torch.qint8)[1:4, ::2],
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["qint8", "quint8", "qint32", "rows", "columns", "quint4x2", "view"]
)
def test_quantised(tmp_path, kind):
    """PyTorch may fuse the product into one rounding: two roundings apart at most."""
    tensor = affine(kind)
    handle = saved(tmp_path, {"w": tensor})["w"]
    expected = tensor.dequantize().numpy()
    assert handle.dtype == np.float32
    np.testing.assert_allclose(handle.read(), expected, rtol=2 * np.finfo("f4").eps, atol=0)
    np.testing.assert_array_equal(handle.read(slice(2, 4)), handle.read()[2:4])


LAYOUTS = {
    "coo": lambda w: w.to_sparse(),
    "hybrid": lambda w: w.to_sparse(1),
    "csr": lambda w: w.to_sparse_csr(),
    "csc": lambda w: w.to_sparse_csc(),
    "bsr": lambda w: w.to_sparse_bsr((2, 3)),
    "bsc": lambda w: w.to_sparse_bsc((2, 3)),
    "batch csr": lambda w: torch.stack([w, w.flip(0).flip(1)]).to_sparse_csr(),
    "batch bsc": lambda w: torch.stack([w, w]).to_sparse_bsc((4, 1)),
    "csr of vectors": lambda w: torch.stack([w, w], -1).to_sparse_csr(dense_dim=1),
    "uncoalesced": lambda w: torch.sparse_coo_tensor(
        [[1, 1, 0], [2, 2, 5]], torch.tensor([1.0, 2.0, 4.0]).to(w.dtype), (4, 6)
    ),
    "int32 indices": lambda w: torch.sparse_csr_tensor(
        torch.tensor([0, 1, 1, 2, 3], dtype=torch.int32),
        torch.tensor([5, 0, 2], dtype=torch.int32),
        torch.ones(3, dtype=w.dtype),
        (4, 6),
    ),
    "no elements": lambda w: torch.zeros(4, 6, dtype=w.dtype).to_sparse(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse(tmp_path, layout, dtype):
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    tensor = LAYOUTS[layout](weight)
    handle = saved(tmp_path, {"w": tensor})["w"]
    same(handle, tensor.to_dense())
    assert handle.read(slice(1, 3)).tobytes() == octets(tensor.to_dense()[1:3])


class Net(nn.Module):
    """Every kind of attribute that a module has."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norms = nn.ModuleList([nn.LayerNorm(3), nn.BatchNorm1d(3)])
        self.by_name = nn.ParameterDict({"a": nn.Parameter(torch.ones(2, 2))})
        self.by_place = nn.ParameterList([torch.ones(3), torch.ones(2, 2)])
        self.lstm = nn.LSTM(3, 2, num_layers=2, bidirectional=True)
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embed.weight
        self.loose = [torch.ones(3)]


def nets():
    torch.manual_seed(0)
    return {
        "module": Net(),
        "parallel": nn.DataParallel(Net()),
        "weight norm": nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
        "transformer": nn.TransformerEncoderLayer(8, 2, 16),
        "mixed": nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(3, 2, dtype=torch.float64)),
    }


@pytest.mark.parametrize("kind", ["module", "parallel", "weight norm", "transformer", "mixed"])
@pytest.mark.parametrize("form", ["state", "whole", "nested"])
def test_modules(tmp_path, kind, form):
    net = nets()[kind]
    state = net.state_dict()
    if kind == "weight norm":  # PyTorch does not pickle such a module itself
        net = state
    value = {"state": state, "whole": net, "nested": {"model": net, "epoch": 1}}[form]
    found = saved(tmp_path, value)
    assert list(found) == list(state)
    for title, tensor in state.items():
        same(found[title], tensor)


def test_tied_weights(tmp_path):
    found = saved(tmp_path, Net())
    assert found["head.weight"].key == found["embed.weight"].key
    assert found["head.weight"].key != found["head.bias"].key


@pytest.mark.parametrize("form", ["state", "whole"])
def test_quantised_layers(tmp_path, form):
    """Their weight and bias are a tuple in the state dict, and an object in the module."""
    float_net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    net = torch.ao.quantization.quantize_dynamic(float_net, {nn.Linear}, dtype=torch.qint8)
    found = saved(tmp_path, net if form == "whole" else net.state_dict())
    for layer in (0, 2):
        name = f"{layer}._packed_params._packed_params"
        assert [title for title in found if title.startswith(name)] == [f"{name}.0", f"{name}.1"]
        weight = net[layer].weight().dequantize().numpy()
        np.testing.assert_array_equal(found[f"{name}.0"].read(), weight)
        same(found[f"{name}.1"], net[layer].bias())


def script():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.convs = nn.ModuleList([nn.Conv1d(2, 2, 3), nn.Conv1d(2, 2, 3)])
            self.register_buffer("scale", torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

    return Scripted()


def test_traced(tmp_path):
    made = torch.jit.trace(script(), torch.ones(2, 3))
    torch.jit.save(made, tmp_path / "x.pt")
    found = loaders.load(tmp_path / "x.pt")
    assert sorted(found) == sorted(made.state_dict())
    for title, tensor in made.state_dict().items():
        same(found[title], tensor)


def test_frozen(tmp_path):
    """The weights are constants of the code, and have no names."""
    module = script().eval()
    torch.jit.save(torch.jit.freeze(torch.jit.trace(module, torch.ones(2, 3))), tmp_path / "x.pt")
    found = loaders.load(tmp_path / "x.pt")
    assert all(name.startswith("constants.") for name in found)
    by_shape = {handle.shape: handle for handle in found.values()}
    same(by_shape[4, 3], module.linear.weight.detach())
    same(by_shape[4,], module.linear.bias.detach())


def test_training_state(tmp_path):
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    value = {
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "torch_rng_state": torch.get_rng_state(),
        "numpy_rng_state": np.random.get_state(),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size([2, 3]),
        "loss": np.float64(0.5),
        "epoch": 3,
    }
    found = saved(tmp_path, value)
    assert list(found) == ["weight", "bias"]
    assert found.metadata["epoch"] == "3"
    moments = loaders.load(tmp_path / "x.pt", key="optimizer_state_dict.state.0")
    same(moments["exp_avg"], optimizer.state[net.weight]["exp_avg"])


def test_numpy_arrays(tmp_path):
    arrays = {
        "a": np.arange(400, dtype=np.float32).reshape(20, 20),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.arange(4, dtype=ml_dtypes.bfloat16),
    }
    found = saved(tmp_path, {"model": arrays, "words": np.array(["x"]), "any": np.array([{}])})
    assert list(found) == ["a", "b", "c"]
    for title, array in arrays.items():
        assert found[title].dtype == array.dtype
        np.testing.assert_array_equal(found[title].read(), array)


REFUSED = {
    "complex32": (lambda: torch.zeros(2, 2, dtype=torch.complex32), errors.ElementTypeError),
    "meta": (lambda: torch.zeros(2, 2, device="meta"), errors.UnsupportedError),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        errors.UnsupportedError,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read(tmp_path, case):
    make, error = REFUSED[case]
    with pytest.raises(error, match="tensor 'w'"):
        saved(tmp_path, {"v": torch.ones(2), "w": make()})


def test_exported_program(tmp_path):
    program = torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),))
    torch.export.save(program, tmp_path / "x.pt2")
    with pytest.raises(errors.UnsupportedError, match="pt2"):
        loaders.load(tmp_path / "x.pt2")


def test_protocols(tmp_path):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        net = Net()
        found = saved(tmp_path, net, pickle_protocol=protocol)
        assert list(found) == list(net.state_dict())


def test_buffer_instead_of_a_file(tmp_path):
    """The root is `archive/` then."""
    buffer = io.BytesIO()
    tensor = bits("float32", (4, 4))
    torch.save({"w": tensor}, buffer)
    (tmp_path / "x.bin").write_bytes(buffer.getvalue())
    same(loaders.load(tmp_path / "x.bin")["w"], tensor)


def test_reading_without_torch(tmp_path):
    """In a process of its own, since this one has imported it."""
    torch.save(Net(), tmp_path / "x.pt")
    script = "import sys, loaders; loaders.load(sys.argv[1]).read(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x.pt"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_warnings_are_pytorchs(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaders.load(tmp_path / "x.pt").read()
