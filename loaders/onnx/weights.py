"""Which operators make a tensor a weight, and which of its axes are inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wwfunc.checkpoint import Kind, TensorHint

NUMBERS = ("transA", "transB", "axis", "block_size")
"""The attributes that tell axes."""
_CONVOLUTIONS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}
_RECURRENT = ("LSTM", "GRU", "RNN")
_PASSING = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Transpose")
_WEIGHING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather")
_FUSED = ("FusedConv", "FusedGemm", "FusedMatMul")
OPERATORS = frozenset((*_PASSING, *_WEIGHING, *_FUSED, *_RECURRENT))
"""Those whose inputs are looked at."""


def hint_of(op: str, place: int, rank: int, numbers: Mapping[str, int]) -> TensorHint | None:
    """What a tensor with `rank` axes is that an operator takes as its input number `place`."""
    turned = bool(numbers.get("transB" if place else "transA", 0))
    return _hint(op.removeprefix("Fused"), place, rank, turned, numbers.get("axis", 0) == 0)


@cache  # one object for the many tensors that are used alike
def _hint(op: str, place: int, rank: int, turned: bool, first_axis: bool) -> TensorHint | None:
    if op in ("Gemm", "MatMul") and place < 2 and rank >= 2:
        return _product(place, rank, turned)
    if op == "Conv" and place == 1 and rank in _CONVOLUTIONS:  # (out, in / groups, ...)
        return TensorHint(_CONVOLUTIONS[rank])
    if op == "ConvTranspose" and place == 1 and rank in _CONVOLUTIONS:  # (in, out / groups, ...)
        return TensorHint(_CONVOLUTIONS[rank], rows=(1,), cols=(0,))
    if op == "Gather" and place == 0 and rank == 2 and first_axis:
        return TensorHint("embedding")
    if op in _RECURRENT and place in (1, 2) and rank == 3:  # (directions, gates * hidden, in)
        return TensorHint("dense", rows=(1,), cols=(2,))
    return None


def _product(place: int, rank: int, turned: bool) -> TensorHint:
    """The second factor is (..., in, out), the first (..., out, in), unless it is transposed."""
    before, last = rank - 2, rank - 1
    if turned == bool(place):
        return TensorHint("dense", rows=(before,), cols=(last,))
    return TensorHint("dense", rows=(last,), cols=(before,))
