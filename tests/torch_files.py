"""PyTorch files written by hand, without PyTorch: zip, legacy and tar."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

from pickles import Raw, call, name, persistent, pickled
from zips import Entry, write_zip

PADDING = 64
MAGIC = 0x1950A86A20F9469CFC6C
SYS_INFO = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def storage(kind, key, numel, location="cpu", tag="storage"):
    """The persistent id of a storage in a zip."""
    kind = kind if isinstance(kind, Raw) else name("torch", kind)
    return persistent((tag, kind, key, location, numel))


def legacy_storage(kind, key, numel, view=None, location="cpu", tag="storage"):
    """The persistent id of a storage in a legacy file: it has one part more."""
    kind = kind if isinstance(kind, Raw) else name("torch", kind)
    return persistent((tag, kind, key, location, numel, view))


def hooks():
    return call("collections.OrderedDict")


def tensor(stored, size=(2, 3), stride=None, offset=0, metadata=None):
    """`_rebuild_tensor_v2` over a storage; the strides are those of C order unless given."""
    more = () if metadata is None else (metadata,)
    steps = c_strides(size) if stride is None else stride
    return call(
        "torch._utils._rebuild_tensor_v2", stored, offset, size, steps, False, hooks(), *more
    )


def c_strides(size):
    steps, step = [], 1
    for side in reversed(size):
        steps.insert(0, step)
        step *= side if isinstance(side, int) else 1
    return tuple(steps)


def torch_entries(pickle, storages=(), *, root="archive", byteorder=b"little", extra=()):
    """The entries of a `torch.save` file; `storages` maps keys to bytes or to a hole's size."""
    entries = [Entry(f"{root}/data.pkl", pickle)]
    if byteorder is not None:
        entries.append(Entry(f"{root}/byteorder", byteorder))
    for key, data in dict(storages).items():
        entries.append(Entry(f"{root}/data/{key}", data, align=PADDING))
    entries.append(Entry(f"{root}/version", b"3\n"))
    return [*entries, *extra]


def torch_zip(path, tree, storages=(), *, protocol=2, **options):
    """A `torch.save` file of a tree whose tensors refer to `storages`; a tree may be a pickle."""
    pickle = tree if type(tree) is bytes else pickled(tree, protocol)
    return write_zip(Path(path), torch_entries(pickle, storages, **options), zip64="end")


def legacy_bytes(tree, storages=(), *, keys=None, magic=MAGIC, version=1001, info=None, protocol=2):
    """A legacy file: five pickles, then for every (key, numel, bytes) a count and the bytes."""
    listed = sorted(key for key, _, _ in storages) if keys is None else keys
    parts = (magic, version, info or SYS_INFO, tree, listed)
    head = b"".join(part if type(part) is bytes else pickled(part, protocol) for part in parts)
    by_key = {key: struct.pack("<q", numel) + data for key, numel, data in storages}
    return head + b"".join(by_key[key] for key, _, _ in sorted(storages, key=lambda s: s[0]))


def tar_bytes(members):
    """A tar archive of a mapping from names to bytes, or to a `tarfile.TarInfo`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for title, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            member = tarfile.TarInfo(title)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def tar_storages(storages, views=()):
    """The member `storages`: (key, type name, numel, bytes) each, then the views."""
    parts = [pickled(len(storages))]
    for key, kind, numel, data in storages:
        parts += [pickled((key, "cpu", name("torch", kind))), struct.pack("<q", numel), data]
    return b"".join(parts) + pickled(list(views))


def tar_tensors(tensors):
    """The member `tensors`: (key, storage key, type name, size, strides, offset) each."""
    parts = [pickled(len(tensors))]
    for key, stored, kind, size, strides, offset in tensors:
        sides = struct.pack(f"<{len(size)}q", *size) + struct.pack(f"<{len(size)}q", *strides)
        parts.append(pickled((key, stored, name("torch", kind))))
        parts.append(struct.pack("<ii", len(size), 0) + sides + struct.pack("<q", offset))
    return b"".join(parts)


def torch_tar(tree, tensors, storages, views=()):
    """The four members of a file by PyTorch 0.1.9 and before; `tree` refers to tensors by key."""
    return {
        "sys_info": pickled({"protocol_version": 1000, "little_endian": True}),
        "pickle": tree if type(tree) is bytes else pickled(tree),
        "storages": tar_storages(storages, views),
        "tensors": tar_tensors(tensors),
    }
