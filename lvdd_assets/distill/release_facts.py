"""What is said of a release without decoding a clip: sizes, bytes by part and class, how it was made; and in what
several differ.

Facts are plain values, so that they print as a table or as JSON. What must NOT come here: clips (`release_sheet`),
what a release is worth (`stored_scores`), wording and columns.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lvdd_assets.distill.budget import allowed_bytes
from lvdd_assets.distill.catalog import Budget
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.extras import MissingExtraError
from lvdd_assets.distill.latent_decoders import build_decoder
from lvdd_assets.distill.quantization import read_weights
from lvdd_assets.distill.release import CodedClips, Release, read_ledger
from lvdd_assets.distill.release_files import ReleaseError, refusing

_DIGEST_LENGTH = 16  # as fingerprints stand in the provenance


@dataclass(frozen=True)
class ClassFacts:
    """One class of a release.

    Attributes:
        name: the class.
        num_clips: its clips.
        num_bytes: what they take in the file.
        form: how they are coded: `hosvd-range`, `tucker-f32`, `video av1` …
    """

    name: str
    num_clips: int
    num_bytes: int
    form: str


@dataclass(frozen=True)
class ReleaseFacts:
    """What a release holds and how it was made.

    Attributes:
        file: the path or URL that it was opened by.
        sha256: of the file.
        dataset: that it was distilled from.
        num_bytes: of the file.
        allowed_bytes: its budget in bytes; None where the provenance names none.
        num_clips: of all classes.
        num_classes: classes.
        clip: frames, stride (source frames from one to the next) and size (side in pixels).
        recipe: how clips are kept; None where the provenance does not say.
        autoencoder: name of the autoencoder; None where every class is video, or nothing says.
        decoder: class of the decoder; None where every class is video.
        weight_bits: fewest bits that hold the decoder's integer weights, 2 to 8; None where there is no decoder, none
            of its weights is an integer, or it cannot be built here.
        has_soft_labels: whether each clip also has probabilities of all classes.
        parts: bytes by part of the ledger; they add up to the file.
        classes: the classes, by label.
        source: digest of the fingerprints of all that it was made from: equal where videos, selection and settings are;
            None where the provenance has none.
        provenance: as the file has it.
    """

    file: str
    sha256: str
    dataset: str
    num_bytes: int
    allowed_bytes: int | None
    num_clips: int
    num_classes: int
    clip: Mapping[str, int]
    recipe: str | None
    autoencoder: str | None
    decoder: str | None
    weight_bits: int | None
    has_soft_labels: bool
    parts: Mapping[str, int]
    classes: tuple[ClassFacts, ...]
    source: str | None
    provenance: Mapping[str, Any]

    @property
    def bytes_per_clip(self) -> float:
        """Bytes of the file by clip, its decoder among them."""
        return self.num_bytes / self.num_clips

    @property
    def forms(self) -> tuple[str, ...]:
        """How classes are coded, each form once."""
        return tuple(dict.fromkeys(one.form for one in self.classes))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "bytes_per_clip": self.bytes_per_clip, "forms": list(self.forms)}


def gather_facts(release: Release, file: str = "") -> ReleaseFacts:
    """The facts of an opened release.

    Args:
        release: the release.
        file: the path or URL that it was opened by; its path by default.

    Raises:
        ReleaseError: the decoder's weights do not fit it.
    """
    ledger, shape, provenance = read_ledger(release.path), release.shape, release.provenance
    parts: dict[str, int] = {}
    for line in ledger.lines:
        parts[line.part] = parts.get(line.part, 0) + line.num_bytes
    by_class = ledger.by_class()
    spec = release.decoder_spec
    return ReleaseFacts(
        file=file or str(release.path),
        sha256=release.sha256,
        dataset=release.name,
        num_bytes=ledger.total,
        allowed_bytes=_allowed(release),
        num_clips=release.num_clips,
        num_classes=release.num_classes,
        clip={"frames": shape.frames, "stride": shape.stride, "size": shape.size},
        recipe=_text(provenance.get("recipe")),
        autoencoder=_text(provenance.get("vae")) if spec is not None else None,
        decoder=spec.class_name if spec is not None else None,
        weight_bits=_weight_bits(release),
        has_soft_labels=release.has_soft_labels,
        parts=parts,
        classes=tuple(
            ClassFacts(name, coded.num_clips, by_class[name], _form(coded))
            for name, coded in zip(release.class_names, release.coded, strict=True)
        ),
        source=_source(provenance.get("inputs")),
        provenance=provenance,
    )


def differences(releases: Sequence[ReleaseFacts]) -> dict[str, tuple[Any, ...]]:
    """What differs in the provenance of releases: by name (levels joined by dots), the value of each; None where it has
    none."""
    flat = [_flat(one.provenance) for one in releases]
    names = dict.fromkeys(name for values in flat for name in values)
    found = {name: tuple(values.get(name) for values in flat) for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value})
    return flat


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _form(coded: CodedClips) -> str:
    return f"video {coded.codec}" if isinstance(coded, CodedVideos) else coded.codec


def _source(inputs: Any) -> str | None:
    if not isinstance(inputs, dict) or not inputs:
        return None
    text = "\n".join(sorted(f"{name} {fingerprint}" for name, fingerprint in inputs.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _allowed(release: Release) -> int | None:
    """The budget in bytes, as the provenance has it, which a stranger may have written."""
    budget = release.provenance.get("budget")
    if not isinstance(budget, dict):
        return None
    ipc, num_bytes = budget.get("ipc"), budget.get("bytes")
    try:
        wanted = Budget(ipc=ipc if type(ipc) is int else None, num_bytes=num_bytes if type(num_bytes) is int else None)
        return allowed_bytes(wanted, num_classes=release.num_classes, shape=release.shape)
    except (ValueError, AssertionError):
        return None


def _weight_bits(release: Release) -> int | None:
    """Every integer weight takes a byte before it is compressed: how many of its bits are in use, the weights say."""
    if release.decoder_spec is None:
        return None
    what = f"{release.path}, decoder"
    try:
        with refusing(what):
            decoder = build_decoder(release.decoder_spec, release.trusted_classes, allocate=False)
    except (ReleaseError, MissingExtraError):  # a class that is not trusted, or of a library that is not here
        return None
    with refusing(what):
        weights = read_weights(release.decoder_data, decoder, release.scheme).weights.values()
        largest = max((int(np.abs(weight.codes.astype(np.int16)).max(initial=0)) for weight in weights), default=0)
    # b bits hold −(2^(b−1) − 1) … 2^(b−1) − 1
    return largest.bit_length() + 1 if largest else None
