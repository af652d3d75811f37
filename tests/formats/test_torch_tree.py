"""Which part of a saved object is the model, and what its tensors are called."""

from __future__ import annotations

import numpy as np
import pytest
from pickles import call, code, mapping, name, new, op
from torch_files import storage, tensor, torch_zip

import loaders
from loaders.errors import AmbiguousError, BudgetError, PickleError

GRID = np.arange(6, dtype=np.float32).reshape(2, 3)
DATA = {"0": GRID.tobytes(), "1": bytes(5)}
W = tensor(storage("FloatStorage", "0", 6))
SCALAR = tensor(storage("FloatStorage", "0", 6), (), ())
RANDOM = tensor(storage("ByteStorage", "1", 5), (5,), (1,))
MODEL = {"a.weight": W, "b": {"weight": W}}
NAMES = ["a.weight", "b.weight"]
ADAM = {"state": {0: {"exp_avg": W}}, "param_groups": [{"params": [0]}]}


@pytest.fixture
def opened(tmp_path):
    def load(tree, **options):
        return loaders.load(torch_zip(tmp_path / "x.pt", tree, DATA), **options)

    return load


def ordered(tree, metadata=True):
    """An `OrderedDict` as `state_dict()` gives it, with attributes of its own."""
    state = code({"_metadata": {"": {"version": 1}}}) + b"b" if metadata else b""
    return op(call("collections.OrderedDict"), code(tree)[1:], state)


ROOTS = {
    "a state dict": (MODEL, NAMES),
    "an ordered dict": (ordered(MODEL), NAMES),
    "an ordered dict of Python 2": (
        call("collections.OrderedDict", [["a.weight", W], ["b.weight", W]]),
        NAMES,
    ),
    "a default dict": (
        op(call("collections.defaultdict", name("builtins", "list")), code(MODEL)[1:]),
        NAMES,
    ),
    "a tensor": (W, ["tensor"]),
    "a list": ([W, W], ["0", "1"]),
    "a tuple of states": ((MODEL, {"c": W}), ["0.a.weight", "0.b.weight", "1.c"]),
    "a state and a number": ((MODEL, 3), NAMES),
    "state_dict": ({"state_dict": MODEL, "epoch": 3}, NAMES),
    "model, with its optimiser": ({"model": MODEL, "optimizer": ADAM, "step": SCALAR}, NAMES),
    "Model": ({"Model": MODEL}, NAMES),
    "module in model": ({"model": {"module": MODEL}, "lr_schedulers": [W]}, NAMES),
    "params_ema": ({"params_ema": MODEL}, NAMES),
    "generator": ({"generator": MODEL, "iter": 3}, NAMES),
    "one name that is not known": ({"my_net": MODEL, "iter": 3}, NAMES),
    "numbers beside it": ({"state_dict": MODEL, "rng_state": RANDOM, "count": SCALAR}, NAMES),
    "known and unknown": ({"state_dict": MODEL, "extra": {"x": W}}, NAMES),
    "None beside it": ({"model": None, "ema": MODEL}, NAMES),
    "one object under two names": (
        op(b"}", code("model"), code(MODEL), b"q\x05s", code("net"), b"h\x05s"),
        NAMES,
    ),
    "several that are not known": (
        {"left": {"w": W}, "right": {"w": W}, "optimizer": ADAM},
        ["left.w", "right.w"],
    ),
    "tensors beside a part": (
        {"model": {"w": W}, "mean": RANDOM, "optimizer": ADAM},
        ["model.w", "mean"],
    ),
    "an optimiser alone": (ADAM, ["0.exp_avg"]),
    "a nested tree": (
        {"params": {"encoder": {"k": W}, "decoder": {"k": W}}},
        ["encoder.k", "decoder.k"],
    ),
    "lists within": ({"state_dict": {"a": [W, W], "b": (W,)}}, ["a.0", "a.1", "b.0"]),
    "an object with attributes": (
        new("my.Thing", state={"a": W, "b": {"c": W}, "n": 1}),
        ["a", "b.c"],
    ),
    "an object with slots": (new("my.Thing", state=({"a": W}, {"b": W})), ["a", "b"]),
    "a named tuple": (new("my.Pair", W, W), ["0", "1"]),
    "a dict of a class": (op(new("my.Dict"), code(MODEL)[1:]), NAMES),
    "an empty list beside it": ({"w": W, "x": [], "y": {}}, ["w"]),
}


@pytest.mark.parametrize("case", ROOTS)
def test_model(opened, case):
    tree, names = ROOTS[case]
    found = opened(tree)
    assert list(found) == names
    weights = [handle.read() for handle in found.values() if len(handle.shape) == 2]
    assert weights
    assert all((weight == GRID).all() for weight in weights)


AMBIGUOUS = {
    "model and ema": (
        {"model": MODEL, "ema": MODEL, "optimizer": ADAM},
        r"'model' \(2 tensors\), 'ema' \(2 tensors\); choose",
    ),
    "generator and discriminator": (
        {"generator": MODEL, "discriminator": {"w": W}},
        r"'generator' \(2 tensors\), 'discriminator' \(1 tensors\)",
    ),
    "encoder and a stranger": ({"encoder": {"w": W}, "stuff": {"w": W}}, "'encoder' .* 'stuff'"),
    "deeper": ({"state_dict": {"params": MODEL, "params_ema": MODEL}}, "'params' .* 'params_ema'"),
    "optimisers alone": ({"optimizer": ADAM, "optimizer_d": ADAM}, "'optimizer' .* 'optimizer_d'"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_ambiguous(opened, case):
    tree, match = AMBIGUOUS[case]
    with pytest.raises(AmbiguousError, match=rf"x\.pt: which part is the model\? .*{match}"):
        opened(tree)


KEYED = {
    "ema": NAMES,
    "model": NAMES,
    "optimizer": ["state.0.exp_avg"],
    "optimizer.state.0": ["exp_avg"],
    "model.b": ["weight"],
    "model.a.weight": ["tensor"],
    "deep.er.net": NAMES,
    "deep": NAMES,
    "": [
        *(f"model.{title}" for title in NAMES),
        *(f"ema.{title}" for title in NAMES),
        "optimizer.state.0.exp_avg",
        *(f"deep.er.net.{title}" for title in NAMES),
    ],
}


@pytest.mark.parametrize("key", KEYED)
def test_key(opened, key):
    """A name with dots in it is found as one: `a.weight`."""
    tree = {"model": MODEL, "ema": MODEL, "optimizer": ADAM, "deep": {"er": {"net": MODEL}}}
    if key == "deep":  # unwraps no further than what is known
        assert list(opened(tree, key=key)) == [f"er.net.{title}" for title in NAMES]
    else:
        assert list(opened(tree, key=key)) == KEYED[key]


def test_key_that_is_not_there(opened):
    with pytest.raises(
        AmbiguousError, match=r"key='model\.x'; where 'x' should be there are 'a\.weight'"
    ):
        opened({"model": MODEL}, key="model.x")
    with pytest.raises(AmbiguousError, match=r"key='epoch'; .* there are 'model' \(2 tensors\)"):
        opened({"model": MODEL, "epoch": 3}, key="epoch")


WITHOUT = {"nothing": {}, "scalars": {"a": 1}, "None": None, "a list": [[1], (2,)]}


@pytest.mark.parametrize("case", WITHOUT)
def test_no_tensors(opened, case):
    with pytest.raises(PickleError, match="holds no tensors"):
        opened(WITHOUT[case])


NAMELESS = {
    "None": mapping((None, W)),
    "a float": mapping((1.5, W)),
    "a tuple": mapping(((1, 2), W)),
    "bytes": mapping((b"\xff", W)),
    "True": mapping((True, W)),
    "a class": mapping((name("a", "b"), W)),
}


@pytest.mark.parametrize("case", NAMELESS)
def test_tensor_without_a_name(opened, case):
    with pytest.raises(PickleError, match=r"tensors stand under the key .*, no name"):
        opened(NAMELESS[case])
    assert list(
        opened(op(b"}", code("w"), W, b"s", code("x"), NAMELESS[case][:-1].replace(W, b"N"), b"us"))
    ) == ["w"]


TWICE = {
    "joined": {"a.b": W, "a": {"b": W}},
    "number and text": mapping(("0", W), (0, W)),
}


@pytest.mark.parametrize("case", TWICE)
def test_two_tensors_of_one_name(opened, case):
    with pytest.raises(PickleError, match="two tensors have the name"):
        opened(TWICE[case])


def test_half_of_a_surrogate_pair_is_no_name(opened):
    half = op(b"X\x03\0\0\0\xed\xa0\x80")
    with pytest.raises(PickleError, match="is no text"):
        opened(mapping((half, W)))
    assert dict(opened({"w": W, "x": half}).metadata) == {}


def test_metadata(opened):
    tree = {
        "version": "2.1",
        "epoch": 3,
        "loss": 0.5,
        "done": True,
        "long": "x" * 201,
        "none": None,
        7: "seven",
        "state_dict": {"w": W, "step": 5},
        "optimizer": ADAM,
        **{f"more{n}": n for n in range(40)},
    }
    found = opened(tree).metadata
    assert {**found, "left_out": ""} | {"version": "2.1", "epoch": "3", "loss": "0.5"} == {
        **found,
        "left_out": "",
    }
    assert found["done"] == "True"
    assert found["left_out"] == "optimizer (1 tensors)"
    assert not {"long", "none", "7"} & found.keys()
    assert len(found) == 33


def module(parameters=(), buffers=(), modules=(), **more):
    state = {
        "training": True,
        "_parameters": ordered(dict(parameters), metadata=False),
        "_buffers": dict(buffers),
        "_non_persistent_buffers_set": call("builtins.set", []),
        "_modules": dict(modules),
        **more,
    }
    return new("nowhere.Net", state=state)


def test_modules(opened):
    inner = module({"weight": W, "bias": None}, {"mean": W})
    passing = call("builtins.set", ["passing"])
    outer = module(
        {"weight": W},
        {"passing": W, "kept": W},
        {"model": inner, "none": None},
        _non_persistent_buffers_set=passing,
        loose=W,
    )
    names = ["weight", "kept", "model.weight", "model.mean"]
    assert list(opened(outer)) == names
    assert list(opened({"ema": outer, "epoch": 1})) == names


def test_module_within_itself(opened):
    """`self.parent = parent` is no submodule; a submodule that is its own parent is left out."""
    circle = op(
        code(op(name("nowhere", "Net"), b")\x81q\x07")),
        code({"_parameters": {"w": W}, "_modules": {"child": op(b"h\x07")}}),
        b"b",
    )
    assert list(opened(circle)) == ["w"]


def test_dict_within_itself(opened):
    circle = op(b"}q\x07", code("w"), W, b"s", code("self"), b"h\x07s")
    assert list(opened(circle)) == ["w"]


def test_two_dicts_within_each_other(opened):
    """Each circle is cut where it closes, whatever leads there first."""
    tree = op(
        b"}q\x07", code("w"), W, b"s", code("b"),
        b"}q\x08", code("v"), W, b"s", code("a"), b"h\x07s", b"s",
        code("again"), b"h\x08s",
    )  # fmt: skip
    assert list(opened(tree)) == ["w", "b.v", "again.v"]


def doubling(levels, leaf=W):
    """A dict with one dict in two places, and so on: 2^levels tensors."""
    rest = b"".join(
        b"q\x070}" + code("a") + b"h\x07s" + code("b") + b"h\x07s" for _ in range(levels)
    )
    return op(code({"w": leaf}), rest)


def test_shared_parts_are_counted_not_walked(opened):
    assert len(opened(doubling(10))) == 1024
    with pytest.raises(BudgetError, match="100,001 tensors"):
        opened(doubling(60))
    assert list(opened({"w": W, "x": doubling(60, leaf=1)})) == ["w"]


def test_nesting(opened):
    deep = op(b"]" * 198, code([W]), b"a" * 198)
    assert [title.strip("0.") for title in opened(deep, key="")] == [""]
    with pytest.raises(BudgetError, match="nesting"):
        opened(op(b"]" * 200, code([W]), b"a" * 200))


def test_names_that_are_long_in_sum(opened):
    tree = {"x" * 1_000_000: {str(n): W for n in range(9)}}
    with pytest.raises(BudgetError, match="header bytes"):
        opened({"state_dict": tree})


def test_names_count_as_memory(opened):
    tree = {"w": [W] * 1000}
    exact = opened(tree)
    assert len(exact) == 1000
    with pytest.raises(BudgetError, match="opcodes"):
        opened(tree, budget=loaders.Budget(opcodes=60_000))


def test_opaque_objects(opened):
    """Tensors in the arguments of an unknown call are named after it, since they may be weights."""
    made = op(call("a.b", W), code({"inner": {"w": W}}), b"b")
    found = opened({"w": W, "x": made}, inert=True)
    assert list(found) == ["w", "x.a.b.0", "x.inner.w"]
    alone = opened({"x": call("a.b", {"k": [W]}, 3)}, inert=True)
    assert list(alone) == ["a.b.0.k.0"]


def test_a_module_of_code_is_that_module(opened):
    """`torch.fx` makes its modules by a call of a function with their attributes."""
    body = {"_parameters": {"weight": W}, "_modules": {}, "_code": "def forward(self): pass"}
    made = call("torch.fx.graph_module.reduce_graph_module", body, "import torch")
    with pytest.raises(loaders.errors.UnsafeGlobalError, match="reduce_graph_module"):
        opened(made)
    assert list(opened(made, inert=True)) == ["weight"]


@pytest.mark.parametrize("title", ["opt_G", "solver", "adam", "trainer"])
def test_optimisers_are_known_by_what_they_hold(opened, title):
    for optimiser in (ADAM, ordered(ADAM)):
        found = opened({"net_a": MODEL, title: optimiser})
        assert list(found) == NAMES
        assert found.metadata["left_out"] == f"{title} (1 tensors)"
    assert list(opened({"net_a": MODEL, title: ADAM}, key=title)) == ["state.0.exp_avg"]


def test_numbers_of_any_size(opened):
    """The state of a random generator is one of 128 bits, without a sign."""
    state = {"state": (1 << 128) - 5, "inc": 3, "long": 1 << 2000}
    assert list(opened({"model": MODEL, "rng": state})) == NAMES


def test_keys_that_are_tuples(opened):
    beside = {"a": mapping((((1, 2), 3), 1)), "b": mapping((tuple(range(40)), 1))}
    assert list(opened({**MODEL, "info": beside})) == NAMES
    with pytest.raises(PickleError, match=r"under the key .*, no name"):
        opened({"w": mapping(((("a", 1), 2), W))})


def test_what_thousands_share(opened):
    """Each reference is to be as cheap as the tensors in it, not as all that stands beside them."""
    shared = op(code([None] * 100_000 + [W]), b"q\x01")
    found = opened([shared, *[op(b"h\x01")] * 500], budget=loaders.Budget(opcodes=400_000))
    assert len(found) == 501


def test_tensors_that_an_unknown_call_makes(opened):
    for tree in (tensor(call("a.b")), tensor(storage("FloatStorage", "0", 6), call("a.b"))):
        with pytest.raises(loaders.errors.CheckpointError, match="tensor 'v'"):
            opened({"w": W, "v": tree}, inert=True)
