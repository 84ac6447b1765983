"""The container of a release: a zip that plain `zarr` opens, written byte for byte the same, read with distrust.

Named arrays of one chunk each and one JSON of attributes. What they mean belongs to `release`. A stranger's file is
data, never code: a closed list of entries, types and codecs, and no size is believed before it was compared with the
bytes that are there.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd

FORMAT = "lvdd-release"
VERSION = 4
# Version 2 added 3D decoders, weights that are float16 but for linear layers, and the encoder; version 3 range-coded
# classes, videos, and classes of several forms in one file; version 4 soft labels. A file bears the lowest version that
# has what is in it.
READABLE = (1, 2, 3, 4)
_WITHOUT_SOFT_LABELS = 3

# Arrays with their types, and whether each file has them.
ARRAYS = {"cores": "uint8", "labels": "uint16", "soft_labels": "uint8", "decoder": "uint8", "encoder": "uint8"}
_REQUIRED = ("cores", "labels")
_PLAIN = ("cores",)  # already as small as it gets; a second compression would only add its header

_LEAVES = ("zarr.json", "c/0")
# What a stranger's file may make of few bytes. JSON of a megabyte takes some twenty in memory; beyond, attributes
# compress tenfold, as names do, hardly more. Labels compress thousandfold, weights and soft labels little.
_FREE_BYTES = 2**20
_MAX_JSON_RATIO, _MAX_JSON_BYTES = 100, 16 * 2**20
_MAX_RATIO = {"labels": 10_000, "soft_labels": 1_000, "decoder": 1_000}
_MAX_ARRAY_BYTES = {"labels": 2**25, "soft_labels": 2**29, "decoder": 2**29}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ENTRY_HEADER_BYTES = 30  # before an entry's name and bytes
# The zip format's first day, so that the same content gives the same bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class ReleaseError(ValueError):
    """The file is no release that this version can open. The message says what is wrong with it."""


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Makes one named error of all that goes wrong with a stranger's bytes within, also in libraries.

    Args:
        what: the file, and the part of it that is read.

    Raises:
        ReleaseError: anything was raised; a ReleaseError passes through with `what` before it.
        FileNotFoundError, PermissionError, IsADirectoryError: the file cannot be read, whatever is in it.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except ReleaseError as error:
        raise error if str(error).startswith(what) else ReleaseError(f"{what}: {error}") from error.__cause__
    except ValueError as error:
        raise ReleaseError(f"{what}: {error}") from error
    except Exception as error:  # zip, deflate, zstd, JSON, FFmpeg, torch: each has errors of its own
        raise ReleaseError(f"{what} is damaged or no release ({type(error).__name__}: {error})") from error


def write(attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file's bytes: the same content gives the same bytes.

    Args:
        attributes: plain JSON values; format and version are added.
        arrays: one-dimensional, of the types in `ARRAYS`, not empty.
    """
    import zarr  # late: reading does without it
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    entries: dict[str, Any] = {}
    version = VERSION if "soft_labels" in arrays else _WITHOUT_SOFT_LABELS
    with zarr.config.set({"json_indent": None}):
        group = zarr.create_group(
            store=MemoryStore(store_dict=entries), attributes={"format": FORMAT, "version": version, **attributes}
        )
        for name, data in arrays.items():
            # The chunk is written even where it is all fill value: what is absent could not be told from what was lost.
            group.create_array(
                name,
                data=data,
                chunks=data.shape,
                compressors=None if name in _PLAIN else [ZstdCodec(level=22)],
                config={"write_empty_chunks": True},
            )
    return _zip({name: buffer.to_bytes() for name, buffer in entries.items()})


def _zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=_ZIP_DATE)
            info.external_attr = 0o644 << 16
            # Chunks are as small as they get; the metadata is text.
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith("zarr.json") else zipfile.ZIP_STORED
            archive.writestr(info, entries[name], compresslevel=9)
    return buffer.getvalue()


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attributes and arrays of a release file.

    Raises:
        ReleaseError: it is no release, of another version, cut or damaged.
    """
    with refusing(str(path)), _open(path) as archive:
        attributes = _attributes(archive)
        _check_entries(archive, attributes["version"])
        # The encoder is counted and never needed.
        names = [name for name in ARRAYS if name != "encoder" and f"{name}/c/0" in archive.namelist()]
        return attributes, {name: _read_array(archive, name) for name in names}


def read_sizes(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Attributes, and the bytes that each array's chunk takes in the file.

    Raises:
        ReleaseError: as `read`, as far as no array must be read for it.
    """
    with refusing(str(path)), _open(path) as archive:
        attributes = _attributes(archive)
        _check_entries(archive, attributes["version"])
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
        return attributes, {name: sizes[f"{name}/c/0"] for name in ARRAYS if f"{name}/c/0" in sizes}


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ReleaseError(f"{path} is no release: {error}") from error
    with archive:
        if "zarr.json" not in archive.namelist():
            raise ReleaseError(f"{path} is no release: it has no zarr.json")
        _check_places(archive, path.stat().st_size)
        yield archive


def _check_places(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """Every entry lies within the file, none on another, and none is packed in a way that could grow unseen."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        start, end = end, info.header_offset + _ENTRY_HEADER_BYTES + info.compress_size
        if not start <= info.header_offset or end > num_bytes:
            raise ReleaseError(
                f"entry {info.filename!r} claims bytes {info.header_offset} to {end}, expected within {start} to "
                f"{num_bytes}, behind the entry before it: it is cut or made up"
            )
        is_json, most = info.filename.endswith("zarr.json"), info.compress_size
        if is_json and info.compress_type == zipfile.ZIP_DEFLATED:
            most = max(_FREE_BYTES, _MAX_JSON_RATIO * info.compress_size)
        elif info.compress_type != zipfile.ZIP_STORED:
            raise ReleaseError(f"entry {info.filename!r} is packed by method {info.compress_type}, releases never are")
        if info.file_size > (min(most, _MAX_JSON_BYTES) if is_json else most):
            raise ReleaseError(f"entry {info.filename!r} claims {info.file_size} B, its {info.compress_size} B cannot")


def _check_entries(archive: zipfile.ZipFile, version: int) -> None:
    """Exactly the entries of a release; after its version, for a newer one may well have others."""
    names = archive.namelist()
    known = [name for name in ARRAYS if name != "soft_labels" or version > _WITHOUT_SOFT_LABELS]
    there = [name for name in known if name in _REQUIRED or any(entry.startswith(f"{name}/") for entry in names)]
    expected = {"zarr.json"} | {f"{name}/{leaf}" for name in there for leaf in _LEAVES}
    if set(names) != expected or len(names) != len(expected):
        strange = sorted(set(names) ^ expected)[:3]
        raise ReleaseError(f"this is no release: entries {strange} are missing, unknown or double")


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes, no more than it claims: without a limit, all is unpacked before it is cut to size."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as entry:
        data = entry.read(size)
    if len(data) != size:
        raise ReleaseError(f"entry {name!r} claims {size} B and has {len(data)} B")
    return data


def _read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    content = json.loads(_read_entry(archive, name))
    if not isinstance(content, dict):
        raise ReleaseError(f"{name} holds no JSON object")
    return content


def _attributes(archive: zipfile.ZipFile) -> dict[str, Any]:
    attributes = _read_json(archive, "zarr.json").get("attributes")
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        found = attributes.get("format") if isinstance(attributes, dict) else attributes
        raise ReleaseError(f"format {str(found)[:80]!r}, expected {FORMAT!r}: this is no release")
    version = attributes.get("version")
    if type(version) is not int or version not in READABLE:
        is_newer = type(version) is int and version > VERSION
        raise ReleaseError(
            f"release format version {str(version)[:80]}, this package reads {READABLE[0]} to {VERSION}: "
            f"{'upgrade lvdd-assets' if is_newer else 'no release has such a version, fetch it again'}"
        )
    return attributes


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of the release. Its header is compared with what releases have, and is given to no library."""
    header, dtype = _read_json(archive, f"{name}/zarr.json"), np.dtype(ARRAYS[name])
    codecs = [_codec(codec) for codec in header["codecs"]]
    packings = [["bytes"]] if name in _PLAIN else [["bytes"], ["bytes", "zstd"]]
    if codecs not in packings or header["data_type"] != ARRAYS[name]:
        raise ReleaseError(
            f"array {name!r} has codecs {codecs} and type {header['data_type']!r}, which releases never use"
        )
    is_packed, chunk = len(codecs) > 1, _read_entry(archive, f"{name}/c/0")
    (length,) = header["shape"]
    limit = len(chunk)
    if is_packed:
        limit = min(_MAX_ARRAY_BYTES[name], max(_FREE_BYTES, _MAX_RATIO[name] * len(chunk)))
    if type(length) is not int or not 0 < length * dtype.itemsize <= limit:
        raise ReleaseError(f"array {name!r} claims {length} values, its chunk has {len(chunk)} B")
    there = _unpacked_size(chunk) if is_packed else len(chunk)
    if header["chunk_grid"]["configuration"]["chunk_shape"] != [length] or there != length * dtype.itemsize:
        raise ReleaseError(f"array {name!r} claims {length} values in one chunk, whose bytes say {there} B")
    if is_packed:  # into as many bytes as were announced: more frames, or larger ones, are refused
        chunk = Zstd().decode(chunk, out=np.empty(there, dtype=np.uint8)).tobytes()
    return np.frombuffer(chunk, dtype.newbyteorder("<")).astype(dtype)


def _codec(codec: Any) -> str:
    """The name of an array's codec; what would change how its bytes are read is part of the name."""
    name = str(codec["name"])[:80]
    endian = (codec.get("configuration") or {}).get("endian", "little")
    return name if endian == "little" else f"{name} {str(endian)[:80]}"


def _unpacked_size(frame: bytes) -> int | None:
    """Bytes that a zstd frame says it holds, or None (RFC 8878, section 3.1.1.1): without it, the library unpacks a
    frame to its end, however long that is."""
    if frame[:4] != _ZSTD_MAGIC or len(frame) < 5:
        return None
    flags = frame[4]
    is_single, num_dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    num_size = (is_single, 2, 4, 8)[flags >> 6]
    start = 6 - is_single + num_dictionary
    if not num_size or len(frame) < start + num_size:
        return None
    return int.from_bytes(frame[start : start + num_size], "little") + (256 if num_size == 2 else 0)
