"""Real PyTorch tensors and modules, which wwfunc reads without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import wwfunc
from wwfunc import InputError
from wwfunc.sources import as_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = torch.randn(16, 12, generator=torch.Generator().manual_seed(0))


def read(tensor) -> np.ndarray:
    return as_checkpoint({"w": tensor})["w"].read()


@pytest.mark.parametrize("name", ["float64", "float32", "float16"])
def test_widths_that_numpy_knows_are_views(name):
    tensor = WEIGHTS.to(getattr(torch, name))
    found = read(tensor)
    assert found.dtype == name
    np.testing.assert_array_equal(found, tensor.numpy())
    assert found.ctypes.data == tensor.data_ptr()
    assert not found.flags.writeable


@pytest.mark.parametrize(
    "name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
)
def test_widths_that_numpy_does_not_know_are_read_bit_for_bit(name):
    tensor = WEIGHTS.to(getattr(torch, name))
    found = read(tensor)
    assert found.dtype == getattr(ml_dtypes, name)
    bits = torch.uint16 if name == "bfloat16" else torch.uint8
    np.testing.assert_array_equal(found.view(str(bits)[6:]), tensor.view(bits).numpy())
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(bits).view(tensor.dtype)  # NaNs too
    np.testing.assert_array_equal(read(every).view(str(bits)[6:]), every.view(bits).numpy())
    record = wwfunc.analyze({"w": tensor}).records[0]
    wide = wwfunc.analyze({"w": tensor.double()}).records[0]
    assert (record.dtype, record.alpha, record.norm) == (name, wide.alpha, wide.norm)


@pytest.mark.parametrize(
    "view",
    [
        lambda w: w.T,
        lambda w: w[::2],
        lambda w: w[:, 1::3],
        lambda w: w[0].expand(9, 12),
        lambda w: w.clone().requires_grad_(),
        lambda w: nn.Parameter(w.clone()),
        lambda w: nn.Parameter(w.bfloat16()).T,
        lambda w: torch.complex(w, -w).conj().real,
        lambda w: torch.complex(w, -w).conj().imag,
    ],
)
def test_views_and_parameters(view):
    tensor = view(WEIGHTS)
    np.testing.assert_array_equal(read(tensor).astype(np.float64), tensor.detach().double().numpy())
    handle = as_checkpoint({"w": tensor})["w"]
    np.testing.assert_array_equal(handle.read(slice(1, 4)), handle.read()[1:4])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.conv1 = nn.Conv1d(9, 10, 3)
        self.conv2 = nn.Conv2d(9, 10, 3)
        self.norm = nn.BatchNorm2d(10)
        self.lstm = nn.LSTM(16, 8, bidirectional=True)
        self.attn = nn.MultiheadAttention(16, 4)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(12, 12))
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight


LAYERS = {
    "attn.in_proj_weight": ("torch_dense", 48, 16, 1),
    "attn.out_proj.weight": ("torch_dense", 16, 16, 1),
    "conv1.weight": ("torch_conv", 10, 9, 3),
    "conv2.weight": ("torch_conv", 10, 9, 9),
    "embed.weight": ("torch_embedding", 20, 16, 1),
    "lstm.weight_hh_l0": ("torch_dense", 32, 8, 1),
    "lstm.weight_hh_l0_reverse": ("torch_dense", 32, 8, 1),
    "lstm.weight_ih_l0": ("torch_dense", 32, 16, 1),
    "lstm.weight_ih_l0_reverse": ("torch_dense", 32, 16, 1),
}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize(
    "view", [lambda net: net, nn.Module.state_dict, lambda net: [net.state_dict()][0]]
)
def test_modules_and_state_dicts(net, view):
    analysis = wwfunc.analyze(view(net))
    assert {r.tensor: (r.rule, r.N, r.M, r.rf) for r in analysis} == LAYERS
    assert {row.tensor for row in analysis.coverage} == set(net.state_dict())
    rules = {row.tensor: (row.rule, row.reason) for row in analysis.coverage}
    assert rules["head.weight"] == ("tied", "the same tensor as 'embed.weight'")
    assert rules["norm.running_mean"][0] == rules["norm.num_batches_tracked"][0] == "buffer"
    assert rules["normed.parametrizations.weight.original1"][0] == "factor"
    kernel = net.conv2.weight.detach().double().numpy()
    slices = kernel.reshape(10, 9, 9).transpose(2, 0, 1)
    squares = np.linalg.svd(slices, compute_uv=False).ravel() ** 2 / 2
    np.testing.assert_allclose(analysis["conv2"].evals, np.sort(squares), rtol=1e-9)


def test_a_module_stays_as_it_was(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flags = {name: p.requires_grad for name, p in net.named_parameters()}
    wwfunc.analyze(net)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert {name: p.requires_grad for name, p in net.named_parameters()} == flags


def test_the_optimiser_of_a_training_checkpoint_is_no_layer():
    model = nn.Linear(16, 12)
    optimiser = torch.optim.Adam(model.parameters(), amsgrad=True)
    model(torch.ones(1, 16)).sum().backward()
    optimiser.step()
    whole = {"model": model.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3}
    assert [r.tensor for r in wwfunc.analyze(whole)] == ["model.weight"]
    assert len(wwfunc.analyze(whole).coverage) == 2 + 2 * 4
    assert [r.tensor for r in wwfunc.analyze(optimiser)] == []


def test_equal_and_shared_tensors():
    model = {"u": WEIGHTS, "v": WEIGHTS.clone(), "w": WEIGHTS.T, "x": WEIGHTS.view(16, 12)}
    rules = {row.tensor: row.rule for row in wwfunc.describe(model).coverage}
    assert rules == {"u": "matrix", "v": "matrix", "w": "matrix", "x": "tied"}


def test_a_sign_that_is_not_in_the_memory_yet_makes_another_tensor(tmp_path):
    z = torch.complex(WEIGHTS, -WEIGHTS)
    model = {"z": z, "conj": z.conj(), "imag": z.imag, "neg": z.conj().imag}
    wwfunc.save(model, tmp_path / "x.safetensors")
    for name, array in wwfunc.load(tmp_path / "x.safetensors").read().items():
        np.testing.assert_array_equal(array, model[name].resolve_conj().resolve_neg().numpy())


# What torch cannot hand over ------------------------------------------------------------------


def test_a_tensor_without_memory_is_the_status_of_its_row():
    """Two of them are not tied, though both start at address 0."""
    model = {"u": WEIGHTS.to("meta"), "v": WEIGHTS.to("meta"), "w": WEIGHTS}
    analysis = wwfunc.analyze(model)
    assert [r.longname for r in analysis] == ["u", "v", "w"]
    assert [r.status == "success" for r in analysis] == [False, False, True]
    assert all("has a shape and no numbers" in r.status for r in analysis.records[:2])


def test_a_module_on_the_meta_device_can_be_described():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 12), nn.Linear(8, 12))
    assert [r.longname for r in wwfunc.describe(model)] == ["0", "1"]


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
def test_an_element_type_without_a_reader_is_refused_by_name():
    weights = torch.empty(8, 8, dtype=torch.complex32)
    with pytest.raises(InputError, match=r"'a\.w' of torch\.complex32 cannot be read"):
        wwfunc.analyze({"a": {"w": weights}})


@pytest.mark.filterwarnings("ignore:torch.quantize_per|Sparse CSR:UserWarning")
@pytest.mark.parametrize("layout", ["quantised", "by channel", "sparse", "csr"])
def test_tensors_that_are_stored_otherwise(layout):
    scales, zeros = torch.rand(16) + 0.1, torch.zeros(16, dtype=torch.int64)
    made = {
        "quantised": lambda: torch.quantize_per_tensor(WEIGHTS.T, 0.1, 3, torch.quint8),
        "by channel": lambda: torch.quantize_per_channel(WEIGHTS.T, scales, zeros, 1, torch.qint8),
        "sparse": WEIGHTS.T.to_sparse,
        "csr": WEIGHTS.T.to_sparse_csr,
    }[layout]()
    whole = made.dequantize() if made.is_quantized else made.to_dense()
    handle = as_checkpoint({"w": made})["w"]
    assert handle.dtype == np.float32
    np.testing.assert_array_equal(handle.read(), whole.numpy())
    np.testing.assert_array_equal(handle.read(slice(2, 5)), whole[2:5].numpy())


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.uint16])
def test_numbers_that_are_no_weights(dtype):
    (row,) = wwfunc.describe({"w": torch.zeros(8, 8, dtype=dtype)}).coverage
    assert (row.status, row.rule, row.dtype) == ("skipped", "not_real", str(dtype)[6:])


def test_torch_is_never_imported_by_wwfunc(digits_path):
    code = (
        f"import sys, wwfunc; wwfunc.analyze({str(digits_path)!r}); "
        "import numpy; wwfunc.analyze({'w': numpy.eye(9)}); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "False"
