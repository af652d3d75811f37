"""examples/series.py: a small series from end to end, and the page that the whole one wrote."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
from conftest import REPOSITORY
from scipy.stats import kendalltau

from wwfunc.comparison.manymodels import Comparison


@pytest.fixture(scope="module")
def series() -> ModuleType:
    spec = importlib.util.spec_from_file_location("series", REPOSITORY / "examples" / "series.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(series) -> tuple[Comparison, list]:
    """The four smallest members, trained for a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series, "STEPS", 300)
        members = [member for member in series.FAMILY if member.depth == 1 and member.width == 64]
        return series.family(members), members


def test_a_small_series_learns_and_is_compared(small):
    found, members = small
    assert [row.label for row in found.rows] == [str(member) for member in members]
    accuracies = {member: row.truth for member, row in zip(members, found.rows, strict=True)}
    assert all(truth > 0.8 for truth in accuracies.values())
    for member in members:
        if member.share == 1:
            assert accuracies[member] > accuracies[member._replace(share=8)]


def test_the_pages_tables_are_those_of_the_comparison(series, small):
    found, members = small
    page = series.page(found, members)
    table = found.correlation_table.set_index("metric")
    for metric in series.METRICS:
        assert f"| all (4) | `{metric}` | {table.tau[metric]:+.2f} | " in page
    best = max(found.rows, key=lambda row: row.truth)
    assert f"|---|\n| {best.label} | {best.truth:.1%} | {best.summary['alpha']:.2f} | " in page


def test_the_picture_has_a_mark_for_each_member(series, small, tmp_path):
    path = tmp_path / "series.svg"
    series.draw(*small, path)
    for colour in ("#1f5fa8", "#d1782a"):  # two members each, in four panels; one in the legend
        marks = re.findall(rf"<use [^>]*stroke: {colour}", path.read_text())
        assert len(marks) == 4 * 2 + 1


def test_the_shown_correlations_are_those_of_the_shown_networks(series):
    """Numbers stand rounded on the page, so that a few pairs of them are tied."""
    page = (REPOSITORY / "docs" / "series.md").read_text()
    shown = re.findall(r"^\| (\d x .*?) \| (.*?)% \| (.*) \|$", page, re.M)
    assert sorted(label for label, _, _ in shown) == sorted(map(str, series.FAMILY))
    truth = [float(accuracy) for _, accuracy, _ in shown]
    for place, metric in enumerate(series.METRICS):
        values = [float(numbers.split(" | ")[place]) for _, _, numbers in shown]
        tau = re.search(rf"\| all \(24\) \| `{metric}` \| (\S+) \|", page)[1]
        assert kendalltau(values, truth).statistic == pytest.approx(float(tau), abs=0.03)
