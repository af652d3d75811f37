"""These tests need the frameworks themselves: where one is missing its files are not collected."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

FRAMEWORKS = ("gguf", "keras", "onnx", "peft", "torch", "transformers")
MISSING = "|".join(name for name in FRAMEWORKS if importlib.util.find_spec(name) is None)

collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if MISSING and re.search(rf"^(import|from) ({MISSING})\b", path.read_text(), re.MULTILINE)
]
