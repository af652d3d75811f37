"""The examples print what the documentation shows."""

from __future__ import annotations

import subprocess
import sys

from conftest import REPOSITORY


def test_random_alphas_is_the_table_of_the_fits_page():
    command = [sys.executable, "examples/random_alphas.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 8
    assert done.stdout in (REPOSITORY / "docs" / "fits.md").read_text()
