"""Hostile tar files of PyTorch."""

from __future__ import annotations

import io
import struct
import tarfile
from contextlib import suppress

import pytest
from harness import accepted
from pickles import name, persistent, pickled
from torch_attacks import CALLS, says
from torch_files import tar_bytes, torch_tar

import loaders
from loaders import errors
from wwfunc.errors import CheckpointError

P, X, B = errors.PickleError, errors.UnsafeGlobalError, errors.BudgetError
L, E = errors.LayoutError, errors.ElementTypeError
A, T = errors.ArchiveError, errors.TruncatedError


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.tar"
    path.write_bytes(tar())
    return path


TAR_TENSOR = (7, 3, "FloatTensor", (2, 3), (3, 1), 0)
TAR_STORAGE = (3, "FloatStorage", 6, bytes(24))
TAR = torch_tar({"w": persistent(7)}, [TAR_TENSOR], [TAR_STORAGE])


def tar(**members):
    """The good file, members changed, added, or left out where None."""
    changed = {**TAR, **members}
    return tar_bytes({key: data for key, data in changed.items() if data is not None})


def link(title, target, kind):
    member = tarfile.TarInfo(title)
    member.type, member.linkname = kind, target
    return member


def tensors(*lines):
    return torch_tar({}, lines, [])["tensors"]


def storages(*lines, views=()):
    return torch_tar({}, [], lines, views)["storages"]


HUGE_RANK = (
    pickled(1) + pickled((7, 3, name("torch", "FloatTensor"))) + struct.pack("<ii", 2**30, 0)
)
TARS = {
    "a symbolic link": (tar(storages=link("storages", "/etc/passwd", b"2")), A, "no regular file"),
    "a hard link": (tar(storages=link("storages", "pickle", b"1")), A, "no regular file"),
    "a device": (tar(storages=link("storages", "", b"3")), A, "no regular file"),
    "a folder": (tar(folder=link("folder", "", b"5")), A, "no regular file"),
    "a member above": (tar(**{"../storages": b"x"}), A, r"\.\./storages"),
    "a member from the root": (tar(**{"/storages": b"x"}), A, "/storages"),
    "a member in a folder": (tar(**{"a/storages": b"x"}), A, "a/storages"),
    "a long name": (tar(**{"s" * 300: b"x"}), A, "pax|folder|member"),
    "no tensors": (tar(tensors=None), A, "no member 'tensors'"),
    "no pickle": (tar(pickle=None), A, "no member 'pickle'"),
    "a tensor of 2^30 sides": (tar(tensors=HUGE_RANK), L, "1073741824 dimensions"),
    "a tensor of -1 sides": (
        tar(tensors=HUGE_RANK[:-8] + struct.pack("<ii", -1, 0)),
        L,
        "-1 dimensions",
    ),
    "2^40 tensors": (tar(tensors=pickled(2**40)), B, "tensors"),
    "-1 tensors": (tar(tensors=pickled(-1)), P, "no number of lines"),
    "tensors by text": (tar(tensors=pickled("1")), P, "no number of lines"),
    "a tensor of no storage": (
        tar(tensors=tensors((7, 4, "FloatTensor", (6,), (1,), 0))),
        L,
        "no storage 4",
    ),
    "a tensor beyond its storage": (
        tar(tensors=tensors((7, 3, "FloatTensor", (7,), (1,), 0))),
        L,
        "storage of 6",
    ),
    "a tensor of a negative side": (
        tar(tensors=tensors((7, 3, "FloatTensor", (-6,), (1,), 0))),
        L,
        "natural",
    ),
    "a tensor that repeats 2^40 times": (
        tar(tensors=tensors((7, 3, "FloatTensor", (2**40,), (0,), 0))),
        B,
        "bytes of tensors",
    ),
    "one number twice": (tar(tensors=tensors(TAR_TENSOR, TAR_TENSOR)), L, "7 stands twice"),
    "the number of a storage": (
        tar(tensors=tensors(TAR_TENSOR, (3, 3, "FloatTensor", (6,), (1,), 0))),
        L,
        "3 stands for a storage",
    ),
    "a number that nothing has": (tar(pickle=pickled({"w": persistent(8)})), L, "no tensor 8"),
    "a reference that is no number": (tar(pickle=pickled({"w": persistent("x")})), P, "'x'"),
    "a storage cut off": (tar(storages=storages(TAR_STORAGE)[:-4]), P, "a pickle in 'storages'"),
    "a storage of 2^60": (tar(storages=storages((3, "FloatStorage", 2**60, b""))), T, "storages"),
    "a storage of -1": (tar(storages=storages((3, "FloatStorage", -1, b""))), L, "storages"),
    "a storage of no type": (tar(storages=storages((3, "Storage", 6, bytes(24)))), E, "Storage"),
    "storages twice": (tar(storages=storages(TAR_STORAGE, TAR_STORAGE)), L, "3 stands twice"),
    "a view beyond its storage": (
        tar(storages=storages(TAR_STORAGE, views=[(4, 3, 1, 6)])),
        L,
        "leaves its storage",
    ),
    "a view of no storage": (
        tar(storages=storages(TAR_STORAGE, views=[(4, 5, 1, 6)])),
        L,
        "no storage 5",
    ),
    "bytes behind the storages": (tar(storages=storages(TAR_STORAGE) + b"\0"), L, "follow"),
    "bytes behind the tensors": (tar(tensors=tensors(TAR_TENSOR) + b"\0"), L, "follow"),
    "a call among the storages": (tar(storages=CALLS[2]), X, r"os\.system"),
    "a call among the tensors": (tar(tensors=CALLS[2]), X, r"os\.system"),
    "cut off": (tar()[: 512 * 3], A, "ends at|cut off"),
    "something behind the end": (tar() + b"x", A, "bytes follow"),
}


@pytest.mark.parametrize("case", TARS)
def test_tar(good, tmp_path, case):
    content, error, match = TARS[case]
    bad = tmp_path / "bad.tar"
    bad.write_bytes(content)
    says(good, bad, error, match)


def test_tar_header_that_lies(good, tmp_path):
    bad = tmp_path / "bad.tar"
    bad.write_bytes(tar()[:124] + b"77777777777\0" + tar()[136:])
    says(good, bad, A, "checksum")


def test_many_storages_far_apart(good, tmp_path):
    """A line of the table stands every 128 KiB of a gigabyte: none of it stays in memory."""
    count, nbytes = 8000, 1 << 17
    lines = [pickled((number, "cpu", name("torch", "ByteStorage"))) for number in range(count)]
    size = len(pickled(count) + b"".join(lines) + pickled([])) + (8 + nbytes) * count
    views = [(10**6 + n, n, "ByteTensor", (nbytes,), (1,), 0) for n in range(count)]
    tree = {f"w{n}": persistent(10**6 + n) for n in range(count)}
    path = tmp_path / "x.tar"
    with open(path, "wb") as file:
        file.write(tar_header("storages", size) + pickled(count))
        for line in lines:
            file.write(line + struct.pack("<q", nbytes))
            file.seek(nbytes, io.SEEK_CUR)
        file.write(pickled([]))
        file.seek(-file.tell() % 512, io.SEEK_CUR)
        others = {"tensors": tensors(*views), "pickle": pickled(tree)}
        file.write(tar_bytes(others))
    accepted(good, path)


def tar_header(title, size):
    member = tarfile.TarInfo(title)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def test_every_cut_and_every_byte(tmp_path):
    """The zeros that fill blocks may be anything; what is changed elsewhere is refused or read."""
    whole, path = tar(), tmp_path / "x.tar"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with suppress(CheckpointError):
            loaders.load(path)
    for at in [at for at, byte in enumerate(whole) if byte]:
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        with suppress(CheckpointError):
            for handle in loaders.load(path).values():
                handle.read()
