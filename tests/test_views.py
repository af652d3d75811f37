"""Other views of a layer: slices alone, 1 / lambda, Glorot's scale, the operator on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

import wwfunc
from wwfunc import OptionError
from wwfunc.checkpoint import as_handle
from wwfunc.lowrank import LowRank

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(111).bit_generator.state


ALL = dict.fromkeys(("mp_fit", "randomize", "detX", "vectors", "ranks", "deltas", "farms"), True)


def normal(*shape):
    return RNG.standard_normal(shape)


def orthogonal(size):
    return np.linalg.qr(normal(size, size))[0]


def planted(out, into, taps):
    """A kernel (out, in, *taps) and the singular values of each of its slices."""
    sigma = RNG.uniform(1, 3, (math.prod(taps), min(out, into)))
    slices = []
    for own in sigma:
        middle = np.zeros((out, into))
        np.fill_diagonal(middle, own)
        slices.append(orthogonal(out) @ middle @ orthogonal(into))
    return np.stack(slices, -1).reshape(out, into, *taps), sigma


KERNEL, SIGMA = planted(16, 12, (3, 2))
MODEL = {"a.conv.weight": KERNEL, "b.weight": normal(40, 30), "c.weight": normal(20, 15, 3)}


# Slices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["host", "jax"])
@pytest.mark.parametrize("layout", ["torch", "flax"])
def test_slices_alone(layout, engine):
    """Slice i is tap i, row by row, times WeightWatcher's sqrt(rf / 2)."""
    model = {"conv.weight": KERNEL}
    if layout == "flax":
        model = {"conv.kernel": KERNEL.transpose(2, 3, 1, 0)}
    records = wwfunc.analyze(model, pool=False, engine=engine).records
    assert [record.part for record in records] == list("012345")
    for record, sigma in zip(records, SIGMA, strict=True):
        np.testing.assert_allclose(record.evals, np.sort(3 * sigma**2), rtol=1e-9)
        assert (record.rf, record.num_evals, record.N, record.M) == (1, 12, 16, 12)
        assert (record.layer_id, record.num_params) == (1, KERNEL.size // 6)


def test_slices_together():
    record = wwfunc.analyze({"conv.weight": KERNEL}).records[0]
    np.testing.assert_allclose(record.evals, np.sort(SIGMA.ravel() ** 2 / 2), rtol=1e-9)
    assert (record.part, record.rf, record.num_evals) == ("", 6, 72)


def test_other_layers_have_no_conv2d_norm():
    """A matrix stays one row; slices of a convolution in one dimension are as they are."""
    plain, alone = (wwfunc.analyze(MODEL, pool=pool) for pool in (True, False))
    assert alone["b"].row() == plain["b"].row()
    slices = [record.evals for record in alone if record.longname == "c"]
    np.testing.assert_allclose(np.sort(np.concatenate(slices)), plain["c"].evals, rtol=1e-9)


def test_each_slice_has_its_own_numbers():
    """As if it were a layer; and its own key, under its part."""
    analysis = wwfunc.analyze(MODEL, pool=False, layers="a.conv", **ALL)
    for index, record in enumerate(analysis):
        matrix = KERNEL[:, :, index // 2, index % 2] * math.sqrt(3)
        alone = wwfunc.analyze({"w.weight": matrix}, **ALL).records[0]
        for column in ("alpha", "sigma_mp", "detX_num", "tail_mean_loc_ratio", "effective_rank"):
            assert getattr(record, column) == pytest.approx(getattr(alone, column), rel=1e-8)
        assert record.spacing_ratio == pytest.approx(alone.spacing_ratio, rel=1e-8)
        assert record.farms_alpha == pytest.approx(alone.farms_alpha, rel=1e-8)
    assert len({record.max_rand_eval for record in analysis}) == 6


def test_a_row_for_each_slice_and_one_for_the_tensor():
    analysis = wwfunc.analyze(MODEL, pool=False)
    parts = [(record.longname, record.part) for record in analysis]
    assert parts == [("a.conv", str(i)) for i in range(6)] + [("b", "")] + [
        ("c", str(i)) for i in range(3)
    ]
    assert [row.tensor for row in analysis.coverage] == list(MODEL)
    assert {row.status for row in analysis.coverage} == {"analysed"}
    assert analysis.coverage.share == 1
    assert sum(record.num_params for record in analysis) == analysis.coverage.num_params
    assert analysis.summary["num_layers"] == 10


def test_describe_has_the_same_rows():
    for options in ({"pool": False}, {"conv2d_fft": 8}, {}):
        found = [
            [(r.longname, r.part, r.N, r.M, r.rf, r.num_evals, r.num_params) for r in rows]
            for rows in (verb(MODEL, **options) for verb in (wwfunc.analyze, wwfunc.describe))
        ]
        assert found[0] == found[1]
    described = wwfunc.describe(MODEL, pool=False)
    assert {row.status for row in described.coverage} == {"described"}
    assert described.coverage.share == 1


def test_progress_counts_rows_that_are_measured():
    seen = []
    wwfunc.analyze(
        {**MODEL, "d.weight": normal(9, 5, 3, 3)},
        pool=False,
        progress=lambda done, total, name: seen.append((done, total, name)),
    )
    assert [done for done, _, _ in seen] == list(range(1, 11))
    assert {total for _, total, _ in seen} == {10}
    assert sorted(name for _, _, name in seen) == ["a.conv"] * 6 + ["b"] + ["c"] * 3


def test_a_tensor_is_covered_as_well_as_its_best_slice():
    broken = {"one.weight": KERNEL.copy(), "all.weight": np.full((16, 12, 3, 3), np.nan)}
    broken["one.weight"][0, 0, 1, 1] = np.nan
    analysis = wwfunc.analyze(broken, pool=False)
    failed = [(r.longname, r.part) for r in analysis if r.measures is None]
    assert failed == [("all", str(i)) for i in range(9)] + [("one", "3")]
    rows = {row.longname: row for row in analysis.coverage}
    assert (rows["one"].status, rows["one"].reason) == ("analysed", "")
    assert rows["all"].status == "skipped"
    assert rows["all"].reason.startswith("failed: NaN or infinity")


def test_filters_and_selectors_of_slices():
    """min_evals is asked of each slice; a name and an id take all slices."""
    few = wwfunc.analyze(MODEL, pool=False, min_evals=13)
    skipped = {record.status for record in few if record.longname == "a.conv"}
    assert skipped == {"skipped: 12 eigenvalues, min_evals is 13"}
    assert few.coverage[0].reason == "skipped: 12 eigenvalues, min_evals is 13"
    for selector in ("a.conv", 1, "conv2d"):
        assert len(wwfunc.analyze(MODEL, pool=False, layers=selector)) == 6


def test_slices_of_an_adapter_and_of_what_was_saved(tmp_path):
    change = LowRank(
        as_handle(normal(24, 10)), as_handle(normal(10, 16, 3, 3)), 2.0, (24, 16, 3, 3)
    )
    dense = {"w.weight": np.asarray(change.read())}
    analysis = wwfunc.analyze({"w.weight": change}, pool=False)
    for own, plain in zip(analysis, wwfunc.analyze(dense, pool=False), strict=True):
        np.testing.assert_allclose(own.evals[6:], plain.evals[6:], rtol=1e-8)
    analysis.save(tmp_path / "rows.json")
    again = wwfunc.load_analysis(tmp_path / "rows.json")
    assert [r.part for r in again] == list("012345678")
    np.testing.assert_array_equal(again.records[8].evals, analysis.records[8].evals)


# Inverse --------------------------------------------------------------------------------------


def test_the_inverse_of_a_diagonal_matrix():
    sigma = np.arange(1.0, 41.0)
    record = wwfunc.analyze({"w.weight": np.diag(sigma)}, inverse=True).records[0]
    np.testing.assert_allclose(record.evals, np.sort(sigma**-2.0), rtol=1e-12)
    assert record.lambda_max == pytest.approx(1.0)
    assert record.norm == pytest.approx(np.sum(sigma**-2.0))
    # What is asked about the weights themselves stays theirs.
    assert (record.sv_max, record.matrix_rank) == (pytest.approx(40.0), 40)


@pytest.mark.parametrize("engine", ["host", "jax"])
def test_it_is_the_analysis_of_the_inverse_matrix(engine):
    W = normal(60, 40)
    ours = wwfunc.analyze({"w.weight": W}, inverse=True, vectors=True, engine=engine).records[0]
    theirs = wwfunc.analyze({"w.weight": np.linalg.pinv(W).T}, vectors=True).records[0]
    columns = ["alpha", "D", "xmin", "num_pl_spikes", "log_norm", "stable_rank", "entropy"]
    columns += [f"{s}_{m}_loc_ratio" for s in ("bulk", "tail") for m in ("mean", "var")]
    for column in columns:
        expected = pytest.approx(getattr(theirs, column), rel=1e-7, nan_ok=True)
        assert getattr(ours, column) == expected, column
    assert ours.tail_mean_loc_ratio > 1


def test_what_rounding_does_not_resolve_has_no_inverse():
    """Neither an eigenvalue nor a vector: the tail holds the smallest that are known."""
    W = normal(60, 30) @ normal(30, 40)
    record = wwfunc.analyze({"w.weight": W}, inverse=True, vectors=True).records[0]
    smallest = np.linalg.svd(W, compute_uv=False)[29]
    assert record.evals.size == 30
    assert record.lambda_max == pytest.approx(smallest**-2, rel=1e-8)
    vectors = np.linalg.svd(W)[2]
    tail = vectors[30 - record.num_pl_spikes : 30]
    ratio = np.abs(tail).sum(1) / np.abs(tail).max(1)
    assert record.tail_mean_loc_ratio == pytest.approx(ratio.mean(), rel=1e-8)


def test_other_options_look_at_the_weights_themselves():
    """Only the fit is of 1 / lambda: its tail is no measure of the trace-log condition."""
    model = {"w.weight": normal(60, 40)}
    options = dict.fromkeys(("mp_fit", "randomize", "detX", "ranks", "deltas"), True)
    plain, inverse = (wwfunc.analyze(model, inverse=i, **options).records[0] for i in (False, True))
    for column in (
        *("sigma_mp", "bulk_max", "num_spikes", "mp_softrank", "max_rand_eval", "rand_distance"),
        *("ww_maxdist", "detX_num", "detX_val", "effective_rank", "spacing_ratio", "num_traps"),
    ):
        assert getattr(inverse, column) == getattr(plain, column), column
    assert math.isnan(inverse.ERG_gap)
    assert math.isnan(inverse.random_stable_rank)
    assert plain.random_stable_rank > 1
    assert not math.isnan(plain.ERG_gap)


# Scale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "taps", "factor"),
    [("w", (), 1), ("embedding", (), 1), ("w", (5,), 1), ("w", (3, 3), 0.5), ("w", (2, 2, 2), 1)],
)
def test_only_a_two_dimensional_convolution_is_scaled(name, taps, factor):
    W = normal(20, 16, *taps)
    record = wwfunc.analyze({f"{name}.weight": W}).records[0]
    assert record.norm == pytest.approx(factor * np.sum(W**2), rel=1e-12)


# Glorot's scale -------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("shape", [(300, 200), (64, 48, 3, 3), (80, 60, 5), (200, 300)])
def test_a_layer_as_glorot_initialises_it_has_unit_variance(shape, pool):
    """Var = 2 / (rf (N + M)): elements of variance 1 have the mean eigenvalue N."""
    rf = math.prod(shape[2:])
    W = normal(*shape) * math.sqrt(2 / (rf * (shape[0] + shape[1])))
    records = wwfunc.analyze({"w.weight": W}, glorot_fix=True, mp_fit=True, pool=pool).records
    N = max(shape[:2])
    exact = W**2 * rf * (shape[0] + shape[1]) / 2
    means = [record.evals.mean() / N for record in records]
    assert np.mean(means) == pytest.approx(exact.mean(), rel=1e-9)
    np.testing.assert_allclose(means, 1.0, rtol=0.1 if not pool else 0.02)
    assert np.mean([record.sigma_noise for record in records]) == pytest.approx(1.0, rel=0.02)


# The operator on a grid -----------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["host", "jax"])
@pytest.mark.parametrize("layout", ["torch", "flax"])
def test_a_convolution_as_one_operator(layout, engine):
    """Singular values of the circular convolution, without conv2d_norm."""
    model = {"conv.weight": KERNEL}
    if layout == "flax":
        model = {"conv.kernel": KERNEL.transpose(2, 3, 1, 0)}
    record = wwfunc.analyze(model, conv2d_fft=6, engine=engine).records[0]
    transformed = np.fft.fft2(KERNEL, (6, 6), axes=(2, 3)).transpose(2, 3, 0, 1)
    exact = np.sort(np.linalg.svd(transformed, compute_uv=False).ravel() ** 2)
    np.testing.assert_allclose(record.evals, exact, rtol=0, atol=1e-10 * exact[-1])
    assert (record.part, record.rf, record.num_evals) == ("6 x 6", 36, 36 * 12)
    assert record.norm == pytest.approx(36 * np.sum(KERNEL**2), rel=1e-10)


def test_other_layers_and_other_options_on_a_grid():
    plain = wwfunc.analyze(MODEL)
    for options in ({}, {"pool": False}):
        grid = wwfunc.analyze(MODEL, conv2d_fft=True, **options)
        assert grid.options.conv2d_fft == 32
        assert (grid["a.conv"].part, grid["a.conv"].num_evals) == ("32 x 32", 1024 * 12)
        assert grid["b"].row() == plain["b"].row()
    assert len(wwfunc.analyze(MODEL, conv2d_fft=False)) == 3


@pytest.mark.parametrize("engine", ["host", "jax"])
def test_an_operator_is_compared_with_no_random_matrix(engine):
    """Nor shuffled, nor cut into windows; what is of eigenvalues alone is there."""
    record = wwfunc.analyze(
        {"a.weight": KERNEL}, conv2d_fft=6, engine=engine, trust=True, replicates=19, **ALL
    ).records[0]
    assert record.status.startswith("success")
    for column in (
        *("sigma_mp", "W_scale", "mp_softrank", "rand_sigma_mp", "max_rand_eval", "rand_distance"),
        *("bulk_mean_loc_ratio", "tail_mean_loc_ratio", "random_loc_ratio", "random_stable_rank"),
        *("random_effective_rank", "spacing_ratio", "farms_alpha", "p_random"),
    ):
        assert math.isnan(getattr(record, column)), column
    assert (record.num_spikes, record.num_traps) == (None, None)
    assert not math.isnan(record.p_value)
    assert 0 < record.detX_num < record.num_evals
    assert 1 < record.effective_rank < record.num_evals


@pytest.mark.parametrize("engine", ["host", "jax"])
def test_a_grid_smaller_than_the_kernel_is_the_status_of_its_row(engine):
    analysis = wwfunc.analyze(MODEL, conv2d_fft=2, engine=engine)
    reason = "failed: InputError: conv2d_fft=2 is smaller than the kernel, 3 x 2"
    assert analysis["a.conv"].status == reason
    assert analysis.coverage[0].reason == reason
    assert [record.status for record in analysis.records[1:]] == ["success"] * 2
    assert wwfunc.analyze(MODEL, conv2d_fft=3)["a.conv"].status.startswith("success")


@pytest.mark.parametrize("grid", [0, -3, 2.5, "32", math.nan])
def test_a_grid_is_a_whole_number(grid):
    with pytest.raises(OptionError, match="conv2d_fft is a whole number from 1"):
        wwfunc.analyze(MODEL, conv2d_fft=grid)
