"""The release: one file with all that a stranger needs to train, its loader, its Dataset, its ledger.

Arrays `cores` (the shared basis, then the coded classes, end to end), `labels`, if there are any `soft_labels` (levels
[N·K], see there), `decoder` (quantised weights; absent where every class is video), for the recipe `paper` also
`encoder` (counted as the paper counted it, and never read), and attributes with class names, forms, shapes and
provenance. It is data, never code: sizes are checked against each other before anything is allocated. How it is packed
belongs to `release_parts`, how it lies in a file to `release_files`, how the parts were made to the modules below, what
they are worth to `evaluation`.

Legend: N clips, T frames, C channels, H, W pixels, K classes.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill import class_coding, release_files, remote_files, soft_labels
from lvdd_assets.distill.budget import Ledger, LedgerLine
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.class_coding import CodedClass, SharedBasis
from lvdd_assets.distill.clip_datasets import Cache, ReleaseDataset, SoftReleaseDataset, Transform
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import LatentDecoder, build_decoder
from lvdd_assets.distill.quantization import SCHEMES, Scheme, dequantize, read_weights
from lvdd_assets.distill.release_files import ReleaseError, refusing
from lvdd_assets.distill.release_parts import (
    WEIGHTS,
    CodedClips,
    ReleaseParts,
    check_sizes,
    pack,
    read_class,
    read_name,
    read_shared_basis,
    read_table,
    size_without_weights,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SUFFIX",
    "CodedClips",
    "Release",
    "ReleaseDataset",
    "ReleaseError",
    "ReleaseParts",
    "SoftReleaseDataset",
    "load_release",
    "pack",
    "package_version",
    "read_ledger",
    "size_without_weights",
]

SUFFIX = ".zarr.zip"


def read_ledger(path: Path) -> Ledger:
    """Every byte of a release file by what it serves; the lines add up to the file's size.

    Chunks are counted as they lie in the file; what is left (attributes, array headers, the zip's own records) is
    metadata.

    Raises:
        ReleaseError: it is no release, of a newer format, cut or damaged, as far as can be seen from its metadata.
    """
    with refusing(str(path)):
        attributes, sizes = release_files.read_sizes(path)
        _, classes, num_shared = read_table(attributes, sizes["cores"])
        lines = [LedgerLine(part, "", sizes[part]) for part in WEIGHTS if part in sizes]
        if num_shared:
            lines.append(LedgerLine("basis", "", num_shared))
        lines += [LedgerLine("cores", row.name, row.num_bytes) for row in classes]
        lines.append(LedgerLine("labels", "", sizes["labels"] + sizes.get("soft_labels", 0)))
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
        decoder_spec: how the decoder is built; None where every class is video.
        decoder_data: its quantised weights as stored.
        shared: the basis of classes that are coded in a shared one.
        scheme: which of the decoder's weights are integers.
        trusted_classes: autoencoder classes by import path whose code may be run to decode.
        soft_levels: soft labels as stored, uint8 [N, K] (`soft_labels`); None where there are none.
        sha256: hash of the file when it was opened.
    """

    path: Path
    name: str
    class_names: tuple[str, ...]
    shape: ClipShape
    labels: np.ndarray
    provenance: Mapping[str, Any]
    coded: tuple[CodedClips, ...]
    decoder_spec: DecoderSpec | None
    decoder_data: bytes = field(repr=False)
    shared: SharedBasis | None = None
    scheme: Scheme = "channels"
    trusted_classes: tuple[str, ...] = ()
    soft_levels: np.ndarray | None = field(default=None, repr=False)
    sha256: str = ""

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
    def class_counts(self) -> tuple[int, ...]:
        """Clips of each class, by label."""
        return tuple(coded.num_clips for coded in self.coded)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """T, 3, H, W of each clip."""
        return self.shape.frames, 3, self.shape.size, self.shape.size

    @property
    def ledger(self) -> "pd.DataFrame":
        """What each byte of the file is for: columns part, class, bytes, share; the bytes add up to `stored_bytes`.

        Raises:
            MissingExtraError: pandas is not installed; `read_ledger(path).lines` says the same without it.
        """
        return read_ledger(self.path).table()

    @property
    def has_soft_labels(self) -> bool:
        """Whether each clip also has probabilities of all classes."""
        return self.soft_levels is not None

    @property
    def soft_labels(self) -> np.ndarray:
        """Probabilities of the classes of each clip, float32 [N, K]; each row adds up to 1.

        Raises:
            ValueError: the release has none.
        """
        if self.soft_levels is None:
            raise ValueError(
                f"release {self.name} has no soft labels: use its hard ones, or make it again with soft_labels: true"
            )
        return soft_labels.dequantize(self.soft_levels)

    @overload
    def dataset(
        self,
        labels: Literal["hard"] = "hard",
        *,
        transform: Transform | None = None,
        cache: Cache = "memory",
        device: str = "cpu",
    ) -> ReleaseDataset: ...

    @overload
    def dataset(
        self,
        labels: Literal["soft"],
        *,
        transform: Transform | None = None,
        cache: Cache = "memory",
        device: str = "cpu",
    ) -> SoftReleaseDataset: ...

    def dataset(
        self,
        labels: Literal["hard", "soft"] = "hard",
        *,
        transform: Transform | None = None,
        cache: Cache = "memory",
        device: str = "cpu",
    ) -> ReleaseDataset | SoftReleaseDataset:
        """The clips as a torch Dataset of (clip uint8 [T, 3, H, W], label), by label and within it most diverse first.

        It can be pickled, and given to `DataLoader(num_workers=…)` under fork and spawn; a class is decoded when one of
        its clips is first asked for.

        Args:
            labels: "hard" gives each clip's class as int, "soft" the probabilities of all as float32 [K].
            transform: made of each clip, a tensor of its own; `torchvision.transforms.v2` fit.
            cache: where decoded clips are kept: "memory" of each process, a folder (`pathlib.Path`) that workers and
                later runs share, or None, which keeps one class at a time.
            device: where latents are decoded: "cpu", "cuda", "auto" …; clips are returned on the CPU.

        Raises:
            ValueError: soft labels are asked for, and the release has none; or there is no such device or cache.
        """
        if labels not in ("hard", "soft"):
            raise ValueError(f"got labels = {labels!r}; expected 'hard' or 'soft'")
        dataset = ReleaseDataset(self, transform=transform, cache=cache, device=device)
        return dataset if labels == "hard" else SoftReleaseDataset(dataset, self.soft_labels)

    def build_decoder(self) -> LatentDecoder:
        """The decoder with its quantised weights loaded, in float32.

        Raises:
            ValueError: every class is video, and needs none.
            ReleaseError: the decoder cannot be built, or its weights do not fit it.
        """
        if self.decoder_spec is None:
            raise ValueError(f"release {self.name} has no decoder: all of its classes are kept as video")
        with refusing(f"{self.path}, decoder"):
            decoder = build_decoder(self.decoder_spec, self.trusted_classes, allocate=False)
            weights = read_weights(self.decoder_data, decoder, self.scheme)
            decoder.allocate()  # as many parameters as there are bytes
            decoder.load_state_dict(dequantize(weights))
            return decoder

    def latents(self, label: int) -> np.ndarray:
        """The latents of one class, float32 [N, T', C, h, w].

        Raises:
            ValueError: the class is kept as video.
            ReleaseError: its bytes are damaged.
        """
        coded = self.coded[label]
        if not isinstance(coded, CodedClass):
            raise ValueError(f"class {self.class_names[label]!r} is kept as video and has no latents")
        with self.refusing_class(label):
            return class_coding.decode(coded, self.shared)

    def needs_decoder(self, label: int) -> bool:
        """Whether a class is kept as latents, not as video."""
        return isinstance(self.coded[label], CodedClass)

    def decode_class(self, label: int, decoder: LatentDecoder | None) -> NDArray[np.uint8]:
        """All clips of one class, uint8 [N, T, 3, H, W], on the decoder's device in batches of its size.

        Args:
            label: the class.
            decoder: what `build_decoder` gave; None will do for a class that is kept as video.

        Raises:
            ReleaseError: its bytes are damaged.
        """
        coded = self.coded[label]
        with self.refusing_class(label):
            if isinstance(coded, CodedVideos):
                clips = coded.decode()
            else:
                clips = (decoder or self.build_decoder()).decode(self.latents(label), num_frames=self.shape.frames)
            expected = (coded.num_clips, *self.clip_shape)
            if clips.shape != expected:
                raise ReleaseError(f"decodes to clips of {list(clips.shape)}, the file announces {list(expected)}")
        return clips

    def refusing_class(self, label: int) -> AbstractContextManager[None]:
        """The context in which a class is decoded: what goes wrong is a ReleaseError with file and class."""
        return refusing(f"{self.path}, class {self.class_names[label]!r}")


def load_release(
    path: str | Path,
    *,
    trusted_classes: Sequence[str] = (),
    sha256: str | None = None,
    cache_folder: Path | None = None,
) -> Release:
    """Opens a release file; clips are decoded when they are asked for.

    Args:
        path: the file, or a URL: `https://…`, `s3://bucket/…` (extra `s3`), any that fsspec has a library for. What is
            behind a URL is fetched once, whole or not at all, and its hash is checked whenever it is opened.
        trusted_classes: autoencoder classes by import path, `package.module:Class`, that the file may have run to
            decode; needed only for releases made with an autoencoder that is no part of diffusers.
        sha256: the hash that the file must have, 64 hexadecimal digits; nothing is checked if None.
        cache_folder: where fetched files are kept; `~/.cache/lvdd-assets/releases` by default.

    Raises:
        ReleaseError: it is no release, of a newer format, cut, damaged, or not the file with that hash.
        FileNotFoundError: there is no such file.
        DownloadError: it could not be fetched.
    """
    if remote_files.is_url(str(path)):
        path = remote_files.fetch(str(path), sha256=sha256, folder=cache_folder)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no release file at {path}")
    with refusing(str(path)):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and found != sha256.lower():
            raise ReleaseError(f"its SHA-256 is {found}, expected {sha256}: it is another file, or damaged")
        release = _build(path, *release_files.read(path))
        return replace(release, trusted_classes=tuple(trusted_classes), sha256=found)


def _build(path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Release:
    data = arrays["cores"].tobytes()
    forms, classes, num_shared = read_table(attributes, len(data))
    counts = [row.num_clips for row in classes]
    labels = arrays["labels"].astype(np.int64)
    if sum(counts) != len(labels) or (labels != np.repeat(np.arange(len(counts)), counts)).any():
        raise ReleaseError(f"{len(labels)} labels do not fit classes of {counts[:5]} … clips")
    shape = ClipShape(*attributes["clip"])
    shared, coded, end = read_shared_basis(data[:num_shared], forms), [], num_shared
    for row in classes:
        with refusing(f"{path}, class {row.name!r}"):
            check_sizes(row.num_clips, shape, row.num_bytes)
            end += row.num_bytes
            coded.append(read_class(forms[row.form], row.num_clips, data[end - row.num_bytes : end], shape, shared))
    spec = _decoder_spec(attributes, shape, coded)
    if (spec is None) != ("decoder" not in arrays):
        raise ReleaseError("a decoder belongs to a release with coded latents, and to no other")
    return Release(
        path=path,
        name=read_name(attributes["dataset"]),
        class_names=tuple(row.name for row in classes),
        shape=shape,
        labels=labels,
        provenance=dict(attributes["provenance"]),
        coded=tuple(coded),
        decoder_spec=spec,
        decoder_data=arrays["decoder"].tobytes() if spec is not None else b"",
        shared=shared,
        scheme=_scheme(attributes),
        soft_levels=_soft_levels(arrays.get("soft_labels"), len(labels), len(classes)),
    )


def _decoder_spec(attributes: Mapping[str, Any], shape: ClipShape, coded: Sequence[CodedClips]) -> DecoderSpec | None:
    """The decoder's spec; None where every class is video. Latents that do not decode to the clips are refused."""
    sizes = {item.mode_sizes for item in coded if isinstance(item, CodedClass)}
    if not sizes:
        return None
    spec = DecoderSpec.from_json(json.dumps(attributes["decoder"]))
    edge, left = divmod(shape.size, spec.upsampling)
    expected = (spec.frame_rule.latent_frames(shape.frames), spec.latent_channels, edge, edge)
    if sizes != {expected} or left:
        raise ReleaseError(f"latents of {sorted(sizes)} do not decode to {shape}: the decoder needs {list(expected)}")
    return spec


def _soft_levels(levels: np.ndarray | None, num_clips: int, num_classes: int) -> np.ndarray | None:
    if levels is None:
        return None
    if len(levels) != num_clips * num_classes:
        raise ReleaseError(f"{len(levels)} soft labels do not fit {num_clips} clips of {num_classes} classes")
    levels_NK = levels.reshape(num_clips, num_classes)
    soft_labels.check_levels(levels_NK)
    return levels_NK


def _scheme(attributes: Mapping[str, Any]) -> Scheme:
    scheme: Scheme = attributes.get("scheme", "channels")  # version 1 knew no other
    if scheme not in SCHEMES:
        raise ReleaseError(f"the decoder's weights are stored by scheme {str(scheme)[:80]!r}, expected {SCHEMES}")
    return scheme


@functools.cache
def package_version() -> str:
    """Version of the installed package, for the provenance."""
    from importlib.metadata import version

    return version("lvdd-assets")
