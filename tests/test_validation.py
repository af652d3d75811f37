"""The campaigns in short, and the frame that runs them."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

from validation import __main__ as command
from validation import report
from validation.finding import Finding, at_most, share

CASES = 100
PAGE = REPOSITORY / "docs" / "validation.md"


@pytest.mark.parametrize("name", report.CAMPAIGNS)
def test_every_finding_of_a_short_campaign_is_met(name):
    findings = list(report.find(name).run(CASES))
    assert any(found.asked for found in findings)
    assert [found for found in findings if not found.met] == []


def test_every_campaign_is_listed():
    sources = (REPOSITORY / "validation").glob("*.py")
    campaigns = {path.stem for path in sources if "\ndef campaign(" in path.read_text()}
    assert campaigns == set(report.CAMPAIGNS)


def test_the_page_lists_every_campaign_in_full():
    text = PAGE.read_text()
    assert tuple(re.findall(r"^## (\w+)", text, re.M)) == report.CAMPAIGNS
    assert text.startswith(report.HEAD)
    cases = re.findall(r"^([\d,]+) cases; python ", text, re.M)
    full = [report.find(name).full for name in report.CAMPAIGNS]
    assert [int(number.replace(",", "")) for number in cases] == full


# The frame ------------------------------------------------------------------------------------


@pytest.fixture
def toys(monkeypatch):
    """Two campaigns of one finding each; the second misses what is asked."""
    for name, bound in (("easy", 5.0), ("hard", 0.5)):
        toy = SimpleNamespace(__name__=name, __doc__=f"The {name} one.", FULL=1000)
        toy.campaign = lambda cases, bound=bound: iter([at_most(f"over {cases}", 1.0, bound)])
        monkeypatch.setitem(sys.modules, f"validation.{name}", toy)
    monkeypatch.setattr(report, "CAMPAIGNS", ("easy", "hard", "nowhere"))
    monkeypatch.setattr(command, "CAMPAIGNS", ("easy", "hard", "nowhere"))


def test_what_is_missed_fails_the_command(toys, capsys):
    assert command.main(["--only", "easy"]) == 0
    assert "| over 1000 | at most 5 | 1 | met |" in capsys.readouterr().out
    assert command.main(["--only", "hard", "--only", "easy", "--cases", "7"]) == 1
    printed = capsys.readouterr()
    assert "| over 7 | at most 0.5 | 1 | **missed** |" in printed.out
    assert "7 cases; python " in printed.out
    assert "MISS over 7: 1" in printed.err


def test_time_stands_on_the_standard_error_alone(toys, capsys):
    command.main(["--only", "easy"])
    printed = capsys.readouterr()
    assert re.search(r"^easy: \d+ s$", printed.err, re.M)
    assert not re.search(r"\d s\b", printed.out)


def test_a_campaign_that_is_not_there_is_named(toys, capsys):
    assert command.main([]) == 2
    assert "validation.nowhere" in capsys.readouterr().err


def test_a_fault_inside_a_campaign_is_not_a_missing_campaign(toys, monkeypatch):
    monkeypatch.setattr(report, "CAMPAIGNS", ("broken",))

    def importing(name):
        raise ModuleNotFoundError(name="scipy_of_old")

    monkeypatch.setattr(report.importlib, "import_module", importing)
    with pytest.raises(ModuleNotFoundError):
        report.find("broken")


def test_the_page_keeps_what_is_not_run_again(toys, tmp_path):
    path = tmp_path / "page.md"
    command.main(["--only", "hard", "--output", str(path)])
    command.main(["--only", "easy", "--cases", "3", "--output", str(path)])
    text = path.read_text()
    assert re.findall(r"^## (\w+)", text, re.M) == ["easy", "hard"]
    assert "over 3 " in text
    assert "over 1000 " in text
    command.main(["--only", "easy", "--cases", "3", "--output", str(path)])
    assert path.read_text() == text


def test_cases_are_a_number_from_one(toys, capsys):
    with pytest.raises(SystemExit):
        command.main(["--cases", "0"])
    assert "--cases" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hits", "cases", "met"),
    [(40, 1000, True), (29, 1000, False), (71, 1000, False), (1, 100, True), (15, 100, False)],
)
def test_a_short_campaign_has_wider_bounds(hits, cases, met):
    found = share("x", hits, cases, low=0.03, high=0.07, full=1000)
    assert found.met is met
    assert found.asked == "3.0% to 7.0%"
    assert found.measured == f"{hits / cases:.1%} of {cases:,}"


def test_what_is_only_reported_is_neither_met_nor_missed():
    campaign = report.Campaign(name="x", about="About x.", full=1, run=iter)
    found = Finding(what="rate", asked="", measured="7 %")
    assert "| rate |  | 7 % |  |" in report.section(campaign, 1, [found])
