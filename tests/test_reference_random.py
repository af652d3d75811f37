"""Random-matrix columns of `analyze` against WeightWatcher 0.7.7's tables, end to end."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import seeded
from test_reference import CONV_SV_MIN, SETS, compare, joined, table

import wwfunc
from wwfunc import Status, host
from wwfunc.randommatrix.marchenkopastur import fit_bulk
from wwfunc.randommatrix.permutation import words
from wwfunc.randommatrix.randomised import randomised
from wwfunc.randommatrix.shuffling import host_shuffles

ROWS = {"minilm": 39, "seeded": 12}
FAILED_THERE = "embeddings.position_embeddings"
CONVOLUTIONS = ["features.0", "features.3", "features.6"]


@pytest.fixture(scope="module")
def randomised_tables(paths):
    """Our rows beside theirs, and the whole analyses."""
    found = {}
    for name in SETS:
        analysis = wwfunc.analyze(
            paths[name], mp_fit=True, mp_method="kde", randomize=True, detX=True
        )
        reference = table(f"{name}_random_matrix")
        assert len(reference) == ROWS[name]
        found[name] = reference, joined(reference, analysis)
    return found


def close(ours, theirs, columns, relative, absolute=0.0):
    for column in columns:
        np.testing.assert_allclose(
            ours[column].astype(float),
            theirs[column].astype(float),
            rtol=relative,
            atol=absolute,
            err_msg=column,
        )


@pytest.mark.parametrize("name", SETS)
def test_the_bulk(name, randomised_tables):
    reference, ours = randomised_tables[name]
    close(ours, reference, ["W_scale"], 1e-9)
    rows = reference.index.drop(FAILED_THERE, errors="ignore")
    theirs, ours = reference.loc[rows], ours.loc[rows]
    close(ours, theirs, ["sigma_mp", "mp_softrank", "bulk_max"], 1e-6)
    square = theirs.Q == 1
    assert square.any()
    close(ours[~square], theirs[~square], ["bulk_min"], 1e-6)
    close(ours[square], theirs[square], ["bulk_min"], 0, 1e-12)
    np.testing.assert_array_equal(ours.num_spikes.astype(int), theirs.num_spikes)


def test_where_their_search_has_no_overlap_ours_has_no_number(randomised_tables):
    """WeightWatcher reports the first sigma that it tries, and 21 spikes beside it."""
    reference, ours = (rows.loc[FAILED_THERE] for rows in randomised_tables["minilm"])
    assert reference.num_spikes == 21
    assert np.isnan([ours.sigma_mp, ours.bulk_min, ours.bulk_max, ours.mp_softrank]).all()
    assert np.isnan(ours.num_spikes)
    assert ours.status == f"success; mp_fit {Status.NO_BULK.sentence}"
    assert ours.alpha == pytest.approx(reference.alpha, rel=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_the_trace_log(name, randomised_tables):
    """Their two values are swapped; of ten eigenvalues all are needed, where they stop before."""
    reference, ours = randomised_tables[name]
    for column in ("detX_num", "num_ERG_spikes", "ERG_gap"):
        np.testing.assert_array_equal(ours[column].astype(float), reference[column], column)
    rows = reference.index.drop("classifier.narrow", errors="ignore")
    swapped = {"detX_val": "detX_val_unrescaled", "detX_val_unrescaled": "detX_val"}
    close(ours.loc[rows], reference.loc[rows].rename(columns=swapped), list(swapped), 1e-9)
    assert (reference.detX_val / reference.detX_val_unrescaled - 1).abs().max() > 1


@pytest.mark.parametrize("name", SETS)
def test_what_shuffling_adds_is_near_one_draw_of_theirs(name, randomised_tables):
    """Scale and edges do not depend on the shuffle by much; in two convolutions traps do."""
    reference, ours = randomised_tables[name]
    close(ours, reference, ["rand_W_scale"], 1e-8)
    close(ours, reference, ["rand_sigma_mp", "rand_bulk_max"], 0.1)
    close(ours, reference, ["max_rand_eval", "rand_mp_softrank", "ww_softrank"], 0.2)
    rows = reference.index.difference(["features.3", "features.6"])
    assert (reference.num_traps[rows] > 0).sum() == {"minilm": 6, "seeded": 1}[name]
    np.testing.assert_array_equal(ours.num_traps[rows].astype(int), reference.num_traps[rows])
    if name == "seeded":
        assert abs(ours.num_traps["features.3"] - reference.num_traps["features.3"]) < 8


@pytest.mark.parametrize("name", SETS)
def test_the_fit_is_the_same_beside_the_options(name, randomised_tables):
    reference, ours = randomised_tables[name]
    alone = ours.status.str.replace(r"; mp_fit failed: .*", "", regex=True)
    compare(reference, ours.assign(status=alone), leave_out=CONV_SV_MIN)


def test_slices_alone(seeded_path):
    """Their rf stays 9 for a slice, and slices of three eigenvalues have no row."""
    reference = table("seeded_pool_false").reset_index()
    analysis = wwfunc.analyze(seeded_path, pool=False, mp_fit=True, mp_method="kde")
    few = [record for record in analysis if record.longname == "features.0"]
    assert {record.status for record in few} == {"skipped: 3 eigenvalues, min_evals is 8"}
    assert len(few) == 9
    measured = {(r.longname, int(r.part or 0)): r for r in analysis.measured}
    keys = list(zip(reference.longname, reference.slice_id, strict=True))
    assert set(keys) == set(measured)
    assert len(keys) == 27
    ours = analysis.details[analysis.details.longname != "features.0"].copy()
    ours["slice_id"] = [int(part or 0) for part in ours.part]
    ours = ours.set_index(["longname", "slice_id"]).loc[keys]
    reference = reference.set_index(["longname", "slice_id"])
    compare(reference.drop(columns="rf"), ours)
    columns = ["sigma_mp", "mp_softrank", "bulk_max", "W_scale"]
    close(ours, reference, columns, 1e-6)
    np.testing.assert_allclose(ours.bulk_min, reference.bulk_min, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(ours.num_spikes.astype(int), reference.num_spikes)
    assert set(ours.rf) == {1}


@pytest.mark.parametrize("name", SETS)
def test_inverse(name, paths):
    """They invert the slices of a convolution again for each later one."""
    reference = table(f"{name}_inverse")
    ours = joined(reference, wwfunc.analyze(paths[name], inverse=True))
    dense = [longname for longname in reference.index if longname not in CONVOLUTIONS]
    texts = ["name", "layer_type", "status", "warning"]
    for column in [c for c in reference if c in ours and c != "weak_rank_loss"]:
        theirs, own = reference.loc[dense, column], ours.loc[dense, column]
        if column in texts:
            assert list(theirs.fillna("")) == list(own.fillna("")), column
        else:
            # They add 1e-10 to every share: it shows where one eigenvalue holds all but 1e-4.
            absolute = 1e-6 if column == "entropy" else 0.0
            own = own.astype(float)
            np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=absolute, err_msg=column)


def test_the_inverse_of_a_convolution_is_that_of_each_slice(seeded_path):
    kernel = seeded.tensors()["features.3.weight"].astype(np.float64)
    slices = kernel.reshape(96, 64, 9).transpose(2, 0, 1)
    smallest = np.linalg.svd(slices, compute_uv=False).min() * np.sqrt(0.5)
    ours = wwfunc.analyze(seeded_path, layers="features.3", inverse=True).records[0]
    assert ours.lambda_max == pytest.approx(smallest**-2, rel=1e-8)
    theirs = table("seeded_inverse").loc["features.3"]
    assert theirs.lambda_max == pytest.approx(smallest**-2, rel=1e-6)
    assert abs(theirs.norm / ours.norm - 1) > 0.1


METRICS = ["vec_entropy", "loc_ratio", "part_ratio"]
AT_XMIN = ["features.3", "features.6"]


def over_all(rows, tail, metric):
    """Mean and mean square over the vectors of both sides, of which `tail` are in the tail."""
    weights = {"tail": tail, "bulk": rows.num_evals - tail}
    means = {side: rows[f"{side}_mean_{metric}"] for side in weights}
    squares = {side: rows[f"{side}_var_{metric}"] + means[side] ** 2 for side in weights}
    return [
        (sum(weights[side] * moment[side] for side in weights) / rows.num_evals).astype(float)
        for moment in (means, squares)
    ]


def test_vectors(seeded_path):
    """Rounding cuts their tail one eigenvalue above xmin in most layers: both sides together agree.

    The same vectors with their own cut are compared in tests/test_vectors.py.
    """
    reference = table("seeded_vectors")
    ours = joined(reference, wwfunc.analyze(seeded_path, vectors=True))
    compare(reference, ours, leave_out=CONV_SV_MIN)
    columns = [
        f"{s}_{m}_{name}" for s in ("bulk", "tail") for m in ("mean", "var") for name in METRICS
    ]
    np.testing.assert_allclose(
        ours.loc[AT_XMIN, columns].astype(float), reference.loc[AT_XMIN, columns], rtol=1e-6
    )
    tail = ours.num_pl_spikes.astype(int)
    theirs = tail - ~reference.index.isin(AT_XMIN)
    for metric in METRICS:
        for own, other in zip(
            over_all(ours, tail, metric), over_all(reference, theirs, metric), strict=True
        ):
            np.testing.assert_allclose(own, other, rtol=1e-6, err_msg=metric)
    moved = (ours.tail_mean_loc_ratio / reference.tail_mean_loc_ratio - 1).abs()
    assert (moved.drop(AT_XMIN) > 1e-6).all()


@pytest.mark.parametrize(("longname", "seed"), [("classifier.spiked", 3), ("features.0", 5)])
def test_columns_are_those_of_the_functions(longname, seed, seeded_path):
    """Through the file, the key of the layer and the seed; features.0 has five shuffles."""
    record = wwfunc.analyze(
        seeded_path, layers=longname, randomize=True, mp_method="kde", seed=seed
    ).records[0]
    tensor = seeded.tensors()[f"{longname}.weight"]
    stack = tensor[None] if tensor.ndim == 2 else tensor.reshape(64, 3, 9).transpose(2, 0, 1)
    scale = 1.0 if tensor.ndim == 2 else np.sqrt(0.5)
    copies = 1 if tensor.ndim == 2 else 5
    with jax.enable_x64(True):
        key = words(wwfunc.keys.layer_key(record.layer, seed))
        drawn = host_shuffles(key, stack, scale, copies)
        found = randomised(host.esd(stack, scale), drawn.first, drawn.every)
        bulk = fit_bulk(drawn.every, *stack.shape[1:], len(stack), 0.0, method="kde")
    for column in ("max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist"):
        assert getattr(record, column) == pytest.approx(float(getattr(found, column)), rel=1e-9)
    for column in ("sigma_mp", "bulk_max", "mp_softrank", "W_scale"):
        own = getattr(record, f"rand_{column}")
        assert own == pytest.approx(float(getattr(bulk, column)), rel=1e-9)
    assert record.rand_num_spikes == int(bulk.num_spikes)
