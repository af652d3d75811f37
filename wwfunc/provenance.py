"""How a result came about: from what, by what, in which versions."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How an analysis came about."""

    source: str | None
    """Path of the checkpoint; None for arrays in memory."""
    engine: str
    """What computed the eigenvalues: "host", "jax" or "none"."""
    versions: dict[str, str]
    base: str | None = None
    """Path of the base model, where changes from one were measured; "memory" for arrays."""


PACKAGES = ("wwfunc", "jax", "jaxlib", "numpy")


def installed(package: str) -> str:
    """The installed version of a package, or "unknown" in a tree that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Python's version and those of the packages behind the numbers."""
    return {
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
    }
