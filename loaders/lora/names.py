"""Names of adapter tensors: which are the two factors of one weight, and which weight it is.

PEFT writes `q_proj.lora_A.weight`, kohya `lora_unet_..._to_q.lora_down.weight`, diffusers had
`to_q.lora.down.weight`, `q_proj.lora_linear_layer.down.weight` and
`attn1.processor.to_q_lora.down.weight` before it wrote PEFT's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wwfunc.checkpoint import Handle

from ..errors import AdapterError
from ..strict_json import brief

_WRAPPER = "base_model.model."
"""What PEFT puts before every name of the model that it wraps."""
_COPIES = re.compile(r"\.modules_to_save\.[^.]+\.")
"""Where it keeps the modules that it trains whole, by the name of the adapter."""
LONGEST = 512
"""Characters of a name; longer ones are no layer's."""

_SIDES = {"lora_A": "down", "lora_B": "up", "lora_down": "down", "lora_up": "up"}
_TABLES = {"lora_embedding_A": "down", "lora_embedding_B": "up"}
_OLD_MODULES = {"lora", "lora_linear_layer"}
_OLD_ATTENTION = {
    "to_q_lora": ("to_q", "q_proj"),
    "to_k_lora": ("to_k", "k_proj"),
    "to_v_lora": ("to_v", "v_proj"),
    "to_out_lora": ("to_out.0", "out_proj"),
}
"""What the module is called in a U-Net, and in a text encoder."""
_ODD = "odd"


@dataclass(frozen=True, slots=True)
class Part:
    """What the name of a tensor tells."""

    owner: str
    """The name up to what is the adapter's, which the alpha of a kohya file shares."""
    adapter: str
    role: str
    """down, up, magnitude, bias, or odd: then the two factors are not the whole of the change."""
    table: bool = False


@dataclass(slots=True)
class Pair:
    """The tensors of one change."""

    owner: str
    adapter: str
    names: dict[str, str] = field(default_factory=dict)
    """Role to name."""
    table: bool = False

    @property
    def module(self) -> str:
        """The module of the model, by the name that the model has for it."""
        path = self.owner
        for infix in _OLD_MODULES:
            path = path.removesuffix("." + infix)
        path, dot, last = path.rpartition(".")
        if last in _OLD_ATTENTION:
            last = _OLD_ATTENTION[last][path.startswith("text_encoder")]
        return (path + dot + last).replace(".processor.", ".").replace(".base_layer.", ".")

    def alphas(self) -> Iterator[str]:
        """What a tensor with its alpha may be named."""
        yield f"{self.owner}.alpha"
        module, _, last = self.owner.rpartition(".")
        if last in _OLD_MODULES:
            yield f"{module}.alpha"


def model_names(tensors: Mapping[str, Handle], path: Path) -> Mapping[str, Handle]:
    """The tensors under the names that the model has for them, without those of PEFT's wrappers."""
    renamed: dict[str, Handle] = {}
    for name, tensor in tensors.items():
        own = name.removeprefix(_WRAPPER)
        own = _COPIES.sub(".", own) if ".modules_to_save." in own else own
        if own in renamed:
            raise AdapterError(f"{path}: two tensors are the model's {brief(own)}")
        renamed[own] = tensor
    return renamed


def is_adapter(names: Iterable[str]) -> bool:
    """Whether there is a factor of a low-rank pair among the names of tensors."""
    return any(part.role in ("down", "up") for part in map(parse, names) if part)


def find_pairs(names: Iterable[str], path: Path) -> list[Pair]:
    """The pairs of factors, each whole; those that are but a part of a change are left out.

    Raises
    ------
    AdapterError
        If one factor is there without the other, or two have the same role.
    """
    pairs: dict[tuple[str, str], Pair] = {}
    for name in names:
        part = parse(name)
        if part is None:
            continue
        pair = pairs.setdefault((part.owner, part.adapter), Pair(part.owner, part.adapter))
        if part.role in pair.names and part.role != _ODD:
            raise AdapterError(
                f"{path}: {brief(pair.names[part.role])} and {brief(name)} are the same factor"
            )
        pair.names[part.role] = name
        pair.table |= part.table
    odd = _odd_owners(pairs)
    return [pair for pair in pairs.values() if pair.owner not in odd and _is_whole(pair, path)]


def parse(name: str) -> Part | None:
    """What `name` tells, or None for a tensor that is not of a low-rank adapter."""
    if len(name) > LONGEST or not ("lora" in name or "hada_" in name or "lokr_" in name):
        return None
    old = _parse_old(name)
    if old:
        return old
    owner, dot, rest = name.rpartition(".lora_")
    words = ("lora_" + rest).split(".", 4) if dot else []
    return _part(owner, words) if words else _parse_lycoris(name)


def _part(owner: str, words: list[str]) -> Part:
    """`lora_A.weight`, `lora_A.default.weight`, `lora_embedding_A.default`, and so on."""
    first, *rest = words
    last = rest[-1] if rest else ""
    if first in _TABLES and len(rest) < 2:
        return Part(owner, last, _TABLES[first], table=True)
    if first == "lora_magnitude_vector":
        rest = rest[:-1] if last == "weight" else rest
        return Part(owner, rest[0] if rest else "", "magnitude")
    adapter = rest[0] if len(rest) == 2 else ""
    if first in _SIDES and len(rest) in (1, 2) and last == "weight":
        return Part(owner, adapter, _SIDES[first])
    if first == "lora_B" and len(rest) in (1, 2) and last == "bias":
        return Part(owner, adapter, "bias")
    return Part(owner, "", _ODD)


def _parse_old(name: str) -> Part | None:
    """`to_q.lora.down.weight` and the like: the owner keeps the last part before `down`."""
    words = name.rsplit(".", 3)
    if len(words) < 3 or words[-1] != "weight" or words[-2] not in ("down", "up"):
        return None
    if words[-3] not in _OLD_MODULES and words[-3] not in _OLD_ATTENTION:
        return None
    return Part(".".join(words[:-2]), "", words[-2])


def _parse_lycoris(name: str) -> Part | None:
    """Products of other kinds beside the factors: `X.hada_w1_a`, `X.lokr_w2`."""
    owner, _, last = name.rpartition(".")
    return Part(owner, "", _ODD) if last.startswith(("hada_", "lokr_")) else None


def _odd_owners(pairs: Mapping[tuple[str, str], Pair]) -> set[str]:
    """Owners whose factors are not a dense pair.

    Experts share one pair of factors in which their ranks are interleaved; where PEFT wraps two
    parameters of a module, the second wrapper has the first as its `base_layer`.
    """
    odd = {pair.owner for pair in pairs.values() if _ODD in pair.names}
    for owner, _ in pairs:
        inner = owner.removesuffix(".base_layer")
        if inner != owner or owner.rpartition(".")[2] == "experts":
            odd |= {owner, inner}
    return odd


def _is_whole(pair: Pair, path: Path) -> bool:
    """Whether both factors are there; a bias or a magnitude alone is no pair."""
    missing = {"down", "up"} - pair.names.keys()
    if len(missing) == 1:
        (present,) = {"down", "up"} - missing
        raise AdapterError(
            f"{path}: the factor {brief(pair.names[present])} is there without the other one"
        )
    return not missing
