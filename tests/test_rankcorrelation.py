"""Kendall's tau: planted orders, ties, its interval, and p-values for several metrics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from wwfunc import InputError
from wwfunc.comparison.rankcorrelation import holm, kendall


def by_pairs(x, y):
    """tau-b from its definition."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    total = sum(a * b for a, b in signs)
    return total / math.sqrt(sum(a * a for a, _ in signs) * sum(b * b for _, b in signs))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_the_definition(points):
    x, y = zip(*points, strict=True)
    found = kendall(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found.tau)
        assert math.isnan(found.p)
    else:
        assert found.tau == pytest.approx(by_pairs(x, y))
        assert kendall(y, x).tau == pytest.approx(found.tau)
        assert kendall([-v for v in x], y).tau == pytest.approx(-found.tau)
    assert found.n == len(points)


def test_a_perfect_order_of_few():
    """One order of n! is as good, and one as bad."""
    for n in (4, 5, 8):
        found = kendall(range(n), [v**3 for v in range(n)])
        assert found.tau == pytest.approx(1.0)
        assert found.p == pytest.approx(2 / math.factorial(n))
    assert 0 < found.low < 0.9
    assert found.high == pytest.approx(1.0)


def test_the_interval_holds_its_own_tau():
    for sign in (1, -1):
        found = kendall(range(9), [sign * v for v in range(9)])
        assert found.low <= found.tau <= found.high


def test_p_is_exact_without_ties():
    """As a share of all orders, also where others fall back on a normal law."""
    x = [0.0, 1, 2, 3, 4]
    found = kendall(x, [0, 1, 3, 4, 2])
    taus = [abs(by_pairs(x, order)) for order in itertools.permutations(x)]
    assert found.p == pytest.approx(np.mean(np.array(taus) >= abs(found.tau) - 1e-9))
    rng = np.random.default_rng(0)
    many = kendall(rng.permutation(40), rng.permutation(40))
    exact = kendalltau(*(rng.permutation(40) for _ in range(2)), method="exact")
    assert many.p != exact.pvalue
    rng = np.random.default_rng(0)
    same = kendalltau(rng.permutation(40), rng.permutation(40), method="exact")
    assert many.p == pytest.approx(same.pvalue, rel=1e-12)


def test_few_have_no_interval():
    four, five = kendall([1, 2, 3, 4], [1, 3, 2, 4]), kendall([1, 2, 3, 4, 5], [1, 3, 2, 4, 5])
    assert math.isnan(four.low)
    assert math.isnan(four.high)
    assert five.low < five.tau < five.high


def test_what_is_not_known_is_left_out():
    found = kendall([1, 2, math.nan, 4, 5], [1, math.inf, 3, 4, 5])
    assert (found.tau, found.n) == (1.0, 3)
    assert kendall([], []).n == 0
    assert math.isnan(kendall([1.0], [2.0]).tau)
    with pytest.raises(InputError, match="one length"):
        kendall([1, 2], [1])


@pytest.mark.parametrize(("n", "rho"), [(6, 0.0), (8, 0.5), (10, 0.8), (30, 0.95)])
def test_the_interval_holds_the_truth(n, rho):
    rng = np.random.default_rng(n)
    truth = 2 / math.pi * math.asin(rho)
    held = 0
    for _ in range(400):
        x, noise = rng.standard_normal((2, n))
        found = kendall(x, rho * x + math.sqrt(1 - rho**2) * noise)
        held += found.low <= truth <= found.high
    assert 0.89 < held / 400 <= 1.0


def test_holm():
    assert holm([0.04, 0.01, math.nan, 0.03])[:2] == pytest.approx([0.06, 0.03])
    assert math.isnan(holm([0.04, 0.01, math.nan, 0.03])[2])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_by_hand():
    """tau = 0.6 of six: atanh 0.6 = 0.693147, and 1.959964 sqrt(0.437 / 2) = 0.916165 beside it."""
    found = kendall([1, 2, 3, 4, 5, 6], [2, 3, 4, 1, 5, 6])
    assert found.tau == pytest.approx(0.6)
    assert found.low == pytest.approx(math.tanh(0.693147 - 0.916165), abs=2e-6)
    assert found.high == pytest.approx(math.tanh(0.693147 + 0.916165), abs=2e-6)
