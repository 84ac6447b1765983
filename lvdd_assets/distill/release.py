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
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import torch

from lvdd_assets.distill import class_coding, release_files, soft_labels
from lvdd_assets.distill.budget import Ledger, LedgerLine
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.class_coding import CodedClass, SharedBasis
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import LatentDecoder, build_decoder
from lvdd_assets.distill.quantization import SCHEMES, Scheme, dequantize, read_weights
from lvdd_assets.distill.release_files import ReleaseError
from lvdd_assets.distill.release_parts import (
    VIDEO,
    WEIGHTS,
    CodedClips,
    ReleaseParts,
    pack,
    size_without_weights,
)

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
    """
    attributes, sizes = release_files.read_sizes(path)
    lines = [LedgerLine(part, "", sizes[part]) for part in WEIGHTS if part in sizes]
    if attributes.get("basis"):
        lines.append(LedgerLine("basis", "", attributes["basis"]))
    lines += [LedgerLine("cores", row[0], row[2]) for row in attributes["classes"]]
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
    def dataset(self, labels: Literal["hard"] = "hard") -> "ReleaseDataset": ...

    @overload
    def dataset(self, labels: Literal["soft"]) -> "SoftReleaseDataset": ...

    def dataset(self, labels: Literal["hard", "soft"] = "hard") -> "ReleaseDataset | SoftReleaseDataset":
        """The clips as a torch Dataset of (clip uint8 [T, 3, H, W], label), by label and within it most diverse first.

        Args:
            labels: "hard" gives each clip's class as int, "soft" the probabilities of all as float32 [K].

        Raises:
            ValueError: soft labels are asked for, and the release has none.
        """
        if labels not in ("hard", "soft"):
            raise ValueError(f"got labels = {labels!r}; expected 'hard' or 'soft'")
        dataset = ReleaseDataset(self)
        return dataset if labels == "hard" else SoftReleaseDataset(dataset, self.soft_labels)

    def build_decoder(self) -> LatentDecoder:
        """The decoder with its quantised weights loaded, in float32.

        Raises:
            ValueError: every class is video, and needs none.
        """
        if self.decoder_spec is None:
            raise ValueError(f"release {self.name} has no decoder: all of its classes are kept as video")
        decoder = build_decoder(self.decoder_spec, self.trusted_classes)
        decoder.load_state_dict(dequantize(read_weights(self.decoder_data, decoder, self.scheme)))
        return decoder

    def latents(self, label: int) -> np.ndarray:
        """The latents of one class, float32 [N, T', C, h, w].

        Raises:
            ValueError: the class is kept as video.
        """
        coded = self.coded[label]
        if not isinstance(coded, CodedClass):
            raise ValueError(f"class {self.class_names[label]!r} is kept as video and has no latents")
        return class_coding.decode(coded, self.shared)


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
            self._clips[label] = torch.from_numpy(self._decode(label))
        return self._clips[label]

    def _decode(self, label: int) -> np.ndarray:
        coded = self._release.coded[label]
        if isinstance(coded, CodedVideos):
            return coded.decode()
        if self._decoder is None:
            self._decoder = self._release.build_decoder()
        return self._decoder.decode(self._release.latents(label), num_frames=self._release.shape.frames)


class SoftReleaseDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The clips of a release with the probabilities of their classes."""

    def __init__(self, dataset: ReleaseDataset, soft_labels_NK: np.ndarray) -> None:
        self._dataset, self._soft_labels_NK = dataset, torch.from_numpy(soft_labels_NK)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Clip (uint8 [T, 3, H, W]) and probabilities (float32 [K])."""
        clip_TCHW, _ = self._dataset[index]
        return clip_TCHW, self._soft_labels_NK[index]


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
        release = _build(path, *release_files.read(path))
    except ReleaseError:
        raise
    except (*release_files.DAMAGE, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ReleaseError(f"{path} is damaged or no release: {error}") from error
    return replace(release, trusted_classes=tuple(trusted_classes))


def _build(path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Release:
    forms, rows = _forms_and_classes(attributes)
    names = tuple(str(row[0]) for row in rows)
    counts, sizes = ([int(row[column]) for row in rows] for column in (1, 2))
    num_shared = int(attributes.get("basis", 0))
    if len(set(names)) != len(names) or min([*counts, *sizes], default=0) < 1 or num_shared < 0:
        raise ReleaseError(f"{path}: class names repeat, or a class has no clips")
    data = arrays["cores"].tobytes()
    if num_shared + sum(sizes) != len(data):
        raise ReleaseError(
            f"{path}: the classes add up to {num_shared + sum(sizes)} B of cores, {len(data)} B are there"
        )
    labels = arrays["labels"].astype(np.int64)
    if sum(counts) != len(labels) or (labels != np.repeat(np.arange(len(names)), counts)).any():
        raise ReleaseError(f"{path}: {len(labels)} labels do not fit classes of {counts[:5]} … clips")
    shape = ClipShape(*attributes["clip"])
    ends = num_shared + np.cumsum(sizes)
    coded = tuple(
        _read_class(forms[row[3]], count, data[end - size : end], shape)
        for row, count, size, end in zip(rows, counts, sizes, ends, strict=True)
    )
    spec = _decoder_spec(attributes, shape, coded)
    if (spec is None) != ("decoder" not in arrays):
        raise ReleaseError(f"{path}: a decoder belongs to a release with coded latents, and to no other")
    return Release(
        path=path,
        name=str(attributes["dataset"]),
        class_names=names,
        shape=shape,
        labels=labels,
        provenance=dict(attributes["provenance"]),
        coded=coded,
        decoder_spec=spec,
        decoder_data=arrays["decoder"].tobytes() if spec is not None else b"",
        shared=_shared_basis(data[:num_shared], coded),
        scheme=_scheme(attributes),
        soft_levels=_soft_levels(arrays.get("soft_labels"), len(labels), len(names)),
    )


def _forms_and_classes(attributes: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The forms, and for each class its name, clips, bytes and form."""
    if attributes["version"] < 3:  # one form for all classes
        return [attributes["coding"]], [[*row, 0] for row in attributes["classes"]]
    forms, rows = attributes["forms"], attributes["classes"]
    if any(not 0 <= int(row[3]) < len(forms) for row in rows):
        raise ReleaseError(f"a class is of a form that is not there; there are {len(forms)}")
    return forms, rows


def _read_class(form: Sequence[Any], count: int, data: bytes, shape: ClipShape) -> CodedClips:
    if list(form) == [VIDEO]:
        videos = CodedVideos.from_bytes(data)
        found = (videos.num_clips, videos.num_frames, videos.height, videos.width)
        if found != (count, shape.frames, shape.size, shape.size):
            raise ReleaseError(f"a class of {count} clips of {shape} holds video of [N, T, H, W] = {list(found)}")
        return videos
    codec, mode_sizes, ranks, step = form
    return CodedClass(str(codec), count, tuple(map(int, mode_sizes)), tuple(map(int, ranks)), float(step), data)


def _decoder_spec(attributes: Mapping[str, Any], shape: ClipShape, coded: Sequence[CodedClips]) -> DecoderSpec | None:
    """The decoder's spec; None where every class is video. Latents that do not decode to the clips are refused."""
    sizes = {item.mode_sizes for item in coded if isinstance(item, CodedClass)}
    if not sizes:
        return None
    spec = DecoderSpec.from_json(json.dumps(attributes["decoder"]))
    edge = shape.size // spec.upsampling
    expected = (spec.frame_rule.latent_frames(shape.frames), spec.latent_channels, edge, edge)
    if sizes != {expected}:
        raise ReleaseError(f"latents of {sorted(sizes)} do not decode to {shape}: the decoder needs {list(expected)}")
    return spec


def _shared_basis(angles: bytes, coded: Sequence[CodedClips]) -> SharedBasis | None:
    if not angles:
        return None
    sizes = next((item.mode_sizes for item in coded if isinstance(item, CodedClass)), None)
    if sizes is None:
        raise ReleaseError("a shared basis without coded latents")
    basis = SharedBasis(sizes, angles)
    _ = basis.factors  # as many angles as the modes have
    return basis


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
