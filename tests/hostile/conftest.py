"""Good files of Keras, and a place for a bad one; other fixtures stand where they are used."""

from __future__ import annotations

import os
import shutil

import pytest
from hdf5_files import KERAS


@pytest.fixture
def good(tmp_path):
    return shutil.copy(KERAS / "model.h5", tmp_path / "good.h5")


@pytest.fixture
def weights(tmp_path):
    return shutil.copy(KERAS / "split_00000.weights.h5", tmp_path / "good.weights.h5")


@pytest.fixture
def archived(tmp_path):
    return shutil.copy(KERAS / "int8.keras", tmp_path / "good.keras")


@pytest.fixture
def bad(tmp_path):
    return tmp_path / "bad.h5"


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"
