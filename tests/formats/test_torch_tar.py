"""PyTorch's tar files, of 0.1.9 and before: by hand, as no writer of them is left."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from pickles import Raw, name, persistent, pickled
from torch_files import tar_bytes, torch_tar

import loaders
from loaders import errors

GRID = np.arange(6, dtype="<f4").reshape(2, 3)
COUNTS = np.array([[2**40], [-1]], "<i8")
STORAGES = [(3, "FloatStorage", 6, GRID.tobytes()), (4, "LongStorage", 2, COUNTS.tobytes())]
TENSORS = [
    (7, 3, "FloatTensor", (2, 3), (3, 1), 0),
    (8, 3, "FloatTensor", (3, 2), (1, 3), 0),
    (9, 3, "FloatTensor", (2,), (1,), 4),
    (10, 4, "LongTensor", (2, 1), (1, 1), 0),
    (11, 5, "FloatTensor", (2,), (1,), 1),
    (12, 3, "FloatTensor", (), (), 5),
]
VIEWS = [(5, 3, 2, 3)]
TREE = {
    "whole": persistent(7),
    "transposed": persistent(8),
    "row": persistent("9"),
    "counts": persistent(10),
    "view": persistent(11),
    "scalar": persistent(12),
    "tied": persistent(7),
    "storage": persistent(4),
}
EXPECTED = {
    "whole": GRID,
    "transposed": GRID.T,
    "row": GRID.ravel()[4:],
    "counts": COUNTS,
    "view": GRID.ravel()[3:5],
    "scalar": GRID[1, 2],
    "tied": GRID,
    "storage": COUNTS.ravel(),
}


def opened(tmp_path, members, **options):
    path = tmp_path / "x.tar"
    path.write_bytes(members if isinstance(members, bytes) else tar_bytes(members))
    return loaders.load(path, **options)


def assert_same(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


def test_tensors(tmp_path):
    checkpoint = opened(tmp_path, torch_tar(TREE, TENSORS, STORAGES, VIEWS))
    assert list(checkpoint) == list(EXPECTED)
    for title, expected in EXPECTED.items():
        assert_same(checkpoint[title].read(), expected)
        assert not checkpoint[title].read().flags.writeable
    assert checkpoint["whole"].key == checkpoint["tied"].key != checkpoint["transposed"].key


def test_it_is_told_by_its_content(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(tar_bytes(torch_tar(TREE, TENSORS, STORAGES, VIEWS)))
    assert loaders.detect(path) == "torch-tar"


def test_members_with_pax_headers(tmp_path):
    """Python 3 gives every member one, for the fraction of the second it was written in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for title, data in torch_tar(TREE, TENSORS, STORAGES, VIEWS).items():
            member = tarfile.TarInfo(title)
            member.size, member.mtime, member.uname = len(data), 1485000000.25, "żółw"
            member.pax_headers = {"size": str(len(data)), "comment": "any\nthing"}
            archive.addfile(member, io.BytesIO(data))
    checkpoint = opened(tmp_path, buffer.getvalue())
    assert_same(checkpoint["whole"].read(), GRID)
    assert_same(checkpoint["counts"].read(), COUNTS)


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_dialects(tmp_path, dialect):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
        for title, data in torch_tar(TREE, TENSORS, STORAGES, VIEWS).items():
            member = tarfile.TarInfo(title)
            member.size, member.uid, member.mtime = len(data), 1000, 1485000000
            archive.addfile(member, io.BytesIO(data))
    assert_same(opened(tmp_path, buffer.getvalue())["whole"].read(), GRID)


def test_without_system_information(tmp_path):
    members = torch_tar(TREE, TENSORS, STORAGES, VIEWS)
    del members["sys_info"]
    assert_same(opened(tmp_path, members)["whole"].read(), GRID)


def test_a_tensor_that_nothing_refers_to_is_left_out(tmp_path):
    checkpoint = opened(tmp_path, torch_tar({"w": persistent(7)}, TENSORS, STORAGES, VIEWS))
    assert list(checkpoint) == ["w"]


def test_module_with_its_source(tmp_path):
    layer = persistent((name("my.models", "Layer"), "/home/me/models.py", "raise SystemExit"))
    state = {"_parameters": {"weight": persistent(7)}, "_buffers": {}, "_modules": {}}
    made = Raw(layer + b")\x81" + pickled(state)[2:-1] + b"b")
    assert list(opened(tmp_path, torch_tar(made, TENSORS, STORAGES, VIEWS))) == ["weight"]


def test_a_part_by_its_key(tmp_path):
    tree = {"ema": {"w": persistent(7)}, "model": {"v": persistent(8)}}
    members = torch_tar(tree, TENSORS, STORAGES, VIEWS)
    with pytest.raises(errors.AmbiguousError, match="ema"):
        opened(tmp_path, members)
    assert list(opened(tmp_path, members, key="model")) == ["v"]
