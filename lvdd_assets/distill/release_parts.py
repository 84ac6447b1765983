"""What goes into a release file, and its packing.

Here belongs how coded classes, labels, weights and provenance become attributes and arrays. How these lie in a file
belongs to `release_files`, how the file is read to `release`.

Legend: N clips, K classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lvdd_assets.distill import class_coding, release_files, soft_labels
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.class_coding import CodedClass, SharedBasis
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.quantization import QuantizedWeights, Scheme

VIDEO = "video"
"""The form of a class that is kept as video."""

WEIGHTS = ("decoder", "encoder")
"""Arrays of weights."""

CodedClips = CodedClass | CodedVideos
"""What a release keeps of a class: coded latents, or encoded video."""


@dataclass(frozen=True)
class ReleaseParts:
    """What goes into a release file, before it is packed.

    Attributes:
        dataset: the dataset's name.
        shape: shape of the decoded clips.
        classes: coded clips by class name, in the order of their labels.
        decoder_spec: how to build the decoder; None where every class is video.
        decoder_weights: its quantised weights; None where every class is video.
        provenance: plain JSON values that say what it was made from, how and with what.
        scheme: which of the decoder's weights are integers.
        encoder: the encoder's quantised weights, which training does not need; empty to leave them out.
        shared: the basis of classes that are coded in a shared one.
        soft_labels: levels of each class's clips by `soft_labels.quantize`, uint8 [n, K] with n no smaller than the
            class's number of clips, of which the first are kept; None where labels are hard only.
    """

    dataset: str
    shape: ClipShape
    classes: Mapping[str, CodedClips]
    decoder_spec: DecoderSpec | None
    decoder_weights: QuantizedWeights | None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scheme: Scheme = "channels"
    encoder: bytes = b""
    shared: SharedBasis | None = None
    soft_labels: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("a release needs at least one class")
        sizes = {coded.mode_sizes for coded in self.classes.values() if isinstance(coded, CodedClass)}
        if len(sizes) > 1:
            raise ValueError(f"all classes of a release have latents of one shape, got {sorted(sizes)}")
        if bool(sizes) != (self.decoder_spec is not None) or bool(sizes) != (self.decoder_weights is not None):
            raise ValueError("a decoder belongs to a release with coded latents, and to no other")
        if self.soft_labels is not None:
            _check_soft_labels(self.soft_labels, self.classes)


def _check_soft_labels(levels: Mapping[str, np.ndarray], classes: Mapping[str, CodedClips]) -> None:
    for name, coded in classes.items():
        if name not in levels:
            raise ValueError(f"class {name!r} has no soft labels; expected levels of all {len(classes)} classes")
        soft_labels.check_levels(levels[name])
        if len(levels[name]) < coded.num_clips or levels[name].shape[1] != len(classes):
            raise ValueError(
                f"class {name!r} has {coded.num_clips} clips and soft labels {list(levels[name].shape)}; expected at "
                f"least {coded.num_clips} rows of {len(classes)} classes"
            )


def pack(parts: ReleaseParts) -> bytes:
    """The release file's bytes: the same parts give the same bytes."""
    attributes, arrays = _content(parts)
    return release_files.write(attributes, arrays)


def size_without_weights(parts: ReleaseParts) -> int:
    """Bytes of the file but for the arrays of weights, whose compression takes long; what they add does not depend on
    the rest."""
    attributes, arrays = _content(parts)
    return len(release_files.write(attributes, {name: arrays[name] for name in arrays if name not in WEIGHTS}))


def _content(parts: ReleaseParts) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attributes and arrays of the file."""
    coded = list(parts.classes.values())
    chunks = [_to_bytes(item) for item in coded]
    forms: list[list[Any]] = []
    rows = []
    for name, item, chunk in zip(parts.classes, coded, chunks, strict=True):
        form = _form(item)
        if form not in forms:
            forms.append(form)
        rows.append([name, item.num_clips, len(chunk), forms.index(form)])
    shared = parts.shared.angles if parts.shared is not None and _uses_shared(coded) else b""
    attributes: dict[str, Any] = {
        "dataset": parts.dataset,
        "clip": [parts.shape.frames, parts.shape.stride, parts.shape.size],
        "classes": rows,
        "forms": forms,
        "basis": len(shared),
        "decoder": None if parts.decoder_spec is None else json.loads(parts.decoder_spec.to_json()),
        "scheme": parts.scheme,
        "provenance": dict(parts.provenance),
    }
    counts = [item.num_clips for item in coded]
    arrays: dict[str, np.ndarray] = {
        "cores": np.frombuffer(shared + b"".join(chunks), dtype=np.uint8),
        "labels": np.repeat(np.arange(len(coded), dtype=np.uint16), counts),
    }
    if parts.soft_labels is not None:
        levels = [parts.soft_labels[name][:count] for name, count in zip(parts.classes, counts, strict=True)]
        arrays["soft_labels"] = np.concatenate(levels).ravel()
    if parts.decoder_weights is not None:
        arrays["decoder"] = np.frombuffer(parts.decoder_weights.to_bytes(), dtype=np.uint8)
    if parts.encoder:
        arrays["encoder"] = np.frombuffer(parts.encoder, dtype=np.uint8)
    return attributes, arrays


def _to_bytes(coded: CodedClips) -> bytes:
    return coded.data if isinstance(coded, CodedClass) else coded.to_bytes()


def _form(coded: CodedClips) -> list[Any]:
    """How a class is coded: what classes share is stored once."""
    if isinstance(coded, CodedVideos):
        return [VIDEO]
    return [coded.codec, list(coded.mode_sizes), list(coded.ranks), coded.step]


def _uses_shared(coded: Sequence[CodedClips]) -> bool:
    return any(isinstance(item, CodedClass) and class_coding.is_in_shared_basis(item) for item in coded)
