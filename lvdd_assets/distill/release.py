"""The release: one file with all that a stranger needs to train, its packing to a budget, its loader, its Dataset.

A release is a zip that plain `zarr` opens: arrays `cores` (the coded classes, end to end), `decoder` (quantised
weights), `labels`, for the recipe `paper` also `encoder` (counted as the paper counted it, and never read), and
attributes with class names, shapes and provenance. It is data, never code: a closed list of
codecs, sizes checked against each other before anything is allocated. How the parts were made belongs to the modules
below; what they are worth to `evaluation`.

Legend: N clips, T frames, C channels, H, W pixels.
"""

import functools
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from lvdd_assets.distill import coding, tucker
from lvdd_assets.distill.budget import Ledger, LedgerLine
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.coding import CodedClass
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import LatentDecoder, build_decoder
from lvdd_assets.distill.quantization import SCHEMES, QuantizedWeights, Scheme, dequantize, read_weights

FORMAT = "lvdd-release"
VERSION = 2
_READABLE = (1, 2)  # version 2 added 3D decoders, weights that are float16 but for linear layers, and the encoder
SUFFIX = ".zarr.zip"

_ARRAYS = {"cores": "uint8", "decoder": "uint8", "labels": "uint16"}
_CODECS = frozenset({"bytes", "zstd"})
_LEAVES = ("zarr.json", "c/0")
_ENTRIES = frozenset({"zarr.json"} | {f"{name}/{leaf}" for name in _ARRAYS for leaf in _LEAVES})
_ENCODER_ENTRIES = frozenset(f"encoder/{leaf}" for leaf in _LEAVES)
_MAX_JSON_BYTES = 64 * 2**20
_MAX_DECODER_BYTES = 4 * 2**30
# Labels compress well, weights hardly; a chunk that claims to grow more than this is a bomb.
_MAX_RATIO = 10_000
# The zip format's first day, so that the same content gives the same bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
# What zip, deflate and zstd raise on damaged bytes.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


class ReleaseError(ValueError):
    """The file is no release that this version can open. The message says what is wrong with it."""


@dataclass(frozen=True)
class ReleaseParts:
    """What goes into a release file, before it is packed.

    Attributes:
        dataset: the dataset's name.
        shape: shape of the decoded clips.
        classes: coded clips by class name, in the order of their labels.
        decoder_spec: how to build the decoder.
        decoder_weights: its quantised weights.
        provenance: plain JSON values that say what it was made from, how and with what.
        scheme: which of the decoder's weights are integers.
        encoder: the encoder's quantised weights, which training does not need; empty to leave them out.
    """

    dataset: str
    shape: ClipShape
    classes: Mapping[str, CodedClass]
    decoder_spec: DecoderSpec
    decoder_weights: QuantizedWeights
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scheme: Scheme = "channels"
    encoder: bytes = b""

    def __post_init__(self) -> None:
        first = next(iter(self.classes.values()), None)
        if first is None:
            raise ValueError("a release needs at least one class")
        for name, coded in self.classes.items():
            if (coded.codec, coded.mode_sizes, coded.ranks, coded.step) != (
                first.codec,
                first.mode_sizes,
                first.ranks,
                first.step,
            ):
                raise ValueError(
                    f"class {name!r} is coded unlike the first class: all of a release share codec, shape and step"
                )


def pack(parts: ReleaseParts) -> bytes:
    """The release file's bytes: the same parts give the same bytes."""
    first = next(iter(parts.classes.values()))
    coded = list(parts.classes.values())
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "dataset": parts.dataset,
        "clip": [parts.shape.frames, parts.shape.stride, parts.shape.size],
        "classes": [[name, item.num_clips, len(item.data)] for name, item in parts.classes.items()],
        "coding": [first.codec, list(first.mode_sizes), list(first.ranks), first.step],
        "decoder": json.loads(parts.decoder_spec.to_json()),
        "scheme": parts.scheme,
        "provenance": dict(parts.provenance),
    }
    labels = np.repeat(np.arange(len(coded), dtype=np.uint16), [item.num_clips for item in coded])
    arrays: dict[str, tuple[np.ndarray, Any]] = {
        "cores": (np.frombuffer(b"".join(item.data for item in coded), dtype=np.uint8), None),
        "decoder": (np.frombuffer(parts.decoder_weights.to_bytes(), dtype=np.uint8), [ZstdCodec(level=22)]),
        "labels": (labels, [ZstdCodec(level=22)]),
    }
    if parts.encoder:
        arrays["encoder"] = (np.frombuffer(parts.encoder, dtype=np.uint8), [ZstdCodec(level=22)])
    entries: dict[str, Any] = {}
    with zarr.config.set({"json_indent": None}):
        group = zarr.create_group(store=MemoryStore(store_dict=entries), attributes=attributes)
        for name, (data, compressors) in arrays.items():
            # The chunk is written even where it is all fill value: what is absent could not be told from what was lost.
            group.create_array(
                name, data=data, chunks=data.shape, compressors=compressors, config={"write_empty_chunks": True}
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


def read_ledger(path: Path) -> Ledger:
    """Every byte of a release file by what it serves; the lines add up to the file's size.

    Chunks are counted as they lie in the file; what is left (attributes, array headers, the zip's own records) is
    metadata.
    """
    with _open_zip(path) as archive:
        attributes = _attributes(archive)
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    lines = [LedgerLine("decoder", "", sizes["decoder/c/0"])]
    if "encoder/c/0" in sizes:
        lines.append(LedgerLine("encoder", "", sizes["encoder/c/0"]))
    lines += [LedgerLine("cores", name, num_bytes) for name, _, num_bytes in attributes["classes"]]
    lines.append(LedgerLine("labels", "", sizes["labels/c/0"]))
    rest = path.stat().st_size - sum(line.num_bytes for line in lines)
    return Ledger((*lines, LedgerLine("metadata", "", rest)))


@dataclass(frozen=True)
class Release:
    """An opened release file.

    Attributes:
        path: the file.
        name: name of the dataset that it was distilled from.
        class_names: class names by label.
        shape: shape of the decoded clips.
        labels: int64 [N].
        provenance: what it was made from, how and with what.
        coded: coded clips by class.
        scheme: which of the decoder's weights are integers.
        trusted_classes: autoencoder classes by import path whose code may be run to decode.
    """

    path: Path
    name: str
    class_names: tuple[str, ...]
    shape: ClipShape
    labels: np.ndarray
    provenance: Mapping[str, Any]
    coded: tuple[CodedClass, ...]
    decoder_spec: DecoderSpec
    decoder_data: bytes = field(repr=False)
    scheme: Scheme = "channels"
    trusted_classes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def num_clips(self) -> int:
        """Number of clips of all classes."""
        return len(self.labels)

    @property
    def stored_bytes(self) -> int:
        """Size of the file on disk."""
        return self.path.stat().st_size

    @property
    def ledger(self) -> pd.DataFrame:
        """What each byte of the file is for: columns part, class, bytes, share; the bytes add up to `stored_bytes`."""
        return read_ledger(self.path).table()

    def dataset(self) -> "ReleaseDataset":
        """The clips as a torch Dataset of (clip uint8 [T, 3, H, W], label int), by label and within it most diverse
        first."""
        return ReleaseDataset(self)

    def build_decoder(self) -> LatentDecoder:
        """The decoder with its quantised weights loaded, in float32."""
        decoder = build_decoder(self.decoder_spec, self.trusted_classes)
        decoder.load_state_dict(dequantize(read_weights(self.decoder_data, decoder, self.scheme)))
        return decoder

    def latents(self, label: int) -> np.ndarray:
        """The latents of one class: float32 [N, T', C, h, w]."""
        core, factors = coding.decode(self.coded[label])
        return tucker.reconstruct(tucker.TuckerTensor(core, factors))


class ReleaseDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """The clips of a release, each decoded on first use (a class at a time) and kept."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._starts = np.cumsum([0, *(item.num_clips for item in release.coded)])
        self._decoder: LatentDecoder | None = None
        self._clips: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return self._release.num_clips

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Clip (uint8 [T, 3, H, W]) and label."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a release of {len(self)} clips")
        position = index % len(self)
        label = int(self._release.labels[position])
        return self._class(label)[position - int(self._starts[label])], label

    def _class(self, label: int) -> torch.Tensor:
        if label not in self._clips:
            if self._decoder is None:
                self._decoder = self._release.build_decoder()
            latents, num_frames = self._release.latents(label), self._release.shape.frames
            self._clips[label] = torch.from_numpy(self._decoder.decode(latents, num_frames=num_frames))
        return self._clips[label]


def load_release(path: str | Path, *, trusted_classes: Sequence[str] = ()) -> Release:
    """Opens a release file; clips are decoded when they are asked for.

    Args:
        path: the file.
        trusted_classes: autoencoder classes by import path, `package.module:Class`, that the file may have run to
            decode; needed only for releases made with an autoencoder that is no part of diffusers.

    Raises:
        ReleaseError: it is no release, of a newer format, cut or damaged.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no release file at {path}")
    try:
        with _open_zip(path) as archive:
            attributes = _attributes(archive)
            arrays = {name: _read_array(archive, name) for name in _ARRAYS}
        return replace(_build(path, attributes, arrays), trusted_classes=tuple(trusted_classes))
    except ReleaseError:
        raise
    except (*_DAMAGE, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ReleaseError(f"{path} is damaged or no release: {error}") from error


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ReleaseError(f"{path} is no release: {error}") from error
    names = [info.filename for info in archive.infolist()]
    expected = _ENTRIES | _ENCODER_ENTRIES if _ENCODER_ENTRIES & set(names) else _ENTRIES
    if set(names) != expected or len(names) != len(expected):
        archive.close()
        strange = sorted(set(names) ^ expected)[:3]
        raise ReleaseError(f"{path} is no release: entries {strange} are missing, unknown or double")
    return archive


def _read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > _MAX_JSON_BYTES:
        raise ReleaseError(f"{name} claims {archive.getinfo(name).file_size} B of metadata, over {_MAX_JSON_BYTES} B")
    content = json.loads(archive.read(name))
    if not isinstance(content, dict):
        raise ReleaseError(f"{name} holds no JSON object")
    return content


def _attributes(archive: zipfile.ZipFile) -> dict[str, Any]:
    attributes = _read_json(archive, "zarr.json").get("attributes", {})
    if attributes.get("format") != FORMAT:
        raise ReleaseError(f"format {attributes.get('format')!r}, expected {FORMAT!r}: this is no release")
    if attributes.get("version") not in _READABLE:
        raise ReleaseError(
            f"release format version {attributes.get('version')!r}, this package reads {_READABLE[0]} to {VERSION}: "
            "upgrade lvdd-assets"
        )
    return attributes


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of the release, read by zarr after its header was found harmless."""
    header = _read_json(archive, f"{name}/zarr.json")
    codecs = [codec["name"] for codec in header["codecs"]]
    if not set(codecs) <= _CODECS or codecs[:1] != ["bytes"] or header["data_type"] != _ARRAYS[name]:
        raise ReleaseError(
            f"array {name!r} has codecs {codecs} and type {header['data_type']!r}, which releases never use"
        )
    chunk = archive.getinfo(f"{name}/c/0")
    (length,) = header["shape"]
    item = np.dtype(_ARRAYS[name]).itemsize
    limit = min(_MAX_DECODER_BYTES, _MAX_RATIO * chunk.file_size) if len(codecs) > 1 else chunk.file_size
    if header["chunk_grid"]["configuration"]["chunk_shape"] != [length] or not 0 < length * item <= limit:
        raise ReleaseError(f"array {name!r} claims {length} values, its chunk has {chunk.file_size} B")
    entries = {"zarr.json": archive.read(f"{name}/zarr.json"), "c/0": archive.read(chunk)}
    store = MemoryStore(store_dict={key: _buffer(data) for key, data in entries.items()})
    return np.asarray(zarr.open_array(store=store, mode="r")[...])


def _buffer(data: bytes) -> Any:
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(data)


def _build(path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Release:
    codec, mode_sizes, ranks, step = attributes["coding"]
    names = tuple(str(name) for name, _, _ in attributes["classes"])
    counts = [int(count) for _, count, _ in attributes["classes"]]
    sizes = [int(size) for _, _, size in attributes["classes"]]
    if len(set(names)) != len(names) or min([*counts, *sizes], default=0) < 1:
        raise ReleaseError(f"{path}: class names repeat, or a class has no clips")
    if sum(sizes) != len(arrays["cores"]):
        raise ReleaseError(f"{path}: the classes add up to {sum(sizes)} B of cores, {len(arrays['cores'])} B are there")
    labels = arrays["labels"].astype(np.int64)
    if sum(counts) != len(labels) or (labels != np.repeat(np.arange(len(names)), counts)).any():
        raise ReleaseError(f"{path}: {len(labels)} labels do not fit classes of {counts[:5]} … clips")
    shape = ClipShape(*attributes["clip"])
    spec = DecoderSpec.from_json(json.dumps(attributes["decoder"]))
    _check_shapes(shape, spec, mode_sizes)
    ends = np.cumsum(sizes)
    data = arrays["cores"].tobytes()
    coded = tuple(
        CodedClass(codec, count, tuple(mode_sizes), tuple(ranks), float(step), data[end - size : end])
        for count, size, end in zip(counts, sizes, ends, strict=True)
    )
    return Release(
        path=path,
        name=str(attributes["dataset"]),
        class_names=names,
        shape=shape,
        labels=labels,
        provenance=dict(attributes["provenance"]),
        coded=coded,
        decoder_spec=spec,
        decoder_data=arrays["decoder"].tobytes(),
        scheme=_scheme(attributes),
    )


def _scheme(attributes: Mapping[str, Any]) -> Scheme:
    scheme: Scheme = attributes.get("scheme", "channels")  # version 1 knew no other
    if scheme not in SCHEMES:
        raise ReleaseError(f"the decoder's weights are stored by scheme {str(scheme)[:80]!r}, expected {SCHEMES}")
    return scheme


def _check_shapes(shape: ClipShape, spec: DecoderSpec, mode_sizes: Sequence[int]) -> None:
    edge = shape.size // spec.upsampling
    expected = [spec.frame_rule.latent_frames(shape.frames), spec.latent_channels, edge, edge]
    if list(mode_sizes) != expected:
        raise ReleaseError(f"latents of {list(mode_sizes)} do not decode to {shape}: the decoder needs {expected}")


@functools.cache
def package_version() -> str:
    """Version of the installed package, for the provenance."""
    from importlib.metadata import version

    return version("lvdd-assets")
