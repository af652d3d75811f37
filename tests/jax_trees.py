"""The trees in tests/fixtures/jax: numbers that a formula gives."""

from __future__ import annotations

import ml_dtypes
import numpy as np


def ramp(shape, dtype, start=-3):
    """Whole numbers that every element type of at least four bits holds."""
    count = int(np.prod(shape))
    return (start + np.arange(count) % 7).astype(dtype).reshape(shape)


WIDE = ["int8", "int16", "int32", "int64", "float16", "float32", "float64"]
NARROW = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"]
UNSIGNED = ["bool", "uint8", "uint16", "uint32", "uint64"]


def every_type():
    arrays = {name: ramp((2, 3), name) for name in WIDE}
    arrays |= {name: ramp((2, 3), getattr(ml_dtypes, name)) for name in NARROW}
    return arrays | {name: ramp((2, 3), name, 0) for name in UNSIGNED}


def msgpack_tree():
    return {
        "params": {"Dense_0": {"kernel": ramp((3, 4), "float32"), "bias": np.zeros(4, "float32")}},
        "types": every_type(),
        "complex": np.array([1 + 2j], "complex64"),
        "tuple": [np.ones(2, "float32"), {"inner": np.float32(0.5)}],
        "empty": np.zeros((2, 0, 3), "float32"),
        "step": 7,
        "rate": 0.25,
        "flag": True,
        "number": 1 - 2j,
        "note": "text",
        "nothing": None,
        "no_entries": {},
    }


def cut_tree():
    return {"even": ramp((8, 8), "float32"), "odd": ramp((6, 10), "int32")}


def npz_arrays():
    return every_numpy_type() | {
        "fortran": np.asfortranarray(ramp((3, 5), "float64")),
        "big": ramp((2, 3), ">i4"),
        "big_fortran": np.asfortranarray(ramp((2, 3, 4), ">f4")),
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), "float32"),
        "text": np.array(["a", "bc"]),
        "folder/inner": ramp((4,), "float16"),
    }


def every_numpy_type():
    kept = {name: array for name, array in every_type().items() if name not in NARROW}
    return kept | {name: np.array([1 + 2j], name) for name in ("complex64", "complex128")}


def orbax_tree():
    return {
        "params": {
            "Dense_0": {"kernel": ramp((3, 4), "float32"), "bias": np.zeros(4, "float32")},
            "layers": [{"w": ramp((2, 3), "int8")}, {"w": ramp((2, 3), ml_dtypes.float8_e4m3fn)}],
        },
        "types": {name: array for name, array in every_type().items() if name != "bool"},
        "a.b": {"c/d": ramp((3,), "int32")},
        "step": np.int64(7),
        "note": "text",
        "nothing": None,
        "no_entries": {},
    }
