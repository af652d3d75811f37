"""GGUF files of the `gguf` package: every type that it writes, and what it decodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Types

import wwfunc
from loaders.gguf.file import load_gguf
from loaders.gguf.types import TYPES

QUANTISED = [kind for kind in Types if kind in TYPES and TYPES[kind].dtype is None]


def written(path, tensors, endian=gguf.GGUFEndian.LITTLE, alignment=None):
    """A file of arrays, or of bytes and their type."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_block_count(1)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def blocks(kind, rows, columns, seed=0):
    """Random bytes: any block of any type has a meaning."""
    elements, nbytes = gguf.GGML_QUANT_SIZES[kind]
    shape = rows, columns // elements * nbytes
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def same(found, expected):
    """Equal but for the payload of a NaN."""
    return np.array_equal(found, expected, equal_nan=True)


def test_sizes_of_blocks_are_those_of_the_package():
    for number, block in TYPES.items():
        assert Types(number).name == block.name
        assert gguf.GGML_QUANT_SIZES[Types(number)] == (block.elements, block.nbytes)


def test_every_type_of_the_package_is_read_or_refused_by_name():
    assert {kind.name for kind in Types} - {block.name for block in TYPES.values()} == {
        "Q8_1",
        "Q8_K",
        "Q1_0",
    }


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the package's own, on infinite scales
@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_type(tmp_path, kind):
    packed = blocks(kind, 37, 512)
    handle = load_gguf(written(tmp_path / "x", {"a": (packed, kind)}))["a"]
    expected = gguf.quants.dequantize(packed, kind)
    assert handle.shape == expected.shape == (37, 512)
    found = handle.read()
    assert found.dtype == np.float32
    assert not found.flags.writeable
    assert same(found, expected)
    assert same(handle.read(slice(5, 9)), expected[5:9])
    assert handle.read(slice(37, 40)).shape == (0, 512)


def test_stacks_and_vectors_of_quantised_numbers(tmp_path):
    packed = blocks(Types.Q8_0, 6, 64)
    packed[:, 1::34] = 0x20  # finite scales
    tensors = {"stack": (packed.reshape(2, 3, -1), Types.Q8_0), "vector": (packed[0], Types.Q8_0)}
    found = load_gguf(written(tmp_path / "x", tensors))
    expected = gguf.quants.dequantize(packed, Types.Q8_0)
    assert same(found["stack"].read(), expected.reshape(2, 3, 64))
    assert same(found["stack"].read(slice(1, 2)), expected.reshape(2, 3, 64)[1:])
    assert same(found["vector"].read(), expected[0])
    assert same(found["vector"].read(slice(3, 50)), expected[0, 3:50])


def test_large_tensor_is_decoded_by_portions_and_threads(tmp_path):
    packed = blocks(Types.Q4_0, 1024, 4096)
    packed[:, 1::18] = 0x20
    handle = load_gguf(written(tmp_path / "x", {"a": (packed, Types.Q4_0)}))["a"]
    expected = gguf.quants.dequantize(packed, Types.Q4_0)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda row: handle.read(slice(row, row + 256)), range(0, 1024, 256)))
    assert same(handle.read(), expected)
    assert same(np.concatenate(parts), expected)


@pytest.mark.parametrize("endian", gguf.GGUFEndian)
@pytest.mark.parametrize("alignment", [None, 256])
def test_plain_types(tmp_path, endian, alignment):
    rng = np.random.default_rng(0)
    dtypes = (np.float32, np.float16, np.float64, np.int8, np.int16, np.int32, np.int64)
    arrays = {
        np.dtype(dtype).name: (rng.normal(size=(5, 7)) * 50).astype(dtype) for dtype in dtypes
    }
    arrays["deep"] = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    # The writer turns the bytes of its arguments round in place.
    tensors = {name: (array.copy(), None) for name, array in arrays.items()}
    found = load_gguf(written(tmp_path / "x", tensors, endian, alignment))
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        assert found[name].read().tobytes() == array.tobytes()


def test_reader_of_the_package_sees_the_same(tmp_path):
    path = written(tmp_path / "x", {"a": (np.ones((2, 3), np.float32), None)})
    reader, found = gguf.GGUFReader(path), load_gguf(path)
    for field in ("general.architecture", "llama.block_count"):
        assert found.config[field] == reader.get_field(field).contents()


def test_spectra_of_a_quantised_matrix(tmp_path):
    weights = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    packed = gguf.quants.quantize(weights, Types.Q8_0)
    path = written(tmp_path / "x.gguf", {"blk.0.attn_q.weight": (packed, Types.Q8_0)})
    (record,) = wwfunc.analyze(path).records
    expected = np.linalg.svd(gguf.quants.dequantize(packed, Types.Q8_0), compute_uv=False)[0] ** 2
    assert record.measures.esd.evals.max() == pytest.approx(expected, rel=1e-5)
