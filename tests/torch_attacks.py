"""What the tests of hostile PyTorch files share."""

from __future__ import annotations

import re

from harness import refused
from torch_files import storage, tensor

FLOATS = storage("FloatStorage", "0", 6)
W = tensor(FLOATS)
DATA = {"0": bytes(24)}

# A file that would be left behind by a pickle that runs.
MARKER = "marker"
TOUCH = f"touch {MARKER}"

CALLS = {
    0: b"(dS'x'\ncos\nsystem\n(S'touch marker'\ntRs.",
    2: b"\x80\x02" + b"}X\x01\0\0\0x" + b"cos\nsystem\nX\x0c\0\0\0touch marker\x85Rs.",
    4: b"\x80\x04\x95\x23\0\0\0\0\0\0\0" + b"}\x8c\x01x\x8c\x02os\x8c\x06system\x93"
    b"\x8c\x0ctouch marker\x85Rs.",
}


def says(good, bad, error, match, **options):
    """`refused`, whose words stand behind the path, which may have the same ones in it."""
    refused(good, bad, error, rf"(?s)^{re.escape(str(bad))}: .*(?:{match})", **options)
