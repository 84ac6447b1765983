"""An autoencoder adapted to one dataset: trained on from its weights, on the dataset's own train clips.

The loop is `vae_training`'s. What comes out is a folder that the registry can name as `vae`.

Legend: N clips, T frames, C channels, H, W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.latent_decoders import to_pixels
from lvdd_assets.distill.stores import Partition
from lvdd_assets.distill.vae import load_model
from lvdd_assets.distill.vae_folders import find_autoencoder
from lvdd_assets.distill.vae_training import Schedule, Trainee, export, train

HELD_OUT_EVERY = 8
_MAX_MEASURED = 64
_PIXELS_PER_BATCH = 16 * 64 * 64


@dataclass(frozen=True)
class Adaptation:
    """What adapting an autoencoder brought.

    Attributes:
        num_train: clips that it learned from.
        num_held_out: train clips, of those kept apart, that were measured on.
        psnr_before: PSNR in dB on these, mean over clips, of the autoencoder it started from.
        psnr_after: the same of the adapted one.
        num_steps: updates made.
    """

    num_train: int
    num_held_out: int
    psnr_before: float
    psnr_after: float
    num_steps: int


class Clips(Protocol):
    """Clips that are read when they are asked for, uint8 [N, T, 3, H, W]; an array is one such."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: NDArray[np.intp], /) -> NDArray[np.uint8]: ...


class StoredClips:
    """The train clips of some classes, one class after the other, read from the store when they are asked for."""

    def __init__(self, classes: Sequence[Partition]) -> None:
        self._classes = classes
        self._ends = np.cumsum([partition.num_rows("train") for partition in classes])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, indices: NDArray[np.intp], /) -> NDArray[np.uint8]:
        """Clips uint8 [B, T, 3, H, W] at some places, int [B]."""
        owners = np.searchsorted(self._ends, indices, side="right")
        starts = np.concatenate([[0], self._ends])
        return np.concatenate(
            [
                self._classes[owner].read("train", slice(row, row + 1))
                for owner, row in zip(owners.tolist(), (indices - starts[owners]).tolist(), strict=True)
            ]
        )


def adapt(
    name: str,
    clips: Clips,
    out: Path,
    schedule: Schedule,
    *,
    base: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> Adaptation:
    """Trains an autoencoder on clips and writes it to a folder, with a card that says what was done.

    Every eighth clip is kept apart, at most 64 evenly taken of those are measured on. The weights that are written are
    those of the run's end, averaged, whether or not they are better: the figures say which. A batch of clips is read at
    a time, so memory does not grow with their number.

    Args:
        name: the autoencoder to start from, as in `vae_folders.find_autoencoder`; not one by import path.
        clips: train clips alone, in any order.
        out: folder for configuration, weights and card.
        schedule: how long and how fast.
        base: where relative names start.
        seed: of batches, noise and flips.
        device: where to train.
        progress: called with the step and the share done.

    Raises:
        ValueError: fewer than 8 clips, or an autoencoder that cannot be trained on.
    """
    if len(clips) < HELD_OUT_EVERY:
        raise ValueError(f"{len(clips)} train clips, at least {HELD_OUT_EVERY} needed to learn from and to measure")
    found = find_autoencoder(name, base)
    if ":" in found.class_name:
        raise ValueError(f"{name} is a class by import path; only autoencoders of diffusers can be adapted")

    def copy_of() -> Trainee:
        return Trainee(load_model(found)).to(device)

    trainee = copy_of()
    held_out = np.arange(len(clips)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    learnt, kept = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    measured = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _MAX_MEASURED)).round().astype(int))]
    first = clips[measured[:1]]
    frames = trainee.spec.frame_rule.indices(first.shape[1])
    size = max(1, _PIXELS_PER_BATCH // (len(frames) * first.shape[-2] * first.shape[-1]))
    rng = np.random.default_rng(seed)
    steps = 0

    def mean_psnr(of: Trainee) -> float:
        each = (to_pixels(torch.from_numpy(clips[place][:, frames])) for place in measured[:, None])
        return float(np.mean([of.mean_psnrs(clip.to(device)) for clip in each]))

    def after_step(step: int, done: float, _terms: dict[str, float], _average: Trainee) -> None:
        nonlocal steps
        steps = step + 1
        if progress is not None:
            progress(step, done)

    before = mean_psnr(trainee)
    trained = train(
        trainee,
        lambda: _augment(clips[rng.choice(learnt, size)][:, frames], rng).to(device),
        schedule,
        copy_of=copy_of,
        seed=seed,
        after_step=after_step,
        dtype=precision_for(device),
    )
    result = Adaptation(len(learnt), len(measured), before, mean_psnr(trained), steps)
    export(trained.model.cpu(), out)
    (out / "README.md").write_text(_card(name, result, schedule, seed), encoding="utf-8")
    return result


def _augment(clips_NTCHW: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Clips flipped half of the time, with light changes of brightness: float32 [N, T, 3, H, W] in [-1, 1]."""
    size = len(clips_NTCHW)
    flipped = rng.random(size) < 0.5
    clips_NTCHW[flipped] = clips_NTCHW[flipped][..., ::-1]
    pixels = to_pixels(torch.from_numpy(clips_NTCHW))
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (size, 1, 1, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (size, 1, 1, 1, 1)).astype(np.float32))
    return pixels.mul_(gain).add_(shift).clamp_(-1, 1)


def _card(name: str, result: Adaptation, schedule: Schedule, seed: int) -> str:
    length = f"{schedule.steps} steps" if schedule.steps else f"{schedule.minutes:g} minutes"
    return f"""# An autoencoder adapted to one dataset

Started from {name}, trained for {length} ({result.num_steps} updates, learning rate {schedule.learning_rate:g}, seed
{seed}) on {result.num_train} train clips. PSNR on {result.num_held_out} train clips that were kept apart:
{result.psnr_before:.2f} dB before, {result.psnr_after:.2f} dB after.

The terms of the clips apply to what was learnt from them.
"""
