"""The clips of a release as torch Datasets: decoded a class at a time, kept in memory, on disk or not at all.

Made for `DataLoader(num_workers=…)`: a dataset holds no thread, no open file and no device of its own until a clip is
asked for, and what is pickled is the release alone, so each worker builds its own decoder. Clips come in one order, by
label and within it most diverse first, whoever decodes them. What a class's bytes mean belongs to `release`.

Legend: N clips, T frames, H, W pixels, K classes.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from lvdd_assets.distill.devices import find_device
from lvdd_assets.distill.file_locks import locked
from lvdd_assets.distill.latent_decoders import LatentDecoder

Transform: TypeAlias = Callable[[torch.Tensor], Any]
"""What is made of a clip, uint8 [T, 3, H, W]: any of `torchvision.transforms.v2`, which take [..., 3, H, W]."""

Cache: TypeAlias = Literal["memory"] | Path | None
"""Where decoded clips are kept: in each process's memory, in a folder that all share, or nowhere."""


class ClipSource(Protocol):
    """What a dataset needs of a release."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Clips of each class."""

    @property
    def sha256(self) -> str:
        """Hash of all that decides the clips."""

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """T, 3, H, W."""

    def needs_decoder(self, label: int) -> bool:
        """Whether the class is kept as latents."""

    def build_decoder(self) -> LatentDecoder:
        """The decoder with its weights, on the CPU."""

    def decode_class(self, label: int, decoder: LatentDecoder | None) -> NDArray[np.uint8]:
        """All clips of a class, uint8 [N, T, 3, H, W]."""


class ReleaseDataset(torch.utils.data.Dataset[tuple[Any, int]]):
    """The clips of a release: (uint8 [T, 3, H, W], label), or what `transform` makes of the clip.

    Args:
        source: the release.
        transform: called with each clip, a tensor of its own, which it may change.
        cache: "memory" keeps decoded clips in each process; a folder keeps them as one file a class, which all workers
            and later runs share, a killed one's half file never; None keeps the class last decoded alone, so that
            memory stays bounded, and suits reading in order.
        device: where latents are decoded, e.g. "cuda"; clips come back to the CPU. Devices round differently.

    Raises:
        ValueError: the device is not there, or the cache is none of the three.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        transform: Transform | None = None,
        cache: Cache = "memory",
        device: str = "cpu",
    ) -> None:
        if cache is not None and cache != "memory" and not isinstance(cache, Path):
            raise ValueError(f"got cache = {cache!r}; expected 'memory', a folder as pathlib.Path, or None")
        self._source, self._transform, self._cache = source, transform, cache
        self._device = find_device(device)
        self._starts = np.cumsum([0, *source.class_counts])
        self._decoder: LatentDecoder | None = None
        self._decoded: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        """Without decoder and decoded clips: another process makes its own, or finds them in the folder."""
        return {**self.__dict__, "_decoder": None, "_decoded": {}}

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Clip (uint8 [T, 3, H, W], or what the transform gives) and label.

        Raises:
            ReleaseError: the bytes of its class, or of the decoder, are damaged.
            IndexError: there are fewer clips.
        """
        clip, label = self._clip(index)
        return (clip if self._transform is None else self._transform(clip)), label

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """The items of a batch, in its order; each class of it is decoded at most once."""
        positions = [self._position(index) for index in indices]
        clips: list[Any] = [None] * len(positions)
        for place in np.argsort(positions, kind="stable"):
            clips[place] = self._clip(positions[place])
        if self._transform is None:
            return clips
        return [(self._transform(clip), label) for clip, label in clips]

    def clips_of(self, label: int) -> NDArray[np.uint8]:
        """All clips of one class, uint8 [N, T, 3, H, W], without the transform; not to be written to.

        Raises:
            ReleaseError: the bytes of the class, or of the decoder, are damaged.
        """
        if label not in self._decoded:
            if self._cache is None:
                self._decoded.clear()
            self._decoded[label] = self._read(label) if isinstance(self._cache, Path) else self._decode(label)
        return self._decoded[label]

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a release of {len(self)} clips")
        return index % len(self)

    def _clip(self, index: int) -> tuple[torch.Tensor, int]:
        """A clip that is nobody else's, so that a transform in place spoils no cache."""
        position = self._position(index)
        label = int(np.searchsorted(self._starts, position, side="right")) - 1
        return torch.from_numpy(self.clips_of(label)[position - int(self._starts[label])].copy()), label

    def _decode(self, label: int) -> NDArray[np.uint8]:
        if self._source.needs_decoder(label) and self._decoder is None:
            self._decoder = _move(self._source.build_decoder(), self._device)
        return self._source.decode_class(label, self._decoder)

    def _read(self, label: int) -> NDArray[np.uint8]:
        """The class out of the folder, into which it is decoded by the first that asks for it."""
        assert isinstance(self._cache, Path)
        kind = torch.device(self._device).type
        folder = self._cache / f"{self._source.sha256[:16]}-{kind}"
        path, shape = folder / f"{label}.npy", (self._source.class_counts[label], *self._source.clip_shape)
        if (found := _map_clips(path, shape)) is not None:
            return found
        with locked(path.with_suffix(".lock")):
            if (found := _map_clips(path, shape)) is not None:
                return found
            clips = self._decode(label)
            partial = path.with_suffix(".partial")  # one name: what a killed process left is written over
            with partial.open("wb") as file:
                np.save(file, clips)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        found = _map_clips(path, shape)
        return clips if found is None else found


def _map_clips(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """A file of clips mapped into memory, which the processes of a machine share; None unless it is whole."""
    try:
        clips: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return clips if clips.dtype == np.uint8 and clips.shape == shape else None


def _move(decoder: LatentDecoder, device: str) -> LatentDecoder:
    try:
        return decoder.to(device)
    except RuntimeError as error:
        if "fork" not in str(error):
            raise
        raise RuntimeError(
            f"a forked worker cannot use {device}: pass multiprocessing_context='spawn' to the DataLoader, or "
            "num_workers=0, or decode on the CPU"
        ) from error


class SoftReleaseDataset(torch.utils.data.Dataset[tuple[Any, torch.Tensor]]):
    """The clips of a release with the probabilities of their classes: (uint8 [T, 3, H, W], float32 [K])."""

    def __init__(self, dataset: ReleaseDataset, soft_labels_NK: NDArray[np.float32]) -> None:
        self._dataset, self._soft_labels_NK = dataset, torch.from_numpy(soft_labels_NK)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        """Clip (uint8 [T, 3, H, W], or what the transform gives) and probabilities (float32 [K])."""
        clip, _ = self._dataset[index]
        return clip, self._soft_labels_NK[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, torch.Tensor]]:
        """The items of a batch, in its order."""
        items = self._dataset.__getitems__(indices)
        return [(clip, self._soft_labels_NK[index]) for index, (clip, _) in zip(indices, items, strict=True)]
