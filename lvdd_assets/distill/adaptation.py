"""An autoencoder adapted to one dataset: trained on from its weights, on the dataset's own train clips.

The loop is `vae_training`'s. What comes out is a folder that the registry can name as `vae`.

Legend: N clips, T frames, C channels, H, W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.vae import load_model
from lvdd_assets.distill.vae_folders import find_autoencoder
from lvdd_assets.distill.vae_training import Schedule, Trainee, export, train

HELD_OUT_EVERY = 8
_PIXELS_PER_BATCH = 16 * 64 * 64


@dataclass(frozen=True)
class Adaptation:
    """What adapting an autoencoder brought.

    Attributes:
        num_train: clips that it learned from.
        num_held_out: train clips that were kept apart to measure on.
        psnr_before: PSNR in dB on these, mean over clips, of the autoencoder it started from.
        psnr_after: the same of the adapted one.
        num_steps: updates made.
    """

    num_train: int
    num_held_out: int
    psnr_before: float
    psnr_after: float
    num_steps: int


def adapt(
    name: str,
    clips_NTCHW: NDArray[np.uint8],
    out: Path,
    schedule: Schedule,
    *,
    base: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> Adaptation:
    """Trains an autoencoder on clips and writes it to a folder, with a card that says what was done.

    Every eighth clip is kept apart. The weights that are written are those of the run's end, averaged, whether or not
    they are better: the figures say which.

    Args:
        name: the autoencoder to start from, as in `vae_folders.find_autoencoder`; not one by import path.
        clips_NTCHW: uint8 [N, T, 3, H, W], train clips alone, in an order that mixes the classes or not.
        out: folder for configuration, weights and card.
        schedule: how long and how fast.
        base: where relative names start.
        seed: of batches, noise and flips.
        device: where to train.
        progress: called with the step and the share done.

    Raises:
        ValueError: fewer than 8 clips, or an autoencoder that cannot be trained on.
    """
    if len(clips_NTCHW) < HELD_OUT_EVERY:
        raise ValueError(
            f"{len(clips_NTCHW)} train clips, at least {HELD_OUT_EVERY} needed to learn from and to measure"
        )
    found = find_autoencoder(name, base)
    if ":" in found.class_name:
        raise ValueError(f"{name} is a class by import path; only autoencoders of diffusers can be adapted")

    def copy_of() -> Trainee:
        return Trainee(load_model(found)).to(device)

    held_out = np.arange(len(clips_NTCHW)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    learnt, kept = clips_NTCHW[~held_out], clips_NTCHW[held_out]
    trainee = copy_of()
    _check_frames(trainee, learnt.shape[1], name)
    before = mean_psnr(trainee, kept)
    rng = np.random.default_rng(seed)
    size = max(1, _PIXELS_PER_BATCH // (learnt.shape[1] * learnt.shape[-1] * learnt.shape[-2]))
    steps = 0

    def after_step(step: int, done: float, _terms: dict[str, float], _average: Trainee) -> None:
        nonlocal steps
        steps = step + 1
        if progress is not None:
            progress(step, done)

    trained = train(
        trainee,
        lambda: _batch(learnt, size, rng).to(device),
        schedule,
        copy_of=copy_of,
        seed=seed,
        after_step=after_step,
        dtype=precision_for(device),
    )
    result = Adaptation(len(learnt), len(kept), before, mean_psnr(trained, kept), steps)
    export(trained.model.cpu(), out)
    (out / "README.md").write_text(_card(name, result, schedule, seed), encoding="utf-8")
    return result


def _check_frames(trainee: Trainee, num_frames: int, name: str) -> None:
    """ValueError unless clips of that length come back as long as they are."""
    if trainee.sees_frames:
        return
    edge = torch.zeros(1, num_frames, 3, 64, 64, device=next(trainee.parameters()).device)
    with torch.no_grad():
        try:
            got = trainee.decode(trainee.posterior(edge)[0])[0].shape[1]
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{name} cannot be trained on clips of {num_frames} frames: {error}") from error
    if got != num_frames:
        raise ValueError(f"{name} makes {got} frames of {num_frames}: it cannot be trained on such clips")


def _batch(clips_NTCHW: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Tensor:
    """Random clips, flipped half of the time, with light changes of brightness: float32 [N, T, 3, H, W] in [-1, 1]."""
    chosen = clips_NTCHW[rng.integers(len(clips_NTCHW), size=size)].copy()
    flipped = rng.random(size) < 0.5
    chosen[flipped] = chosen[flipped][..., ::-1]
    pixels = torch.from_numpy(chosen).float().div_(127.5).sub_(1)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (size, 1, 1, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (size, 1, 1, 1, 1)).astype(np.float32))
    return pixels.mul_(gain).add_(shift).clamp_(-1, 1)


@torch.no_grad()
def mean_psnr(trainee: Trainee, clips_NTCHW: NDArray[np.uint8]) -> float:
    """Mean over clips of the PSNR in dB of what comes back from the posterior's mean."""
    device = next(trainee.parameters()).device
    scores = []
    for clip in clips_NTCHW:
        pixels = torch.from_numpy(clip[None]).to(device).float().div(127.5).sub(1)
        decoded = trainee.decode(trainee.posterior(pixels)[0])[0].clamp(-1, 1)
        error = (decoded - pixels).square().mean().clamp_min(1e-12)
        scores.append(float(10 * torch.log10(4 / error)))
    return float(np.mean(scores))


def _card(name: str, result: Adaptation, schedule: Schedule, seed: int) -> str:
    length = f"{schedule.steps} steps" if schedule.steps else f"{schedule.minutes:g} minutes"
    return f"""# An autoencoder adapted to one dataset

Started from {name}, trained for {length} ({result.num_steps} updates, learning rate {schedule.learning_rate:g}, seed
{seed}) on {result.num_train} train clips. PSNR on {result.num_held_out} train clips that were kept apart:
{result.psnr_before:.2f} dB before, {result.psnr_after:.2f} dB after.

The terms of the clips apply to what was learnt from them.
"""
