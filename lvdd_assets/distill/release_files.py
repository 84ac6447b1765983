"""The container of a release: a zip that plain `zarr` opens, written byte for byte the same, read with distrust.

Named arrays of one chunk each and one JSON of attributes. What they mean belongs to `release`. A stranger's file is
data, never code: a closed list of entries, types and codecs, and no size is believed before it was compared with the
bytes that are there.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

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

_CODECS = frozenset({"bytes", "zstd"})
_LEAVES = ("zarr.json", "c/0")
_MAX_JSON_BYTES = 64 * 2**20
_MAX_ARRAY_BYTES = 4 * 2**30
# Labels compress well, weights hardly; a chunk that claims to grow more than this is a bomb.
_MAX_RATIO = 10_000
# The zip format's first day, so that the same content gives the same bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
# What zip, deflate and zstd raise on damaged bytes.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


class ReleaseError(ValueError):
    """The file is no release that this version can open. The message says what is wrong with it."""


def write(attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file's bytes: the same content gives the same bytes.

    Args:
        attributes: plain JSON values; format and version are added.
        arrays: one-dimensional, of the types in `ARRAYS`, not empty.
    """
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
        ReleaseError: it is no release, or of another version; what its own libraries raise on damage (`DAMAGE`) and on
            lies about types passes through.
    """
    with _open(path) as archive:
        attributes = _attributes(archive)
        _check_entries(path, archive, attributes["version"])
        # The encoder is counted and never needed.
        names = [name for name in ARRAYS if name != "encoder" and f"{name}/c/0" in archive.namelist()]
        return attributes, {name: _read_array(archive, name) for name in names}


def read_sizes(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Attributes, and the bytes that each array's chunk takes in the file."""
    with _open(path) as archive:
        attributes = _attributes(archive)
        _check_entries(path, archive, attributes["version"])
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
        return attributes, {name: sizes[f"{name}/c/0"] for name in ARRAYS if f"{name}/c/0" in sizes}


def _open(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ReleaseError(f"{path} is no release: {error}") from error
    if "zarr.json" not in archive.namelist():
        archive.close()
        raise ReleaseError(f"{path} is no release: it has no zarr.json")
    return archive


def _check_entries(path: Path, archive: zipfile.ZipFile, version: int) -> None:
    """Exactly the entries of a release; after its version, for a newer one may well have others."""
    names = archive.namelist()
    known = [name for name in ARRAYS if name != "soft_labels" or version > _WITHOUT_SOFT_LABELS]
    there = [name for name in known if name in _REQUIRED or any(entry.startswith(f"{name}/") for entry in names)]
    expected = {"zarr.json"} | {f"{name}/{leaf}" for name in there for leaf in _LEAVES}
    if set(names) != expected or len(names) != len(expected):
        strange = sorted(set(names) ^ expected)[:3]
        raise ReleaseError(f"{path} is no release: entries {strange} are missing, unknown or double")


def _read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > _MAX_JSON_BYTES:
        raise ReleaseError(f"{name} claims {archive.getinfo(name).file_size} B of metadata, over {_MAX_JSON_BYTES} B")
    content = json.loads(archive.read(name))
    if not isinstance(content, dict):
        raise ReleaseError(f"{name} holds no JSON object")
    return content


def _attributes(archive: zipfile.ZipFile) -> dict[str, Any]:
    attributes: dict[str, Any] = _read_json(archive, "zarr.json").get("attributes", {})
    if attributes.get("format") != FORMAT:
        raise ReleaseError(f"format {attributes.get('format')!r}, expected {FORMAT!r}: this is no release")
    if attributes.get("version") not in READABLE:
        raise ReleaseError(
            f"release format version {attributes.get('version')!r}, this package reads {READABLE[0]} to {VERSION}: "
            "upgrade lvdd-assets"
        )
    return attributes


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of the release, read by zarr after its header was found harmless."""
    header = _read_json(archive, f"{name}/zarr.json")
    codecs = [codec["name"] for codec in header["codecs"]]
    if not set(codecs) <= _CODECS or codecs[:1] != ["bytes"] or header["data_type"] != ARRAYS[name]:
        raise ReleaseError(
            f"array {name!r} has codecs {codecs} and type {header['data_type']!r}, which releases never use"
        )
    chunk = archive.getinfo(f"{name}/c/0")
    (length,) = header["shape"]
    item = np.dtype(ARRAYS[name]).itemsize
    limit = min(_MAX_ARRAY_BYTES, _MAX_RATIO * chunk.file_size) if len(codecs) > 1 else chunk.file_size
    if header["chunk_grid"]["configuration"]["chunk_shape"] != [length] or not 0 < length * item <= limit:
        raise ReleaseError(f"array {name!r} claims {length} values, its chunk has {chunk.file_size} B")
    entries = {"zarr.json": archive.read(f"{name}/zarr.json"), "c/0": archive.read(chunk)}
    store = MemoryStore(store_dict={key: _buffer(data) for key, data in entries.items()})
    return np.asarray(zarr.open_array(store=store, mode="r")[...])


def _buffer(data: bytes) -> Any:
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(data)
