"""What goes into a release file: its packing, and the table of its classes read back.

Here belongs how coded classes, labels, weights and provenance become attributes and arrays, and what a class may be,
whoever wrote it. How these lie in a file belongs to `release_files`, how the file is opened to `release`.

Legend: N clips, K classes.
"""

import json
import unicodedata
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


# What one class may decode to, in pixels: so much in all, so much of one stored byte where it is more than the third.
_MAX_CLASS_BYTES, _MAX_BYTES_PER_BYTE, _FREE_BYTES = 2**33, 2**17, 2**26


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
        for name in (self.dataset, *self.classes):
            read_name(name)


def check_sizes(num_clips: int, shape: ClipShape, num_bytes: int) -> None:
    """Refuses a class that would decode to more than anybody keeps of so few bytes, or than fits a memory.

    Raises:
        ValueError: with both sizes.
    """
    decoded = num_clips * shape.frames * 3 * shape.size**2
    allowed = min(_MAX_CLASS_BYTES, max(_FREE_BYTES, _MAX_BYTES_PER_BYTE * num_bytes))
    if decoded > allowed:
        raise ValueError(
            f"a class of {num_clips} clips of {shape} would take {decoded} B decoded, of {num_bytes} B at most "
            f"{allowed} B: keep fewer or smaller clips"
        )


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
        check_sizes(item.num_clips, parts.shape, len(chunk))
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


@dataclass(frozen=True)
class ClassRow:
    """A class in the table of a file: its name, clips and bytes, and which of the forms it has."""

    name: str
    num_clips: int
    num_bytes: int
    form: int


def read_table(attributes: Mapping[str, Any], num_bytes: int) -> tuple[list[Any], list[ClassRow], int]:
    """The forms, the classes, and the bytes of the shared basis.

    Raises:
        ValueError: they are not what `pack` writes, or do not add up to the bytes of the cores.
    """
    if attributes["version"] < 3:  # one form for all classes
        forms, rows = [attributes["coding"]], [[*row, 0] for row in attributes["classes"]]
    else:
        forms, rows = attributes["forms"], attributes["classes"]
    if not isinstance(forms, list) or not isinstance(rows, list) or not rows:
        raise ValueError("its metadata has no lists of forms and classes")
    classes = []
    for name, num_clips, size, form in rows:
        row = ClassRow(
            read_name(name), _whole(num_clips, "clips"), _whole(size, "bytes"), _whole(form, "as form", least=0)
        )
        if row.form >= len(forms):
            raise ValueError(f"class {row.name!r} is of a form that is not there; there are {len(forms)}")
        classes.append(row)
    if len({row.name for row in classes}) != len(classes):
        raise ValueError("class names repeat")
    num_shared = _whole(attributes.get("basis", 0), "bytes of a basis", least=0)
    claimed = num_shared + sum(row.num_bytes for row in classes)
    if claimed != num_bytes:
        raise ValueError(f"the classes add up to {claimed} B of cores, {num_bytes} B are there")
    return forms, classes, num_shared


def read_name(value: Any) -> str:
    """A name that can be printed and written: control characters steer terminals, halves of characters are no text.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not value or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in value):
        raise ValueError(f"{str(value)[:80]!r} is no name of a class or dataset; expected text")
    return value


def _whole(value: Any, what: str, *, least: int = 1) -> int:
    """A whole number as JSON has it; nothing is made one, for what a stranger wrote may be anything."""
    if type(value) is not int or not least <= value < 1 << 62:
        raise ValueError(f"{str(value)[:80]!r} {what}; expected a whole number of at least {least}")
    return value


def read_class(form: Any, count: int, data: bytes, shape: ClipShape, shared: SharedBasis | None) -> CodedClips:
    """A class as it was packed, with all checked that can be without decoding it.

    Raises:
        ValueError: its form is unknown, or its bytes cannot be what form and number of clips say.
    """
    if not isinstance(form, list):
        raise ValueError(f"a class of form {str(form)[:80]!r}; expected a list")
    if form == [VIDEO]:
        videos = CodedVideos.from_bytes(data)
        found = (videos.num_clips, videos.num_frames, videos.height, videos.width)
        if found != (count, shape.frames, shape.size, shape.size):
            raise ValueError(f"a class of {count} clips of {shape} holds video of [N, T, H, W] = {list(found)}")
        return videos
    codec, mode_sizes, ranks, step = form
    if type(step) not in (int, float):
        raise ValueError(f"a class of step {str(step)[:80]!r}; expected a number")
    modes = tuple(_whole(size, "as size of a mode") for size in mode_sizes)
    coded = CodedClass(
        str(codec), count, modes, tuple(_whole(rank, "as rank", least=0) for rank in ranks), float(step), data
    )
    class_coding.check(coded, shared)
    return coded


def read_shared_basis(angles: bytes, forms: Sequence[Any]) -> SharedBasis | None:
    """The basis of all classes, for the modes of the coded ones; None where there is none.

    Raises:
        ValueError: its angles are not as many as the modes have.
    """
    if not angles:
        return None
    sizes = next((form[1] for form in forms if form != [VIDEO]), None)
    if sizes is None:
        raise ValueError("a shared basis without coded latents")
    return SharedBasis(tuple(_whole(size, "as size of a mode") for size in sizes), angles)
