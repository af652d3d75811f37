"""What holds for the checkpoints of every format: lazy, read-only, picklable, all of it counted."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from files import python, write
from fuzz.seeds import seeds
from torch_files import storage, tensor, torch_zip

import loaders
import wwfunc
from loaders import errors
from wwfunc.cli import main

SEEDS = [(name, path) for name, paths in seeds().items() for path in paths]
IDS = [f"{name}-{path.name}" for name, path in SEEDS]
each_seed = pytest.mark.parametrize(("name", "path"), SEEDS, ids=IDS)
NEEDS_GGUF = "quantised.gguf"
CODES = "nothing to analyse in 3 tensors"
NO_TABLE = {"steps": "2 steps or items; choose one", "int8.keras": CODES, "unpacked": CODES}


def opened(path):
    """The checkpoint, or of several steps of a run the last."""
    try:
        return loaders.load(path)
    except errors.AmbiguousError as cause:
        return loaders.load(path, key=str(cause).rpartition("[")[2].split("'")[-2])


@each_seed
def test_handles(name, path):
    found = opened(path)
    assert found
    for handle in found.values():
        copy = pickle.loads(pickle.dumps(handle))
        assert (copy.shape, copy.dtype, copy.nbytes) == (handle.shape, handle.dtype, handle.nbytes)
        if path.name == NEEDS_GGUF:
            continue
        array = handle.read()
        assert (array.shape, array.dtype) == (handle.shape, handle.dtype)
        assert not array.flags.writeable
        part = slice(1, None, 2)
        if array.ndim:
            np.testing.assert_array_equal(handle.read(part), array[part])
        assert copy.read().tobytes() == array.tobytes()


@each_seed
def test_every_tensor_has_a_row(name, path):
    found = opened(path)
    for analysis in (wwfunc.describe(found, min_evals=1), wwfunc.analyze(found, min_evals=1)):
        assert {row.tensor for row in analysis.coverage} == set(found)
        assert all(row.reason for row in analysis.coverage.skipped)


@each_seed
def test_the_command_line_gives_a_table_or_one_line(name, path, capsys):
    code = main(["describe", str(path), "--min-evals", "1"])
    shown = capsys.readouterr()
    if path.name in NO_TABLE:
        assert (code, len(shown.err.splitlines())) == (1, 1)
        assert NO_TABLE[path.name] in shown.err
    else:
        assert (code, shown.err) == (0, "")
        assert "coverage:" in shown.out


HEAVY = ["torch", "tensorflow", "keras", "jax", "flax", "orbax", "tensorstore", "h5py", "onnx"]


def test_no_framework_is_imported():
    code = (
        "import sys, loaders\n"
        "for path in sys.argv[1:]:\n"
        "    try: loaders.load(path)\n"
        "    except loaders.errors.AmbiguousError: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert python("-c", code, *(path for _, path in SEEDS)) == "[]\n"


def test_shards_of_pytorch(tmp_path):
    arrays = {name: np.arange(6.0, dtype="f4").reshape(2, 3) + at for at, name in enumerate("ab")}
    for name, array in arrays.items():
        tree = {name: tensor(storage("FloatStorage", "0", 6), size=array.shape)}
        torch_zip(tmp_path / f"{name}.bin", tree, {"0": array.tobytes()})
    places = {"weight_map": {name: f"{name}.bin" for name in arrays}}
    index = write(tmp_path / "pytorch_model.bin.index.json", json.dumps(places))
    for path in (tmp_path, index):
        found = loaders.load(path)
        assert list(found) == ["a", "b"]
        assert all(np.array_equal(found[name].read(), arrays[name]) for name in arrays)
