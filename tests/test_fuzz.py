"""A hundred damaged files of each format; `make fuzz` reads two thousand of each."""

from __future__ import annotations

import sys

import pytest
from fuzz import campaign
from fuzz.seeds import seeds

import loaders
from loaders import errors

CASES = 100


@pytest.mark.parametrize("name", loaders.FORMATS)
def test_damaged_files_are_refused_or_read(name):
    outcome = campaign.run(name, CASES)
    assert outcome.findings == []
    assert outcome.read + outcome.refused.total() == CASES
    assert outcome.refused.total() > CASES // 5, "damage that nobody sees is none"


def test_every_format_has_seeds():
    assert set(seeds()) == set(loaders.FORMATS)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(errors.LayoutError("x"), "refused"), (KeyError("x"), "finding"), (MemoryError(), "finding")],
)
def test_what_is_raised_is_told_apart(monkeypatch, tmp_path, error, kind):
    def load(path):
        raise error

    monkeypatch.setattr(loaders, "load", load)
    assert campaign.attempt(tmp_path)["kind"] == kind


def test_a_child_that_dies_is_a_finding(monkeypatch):
    def popen(command, **options):
        return real([sys.executable, "-c", "import os; os.abort()"], **options)

    real = campaign.subprocess.Popen
    monkeypatch.setattr(campaign.subprocess, "Popen", popen)
    outcome = campaign.run("safetensors", 1)
    assert outcome.cases == 1
    assert "the process died" in outcome.findings[0]
