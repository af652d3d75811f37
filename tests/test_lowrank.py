"""The change of a weight from two factors: its shape, its rows, its numbers, its spectrum."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import wwfunc
from wwfunc.checkpoint import ArrayHandle, Checkpoint, TensorHint
from wwfunc.errors import InputError
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(0)
UP = RNG.normal(size=(7, 2)).astype(np.float32)
DOWN = RNG.normal(size=(2, 5)).astype(np.float32)
KERNELS = RNG.normal(size=(2, 3, 4, 2)).astype(np.float32)


def low_rank(up, down, scale, shape, **more):
    return LowRank(ArrayHandle(up), ArrayHandle(down), scale, shape, **more)


DENSE = low_rank(UP, DOWN, 1.5, (7, 5))
CHANGES = {
    "dense": (DENSE, 1.5 * np.einsum("or,ri->oi", UP, DOWN)),
    "transposed": (
        low_rank(UP, DOWN, -2.0, (5, 7), transposed=True),
        -2.0 * np.einsum("or,ri->io", UP, DOWN),
    ),
    "sides of one": (
        low_rank(UP[:, :, None, None], DOWN, 1.0, (7, 5)),
        np.einsum("or,ri->oi", UP, DOWN),
    ),
    "pointwise": (
        low_rank(UP[:, :, None], DOWN[:, :, None], 1.0, (7, 5, 1)),
        np.einsum("or,ri->oi", UP, DOWN)[:, :, None],
    ),
    "convolution": (
        low_rank(UP[:, :, None, None], KERNELS, 0.5, (7, 3, 4, 2)),
        0.5 * np.einsum("or,rikl->oikl", UP, KERNELS),
    ),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_change_is_the_scaled_product(change, expected):
    read = change.read()
    assert read.shape == change.shape == expected.shape
    assert read.dtype == change.dtype == np.float32
    assert not read.flags.writeable
    np.testing.assert_allclose(read, expected, rtol=0, atol=1e-6 * np.linalg.norm(expected))


@pytest.mark.parametrize("rows", [slice(2, 4), slice(0, 0), slice(-1, None), slice(None, None, 3)])
@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_rows_are_those_of_the_whole(change, expected, rows):
    read, whole = change.read(rows), change.read()[rows]
    assert read.shape == whole.shape
    np.testing.assert_allclose(read, whole, rtol=3e-7)


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_factors_multiply_to_the_change(change, expected):
    left, right = change.factors()
    assert left.dtype == right.dtype == np.float64
    assert left.shape[1] == right.shape[0] == change.rank == 2
    product = (left @ right).reshape(change.shape)
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-6 * np.linalg.norm(expected))


def test_a_large_change_is_formed_in_blocks():
    """4,000 columns of float64 are 524 rows in 16 MiB: the seams are at rows 524 and 1,048."""
    up = RNG.normal(size=(1100, 3)).astype(np.float32)
    down = RNG.normal(size=(3, 4000)).astype(np.float32)
    read = low_rank(up, down, 1.0, (1100, 4000)).read()
    expected = up.astype(np.float64) @ down.astype(np.float64)
    np.testing.assert_allclose(read, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn])
def test_narrow_factors_are_multiplied_in_float64(dtype):
    up, down = UP.astype(dtype), DOWN.astype(dtype)
    change = low_rank(up, down, 0.1, (7, 5))
    exact = 0.1 * up.astype(np.float64) @ down.astype(np.float64)
    assert change.dtype == np.float32
    np.testing.assert_allclose(change.read(), exact, rtol=3e-7)


@pytest.mark.parametrize("sides", [(UP.astype(np.float64), DOWN), (UP, DOWN.astype(np.float64))])
def test_a_wide_factor_makes_a_wide_change(sides):
    change = low_rank(*sides, 0.1, (7, 5))
    exact = 0.1 * UP.astype(np.float64) @ DOWN.astype(np.float64)
    assert change.read().dtype == change.dtype == np.float64
    np.testing.assert_allclose(change.read(), exact, rtol=1e-14)


def test_infinite_weights_stay_infinite_without_a_warning():
    up = np.array([[np.inf], [3e38], [np.nan]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = low_rank(up, np.array([[1.0, 0.0]], np.float32), 1e10, (3, 2)).read()
    assert read[0, 0] == read[1, 0] == np.inf
    assert np.isnan(read[0, 1])
    assert np.isnan(read[2]).all()


def test_key_tells_what_is_shared():
    other = ArrayHandle(UP.copy())
    assert DENSE.key == low_rank(UP, DOWN, 1.5, (7, 5)).key
    hash(DENSE.key)
    for changed in (
        low_rank(UP, DOWN, 1.0, (7, 5)),
        low_rank(UP, DOWN, 1.5, (5, 7), transposed=True),
        LowRank(other, DENSE.down, 1.5, (7, 5)),
    ):
        assert changed.key != DENSE.key


def test_bytes_are_those_of_the_factors():
    assert DENSE.nbytes == UP.nbytes + DOWN.nbytes == 96


def test_it_travels_and_is_read_by_many():
    magnitude = ArrayHandle(np.ones(7))
    change = pickle.loads(
        pickle.dumps(low_rank(UP, DOWN, 1.5, (7, 5), alpha=3.0, magnitude=magnitude))
    )
    assert (change.alpha, change.rank, change.scale) == (3.0, 2, 1.5)
    assert change.magnitude.read().tolist() == [1.0] * 7
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda row: change.read(slice(row, row + 1)), range(7)))
    np.testing.assert_allclose(np.concatenate(rows), DENSE.read(), rtol=3e-7)


WRONG = {
    "another side": (UP, DOWN, (7, 6), False),
    "turned without saying so": (UP, DOWN, (5, 7), False),
    "said without being turned": (UP, DOWN, (7, 5), True),
    "other ranks": (UP, DOWN[:1], (7, 5), False),
    "kernel on the left": (UP[:, :, None, None] * np.ones((3, 3), np.float32), DOWN, (7, 5), False),
    "turned kernels": (UP, KERNELS[:, :, :1, :1], (3, 7, 1, 1), True),
    "a number": (UP[:1], DOWN[:, :1], (), False),
    "a vector": (UP, DOWN[:, :1], (7,), False),
    "factors without ranks": (UP[0], DOWN[0], (7, 5), False),
}


@pytest.mark.parametrize(("up", "down", "shape", "transposed"), WRONG.values(), ids=WRONG)
def test_factors_that_give_no_such_change(up, down, shape, transposed):
    with pytest.raises(InputError, match="give no change of"):
        low_rank(up, down, 1.0, shape, transposed=transposed)


def test_analysis_is_that_of_the_product():
    up, down = RNG.normal(size=(60, 50)), RNG.normal(size=(50, 55))
    change = low_rank(up, down, 0.5, (60, 55))
    hints = {"w": TensorHint("dense")}
    record = wwfunc.analyze(Checkpoint({"w": change}, hints=hints)).records[0]
    plain = wwfunc.analyze(Checkpoint({"w": 0.5 * up @ down}, hints=hints)).records[0]
    assert (record.layer.N, record.layer.M) == (60, 55)
    assert record.alpha == pytest.approx(plain.alpha, rel=1e-9)
    assert record.norm == pytest.approx(plain.norm, rel=1e-9)


# The spectrum, without the product ------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "cols", "rank"), [(60, 40, 4), (40, 60, 7), (30, 30, 30), (20, 9, 12)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_the_spectrum_is_that_of_the_product(rows, cols, rank, transposed):
    rng = np.random.default_rng(rank)
    up, down = rng.standard_t(3, (rows, rank)), rng.standard_t(3, (rank, cols))
    shape = (cols, rows) if transposed else (rows, cols)
    change = LowRank(ArrayHandle(up), ArrayHandle(down), 0.7, shape, transposed)
    record = wwfunc.analyze({"w": change}, min_evals=1).records[0]
    values = np.linalg.svd(0.7 * up @ down, compute_uv=False)
    np.testing.assert_allclose(record.sv_max, values[0], rtol=1e-12)
    np.testing.assert_allclose(record.norm, (values**2).sum(), rtol=1e-12)
    assert record.matrix_rank == min(rows, cols, rank)
    assert (max(rows, cols), min(rows, cols)) == (record.N, record.M)


def test_the_product_is_never_formed(monkeypatch):
    monkeypatch.setattr(LowRank, "read", None)
    rng = np.random.default_rng(0)
    factors = [ArrayHandle(rng.standard_normal(shape)) for shape in ((3000, 4), (4, 2000))]
    change = LowRank(*factors, 1.0, (3000, 2000))
    assert wwfunc.analyze({"w": change}).records[0].matrix_rank == 4
