"""Models for what options add to a layer: ordinary ones, and some where something is missing."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import wwfunc
from wwfunc.columns import COLUMNS

RNG = np.random.default_rng(13)


def normal(*shape):
    return RNG.standard_normal(shape)


BULK = [
    *("sigma_mp", "sigma_noise", "W_scale", "bulk_min", "bulk_max", "mp_edge", "num_spikes"),
    "mp_softrank",
]
SHUFFLED = ["max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist"]
WORDS = ["vec_entropy", "loc_ratio", "part_ratio"]
RANKS = ["effective_rank", "energy_rank_95", "energy_rank_99", "participation_ratio"]
ADDED = {
    "mp_fit": BULK,
    "randomize": [f"rand_{name}" for name in BULK] + ["num_traps", *SHUFFLED],
    "detX": ["detX_num", "num_ERG_spikes", "detX_val", "detX_val_unrescaled", "ERG_gap"],
    "vectors": [
        *(f"{s}_{m}_{name}" for s in ("bulk", "tail") for m in ("mean", "var") for name in WORDS),
        *(f"random_{name}" for name in WORDS),
    ],
    "ranks": [*RANKS, *(f"random_{name}" for name in ("stable_rank", *RANKS))],
    "deltas": ["spacing_ratio"],
}
EVERY = [name for names in ADDED.values() for name in names]
ALL = dict.fromkeys(ADDED, True)
PLAIN = [column.name for column in COLUMNS if column.name not in EVERY]


def spiked():
    """A direction of 1.6 bulk edges in noise of 0.3."""
    direction = np.outer(normal(120), normal(80))
    return 0.3 * normal(120, 80) + 16 * 0.3 * np.sqrt(10) * direction / np.linalg.norm(direction)


def trapped(n, m, value=None):
    """Gaussian, but for an element of three times what noise can hide."""
    matrix = normal(n, m)
    matrix[n // 2, m // 3] = value or 3 * (n * m) ** 0.25 + 5
    return matrix


MODEL = {
    "dense.weight": normal(60, 40),
    "heavy.weight": RNG.standard_t(2.5, (150, 120)),
    "conv.weight": normal(16, 12, 3, 3),
    "spiked.weight": spiked(),
    "trapped.weight": trapped(150, 110),
}


BROKEN = {
    "lost": np.where(np.arange(600).reshape(30, 20) == 7, np.nan, normal(30, 20)),
    "huge": 1e200 * normal(30, 20),
    "zero": np.zeros((30, 20)),
    "equal": np.ones((30, 20)),
    "identity": np.eye(20),
    "column": normal(50, 1),
    "two": normal(2, 30),
    "deficient": normal(60, 10) @ normal(10, 40),
    "tiny": 1e-6 * normal(30, 20),
    "empty": np.zeros((0, 5)),
}


def missing(value):
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def same(ours, theirs, columns, relative=0.0):
    for column in columns:
        own, other = getattr(ours, column), getattr(theirs, column)
        if missing(own) or isinstance(own, str):
            assert own == other or (missing(own) and missing(other)), column
        else:
            assert own == pytest.approx(other, rel=relative, abs=0 if relative else None), column


@functools.cache
def whole():
    return wwfunc.analyze(MODEL, **ALL)


@functools.cache
def broken():
    model = {f"{name}.weight": array for name, array in BROKEN.items()}
    return wwfunc.analyze(model, min_evals=1, **ALL)
