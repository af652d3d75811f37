"""The versions that a result was computed with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

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
