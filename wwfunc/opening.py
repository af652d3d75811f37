"""`wwfunc.load`: the bridge to the package `loaders`, which knows files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from wwfunc.checkpoint import Checkpoint

_OWN_NAME = "wwfunc._loaders"


def load(path: str | os.PathLike[str], **options: Any) -> Checkpoint:
    """Open a checkpoint file or folder: `loaders.load`, imported when it is called."""
    return loaders_package().load(path, **options)


def loaders_package() -> ModuleType:
    """The `loaders` that came with wwfunc, also where another package took that name first."""
    home = Path(__file__).resolve().parent.parent / "loaders"
    imported = sys.modules.get("loaders")
    spec = imported.__spec__ if imported else importlib.util.find_spec("loaders")
    if spec and spec.origin and Path(spec.origin).resolve().parent == home:
        return importlib.import_module("loaders")
    if _OWN_NAME not in sys.modules:
        warnings.warn(
            f"another package is named 'loaders' ({spec and spec.origin}); wwfunc uses its own",
            stacklevel=3,
        )
        _import_as(_OWN_NAME, home)
    return sys.modules[_OWN_NAME]


def _import_as(name: str, home: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        name, home / "__init__.py", submodule_search_locations=[str(home)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
