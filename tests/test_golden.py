"""Our own table of the seeded weights, without trust: it fails when any column moves by 1e-9.

`python tests/test_golden.py` (or `make golden`) writes it anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wwfunc
from wwfunc.columns import COLUMNS

GOLDEN = Path(__file__).parent / "reference" / "golden.csv"
RELATIVE = 1e-9
EVERYTHING = dict.fromkeys(("mp_fit", "randomize", "detX", "vectors", "ranks", "deltas"), True)
ROUNDING = {"floor", "sv_min"}
"""Multiples of rounding itself: they differ between builds of LAPACK, within the floor."""


@pytest.fixture(scope="module")
def everything(paths):
    return wwfunc.analyze(paths["seeded"], **EVERYTHING)


def test_no_column_moves(everything):
    texts = {column.name: str for column in COLUMNS if column.type == "text"}
    golden = pd.read_csv(GOLDEN, dtype=texts)
    ours = everything.details
    assert list(golden.columns) == [column.name for column in COLUMNS]
    for column in COLUMNS:
        theirs, own = golden[column.name], ours[column.name]
        if column.type == "text":
            assert list(theirs.fillna("")) == list(own), column.name
        else:
            tolerance = 1e-6 if column.name in ROUNDING else RELATIVE
            np.testing.assert_allclose(
                own.astype(float), theirs.astype(float), rtol=tolerance, err_msg=column.name
            )


def test_a_move_of_1e_minus_8_would_be_seen(everything):
    golden = pd.read_csv(GOLDEN).set_index("longname").alpha
    moved = everything.details.set_index("longname").alpha * (1 + 1e-8)
    assert (np.abs(moved / golden - 1) > RELATIVE).all()


if __name__ == "__main__":
    import tempfile

    import seeded

    from wwfunc.tables import write_table

    with tempfile.TemporaryDirectory() as folder:
        path = seeded.write(Path(folder) / "seeded.safetensors")
        write_table(wwfunc.analyze(path, **EVERYTHING), GOLDEN)
