"""The container writes the same bytes, reads back what it wrote, and believes nothing."""

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from lvdd_assets.distill import release_files
from lvdd_assets.distill.release_files import ReleaseError
from tests.distill.release_mutations import memory_limit

ATTRIBUTES = {"classes": [["läuft", 2, 3, 0]], "empty": None}
ARRAYS = {"cores": np.arange(3, dtype=np.uint8), "labels": np.zeros(2, dtype=np.uint16)}


def _file(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "a.zarr.zip"
    path.write_bytes(release_files.write(ATTRIBUTES, {**ARRAYS, **arrays}))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    weights = np.arange(1000, dtype=np.uint8)
    attributes, arrays = release_files.read(_file(tmp_path, decoder=weights, encoder=weights))
    assert {key: attributes[key] for key in ATTRIBUTES} == ATTRIBUTES
    assert attributes["version"] == 3  # the lowest that has what is in it
    assert set(arrays) == {"cores", "labels", "decoder"}  # the encoder is counted and never read
    np.testing.assert_array_equal(arrays["cores"], ARRAYS["cores"])
    np.testing.assert_array_equal(arrays["labels"], [0, 0])  # nothing but the fill value, and still there


def test_soft_labels_make_it_the_next_version(tmp_path: Path) -> None:
    levels = np.array([255, 0, 3, 255], dtype=np.uint8)
    attributes, arrays = release_files.read(_file(tmp_path, soft_labels=levels))
    assert attributes["version"] == release_files.VERSION == 4
    np.testing.assert_array_equal(arrays["soft_labels"], levels)


def test_same_content_same_bytes() -> None:
    assert release_files.write(ATTRIBUTES, ARRAYS) == release_files.write(dict(ATTRIBUTES), dict(ARRAYS))


def test_sizes_are_those_in_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, decoder=np.zeros(5000, dtype=np.uint8))
    _, sizes = release_files.read_sizes(path)
    assert sizes["cores"] == 3  # stored plain
    assert sizes["decoder"] < 100  # compressed
    assert sum(sizes.values()) < path.stat().st_size


def test_plain_zarr_opens_it(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(_file(tmp_path), mode="r") as store:
        assert zarr.open_group(store, mode="r")["cores"][...].tolist() == [0, 1, 2]


@pytest.mark.parametrize("missing", ["cores", "labels"])
def test_a_file_without_what_every_release_has_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "a.zarr.zip"
    path.write_bytes(release_files.write(ATTRIBUTES, {name: ARRAYS[name] for name in ARRAYS if name != missing}))
    with pytest.raises(ReleaseError, match="missing, unknown or double"):
        release_files.read(path)


SMALL_MEMORY = 32 * 2**20


def _entries(folder: Path, **arrays: np.ndarray) -> dict[str, bytes]:
    with zipfile.ZipFile(_file(folder, **arrays)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(folder: Path, entries: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "b.zarr.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def _lie_in_directory(path: Path, name: str, **fields: int) -> None:
    """Changes fields of an entry in the zip's central directory (APPNOTE.TXT, 4.3.12)."""
    data = bytearray(path.read_bytes())
    start = data.rindex(name.encode()) - 46
    assert data[start : start + 4] == b"PK\x01\x02"
    places = {"flags": (8, "H"), "method": (10, "H"), "packed": (20, "I"), "size": (24, "I"), "offset": (42, "I")}
    for field, value in fields.items():
        place, kind = places[field]
        struct.pack_into(f"<{kind}", data, start + place, value)
    path.write_bytes(data)


def _refused(path: Path, message: str) -> None:
    with memory_limit(SMALL_MEMORY), pytest.raises(ReleaseError, match=message) as caught:
        release_files.read(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("cores/c/0", {"packed": 0xFFFFFFF0, "size": 0xFFFFFFF0}, "claims bytes"),
        ("cores/c/0", {"size": 0xFFFFFFF0}, r"claims 4294967280 B, its 3 B cannot"),
        ("zarr.json", {"size": 0xFFFFFFF0}, "cannot"),
        ("labels/c/0", {"offset": 0}, "behind the entry before it"),
        ("labels/c/0", {"offset": 1 << 31}, "claims bytes"),
        ("cores/c/0", {"method": zipfile.ZIP_DEFLATED}, "packed by method 8"),
        ("zarr.json", {"method": zipfile.ZIP_LZMA}, "packed by method 14"),
        ("zarr.json", {"flags": 1}, "encrypted"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_lies_in_the_zip_are_refused_before_memory_is_taken(
    tmp_path: Path, name: str, fields: dict[str, int], message: str
) -> None:
    path = _file(tmp_path)
    _lie_in_directory(path, name, **fields)
    _refused(path, message)


def test_sizes_of_zip64_are_compared_too(tmp_path: Path) -> None:
    """A kilobyte that claims a terabyte."""
    path = tmp_path / "b.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in _entries(tmp_path).items():
            archive.writestr(name, data)
        info = archive.getinfo("cores/c/0")
        info.file_size = info.compress_size = 1 << 40
    assert path.stat().st_size < 4000
    _refused(path, "claims bytes .* to 1099511")


def test_a_deflated_bomb_is_not_unpacked(tmp_path: Path) -> None:
    entries = {**_entries(tmp_path), "zarr.json": b"{" + bytes(40 * 2**20)}
    path = _zip(tmp_path, entries, zipfile.ZIP_DEFLATED)
    _refused(path, "packed by method 8|claims 41943041 B")
    path = tmp_path / "b.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            is_json = name.endswith("zarr.json")
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if is_json else zipfile.ZIP_STORED)
    _refused(path, "claims 41943041 B")
    _lie_in_directory(path, "zarr.json", size=100)  # what is unpacked is cut to it
    _refused(path, "zarr.json|JSON|Extra data|CRC|Expecting")


def _frame(num_blocks: int, *, content_size: int | None) -> bytes:
    """A zstd frame of blocks of 128 KiB of zeros, four bytes each (RFC 8878)."""
    head = b"\x28\xb5\x2f\xfd"
    head += b"\x00\x38" if content_size is None else b"\xe0" + struct.pack("<Q", content_size)
    block = (1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\x00"
    last = (1 | 1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\x00"
    return head + block * (num_blocks - 1) + last


def _with_labels(folder: Path, chunk: bytes, length: int) -> Path:
    entries = _entries(folder)
    header = json.loads(entries["labels/zarr.json"])
    header["shape"] = header["chunk_grid"]["configuration"]["chunk_shape"] = [length]
    return _zip(folder, {**entries, "labels/zarr.json": json.dumps(header).encode(), "labels/c/0": chunk})


def test_zstd_frames_give_what_the_header_says_or_nothing(tmp_path: Path) -> None:
    right = np.zeros(1 << 16, dtype=np.uint16)
    frame = _frame(1, content_size=right.nbytes)
    _, arrays = release_files.read(_with_labels(tmp_path, frame, len(right)))
    np.testing.assert_array_equal(arrays["labels"], right)
    for chunk, message in (
        (_frame(4000, content_size=None), "say None B"),  # would be unpacked to half a gigabyte
        (_frame(4000, content_size=1 << 40), "say 1099511627776 B"),
        (_frame(4000, content_size=right.nbytes), "buffer too small|Zstd"),  # holds more than it says
        (_frame(1, content_size=right.nbytes) * 3000, "buffer too small|Zstd"),  # frames behind the frame
        (frame[:7], "say None B"),
        (b"", "claims 65536 values|claims bytes"),
    ):
        _refused(_with_labels(tmp_path, chunk, len(right)), message)
    _refused(_with_labels(tmp_path, frame, len(right) - 1), "bytes say 131072 B")
    _refused(_with_labels(tmp_path, _frame(4000, content_size=4000 << 17), 4000 << 16), "claims 262144000 values")


class _Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "name", ["pickle", "numcodecs.pickle", "numcodecs.json2", "vlen-utf8", "blosc", "sharding_indexed"]
)
def test_codecs_that_releases_never_use_are_refused_undecoded(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    for codecs in ([{"name": name}], [{"name": "bytes"}, {"name": name}], [{"name": "bytes"}, {"name": "zstd"}] * 2):
        entries = _entries(tmp_path)
        header = json.loads(entries["labels/zarr.json"])
        header["codecs"] = codecs
        entries |= {"labels/zarr.json": json.dumps(header).encode(), "labels/c/0": pickle.dumps(_Touch(mark))}
        _refused(_zip(tmp_path, entries), "which releases never use")
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Touch(mark)))
    assert mark.exists()  # it would have


def test_values_of_another_byte_order_are_refused(tmp_path: Path) -> None:
    entries = _entries(tmp_path)
    entries["labels/zarr.json"] = entries["labels/zarr.json"].replace(b'"little"', b'"big"')
    _refused(_zip(tmp_path, entries), "bytes big")


@pytest.mark.parametrize(
    "metadata",
    [
        b"[" * 100_000,
        b'{"attributes":' * 50_000,
        b'{"attributes": {"version": ' + b"9" * 5000 + b"}}",
        b'{"attributes": []}',
        b"[1]",
        b"\xff\xfe",
        b"",
    ],
    ids=lambda value: str(value[:20]),
)
def test_metadata_that_is_none_is_refused(tmp_path: Path, metadata: bytes) -> None:
    _refused(
        _zip(tmp_path, {**_entries(tmp_path), "zarr.json": metadata}), "zarr.json|expected 'lvdd-release'|damaged|:"
    )


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (5, "version 5, this package reads 1 to 4: upgrade lvdd-assets"),
        (10**40, "upgrade lvdd-assets"),
        (0, "no release has such a version"),
        (True, "no release has such a version"),
        (3.0, "no release has such a version"),
        ("3", "no release has such a version"),
        (None, "no release has such a version"),
    ],
)
def test_versions(tmp_path: Path, version: object, message: str) -> None:
    entries = _entries(tmp_path)
    content = json.loads(entries["zarr.json"])
    content["attributes"]["version"] = version
    path = _zip(tmp_path, {**entries, "zarr.json": json.dumps(content).encode(), "novelty/c/0": b"x"})
    _refused(path, message)
    with pytest.raises(ReleaseError, match=message):
        release_files.read_sizes(path)


def test_double_entries_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path, _entries(tmp_path))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels/c/0", b"")
    _refused(path, "missing, unknown or double")


def test_what_the_file_system_refuses_is_no_damage(tmp_path: Path) -> None:
    for read in (release_files.read, release_files.read_sizes):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent")
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
