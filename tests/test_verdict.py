"""The verdict: each sentence from its numbers, and whole layers of known make."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from planted import pareto

import wwfunc
from wwfunc.layers.layer import Layer
from wwfunc.trust.verdict import verdict_of

LAYER = Layer(
    layer_id=1,
    longname="w",
    tensor="w",
    kind="dense",
    block=None,
    role="",
    dtype="float32",
    rule="matrix",
    N=80,
    M=64,
    rf=1,
    num_params=5120,
)


@pytest.fixture(scope="module")
def measures():
    """Of a planted power law, all of whose statistics the tests then set by hand."""
    evals = pareto(np.random.default_rng(0), 64, 3.0)
    return jax.device_get(
        wwfunc.measure(
            wwfunc.esd(np.diag(np.sqrt(evals))), wwfunc.Options(trust=True, replicates=20)
        )
    )


def with_numbers(
    measures,
    *,
    count=50,
    alpha=3.1,
    interval=(2.8, 3.5),
    p_value=0.5,
    p_random=0.001,
    cut=False,
    **ratios,
):
    """`ratios`: name=(R, p, loglikelihood, limit); an alternative that is not named is rejected."""
    trust = measures.trust
    alternatives = {
        name: dataclasses.replace(
            getattr(trust.alternatives, name),
            **dict(
                zip(
                    ("R", "p", "loglikelihood", "limit"),
                    map(np.asarray, ratios.get(name, (5.0, 0.001, -90.0, False))),
                    strict=True,
                )
            ),
        )
        for name in ("exponential", "lognormal", "stretched_exponential", "truncated")
    }
    return dataclasses.replace(
        measures,
        fit=dataclasses.replace(
            measures.fit,
            alpha=np.asarray(alpha),
            num_pl_spikes=np.asarray(count, np.int32),
            xmax=measures.esd.evals[-2 if cut else -1],
        ),
        trust=dataclasses.replace(
            trust,
            bootstrap=dataclasses.replace(
                trust.bootstrap,
                alpha_low=np.asarray(interval[0]),
                alpha_high=np.asarray(interval[1]),
            ),
            goodness=dataclasses.replace(trust.goodness, p_value=np.asarray(p_value)),
            alternatives=dataclasses.replace(trust.alternatives, **alternatives),
            p_random=np.asarray(p_random),
        ),
    )


CASES = [
    ({}, "power law, alpha 3.1 (2.8 to 3.5)"),
    ({"count": 9}, "tail of 9 points: too short"),
    ({"count": 10}, "power law, alpha 3.1 (2.8 to 3.5)"),
    ({"alpha": np.nan, "count": 0}, "no fit"),
    (
        {"p_random": 0.29},
        "as a random 80 x 64 matrix would look (29% have so low an alpha)",
    ),
    ({"p_random": 0.051, "p_value": 0.01}, "as a random 80 x 64 matrix would look (5% have"),
    ({"p_value": 0.1}, "not a power law (p = 0.1)"),
    ({"p_value": 0.101}, "power law, alpha 3.1"),
    (
        {"p_value": 0.003, "lognormal": (-9.0, 0.01, -80.0, False)},
        "not a power law (p = 0.003), a lognormal fits better",
    ),
    ({"lognormal": (-9.0, 0.049, -80.0, False)}, "a lognormal rather than a power law"),
    (
        {
            "lognormal": (-9.0, 0.01, -80.0, False),
            "exponential": (-9.5, 0.01, -79.0, False),
        },
        "an exponential rather than a power law",
    ),
    (
        {"lognormal": (-2.0, 0.05, -80.0, False)},
        "cannot be told from a lognormal, alpha 3.1 (2.8 to 3.5)",
    ),
    ({"exponential": (2.0, 0.2, -80.0, False)}, "cannot be told from an exponential, alpha"),
    (
        {
            "stretched_exponential": (-0.5, 0.3, -80.0, False),
            "truncated": (-0.6, 0.3, -79.0, False),
        },
        "cannot be told from a truncated power law",
    ),
    ({"lognormal": (0.0, 1.0, -80.0, True)}, "power law, alpha 3.1 (2.8 to 3.5)"),
    (
        {"p_value": 0.01, "cut": True},
        "undecided: a tail without its largest eigenvalues looks truncated, alpha 3.1 (2.8 to 3.5)",
    ),
    ({"cut": True}, "power law, alpha 3.1 (2.8 to 3.5)"),
    ({"p_random": 0.999}, "lighter-tailed than a random 80 x 64 matrix (99% have a lower alpha)"),
    (
        {"p_random": np.nan},
        "power law, alpha 3.1 (2.8 to 3.5); not calibrated against chance",
    ),
]


@pytest.mark.parametrize(("numbers", "words"), CASES, ids=[words for _, words in CASES])
def test_each_sentence(measures, numbers, words):
    found = verdict_of(LAYER, with_numbers(measures, **numbers))
    assert found.startswith(words)
    if words.endswith(")"):
        assert found == words


def test_slices_are_part_of_the_shape(measures):
    layer = dataclasses.replace(LAYER, rf=9)
    found = verdict_of(layer, with_numbers(measures, p_random=0.5))
    assert found.startswith("as a random 80 x 64 x 9 matrix would look (50% have")


def test_no_trust_no_verdict(measures):
    assert verdict_of(LAYER, None) == ""
    assert verdict_of(LAYER, dataclasses.replace(measures, trust=None)) == ""


def planted(evals, n, m, seed=0):
    """An n x m matrix with these squared singular values."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((n, m)))[0]
    right = np.linalg.qr(rng.standard_normal((m, m)))[0]
    return (left * np.sqrt(evals)) @ right


def test_layers_of_known_make():
    rng = np.random.default_rng(5)
    layers = {
        "planted": planted(pareto(rng, 400, 2.5), 500, 400),
        "random": np.random.default_rng(3).standard_normal((64, 64)),
        "narrow": rng.standard_normal((200, 9)),
        "uniform": planted(rng.uniform(1.0, 2.0, 400), 500, 400),
    }
    analysis = wwfunc.analyze(layers, trust=True, replicates=200)
    verdicts = {record.longname: record.verdict for record in analysis}
    assert verdicts["planted"].startswith(("power law, alpha 2.", "cannot be told from"))
    assert "alpha 2.5" in verdicts["planted"]
    assert verdicts["random"].startswith("as a random 64 x 64 matrix would look")
    assert verdicts["narrow"].endswith("points: too short")
    assert not verdicts["uniform"].startswith("power law")


def test_a_layer_of_low_rank_is_not_calibrated():
    """Noise of rank 16 has heavier tails than full-rank noise of the same shape."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((96, 16)) @ rng.standard_normal((16, 96))
    record = wwfunc.analyze({"w": noise}, trust=True, replicates=20).records[0]
    assert np.isnan(record.p_random)


def test_a_truncated_power_law_on_a_bound_says_so():
    exponential = 1 + np.random.default_rng(3).exponential(size=200)
    pure = pareto(np.random.default_rng(1), 300, 3.0)
    layers = {"exponential": planted(exponential, 220, 200), "pure": planted(pure, 320, 300)}
    analysis = wwfunc.analyze(layers, fit="TPL", trust=True, xmin=1.0)
    assert analysis["exponential"].verdict.startswith("truncated power law, alpha 1.0 at its bound")
    assert analysis["pure"].Lambda == 0
    assert analysis["pure"].verdict.startswith("plain power law, alpha 3.1")
