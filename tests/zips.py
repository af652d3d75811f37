"""Zip archives written by hand: any header may lie, and data may be a hole in the file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

_LOCAL = ("needed", "flags", "method", "time", "date", "crc", "stored", "nbytes", "name", "extra")
_CENTRAL = ("made", *_LOCAL, "comment", "disk", "internal", "external", "header")
_WIDE = ("nbytes", "stored", "header")


@dataclass
class Entry:
    """One entry as torch writes it: stored, sizes in a descriptor and in the directory only.

    `data` may be a number: so many zero bytes, a hole in the file. `packed` is the data as the
    file has it, where that is neither stored nor deflated. `local` and `central` replace fields
    of the two headers; a name or an extra field is bytes.
    """

    name: str
    data: bytes | int
    method: int = 0
    flags: int = 0x808
    align: int = 1
    packed: bytes | None = None
    local: Mapping = field(default_factory=dict)
    central: Mapping = field(default_factory=dict)

    @property
    def nbytes(self):
        return self.data if isinstance(self.data, int) else len(self.data)

    @property
    def stored(self):
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == 8 else self.data


def deflate(data):
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


def _pad(position, align):
    """The extra field that brings the data, `position` bytes in without it, to a multiple."""
    if align == 1:
        return b""
    length = -(position + 4) % align
    return b"FB" + struct.pack("<H", length) + b"Z" * length


def write_zip(path, entries, **options):
    """The archive that `zipped` describes, at `path`, with its holes."""
    with open(path, "wb") as file:
        _write(file, entries, **options)
    return path


def zipped(entries, **options):
    """A zip archive: `prefix`, the entries, `gap`, the directory and `suffix`.

    `zip64` writes all sizes in 64 bits; "end" adds the record of 64 bits at the end alone, as
    PyTorch does. What is left replaces fields of the last record.
    """
    buffer = io.BytesIO()
    _write(buffer, entries, **options)
    return buffer.getvalue()


def _write(file, entries, *, prefix=b"", suffix=b"", gap=b"", zip64=False, **end):
    file.write(prefix)
    headers = b"".join(_write_entry(file, entry, zip64) for entry in entries)
    start = file.tell()
    file.write(headers + gap)
    file.write(_end(len(entries), len(headers), start, zip64, end))
    file.write(suffix)


def _write_entry(file, entry, zip64):
    header, octets = file.tell(), entry.name.encode()
    extra = _pad(header + 30 + len(octets), entry.align)
    stored = entry.stored
    nstored = stored if isinstance(stored, int) else len(stored)
    crc = 0 if isinstance(entry.data, int) else zlib.crc32(entry.data)
    fields = {"needed": 20, "flags": entry.flags, "method": entry.method, "name": octets}
    described = bool(entry.flags & 8)
    sizes = {"crc": crc, "stored": nstored, "nbytes": entry.nbytes}
    local = {**fields, **({} if described else sizes), "extra": extra, **entry.local}
    file.write(b"PK\x03\x04" + _record("<5H3L2H", _LOCAL, local))
    _write_data(file, stored)
    if described:
        width = "<4sL2Q" if zip64 is True else "<4s3L"
        file.write(struct.pack(width, b"PK\x07\x08", crc, nstored, entry.nbytes))
    central = {"made": 20, **fields, **sizes, "header": header, **entry.central}
    return b"PK\x01\x02" + _record(
        "<6H3L5H2L", _CENTRAL, _widened(central) if zip64 is True else central
    )


def _record(form, names, fields):
    tails = [fields.get(part, b"") for part in ("name", "extra", "comment")]
    lengths = dict(zip(("name", "extra", "comment"), map(len, tails), strict=True))
    values = [{**fields, **lengths}.get(part, 0) for part in names]
    return struct.pack(form, *values) + b"".join(tails if "comment" in names else tails[:2])


def _widened(fields):
    wide = struct.pack("<2H3Q", 1, 24, *(fields[part] for part in _WIDE))
    return {**fields, **dict.fromkeys(_WIDE, 0xFFFFFFFF), "extra": wide}


def _write_data(file, stored):
    if not isinstance(stored, int):
        file.write(stored)
    elif stored:
        file.seek(stored - 1, io.SEEK_CUR)
        file.write(b"\0")


def _end(count, length, start, zip64, changed):
    real = start + length
    fields = {"count": count, "length": length, "start": start, "comment": b"", **changed}
    count, length, start = fields["count"], fields["length"], fields["start"]
    here = fields.get("here", count)
    wide = b""
    if zip64:
        at = fields.get("at", real)
        wide = struct.pack(
            "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, here, count, length, start
        ) + struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    if zip64 is True:
        here = count = 0xFFFF
        length = start = 0xFFFFFFFF
    count = fields.get("narrow_count", count)
    comment = fields["comment"]
    size = fields.get("comment_size", len(comment))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, here, count, length, start, size)
    return wide + tail + comment
