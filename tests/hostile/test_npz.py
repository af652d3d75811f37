"""Hostile .npz and .npy files, each in a process of its own that is watched."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from files import write
from harness import accepted, refused
from jax_files import fields, npy, npz

from loaders import errors

EIGHT = bytes(8)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npz")
    deflated = zipfile.ZIP_DEFLATED
    return npz(folder / "good.npz", deflated, a=npy(fields(), EIGHT), b=npy(fields(), EIGHT))


H, T, E = errors.HeaderError, errors.TruncatedError, errors.ElementTypeError
LONE = {
    "terabytes": (npy(fields(shape=(10**12,)), EIGHT), T, "takes 4,000,000,000,000 bytes"),
    "a call": (npy(b"{'descr': __import__('os').system('touch x'), 'shape': ()}"), H, "NumPy does"),
    "deep brackets": (npy(b"(" * 65_000), H, "NumPy does not write"),
    "deep minus": (npy(b"{'shape': (" + b"-" * 65_000 + b"1,)}"), H, "NumPy does not write"),
    "blanks": (npy(b"{" + b" " * 65_000 + b"'shape'"), H, "NumPy does not write"),
    "commas": (npy(b"{'shape': (" + b"1," * 30_000), H, "NumPy"),
    "quotes": (npy(b"{'descr': '" + b"x" * 65_000), H, "NumPy does not write"),
    "a digit too long": (npy(b"{'shape': (" + b"9" * 65_000 + b",)}"), H, "NumPy does not write"),
    "records over and over": (
        npy(b"{'descr':[" + b"],'descr':[" * 5_900 + b"x", version=2),
        E,
        "holds records",
    ),
    "blanks behind the shape": (
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)" + b" " * 65_000 + b"x"),
        H,
        "NumPy does not write",
    ),
    "blanks before every value": (npy(b"{'descr'" + b" " * 65_000 + b"x"), H, "NumPy does not"),
    "header of 4 GiB": (b"\x93NUMPY\x02\0\xff\xff\xff\xff", H, "a header of 4,294,967,307 bytes"),
    "objects": (npy(fields(descr="|O", shape=(1,)), b"cos\nsystem\n."), E, "Python objects"),
}


@pytest.mark.parametrize(("content", "error", "match"), LONE.values(), ids=LONE)
def test_lone_array(tmp_path, good, content, error, match):
    refused(good, write(tmp_path / "bad.npy", content), error, match)


def test_zeros_that_expand_a_thousandfold(tmp_path, good):
    zeros = npy(fields(shape=(50_000_000,)), bytes(200_000_000))
    bad = npz(tmp_path / "bad.npz", zipfile.ZIP_DEFLATED, a=zeros)
    assert bad.stat().st_size < 250_000
    refused(good, bad, errors.BudgetError, "200,000,000 bytes of tensors in")


def test_header_that_expands_to_more_than_it_may(tmp_path, good):
    bad = npz(tmp_path / "bad.npz", zipfile.ZIP_DEFLATED, a=npy(b" " * 5_000_000, version=2))
    refused(good, bad, H, "a header of 5,000,012 bytes")


def test_many_arrays(tmp_path, good):
    content = npy(fields(), EIGHT)
    many = npz(tmp_path / "many.npz", **{f"a{number}": content for number in range(10_000)})
    accepted(good, many)
    with zipfile.ZipFile(many, "a") as archive:
        for number in range(42_000):
            archive.writestr(f"b{number}.npy", b"")
    refused(good, many, errors.BudgetError, "52,000 archive entries")


def test_what_numpy_pickles_is_never_unpickled(tmp_path, good):
    content = io.BytesIO()
    np.save(content, np.array([print], object), allow_pickle=True)
    bad = npz(tmp_path / "bad.npz", a=npy(fields(), EIGHT), b=content.getvalue())
    accepted(good, bad)
    alone = npz(tmp_path / "alone.npz", b=content.getvalue())
    refused(good, alone, E, "'b.npy' holds Python objects")


def test_many_long_headers(tmp_path, good):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)" + b" " * 60_000 + b"}"
    long = npy(head, EIGHT)
    arrays = {f"a{number}": long for number in range(9_000)}
    bad = npz(tmp_path / "bad.npz", zipfile.ZIP_DEFLATED, **arrays)
    refused(good, bad, errors.BudgetError, "header bytes are over the budget")
