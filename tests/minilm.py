"""A trained model, MiniLM, and what must be the same when it comes out of another format."""

from __future__ import annotations

import numpy as np

import loaders
import wwfunc

TOLERANCE = 1e-10


def weights(path):
    """Its tensors by name, as NumPy arrays."""
    return {name: handle.read() for name, handle in loaders.load(path).items()}


def dense(arrays):
    """Name to weight (out, in) and bias of each dense layer."""
    modules = [n.removesuffix(".bias") for n in arrays if n.endswith(".bias")]
    return {
        module: (arrays[f"{module}.weight"], arrays[f"{module}.bias"])
        for module in modules
        if arrays[f"{module}.weight"].ndim == 2
    }


def check_arrays(found, arrays, transposed=False):
    """Every tensor is there and has the same bits."""
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        read = found[name].read()
        expected = array.T if transposed and array.ndim == 2 else array
        assert read.dtype == array.dtype
        assert np.array_equal(read, expected, equal_nan=True), name


def named(layers):
    """What Keras calls the two weights of each dense layer."""
    return {
        f"{name}.{part}": array
        for name, pair in layers.items()
        for part, array in zip(("kernel", "bias"), pair, strict=True)
    }


def check_numbers(found, reference, layers, ids=True):
    """The rows of `layers` have the numbers of the reference, an Analysis of the original.

    `layers` maps the name that a layer has in the file to its name in the original.
    """
    ours = found.details.set_index("longname").loc[list(layers)]
    theirs = reference.details.set_index("longname").loc[list(layers.values())]
    numbers = [c for c in theirs.select_dtypes("number") if c not in ("layer_id", "block")]
    assert len(numbers) > 15
    for column in numbers:
        np.testing.assert_allclose(ours[column], theirs[column], rtol=TOLERANCE, err_msg=column)
    if ids:
        assert list(ours.layer_id) == list(theirs.layer_id)


def check(path, arrays, reference, **options):
    """A file with all of the model, under the same names."""
    check_arrays(loaders.load(path, **options), arrays)
    analysis = wwfunc.analyze(loaders.load(path, **options))
    check_numbers(analysis, reference, {r.longname: r.longname for r in reference})
    assert len(analysis) == len(reference)
