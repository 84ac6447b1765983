"""Films that tests make: frames that say their own number, in any container, codec, pixel format and timing."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from lvdd_assets.distill.thread_priority import keep_priority

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP


def numbered_frames(num_frames: int, size: int = 32) -> NDArray[np.uint8]:
    """Frames that tell their number in eight stripes, dark for 0 and light for 1: uint8 [T, H, W, 3], T at most 256.

    Over them a faint texture moves, so that codecs predict one frame from others.
    """
    bits = (np.arange(num_frames)[:, None] >> np.arange(8)) & 1
    rows = np.where(bits, 200, 40).repeat(size // 8, axis=1)
    texture = np.random.default_rng(0).integers(-20, 21, (size, size, 3))
    moved = np.stack([np.roll(texture, (number, 2 * number), (0, 1)) for number in range(num_frames)])
    return (rows[:, None, :, None] + moved).astype(np.uint8)


def numbers(frames_TCHW: NDArray[np.uint8]) -> list[int]:
    """The numbers that `numbered_frames` wrote."""
    stripes = frames_TCHW.mean(axis=(1, 2)).reshape(len(frames_TCHW), 8, -1).mean(axis=2)
    return ((stripes > 120) << np.arange(8)).sum(axis=1).tolist()


def noisy_frames(num_frames: int = 24, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """Noise: large files in which every byte is a picture's."""
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3)).astype(np.uint8)


def encode(
    path: Path,
    frames_THWC: NDArray[np.uint8],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 30,
    times_ms: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    container: str | None = None,
    container_options: Mapping[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    matrix: Colorspace = Colorspace.ITU601,
    color_range: ColorRange = ColorRange.MPEG,
    tagged: bool = False,
) -> Path:
    """Writes a film; `times_ms` says when each frame is shown where the rate is not constant; `tagged` files declare
    their colour matrix and range."""
    lossless = {
        "libx264": {"qp": "0"},
        "libx265": {"x265-params": "lossless=1:bframes=0:pools=none:frame-threads=1:log-level=none"},
    }.get(codec, {})
    chosen = {**lossless, **(options or {})}
    if codec == "libx265":  # the first encoder of a process decides for all of them (`distill.codec`)
        chosen["x265-params"] += ":asm=false"
    _, height, width, _ = frames_THWC.shape
    with keep_priority(), av.open(path, "w", format=container, options=dict(container_options or {})) as writer:
        stream = writer.add_stream(codec, rate=fps, options=chosen)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        if times_ms is not None:
            context.time_base = stream.time_base = Fraction(1, 1000)
        if pixel_aspect is not None:
            context.sample_aspect_ratio = pixel_aspect
        if tagged:
            context.colorspace, context.color_range = matrix.value, color_range.value
        for index, pixels_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HWC), format="rgb24").reformat(
                format=pix_fmt, dst_colorspace=matrix, dst_color_range=color_range, interpolation=EXACT
            )
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            else:
                frame.pts, frame.time_base = index, Fraction(1, fps)
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    return path


def patch_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Writes a, b, c, d of the display matrix into an mp4 file's track header, as cameras do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    assert data[start] == 0, "a track header of version 0"
    at = start + 4 + 36
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[at + offset : at + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


def moving_blobs(num_clips: int, *, frames: int = 8, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured blobs that drift, with a little noise: uint8 [N, T, 3, H, W]."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    clips = np.empty((num_clips, frames, 3, size, size))
    for clip in clips:
        colour, ground = rng.uniform(120, 250, (3, 1, 1)), rng.uniform(10, 100, (3, 1, 1))
        start, speed, width = rng.uniform(16, size - 16, 2), rng.uniform(-2, 2, 2), rng.uniform(5, 12)
        for t, frame in enumerate(clip):
            centre = start + speed * t
            cover = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
            frame[...] = ground + (colour - ground) * cover + rng.normal(0, 2, frame.shape)
    return np.clip(clips, 0, 255).astype(np.uint8)


def textured_blobs(num_clips: int, *, seed: int) -> NDArray[np.uint8]:
    """Such blobs before a fine still texture, which small frames lose: uint8 [N, 8, 3, 64, 64]."""
    texture = np.random.default_rng(seed).integers(0, 40, (3, 64, 64))
    return np.minimum(moving_blobs(num_clips, seed=seed) + texture, 255).astype(np.uint8)


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """In dB."""
    return float(10 * np.log10(255**2 / np.square(first.astype(float) - second.astype(float)).mean()))
