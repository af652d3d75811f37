"""What a zarr array says of itself: `.zarray` of version 2, `zarr.json` of version 3."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from wwfunc.dtypes import BY_NUMPY_NAME, ELEMENT_TYPES

from ..compression import METHODS
from ..errors import ElementTypeError, HeaderError, LayoutError, UnsupportedError
from ..strict_json import brief, parse_object
from .zarr_chunks import CHECKSUM, Encoding, Shards

METADATA_NAMES = {".zarray": 2, "zarr.json": 3}
_LARGEST = (1 << 63) - 1
_DIMENSIONS = 32
_CODED = {row.dtype.str[1:] for row in ELEMENT_TYPES if row.dtype.kind in "biufc"} - {"f1"}
_IGNORED = {"attributes", "dimension_names", "node_type", "zarr_format"}
_KNOWN = {"shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"}


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """Shape and element type of an array, and how its chunks are named and encoded."""

    shape: tuple[int, ...]
    chunk: Encoding
    prefix: str
    separator: str
    zero_fill: bool
    """Whether a chunk that is absent stands for zeros, rather than for another number."""

    def chunk_name(self, numbers: tuple[int, ...]) -> str:
        """The key of a chunk, below that of the array."""
        parts = [self.prefix] * bool(self.prefix) + [str(number) for number in numbers]
        return self.separator.join(parts) or "0"


def parse_zarr(text: bytes, version: int, path: Path) -> ZarrArray:
    """The array that `text` describes; `path` is for messages."""
    document = parse_object(text, path)
    if type(document.get("zarr_format")) is not int or document["zarr_format"] != version:
        raise HeaderError(f"{path}: not of zarr format {version}")
    parse = _Version2 if version == 2 else _Version3
    return parse(document, str(path)).array()


class _Document:
    """Fields of the metadata, and what they must be."""

    def __init__(self, document: dict[str, Any], where: str) -> None:
        self._document, self._where = document, where

    def refuse(self, what: str, error: type[Exception] = HeaderError) -> NoReturn:
        raise error(f"{self._where}: {what}")

    def sides(self, values: Any, what: str, least: int) -> tuple[int, ...]:
        if type(values) is not list or not all(
            type(value) is int and least <= value <= _LARGEST for value in values
        ):
            self.refuse(f"{what} {brief(values)} is not a list of numbers from {least}")
        if len(values) > _DIMENSIONS:
            self.refuse(f"{what} has {len(values)} dimensions")
        return tuple(values)

    def grid(self, shape: Any, chunk: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        shape = self.sides(shape, "shape", 0)
        chunk = self.sides(chunk, "chunk shape", 1)
        if len(shape) != len(chunk):
            self.refuse(f"{len(shape)} dimensions in chunks of {len(chunk)}", LayoutError)
        for sides in (shape, chunk):
            if math.prod(side for side in sides if side) * 16 > _LARGEST:
                self.refuse(f"shape {brief([*sides])} overflows", LayoutError)
        return shape, chunk

    def element(self, name: Any) -> np.dtype:
        if type(name) is not str or name not in BY_NUMPY_NAME:
            self.refuse(f"the unknown element type {brief(name)}", ElementTypeError)
        return BY_NUMPY_NAME[name].dtype


class _Version2(_Document):
    def array(self) -> ZarrArray:
        document = self._document
        shape, chunk = self.grid(document.get("shape"), document.get("chunks"))
        axes = tuple(range(len(shape)))
        order = document.get("order")
        if order not in ("C", "F"):
            self.refuse(f"the order {brief(order)}")
        if document.get("filters"):
            self.refuse("filters, which are not read", UnsupportedError)
        separator = document.get("dimension_separator", ".")
        if separator not in (".", "/"):
            self.refuse(f"the separator {brief(separator)}")
        encoding = Encoding(
            chunk, self._dtype(), axes if order == "C" else axes[::-1], self._packing()
        )
        fill = document.get("fill_value")
        return ZarrArray(shape, encoding, "", separator, fill is None or _is_zero(fill))

    def _dtype(self) -> np.dtype:
        """NumPy's code with its byte order, or a name for what NumPy has no code for."""
        name = self._document.get("dtype")
        if type(name) is str and re.fullmatch(r"[<>|]\w+", name) and name[1:] in _CODED:
            return np.dtype(name)
        return self.element(name)

    def _packing(self) -> tuple[str, ...]:
        compressor = self._document.get("compressor")
        if compressor is None:
            return ()
        method = compressor.get("id") if type(compressor) is dict else None
        if method not in METHODS:
            self.refuse(f"the compression {brief(method)}, which is not read", UnsupportedError)
        return (method,)


class _Version3(_Document):
    def array(self) -> ZarrArray:
        document = self._document
        if document.get("node_type") != "array":
            self.refuse(f"the node type {brief(document.get('node_type'))}")
        for name in document.keys() - _KNOWN - _IGNORED:
            extension = document[name]
            if extension and not (
                type(extension) is dict and extension.get("must_understand") is False
            ):
                self.refuse(f"the extension {brief(name)}, which is not read", UnsupportedError)
        name, options = self._named(document.get("chunk_grid"), "chunk grid")
        if name != "regular":
            self.refuse(f"the chunk grid {brief(name)}, which is not read", UnsupportedError)
        shape, chunk = self.grid(document.get("shape"), options.get("chunk_shape"))
        dtype = self.element(document.get("data_type"))
        encoding = self._encoding(document.get("codecs"), chunk, dtype, nested=False)
        prefix, separator = self._keys()
        return ZarrArray(shape, encoding, prefix, separator, _is_zero(document.get("fill_value")))

    def _named(self, value: Any, what: str) -> tuple[str, dict[str, Any]]:
        """The name and the configuration of an extension point."""
        if type(value) is str:
            return value, {}
        options = value.get("configuration", {}) if type(value) is dict else None
        if type(options) is not dict or type(value.get("name")) is not str:
            self.refuse(f"the {what} {brief(value)}")
        return value["name"], options

    def _keys(self) -> tuple[str, str]:
        """Prefix and separator of the names of chunks."""
        name, options = self._named(self._document.get("chunk_key_encoding"), "names of chunks")
        if name not in ("default", "v2"):
            self.refuse(f"the names of chunks {brief(name)}, which are not read", UnsupportedError)
        separator = options.get("separator", "/" if name == "default" else ".")
        if separator not in (".", "/"):
            self.refuse(f"the separator {brief(separator)}")
        return "c" if name == "default" else "", separator

    def _encoding(
        self, codecs: Any, shape: tuple[int, ...], dtype: np.dtype, nested: bool
    ) -> Encoding:
        """What a list of codecs does to a chunk: transpose, then bytes or shards, then packing."""
        if type(codecs) is not list or not 0 < len(codecs) <= 8:
            self.refuse(f"the codecs {brief(codecs)}")
        steps = [self._named(codec, "codec") for codec in codecs]
        axes = tuple(range(len(shape)))
        if steps[0][0] == "transpose":
            axes = self._axes(steps.pop(0)[1].get("order"), len(shape))
        name, options = steps.pop(0) if steps else ("", {})
        packing = self._packing([step for step, _ in steps])
        if name == "bytes":
            return Encoding(shape, self._ordered(dtype, options), axes, packing)
        if name != "sharding_indexed" or nested or packing or axes != tuple(range(len(shape))):
            self.refuse(f"the codecs {brief(codecs)}, which are not read", UnsupportedError)
        return Encoding(shape, dtype, axes, (), self._shards(options, shape, dtype))

    def _axes(self, order: Any, count: int) -> tuple[int, ...]:
        if order in ("C", "F"):
            axes = tuple(range(count))
            return axes if order == "C" else axes[::-1]
        axes = self.sides(order, "order of axes", 0)
        if sorted(axes) != list(range(count)):
            self.refuse(f"the order of axes {brief(order)}")
        return axes

    def _ordered(self, dtype: np.dtype, options: dict[str, Any]) -> np.dtype:
        endian = options.get("endian", "little" if dtype.itemsize == 1 else None)
        if endian not in ("little", "big"):
            self.refuse(f"the byte order {brief(endian)}")
        return dtype.newbyteorder("<" if endian == "little" else ">")

    def _packing(self, names: list[str]) -> tuple[str, ...]:
        compressions = [name for name in names if name != CHECKSUM]
        for name in compressions:
            if name not in METHODS or len(compressions) > 1:
                self.refuse(f"the codecs {brief(names)}, which are not read", UnsupportedError)
        return tuple(names)

    def _shards(self, options: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype) -> Shards:
        _, inner = self.grid([*shape], options.get("chunk_shape"))
        if any(side % step for side, step in zip(shape, inner, strict=True)):
            self.refuse(f"shards of {brief([*shape])} in chunks of {brief([*inner])}", LayoutError)
        encoding = self._encoding(options.get("codecs"), inner, dtype, nested=True)
        index = self._encoding(options.get("index_codecs"), (1,), np.dtype("<u8"), nested=True)
        if set(index.packing) - {CHECKSUM} or index.dtype != np.dtype("<u8"):
            self.refuse("an index of shards of another kind", UnsupportedError)
        location = options.get("index_location", "end")
        if location not in ("start", "end"):
            self.refuse(f"the place of the index {brief(location)}")
        return Shards(encoding, index.packing, location == "start")


def _is_zero(fill: Any) -> bool:
    parts = fill if type(fill) is list and len(fill) == 2 else [fill]  # of a complex number
    return all(type(part) in (int, float, bool) and not part for part in parts)
