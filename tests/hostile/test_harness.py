"""The watched child: it must see what it is there to see."""

from __future__ import annotations

import harness
import pytest
from files import encoded, random_array, write
from harness import MEMORY, SECONDS, accepted, refused, watched

from loaders import errors

W = {"w": random_array("F32", (4, 4))}


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.safetensors", W)


def test_a_good_file_is_accepted(good):
    accepted(good, good)


def test_a_wrong_class_or_message_is_seen(good, tmp_path):
    bad = write(tmp_path / "bad.safetensors", encoded(W)[:-1])
    refused(good, bad, errors.TruncatedError, "ends at byte")
    with pytest.raises(AssertionError):
        refused(good, bad, errors.HeaderError, "ends at byte")
    with pytest.raises(AssertionError):
        refused(good, bad, errors.TruncatedError, "no such words")
    with pytest.raises(AssertionError):
        accepted(good, bad)


def test_another_file_that_is_opened_is_seen(good, tmp_path):
    """An index opens its shard, which is not the file that was named."""
    index = '{"weight_map": {"w": "good.safetensors"}}'
    index = write(tmp_path / "model.safetensors.index.json", index)
    assert any("good.safetensors" in event for event in watched(good, index, {})["forbidden"])


COSTS = {"seconds": SECONDS, "growth": MEMORY, "forbidden": ["open ('/etc/passwd', 'r', 0)"]}


@pytest.mark.parametrize("cost", COSTS)
def test_what_costs_too_much_is_seen(good, cost, monkeypatch):
    cheap = watched(good, good, {})
    monkeypatch.setattr(harness, "watched", lambda *_: cheap | {cost: COSTS[cost]})
    with pytest.raises(AssertionError):
        accepted(good, good)
