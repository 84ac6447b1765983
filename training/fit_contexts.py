"""Fit the context weights of lvdd_assets/distill/coefficient_coding.py to latents of free videos.

    python training/fit_contexts.py --videos FOLDER [--clips-per-video 6] [--iterations 300]

The files of the folder whose names start alike (up to the first `_` or digit) are a class; the held-out ones are left
alone, as in training. Their clips are encoded by the autoencoders that ship, turned into the class's HOSVD basis,
divided by each step and rounded, and freed from what clips have in common, as the coder does it. Then the expected
magnitude m of each coefficient, a weighted sum of the magnitudes that the coder knows before it, is fitted by gradient
descent on the code length of the two-sided geometric distribution with mean magnitude m. Every setting (autoencoder,
clip shape, step) counts the same, in relative bytes.

It prints the constants to paste, and bytes per clip of each setting before and after, signs left out.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sources import video_files

from lvdd_assets.distill import coefficient_coding, tucker
from lvdd_assets.distill.catalog import CLIP_PRESETS, ClipShape, Sampling
from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.distill.video import read_clips

AUTOENCODERS = ("embedded-2d", "embedded-3d")
STEPS = (0.5, 1.0, 2.0, 4.0)
LARGEST_CLASS = 24  # clips; of more, so many spread evenly over the class
FIRST, ELSEWHERE, LEAST = 1.7, 0.07, 0.002  # where the fit starts
# Neighbours that share their weights: height and width are alike.
TIED = {(0, 0, 0, 1): (0, 0, 1, 0), (0, 0, 0, 2): (0, 0, 2, 0), (0, 1, 0, 1): (0, 1, 1, 0)}
STEPS_BACK = tuple(row[:4] for row in coefficient_coding._NEIGHBOURS)
FREE = tuple(back for back in STEPS_BACK if back not in TIED)
NUM_FEATURES = 2 * len(FREE) + 3


def read_classes(folder: Path, shape: ClipShape, clips_per_video: int) -> dict[str, np.ndarray]:
    """Clips of each class, uint8 [N, T, 3, H, W]."""
    classes: dict[str, list[np.ndarray]] = defaultdict(list)
    for path in video_files(folder, held_out=False):
        name = re.split(r"[_\d]", path.stem, maxsplit=1)[0]
        clips = read_clips(path, shape, Sampling(clips_per_video=clips_per_video), name=path.name)
        classes[name] += [clip.frames_TCHW for clip in clips]
    return {name: np.stack(_spread(clips)) for name, clips in classes.items()}


def _spread(clips: list[np.ndarray]) -> list[np.ndarray]:
    chosen = np.unique(np.linspace(0, len(clips) - 1, LARGEST_CLASS).astype(int))
    return [clips[i] for i in chosen]


def integers_of(latents_NTChw: np.ndarray, step: float) -> np.ndarray:
    """Rounded coefficients of a class without what its clips have in common: int64 [N, T, C, h, w]."""
    values = np.rint(tucker.decompose(latents_NTChw).core / step).astype(np.int64)
    own_PN = values.reshape(len(values), -1).T
    return np.ascontiguousarray((own_PN - coefficient_coding._common(own_PN)).T).reshape(values.shape)


def features_of(magnitudes_NTChw: np.ndarray) -> np.ndarray:
    """What the coder sees before each coefficient: float32 [N · T · C · h · w, NUM_FEATURES].

    Sums over neighbours that share a weight, of the clip and then of the class's mean; then the three terms that
    depend on the position alone.
    """
    _, *sizes = magnitudes_NTChw.shape
    mean = np.broadcast_to(magnitudes_NTChw.mean(0), magnitudes_NTChw.shape)
    columns = []
    for source in (magnitudes_NTChw, mean):
        sums = {back: np.zeros(source.shape, dtype=np.float32) for back in FREE}
        for back in STEPS_BACK:
            to = tuple(slice(step, None) for step in back)
            start = tuple(slice(0, max(0, size - step)) for size, step in zip(sizes, back, strict=True))
            sums[TIED.get(back, back)][(slice(None), *to)] += source[(slice(None), *start)]
        columns += list(sums.values())
    t, _, y, x = np.indices(sizes)
    for term in ((y + x == 0) / (1 + t) ** 2, 1 / (1 + t + y + x) ** 2, np.ones(sizes)):
        columns.append(np.broadcast_to(term, source.shape).astype(np.float32))
    return np.stack([column.reshape(-1) for column in columns], axis=-1)


def code_length(expected: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """Bits of each magnitude k under P(k) ∝ θᵏ on both sides of zero, θ = m / (1 + √(1 + m²)), without its sign."""
    theta = (expected / (1 + torch.sqrt(1 + expected**2))).clamp(1e-6, 0.99999)
    return -torch.log2((1 - theta) / (1 + theta)) - magnitudes * torch.log2(theta)


def gather(folder: Path, clips_per_video: int) -> dict[str, tuple[torch.Tensor, torch.Tensor, int]]:
    """For each setting: features, magnitudes and the number of clips."""
    settings = {}
    for preset, shape in CLIP_PRESETS.items():
        classes = read_classes(folder, shape, clips_per_video)
        for name in AUTOENCODERS:
            autoencoder = load_autoencoder(name, base=None)
            latents = [
                np.concatenate([autoencoder.encode(clips[i : i + 8]) for i in range(0, len(clips), 8)])
                for clips in classes.values()
            ]
            for step in STEPS:
                found = [np.abs(integers_of(of_class, step)).astype(np.float32) for of_class in latents]
                settings[f"{name} {preset} step {step:g}"] = (
                    torch.from_numpy(np.concatenate([features_of(magnitudes) for magnitudes in found])),
                    torch.from_numpy(np.concatenate([magnitudes.reshape(-1) for magnitudes in found])),
                    sum(map(len, found)),
                )
    return settings


def current_weights() -> np.ndarray:
    """The weights that ship, float64 [NUM_FEATURES]."""
    rows = {row[:4]: row[4:] for row in coefficient_coding._NEIGHBOURS}
    constants = (coefficient_coding._FIRST, coefficient_coding._ELSEWHERE, coefficient_coding._LEAST)
    return np.array([*(rows[b][0] for b in FREE), *(rows[b][1] for b in FREE), *constants], dtype=np.float64) / 1024


def fit(settings: dict[str, tuple[torch.Tensor, torch.Tensor, int]], num_iterations: int) -> np.ndarray:
    """Positive weights, float64 [NUM_FEATURES]."""
    start = torch.tensor([*[0.05] * (2 * len(FREE)), FIRST, ELSEWHERE, LEAST])
    logs = torch.log(start).requires_grad_()
    optimizer = torch.optim.Adam([logs], lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_iterations)
    for _ in range(num_iterations):
        optimizer.zero_grad()
        for features, magnitudes, _ in settings.values():
            bits = code_length(features @ torch.exp(logs), magnitudes).mean()
            (bits / bits.detach()).backward()
        optimizer.step()
        scheduler.step()
    return torch.exp(logs.detach()).numpy().astype(np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="only videos that may train what ships")
    parser.add_argument("--clips-per-video", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=300)
    options = parser.parse_args(arguments)

    settings = gather(options.videos, options.clips_per_video)
    weights = fit(settings, options.iterations)
    rounded = np.maximum(np.rint(1024 * weights), [*[0] * (2 * len(FREE)), 1, 1, 1]).astype(int)
    print("| setting | bytes a clip, weights that ship | fitted |\n|---|---|---|")
    for name, (features, magnitudes, num_clips) in settings.items():
        row = [
            float(code_length(features @ torch.tensor(w, dtype=torch.float32), magnitudes).sum()) / 8 / num_clips
            for w in (current_weights(), rounded / 1024)
        ]
        print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} |")
    print("\n_NEIGHBOURS = (")
    for back in STEPS_BACK:
        place = FREE.index(TIED.get(back, back))
        print(f"    ({', '.join(map(str, back))}, {rounded[place]}, {rounded[len(FREE) + place]}),")
    print(")\n_FIRST, _ELSEWHERE, _LEAST = " + ", ".join(map(str, rounded[-3:])))


if __name__ == "__main__":
    main()
