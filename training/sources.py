"""What the embedded autoencoders learn from: windows of free videos, demo clips and still images.

Legend: N clips, T frames, C channels, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.latent_decoders import to_pixels

SIZE = 64
SHORT_SIDES = (64, 64, 80, 96, 128)  # twice 64: whole frames are what a dataset of small clips looks like
HELD_OUT_EVERY = 8  # every eighth file, sorted by name, is never trained on
DEMO_SEED = 1_000_000  # first seed of the training clips; demo datasets use small seeds
DEMO_TEST_SEED = 2_000_000
STRIDES = (1, 2, 3, 4)  # source frames between two frames of a clip
SHARES = {"videos": 0.5, "demo": 0.35, "images": 0.15}
# Colour photographs that scikit-image and scikit-learn ship, with terms that allow training weights.
IMAGES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "china.jpg", "flower.jpg")
_VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov"}


def video_files(folder: Path, *, held_out: bool) -> list[Path]:
    """Files of the folder, sorted by name: either the training part or the held-out part."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _VIDEO_SUFFIXES)
    if len(files) < HELD_OUT_EVERY:
        raise ValueError(f"{len(files)} videos in {folder}, at least {HELD_OUT_EVERY} needed; see training/README.md")
    return [path for i, path in enumerate(files) if (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]


def read_frames(path: Path, *, short_side: int) -> np.ndarray:
    """All frames of a video, short side resized: uint8 [T, H, W, C]."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            scale = short_side / min(frame.width, frame.height)
            size = {"width": max(short_side, round(frame.width * scale))}
            size["height"] = max(short_side, round(frame.height * scale))
            frames.append(frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray())
    if not frames:
        raise ValueError(f"{path.name}: no frames could be decoded; remove the file or replace it")
    return np.stack(frames)


def package_images() -> list[np.ndarray]:
    """The photographs of `IMAGES`: uint8 [H, W, C]."""
    import skimage
    import sklearn

    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images")
    files = [folder / name for name in IMAGES for folder in folders if (folder / name).is_file()]
    if len(files) != len(IMAGES):
        raise ValueError(
            f"found {[file.name for file in files]}, expected {IMAGES}: pip install 'lvdd-assets[training]'"
        )
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


@dataclass
class Sources:
    """Everything in memory, and how a batch is drawn from it.

    Attributes:
        videos: for each short side, one uint8 array [T, H, W, C] a video.
        demo: uint8 [T, H, W, C], demo clips.
        images: pyramids of stills: uint8 [H, W, C].
    """

    videos: dict[int, list[np.ndarray]]
    demo: list[np.ndarray]
    images: list[np.ndarray]

    @classmethod
    def read(cls, folder: Path, *, num_demo_clips: int) -> Sources:
        """Decodes the training videos at every scale, renders the demo clips, scales the images."""
        files = video_files(folder, held_out=False)
        videos = {side: [read_frames(path, short_side=side) for path in files] for side in set(SHORT_SIDES)}
        demo = [render_clip(MOTIONS[i % len(MOTIONS)], seed=DEMO_SEED + i) for i in range(num_demo_clips)]
        images = []
        for image in package_images():
            for side in (128, 192, 320):
                scale = side / min(image.shape[:2])
                size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
                images.append(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)))
        return cls(videos, demo, images)

    def batch(self, num_clips: int, num_frames: int, rng: np.random.Generator) -> Tensor:
        """Windows with random stride, crop, pan, flip in space and time, and colours: float32 [N, T, 3, 64, 64]."""
        clips = np.empty((num_clips, num_frames, SIZE, SIZE, 3), np.uint8)
        for clip in clips:
            self._draw(clip, rng)
            if rng.random() < 0.5:
                clip[:] = clip[:, :, ::-1].copy()
            if rng.random() < 0.3:
                clip[:] = clip[::-1].copy()
        pixels = _as_pixels(clips)
        gain = rng.uniform(0.8, 1.2, (num_clips, 1, 1, 1, 1)) * rng.uniform(0.93, 1.07, (num_clips, 1, 3, 1, 1))
        shift = rng.uniform(-0.15, 0.15, (num_clips, 1, 1, 1, 1))
        return pixels.mul_(torch.from_numpy(gain).float()).add_(torch.from_numpy(shift).float()).clamp_(-1, 1)

    def _draw(self, clip_THWC: np.ndarray, rng: np.random.Generator) -> None:
        num_frames = len(clip_THWC)
        source = rng.choice(list(SHARES), p=list(SHARES.values()))
        if source == "images":
            source_THWC = self.images[rng.integers(len(self.images))][None]
        elif source == "demo":
            source_THWC = self.demo[rng.integers(len(self.demo))]
        else:
            of_side = self.videos[SHORT_SIDES[rng.integers(len(SHORT_SIDES))]]
            source_THWC = of_side[rng.integers(len(of_side))]
        fitting = [s for s in STRIDES if (num_frames - 1) * s < len(source_THWC)] or [0]
        stride = int(rng.choice(fitting))
        start = int(rng.integers(max(1, len(source_THWC) - (num_frames - 1) * stride)))
        frames = np.minimum(start + stride * np.arange(num_frames), len(source_THWC) - 1)
        # Three clips of ten are panned over, as a moving camera would: up to three pixels a frame.
        speed = rng.uniform(-3, 3, 2) if rng.random() < 0.3 else np.zeros(2)
        room = np.array(source_THWC.shape[1:3]) - SIZE
        corner = rng.uniform(0, room + 1)
        for out, t, frame in zip(clip_THWC, range(num_frames), frames, strict=True):
            top, left = np.clip(np.floor(corner + t * speed), 0, room).astype(int)
            out[:] = source_THWC[frame, top : top + SIZE, left : left + SIZE]


def held_out_clips(folder: Path) -> Tensor:
    """8 frames, 4 apart, of the middle of every held-out video: float32 [N, 8, 3, 64, 64] in [-1, 1]."""
    clips = []
    for path in video_files(folder, held_out=True):
        frames = read_frames(path, short_side=SIZE)
        start = max(0, (len(frames) - 29) // 2)
        clip = frames[np.minimum(start + 4 * np.arange(8), len(frames) - 1)]
        left = (clip.shape[2] - SIZE) // 2
        clips.append(clip[:, :SIZE, left : left + SIZE])
    return _as_pixels(np.stack(clips))


def fresh_demo_clips(num_clips: int) -> Tensor:
    """Demo clips under seeds that training does not use: float32 [N, 8, 3, 64, 64] in [-1, 1]."""
    clips = [render_clip(MOTIONS[i % len(MOTIONS)], seed=DEMO_TEST_SEED + i)[::3] for i in range(num_clips)]
    return _as_pixels(np.stack(clips))


def _as_pixels(clips_NTHWC: np.ndarray) -> Tensor:
    return to_pixels(torch.from_numpy(clips_NTHWC).permute(0, 1, 4, 2, 3))
