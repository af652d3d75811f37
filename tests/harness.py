"""Hostile files are opened in a child process that is watched: what it opens, how long, how much.

Run as a script it is that child: `harness.py GOOD BAD OPTIONS`, the options as JSON.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 2.0
MEMORY = 64 << 20
_DEADLINE = 20
_WATCHED = (
    "open",
    "import",
    "socket.",
    "subprocess.",
    "os.",
    "shutil.",
    "exec",
    "ctypes.",
    "urllib.",
)
_HARMLESS = ("os.scandir", "os.listdir", "os.fwalk", "os.walk")


def refused(good, bad, error, match, **options):
    """Assert that `bad` is refused with `error`, and that nothing else happens on the way."""
    found = watched(good, bad, options)
    assert found["error"] == error.__name__, found
    assert re.search(match, found["message"]), found["message"]
    _assert_cheap(found)


def accepted(good, path, **options):
    """Assert that `path` is opened, holds tensors, and is read whole within the same bounds."""
    found = watched(good, path, options)
    assert found["error"] is None, found
    assert found["tensors"] > 0, found
    _assert_cheap(found)


def watched(good, bad, options):
    """What became of `bad` in a fresh child process that had read `good` before."""
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(good), str(bad), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _assert_cheap(found):
    assert found["forbidden"] == [], found
    assert found["seconds"] < SECONDS, found
    assert found["growth"] < MEMORY, found


def _read_all(path, options):
    import loaders

    checkpoint = loaders.load(path, **options)
    for handle in checkpoint.values():
        handle.read()
    return len(checkpoint)


def _peak():
    """Peak of the resident memory in bytes, as the kernel counts it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


def _watch(allowed, forbidden):
    """From here on every event that is no opening of `allowed`, for reading, is written down."""
    real = os.path.realpath(allowed)

    def hook(event, arguments):
        if not event.startswith(_WATCHED) or event in _HARMLESS:
            return
        if event == "open" and _inside(arguments, real):
            return
        forbidden.append(f"{event} {arguments!r}"[:300])

    sys.addaudithook(hook)


def _inside(arguments, real):
    name, _, flags = arguments
    if not isinstance(name, (str, bytes)) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    name = os.path.abspath(os.fsdecode(name))
    return name == real or name.startswith(real + os.sep)


def _child(good, bad, options):
    from wwfunc.errors import CheckpointError

    _read_all(good, {})
    before, forbidden = _peak(), []
    found = {"error": None, "message": "", "forbidden": forbidden, "tensors": 0}
    _watch(bad, forbidden)
    start = time.perf_counter()
    try:
        found["tensors"] = _read_all(bad, options)
    except CheckpointError as error:
        found |= {"error": type(error).__name__, "message": str(error)}
    found["seconds"] = time.perf_counter() - start
    events = list(forbidden)  # what follows reads the process's own status
    found |= {"growth": _peak() - before, "forbidden": events}
    print(json.dumps(found))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    _child(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
