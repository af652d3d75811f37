"""What identifies a layer, and what is needed to measure it."""

from __future__ import annotations

from dataclasses import dataclass

from wwfunc.checkpoint import Handle, TensorHint


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The identity of one row: a weight tensor, or a part of one."""

    layer_id: int
    """1-based rank of the tensor's name, in natural order, among all weight tensors."""
    longname: str
    part: str = ""
    """Slice, expert, head group or gate; empty for a whole tensor."""
    tensor: str
    kind: str
    block: int | None
    role: str
    dtype: str
    rule: str
    N: int
    """The longer side of the weight matrices."""
    M: int
    """The shorter side."""
    rf: int
    """Number of slices: the size of a convolution's receptive field."""
    num_params: int
    lora_rank: int | None = None
    """Columns of the factors, where the tensor is a low-rank change."""

    @property
    def layer_type(self) -> str:
        """WeightWatcher's word, under which an embedding of a state dict is dense."""
        return "dense" if self.kind == "embedding" else self.kind

    @property
    def key(self) -> tuple[str, str]:
        """What tells a row from all others: its tensor and the part of it."""
        return self.tensor, self.part

    @property
    def size(self) -> str:
        """The sides of its matrices, and how many there are where it is more than one."""
        return f"{self.N} x {self.M}" + (f" x {self.rf}" if self.rf > 1 else "")

    @property
    def num_evals(self) -> int:
        return self.rf * self.M


@dataclass(frozen=True, kw_only=True)
class Task:
    """A layer, where its tensor is read, and which of its matrices are measured."""

    layer: Layer
    handle: Handle
    hint: TensorHint
    """Which axes are rows and columns."""
    scale: float = 1.0
    """Factor on the matrices."""
    index: int | None = None
    """One slice alone; None takes all."""
    base: Task | None = None
    """The layer that this one is a change of, where it is one."""
    grid: int | None = None
    """Side of the grid on which a convolution is taken as one operator; None takes its slices."""
