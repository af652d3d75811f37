"""docs/random-matrix.md: its pictures are those that the script draws, its words are complete."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from conftest import REPOSITORY

import wwfunc
from wwfunc.cli.parser import build_parser
from wwfunc.columns import randommatrix

DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "random-matrix.md").read_text()
SMALL = "marchenko-pastur"
"""The picture that is drawn again."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drawing", DOCS / "draw_random_matrix.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def curve(svg: Path, name: str) -> np.ndarray:
    """The points of one line of a picture, in points of an inch."""
    group = re.search(rf'<g id="{name}">\s*<path d="([^"]*)"', svg.read_text())
    numbers = re.findall(r"-?\d+(?:\.\d+)?", group[1])
    return np.array(numbers, float).reshape(-1, 2)


def test_the_page_shows_what_the_script_draws(script):
    shown = re.findall(r"^!\[.+\]\(pictures/(.+)\.svg\)$", PAGE, re.M)
    assert sorted(shown) == sorted(script.PICTURES)
    assert {path.stem for path in script.FOLDER.iterdir()} == set(script.PICTURES)


def test_a_picture_is_drawn_as_it_is_shown(script, tmp_path):
    drawn = script.draw(SMALL, tmp_path)
    kept = script.FOLDER / drawn.name
    for name in ("law", "edge"):
        assert len(curve(kept, name)) > 1
        # Other versions of matplotlib place and round a little differently; 7 x 3.4 inches.
        np.testing.assert_allclose(curve(drawn, name), curve(kept, name), atol=1.5)
    first = drawn.read_bytes()
    assert script.draw(SMALL, tmp_path).read_bytes() == first
    assert b"<dc:date>" not in first


def test_every_column_is_on_the_page():
    missing = [c.name for c in randommatrix.COLUMNS if f"`{c.name}`" not in PAGE]
    assert missing == []


def test_every_option_and_function_of_the_page_exists(capsys):
    options = set(re.findall(r"`(\w+)=", PAGE))
    assert options <= set(wwfunc.Options.__dataclass_fields__) | {"method"}
    functions = set(re.findall(r"\bwwfunc\.(\w+)", PAGE))
    assert {"mp_fit", "sharpen", "smooth"} <= functions <= set(wwfunc.__all__)
    for command in ("analyze", "smooth"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
    flags = set(re.findall(r"(?<=[ `])--\w[\w-]*", PAGE))
    assert {"--mp-fit", "--keep"} <= flags <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_the_page_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    W = np.random.default_rng(0).standard_normal((120, 80))
    W[17, 42] = 60.0
    names = {"jax": jax, "wwfunc": wwfunc, "W": W, "model": {"layer.weight": W}}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(block, names)
    assert names["traps"].num_traps == 1
    [change] = wwfunc.changes(names["sharpened"])
    assert change.words == "set 1 element to zero"
    assert (tmp_path / "sharpened.safetensors").exists()
