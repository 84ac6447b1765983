"""Video files to uint8 clips, and back to files.

What belongs here: seeking, decoding just the frames of a clip, colour, scaling and cropping, and writing a clip as an
H.264 file. What must NOT come here: opening files and their time line (`containers`), choosing frames (`sampling`),
clips kept as codec packets (`codec`), any arithmetic on pixels: they leave as the decoder and the scaler gave them.

Files come from strangers. Sizes are checked before anything is decoded; what native code may still do with a hostile
file is contained by whoever calls `read_clips` in a process of its own (`sandbox`).

Legend: T frames, C channels, H, W pixels.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.containers import (
    MAX_FRAMES,
    Timeline,
    VideoError,
    check_file,
    check_size,
    count_pictures,
    decode_packet,
    open_video,
    read_timeline,
)
from lvdd_assets.distill.sampling import Window, choose_windows, count_slots, frame_slots

MAX_ASPECT = 64
"""Longest side by shortest, as displayed; beyond it scaling the short side to the clip's size would need gigabytes."""

# x264's AVX-512 code gives other bytes from one call to the next for small frames (macroblock tree, seen in x264 165 as
# PyAV 18 ships it); with SSE2, which every x86-64 has, they depend on the frames alone.
_X264_OPTIONS = {"threads": "1", "x264-params": "asm=SSE2"}
# Decoding on is cheaper than a seek while the next wanted frame is this near (frames).
_MIN_SEEK_GAP = 12
# What FFmpeg calls AVCOL_SPC_UNSPECIFIED, and the matrices that its scaler would take for BT.601; PyAV names neither.
_UNSPECIFIED_MATRIX = 2
_UNREAD_MATRICES = {8: "YCgCo", 10: "BT.2020 of constant luminance", 11: "YDzDx", 14: "ICtCp"}
# Rounded and computed the same on every machine, whatever vector units it has; and not by the scaler's fast tables,
# which make white 253.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class Clip:
    """A clip read from a file.

    Attributes:
        frames_TCHW: uint8 [T, 3, H, W], RGB, H = W.
        window: which frames these are.
        num_source_frames: frames in the file.
    """

    frames_TCHW: NDArray[np.uint8]
    window: Window
    num_source_frames: int

    def __post_init__(self) -> None:
        frames = self.frames_TCHW
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"expected uint8 [T, 3, H, W], got {frames.dtype} {frames.shape}")
        if len(frames) != len(self.window.frames) or self.window.frames[-1] >= self.num_source_frames:
            raise ValueError(f"{len(frames)} frames for {self.window} of {self.num_source_frames} frames")


def read_clips(path: Path, shape: ClipShape, sampling: Sampling, *, name: str = "") -> list[Clip]:
    """The clips of a video file: for each window its frames, short side scaled to `shape.size`, centre cut out square.

    Rotation and pixel aspect are honoured, colours converted by the matrix and range that the file declares (BT.601
    below 720 lines and BT.709 from there, limited range, where it declares none). Variable frame rates go by time
    stamps; what becomes of short files says `sampling.choose_windows`.

    Args:
        path: a file of any container and codec that FFmpeg reads.
        shape: frames, stride and size of a clip.
        sampling: which windows of the file.
        name: the file's name in its dataset, for random starts.

    Returns:
        One clip for each window, at least one.

    Raises:
        VideoError: the file is no video, is damaged or cut off, or larger or longer than this module's limits.
    """
    check_file(path)
    try:
        return _read(path, read_timeline(path), shape, sampling, name)
    except _TimelineError:
        # Some files hold packets without a picture, time stamps that the decoder corrects, or key frames that are none:
        # then what the decoder gives from the first packet on is the truth.
        counted = Timeline(count_pictures(path))
    try:
        return _read(path, counted, shape, sampling, name)
    except _TimelineError as error:
        raise VideoError(f"damaged: {error}") from error


class _TimelineError(Exception):
    """The decoder did not give the frames that the time line announced."""


def _read(path: Path, timeline: Timeline, shape: ClipShape, sampling: Sampling, name: str) -> list[Clip]:
    windows = _windows(timeline, shape, sampling, name)
    frames = _decode(path, timeline, _wanted(windows), shape.size)
    return [
        Clip(np.stack([frames[number] for number in window.frames.tolist()]), window, timeline.num_frames)
        for window in windows
    ]


def _windows(timeline: Timeline, shape: ClipShape, sampling: Sampling, name: str) -> list[Window]:
    times = timeline.times
    if times is None:
        return choose_windows(np.arange(timeline.num_frames), shape, sampling, name=name)
    if count_slots(times) > MAX_FRAMES:
        raise VideoError(f"its time stamps span {count_slots(times)} frame intervals, at most {MAX_FRAMES} are read")
    return choose_windows(frame_slots(times), shape, sampling, name=name)


def _wanted(windows: list[Window]) -> list[int]:
    return sorted({number for window in windows for number in window.frames.tolist()})


def _decode(path: Path, timeline: Timeline, wanted: list[int], size: int) -> dict[int, NDArray[np.uint8]]:
    """The wanted frames by number, each uint8 [C, H, W]. Seeks where that pays, stops after the last one.

    Raises:
        _TimelineError: a frame did not come.
        VideoError: a wanted frame is damaged.
    """
    frames: dict[int, NDArray[np.uint8]] = {}
    with open_video(path) as (container, stream):
        scaler = _Scaler(size, stream.sample_aspect_ratio or Fraction(1))
        for number, frame in _iterate_wanted(container, stream, timeline, wanted):
            if frame.is_corrupt:
                raise VideoError(f"damaged: frame {number} cannot be decoded whole")
            frames[number] = scaler(frame)
    if len(frames) < len(wanted):
        raise _TimelineError(f"only {len(frames)} of {len(wanted)} frames could be decoded")
    return frames


def _iterate_wanted(
    container: av.container.InputContainer, stream: av.VideoStream, timeline: Timeline, wanted: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames with their numbers, as far as they come."""
    if timeline.times is None:
        pictures = (frame for packet in container.demux(stream) for frame in decode_packet(packet))
        chosen = set(wanted)
        for number, frame in enumerate(pictures):
            if number in chosen:
                yield number, frame
            if number == wanted[-1]:
                return
        return
    for run in _plan_runs(timeline, wanted):
        if run.seek_to is not None:
            _seek(container, stream, run.seek_to)
        yield from _iterate_run(container, stream, {int(timeline.times[number]): number for number in run.numbers})


@dataclass(frozen=True)
class _Run:
    """Wanted frames that are decoded in one go, after a seek or from where the decoder stands."""

    seek_to: int | None
    numbers: list[int]


def _plan_runs(timeline: Timeline, wanted: list[int]) -> list[_Run]:
    """Splits the wanted frames where seeking to a later key frame is cheaper than decoding on."""
    assert timeline.key_numbers is not None
    keys = np.searchsorted(timeline.key_numbers, wanted, side="right") - 1
    runs: list[_Run] = []
    last = -1
    for number, key in zip(wanted, keys.tolist(), strict=True):
        pays = key >= 0 and timeline.key_numbers[key] - last > _MIN_SEEK_GAP
        if pays or not runs:
            runs.append(_Run(timeline.key_seeks[key] if pays else None, []))
        runs[-1].numbers.append(number)
        last = number
    return runs


def _seek(container: av.container.InputContainer, stream: av.VideoStream, time: int) -> None:
    try:
        container.seek(time, stream=stream, backward=True)
    except FFmpegError:
        raise _TimelineError("its index leads nowhere") from None


def _iterate_run(
    container: av.container.InputContainer, stream: av.VideoStream, numbers: dict[int, int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decodes on until the frames with these times have come, or can come no more."""
    last = max(numbers)
    left, is_first, shown = set(numbers), True, None
    for packet in container.demux(stream):
        if is_first and not packet.is_keyframe and packet.size:
            # A decoder that starts between key frames makes pictures up.
            raise _TimelineError("its index does not lead to key frames")
        is_first = False
        # What is neither wanted nor needed by another frame is not decoded.
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in numbers else "NONREF"
        for frame in decode_packet(packet):
            if frame.pts is None or (shown is not None and frame.pts <= shown):
                # Frames come in the order in which they are shown, so one of the times is wrong.
                raise _TimelineError("its time stamps are not those of the frames")
            shown = frame.pts
            if shown in left:
                left.remove(shown)
                yield numbers[shown], frame
            if shown >= last:
                return


class _Scaler:
    """Frames to square RGB pictures: one pass of the scaler to the display's shape, then the centre, upright."""

    def __init__(self, size: int, pixel_aspect: Fraction) -> None:
        self._size = size
        self._pixel_aspect = pixel_aspect
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """A frame as uint8 [C, H, W], H = W = size.

        Raises:
            VideoError: its shape or its rotation cannot be honoured.
        """
        size = self._size
        check_size(frame.width, frame.height)
        wide, high = frame.width * self._pixel_aspect, Fraction(frame.height)
        if max(wide, high) > MAX_ASPECT * min(wide, high):
            raise VideoError(f"displayed {float(wide / high):.3g} times as wide as high, at most {MAX_ASPECT} are read")
        width, height = (max(size, round(side * size / min(wide, high))) for side in (wide, high))
        # Averaging over the area does not alias when shrinking; enlarging by area repeats pixels.
        shrinks = width <= frame.width and height <= frame.height
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=(Interpolation.AREA if shrinks else Interpolation.BILINEAR) | _EXACT,
            src_colorspace=_assumed_matrix(frame),
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        top, left = (height - size) // 2, (width - size) // 2
        pixels_HWC = scaled.to_ndarray()[top : top + size, left : left + size]
        return np.ascontiguousarray(_upright(pixels_HWC, frame).transpose(2, 0, 1), dtype=np.uint8)


def _assumed_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The colour matrix that players take for a frame that declares none; None leaves the declared one.

    Raises:
        VideoError: the scaler does not know the declared one, and would take another in silence.
    """
    if frame.colorspace in _UNREAD_MATRICES:
        raise VideoError(f"colours by {_UNREAD_MATRICES[frame.colorspace]}, which are not read")
    if frame.colorspace != _UNSPECIFIED_MATRIX or frame.format.is_rgb:
        return None
    return Colorspace.ITU709 if min(frame.width, frame.height) >= 720 else Colorspace.ITU601


def _upright(pixels_HWC: NDArray[Any], frame: av.VideoFrame) -> NDArray[Any]:
    """Applies the display matrix that cameras write: quarter turns and mirror images of a square picture."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels_HWC
    # x' = a·x + c·y and y' = b·x + d·y, in 16.16 fixed point; translation only moves the picture.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if b == c == 0 and a and d:
        return pixels_HWC[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]
    if a == d == 0 and b and c:
        return pixels_HWC.transpose(1, 0, 2)[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1]
    raise VideoError(f"to be displayed turned by {frame.rotation}°; only quarter turns are read")


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
