"""Video files to uint8 clips, and back to files.

What belongs here: opening containers, choosing the frames of a clip, decoding just those, scaling and cropping, and
writing a clip as an H.264 file. What must NOT come here: listing folders (`catalog`), clips kept as codec packets
(`codec`), any arithmetic on pixels: they leave as the decoder and the scaler gave them.

Legend: T frames, C channels, H, W pixels.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from lvdd_assets.distill.catalog import ClipShape

# x264's AVX-512 code gives other bytes from one call to the next for small frames (macroblock tree, seen in x264 165 as
# PyAV 18 ships it); with SSE2, which every x86-64 has, they depend on the frames alone.
_X264_OPTIONS = {"threads": "1", "x264-params": "asm=SSE2"}


class VideoError(ValueError):
    """A file that cannot be used as a clip; the message is a short reason, e.g. "empty file (0 bytes)"."""


@dataclass(frozen=True)
class Clip:
    """A clip read from a file.

    Attributes:
        frames_TCHW: uint8 [T, 3, H, W], RGB, H = W.
        stride: source frames from one frame to the next: what was asked for, or less where the file is short.
        num_source_frames: frames in the file.
    """

    frames_TCHW: NDArray[np.uint8]
    stride: int
    num_source_frames: int

    def __post_init__(self) -> None:
        frames = self.frames_TCHW
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"expected uint8 [T, 3, H, W], got {frames.dtype} {frames.shape}")
        if self.stride < 1 or (len(frames) - 1) * self.stride >= self.num_source_frames:
            raise ValueError(f"{len(frames)} frames at stride {self.stride} from {self.num_source_frames} frames")


def read_clip(path: Path, shape: ClipShape) -> Clip:
    """The clip of a video file: `shape.frames` frames, `shape.stride` source frames apart, from the middle of the file.

    A shorter file gives the same number of frames at the largest stride that fits; `Clip.stride` says so.
    The short side is scaled to `shape.size` and the centre is cut out square.

    Args:
        path: a file of any container and codec that FFmpeg reads.
        shape: frames, stride and size of the clip.

    Raises:
        VideoError: the file is no video, is damaged or cut off, or has fewer frames than the clip.
    """
    if not path.exists():
        raise VideoError("no such file")
    if not path.is_file():
        raise VideoError("not a file" if not path.is_dir() else "a folder, not a file")
    if path.stat().st_size == 0:
        raise VideoError("empty file (0 bytes)")
    num_frames = _count_frames(path)
    chosen = _choose_frames(num_frames, shape)
    frames = _decode(path, chosen, shape.size)
    if len(frames) < shape.frames:
        # Some old AVI files hold packets without a picture: what the decoder gave is then the number of frames.
        num_frames = sum(1 for _ in _iterate_frames(path))
        chosen = _choose_frames(num_frames, shape)
        frames = _decode(path, chosen, shape.size)
    if len(frames) < shape.frames:
        raise VideoError(f"damaged: only {len(frames)} of {shape.frames} frames could be decoded")
    return Clip(np.stack(frames), stride=chosen.step, num_source_frames=num_frames)


def _choose_frames(num_frames: int, shape: ClipShape) -> range:
    """Indices of the clip's frames in a file of `num_frames`: the centre window."""
    if num_frames < shape.frames:
        raise VideoError(f"{num_frames} frames, {shape.frames} needed")
    stride = shape.stride
    if shape.frames > 1:
        stride = min(stride, (num_frames - 1) // (shape.frames - 1))
    window = (shape.frames - 1) * stride + 1
    start = (num_frames - window) // 2
    return range(start, start + window, stride)


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(path, mode="r")
    except FFmpegError as error:
        raise VideoError(f"not a video, or cut off before its index ({error.strerror})") from error
    if not container.streams.video:
        container.close()
        raise VideoError("no video stream")
    return container


def _count_frames(path: Path) -> int:
    """Frames in the file, by its packets: headers lie, and nothing needs decoding for this."""
    with _open(path) as container:
        stream = container.streams.video[0]
        last_byte = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if last_byte > path.stat().st_size:
            raise VideoError(f"truncated: {path.stat().st_size} bytes, its index reaches to {last_byte}")
        num_frames = 0
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise VideoError(f"truncated: packet {num_frames} is cut off")
                num_frames += packet.size > 0 and not packet.is_discard
        except FFmpegError as error:
            raise VideoError(f"truncated or damaged after {num_frames} frames ({error.strerror})") from error
    if num_frames == 0:
        raise VideoError("no frames")
    return num_frames


def _iterate_frames(path: Path) -> Generator[av.VideoFrame]:
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # the files are fanned out over processes, not the frames over threads
        num_decoded = 0
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise VideoError(f"damaged: frame {num_decoded} cannot be decoded whole")
                yield frame
                num_decoded += 1
        except FFmpegError as error:
            raise VideoError(f"damaged: cannot be decoded after {num_decoded} frames ({error.strerror})") from error


def _decode(path: Path, chosen: range, size: int) -> list[NDArray[np.uint8]]:
    """The chosen frames, each uint8 [C, H, W]; fewer if the file ends before. Stops after the last one."""
    scaler = VideoReformatter()
    frames = []
    source = _iterate_frames(path)
    for index, frame in enumerate(source):
        if index in chosen:
            frames.append(_scale_and_crop(frame, size, scaler))
        if index == chosen[-1]:
            break
    source.close()  # closes the file
    return frames


def _scale_and_crop(frame: av.VideoFrame, size: int, scaler: VideoReformatter) -> NDArray[np.uint8]:
    """Short side to `size` and to RGB in one pass of the scaler, then the centre: uint8 [C, H, W]."""
    short = min(frame.width, frame.height)
    width, height = (max(size, round(side * size / short)) for side in (frame.width, frame.height))
    # Averaging over the area does not alias when shrinking; enlarging by area repeats pixels.
    interpolation = Interpolation.AREA if size < short else Interpolation.BILINEAR
    scaled = scaler.reformat(frame, width=width, height=height, format="rgb24", interpolation=interpolation)
    pixels_HWC = scaled.to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(pixels_HWC[top : top + size, left : left + size].transpose(2, 0, 1))


def write_clip(path: Path, frames_THWC: NDArray[np.uint8], *, fps: int, crf: int = 18) -> None:
    """Writes an H.264 mp4 file; the same frames give the same bytes. The file appears whole or not at all.

    Args:
        path: the file; its folder must exist; an older file there is replaced.
        frames_THWC: uint8 [T, H, W, 3], RGB; H and W even, as 4:2:0 wants them.
        fps: frames per second.
        crf: x264's quality, 0 (lossless) to 51 (worst).
    """
    frames = frames_THWC
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) == 0:
        raise ValueError(f"expected uint8 [T, H, W, 3] with T of at least 1, got {frames.dtype} {frames.shape}")
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(f"H.264 in 4:2:0 needs even sides, got {height}×{width}: crop or pad by one pixel")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with av.open(partial, mode="w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf), **_X264_OPTIONS})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for pixels_HWC in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")))
            container.mux(stream.encode(None))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
