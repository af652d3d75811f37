"""The zip reader beside `zipfile`: whatever an honest writer writes, both read alike."""

from __future__ import annotations

import zipfile
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.archive import read_archive
from loaders.budget import Budget

BUDGET = Budget()
_PART = st.text(st.characters(exclude_characters="/\\:\0", exclude_categories=["Cs"]), min_size=1)
NAMES = st.lists(_PART.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=3)
DATA = st.binary(max_size=40) | st.integers(0, 3000).map(bytes)
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


@st.composite
def entries(draw):
    """Names, of which none is a folder of another, with data and a method each."""
    names = draw(st.lists(NAMES.map("/".join), max_size=6, unique=True))
    return [(name, draw(DATA), draw(METHODS)) for name in names]


class Pipe:
    """A file that cannot seek: `zipfile` then writes its sizes behind the data."""

    def __init__(self, file):
        self.write, self.flush, self.close = file.write, file.flush, file.close


def write_by_zipfile(path, written, comment, folder, zip64, pipe):
    with open(path, "wb") as file:
        target = Pipe(file) if pipe else file
        with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
            archive.comment = comment
            if folder:
                archive.mkdir("a folder") if not pipe else archive.writestr("a folder/", b"")
            for name, data, method in written:
                info = zipfile.ZipInfo(name)
                info.compress_type = method
                with archive.open(info, "w", force_zip64=zip64) as entry:
                    entry.write(data)


@settings(max_examples=150, deadline=None)
@given(entries(), st.binary(max_size=20), st.booleans(), st.booleans(), st.booleans())
def test_what_zipfile_writes(tmp_path_factory, written, comment, folder, zip64, pipe):
    path = tmp_path_factory.getbasetemp() / "by_zipfile"
    write_by_zipfile(path, written, comment, folder, zip64, pipe)
    with zipfile.ZipFile(path) as archive:
        expected = {info.filename: archive.read(info) for info in archive.infolist()}
    members = read_archive(path, BUDGET)
    files = {name: member for name, member in members.items() if not name.endswith("/")}
    assert {name: member.read().tobytes() for name, member in files.items()} == {
        name: data for name, data in expected.items() if not name.endswith("/")
    }
    for name, member in files.items():
        assert member.nbytes == len(expected[name])
        assert member.crc == zlib.crc32(expected[name])
        assert member.content(BUDGET, "header_bytes") == expected[name]
        member.check_crc()


def test_a_name_with_a_colon_is_a_name(tmp_path):
    """PyTorch calls the root folder as the file, which may be named by the time of day."""
    path = tmp_path / "x"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ckpt_12:30:00/data.pkl", b"")
    assert list(read_archive(path, Budget())) == ["ckpt_12:30:00/data.pkl"]
