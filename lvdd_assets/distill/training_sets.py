"""What a comparison is made of: a dataset's originals, class by class, and training sets made from them in some bytes.

Types only, and the one dataset of pixels that they need. How originals become fewer bytes belongs to `candidates`, what
a set is worth to `evaluation`.

Legend: N clips, T frames, C channels, H, W pixels; h, w latent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lvdd_assets.distill import paper
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.evaluation import LabelledClips
from lvdd_assets.distill.latent_decoders import build_decoder
from lvdd_assets.distill.quantization import QuantizedWeights, Scheme, quantize_weights, read_weights
from lvdd_assets.distill.stores import Partition
from lvdd_assets.distill.vae import VideoAutoencoder


@dataclass(frozen=True)
class Decoding:
    """How a release's latents become clips again.

    Attributes:
        spec: how the decoder is built.
        weights: its quantised weights.
        scheme: which of them are integers.
        encoder: the encoder's quantised weights, for a recipe that counts them; else empty.
        trusted_classes: autoencoder classes by import path whose code may be run to decode.
    """

    spec: DecoderSpec
    weights: QuantizedWeights
    scheme: Scheme = "channels"
    encoder: bytes = b""
    trusted_classes: tuple[str, ...] = ()


def read_decoding(stored: Partition) -> Decoding | None:
    """The decoder as a partition of `quantized_vae` has it, and the encoder where one is counted; None where every clip
    is kept as video and nothing was stored."""
    if not stored.num_rows("weights"):
        return None
    spec = DecoderSpec.from_json(stored.commit.metrics["decoder"])
    module = build_decoder(spec, trusted_classes=(spec.class_name,))
    scheme: Scheme = stored.commit.metrics["scheme"]
    weights = read_weights(stored.read("weights").tobytes(), module, scheme)
    encoder = stored.read("encoder").tobytes() if stored.num_rows("encoder") else b""
    return Decoding(spec, weights, scheme, encoder)


def paper_decoding(vae: VideoAutoencoder, trusted_classes: tuple[str, ...] = ()) -> Decoding:
    """Decoder and encoder as the paper stores and counts them: 8 bits, of a 3D autoencoder only in linear layers.

    Rounded to nearest. Where the pipeline has calibrated weights of its own for recipe paper, take those.
    """
    scheme: Scheme = "linear" if vae.decoder_spec.is_temporal else "channels"
    weights = quantize_weights(vae.decoder(), bits=paper.WEIGHT_BITS, scheme=scheme)
    encoder = quantize_weights(vae.encoder, bits=paper.WEIGHT_BITS).to_bytes()
    return Decoding(vae.decoder_spec, weights, scheme, encoder, trusted_classes)


@dataclass(frozen=True, eq=False)
class Originals:
    """The train clips of a dataset, before anything is left out.

    Clips and latents are read class by class, and again for each pass, so that memory holds one class at a time.

    Attributes:
        dataset: its name.
        shape: of the clips.
        num_clips: train clips by class name, in the order of the labels.
        clips: reads a class's train clips, uint8 [N, T, 3, H, W].
        latents: reads the latents of the same clips, in the same order: float [N, T', C, h, w]; None where there are
            none.
        selected: by class, which clips the project's selection keeps, the most wanted first: int64 [k]; classes that
            are not named keep all, in their order.
        decoding: how recipe tight decodes; None where it cannot be tried.
        paper_decoding: how recipe paper does.
        provenance: what a release of this dataset writes of its making; it counts in its bytes.
        file_bytes: size of the video files that the train clips came from; None where that is not known.
    """

    dataset: str
    shape: ClipShape
    num_clips: Mapping[str, int]
    clips: Callable[[str], NDArray[np.uint8]] = field(repr=False)
    latents: Callable[[str], NDArray[np.floating]] | None = field(default=None, repr=False)
    selected: Mapping[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    decoding: Decoding | None = field(default=None, repr=False)
    paper_decoding: Decoding | None = field(default=None, repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    file_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.num_clips or min(self.num_clips.values()) < 1:
            raise ValueError(f"every class of {self.dataset!r} needs a train clip, got {dict(self.num_clips)}")
        for name, items in self.selected.items():
            if name not in self.num_clips:
                raise ValueError(f"selected clips of {name!r}, which is no class of {self.dataset!r}")
            count = self.num_clips[name]
            if len(items) == 0 or len(np.unique(items)) != len(items) or not 0 <= min(items) <= max(items) < count:
                raise ValueError(f"class {name!r} has clips 0 to {count - 1}, selected are {list(items)[:8]} …")

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return tuple(self.num_clips)

    @property
    def total_clips(self) -> int:
        """Train clips of all classes."""
        return sum(self.num_clips.values())

    def selected_items(self, name: str) -> NDArray[np.int64]:
        """A class's selected clips, the most wanted first."""
        chosen = self.selected.get(name)
        return np.arange(self.num_clips[name]) if chosen is None else np.asarray(chosen, dtype=np.int64)

    def selected_latents(self, name: str, num_clips: int | None = None) -> NDArray[np.float32]:
        """Latents of a class's first selected clips (all by default), float32 [k, T', C, h, w].

        Raises:
            ValueError: there are none.
        """
        if self.latents is None:
            raise ValueError(f"{self.dataset!r} was given without latents")
        return np.asarray(self.latents(name)[self.selected_items(name)[:num_clips]], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Clips to train on, and what keeping them takes.

    Attributes:
        name: in tables.
        dataset: of (clip uint8 [T, 3, H, W], label int), by label.
        items: by class, in the order of the labels, which of the original train clips they are, in the same order.
        stored_bytes: what all of it takes.
        note: clips of a class, quality, and what the bytes are of.
    """

    name: str
    dataset: LabelledClips = field(repr=False)
    items: Mapping[str, NDArray[np.int64]] = field(repr=False)
    stored_bytes: int
    note: str

    def __post_init__(self) -> None:
        length, counted = len(self.dataset), sum(map(len, self.items.values()))  # type: ignore[arg-type]
        if length != counted or min(map(len, self.items.values())) < 1:
            raise ValueError(f"{self.name}: a dataset of {length} clips for {counted} items, at least one a class")

    @property
    def num_clips(self) -> int:
        """Of all classes."""
        return sum(map(len, self.items.values()))

    @property
    def clips_per_class(self) -> str:
        """In words: "9", or "3 to 9"."""
        return count_range(list(map(len, self.items.values())))


@dataclass(frozen=True)
class NotPossible:
    """A training set that does not fit, and why, with both sizes."""

    name: str
    reason: str


Candidate = TrainingSet | NotPossible


class OriginalClips(Dataset[tuple[torch.Tensor, int]]):
    """Some of the originals as they are; one class at a time is in memory, so read them in order.

    Args:
        originals: where from.
        items: which clips by class, in the order of the labels.
    """

    def __init__(self, originals: Originals, items: Mapping[str, NDArray[np.int64]]) -> None:
        self._originals, self._items = originals, list(items.items())
        self._ends = np.cumsum([len(chosen) for chosen in items.values()])
        self._held: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Clip (uint8 [T, 3, H, W]) and label."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} clips")
        label = int(np.searchsorted(self._ends, index, side="right"))
        name, items = self._items[label]
        if self._held is None or self._held[0] != label:
            self._held = (label, self._originals.clips(name)[items])
        start = int(self._ends[label]) - len(items)
        return torch.from_numpy(self._held[1][index - start]), label


def count_range(counts: list[int]) -> str:
    """Numbers in words: "9", or "3 to 9" where they differ."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"
