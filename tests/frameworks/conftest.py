"""These tests need the frameworks themselves: where one is missing its file is not collected."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch.py"]
