"""Video containers: which files are opened at all, and the frames that their packets announce; nothing is scaled here.

What belongs here: opening a file under this module's limits, its time line, single packets to pictures. What must NOT
come here: choosing frames (`sampling`), seeking, pixels (`video`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

MAX_PIXELS = 8192 * 4320
"""Largest frame that is decoded: 8K. A header may claim any size, and the decoder would allocate it."""

MAX_FRAMES = 1 << 20
"""Longest file that is read, in frames: 9.7 hours at 30 a second."""

# The demuxers that may open a file, whatever it is called. FFmpeg has others that take a text file for a list of other
# files to read (concat, hls, dash, sdp), and a picture for a film of one frame.
_OPTIONS = {"format_whitelist": "mov,avi,matroska,mpeg,mpegvideo,mpegts,flv,asf,ogg", "protocol_whitelist": "file"}
# Containers whose index holds the times at which key frames are shown; that of the others holds decoding times.
_INDEXED_BY_PTS = frozenset({"matroska,webm"})


class VideoError(ValueError):
    """A file that cannot be used as a clip; the message is a short reason, e.g. "empty file (0 bytes)"."""


@dataclass(frozen=True)
class Timeline:
    """A file's frames in the order in which they are shown.

    Attributes:
        num_frames: how many.
        times: when each is shown, in the stream's time base; None where the file does not say, or says it twice.
        key_numbers: the numbers of the key frames.
        key_seeks: the time by which the container finds each of them.
    """

    num_frames: int
    times: NDArray[np.int64] | None = None
    key_numbers: NDArray[np.int64] | None = None
    key_seeks: tuple[int, ...] = ()


def check_file(path: Path) -> None:
    """Refuses what no decoder needs to look at.

    Raises:
        VideoError: nothing is there, it is no file, or it is empty.
    """
    if not path.exists():
        raise VideoError("no such file")
    if not path.is_file():
        raise VideoError("not a file" if not path.is_dir() else "a folder, not a file")
    size = path.stat().st_size
    if size == 0:
        raise VideoError("empty file (0 bytes)")
    declared = _declared_size(path)
    if size < declared:
        raise VideoError(f"truncated: {size} bytes, its header says {declared}")


def _declared_size(path: Path) -> int:
    """Bytes that AVI and Matroska files say they have, 0 where they do not: FFmpeg takes any end for theirs.

    MP4 files have an index that tells. MPEG program and transport streams cannot say how long they are: those that were
    cut where a packet ends pass for shorter ones.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        # Some writers count the eight bytes of the chunk's own head, or a byte of padding that they leave out.
        return int.from_bytes(head[4:8], "little") - 1
    if head[:4] == b"\x1a\x45\xdf\xa3":
        segment = sum(_read_vint(head, 4))
        if head[segment : segment + 4] == b"\x18\x53\x80\x67":
            size, start = _read_vint(head, segment + 4)
            return size + start if size else 0
    return 0


def _read_vint(data: bytes, start: int) -> tuple[int, int]:
    """An EBML number (RFC 8794, section 4) and where it ends; 0 for one that stands for "unknown"."""
    if start >= len(data) or data[start] == 0:
        return 0, start
    length = 9 - data[start].bit_length()
    value = int.from_bytes(data[start : start + length], "big") & ((1 << 7 * length) - 1)
    return (0 if value == (1 << 7 * length) - 1 else value), start + length


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its first video stream, whose decoder is not open yet.

    Raises:
        VideoError: it is no video of a known container and codec, or its frames are too large.
    """
    try:
        container = av.open(path, mode="r", options=_OPTIONS)
    except av.ArgumentError as error:
        raise VideoError("not a video of a known container") from error
    except (FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"not a video, or cut off before its index ({reason})") from error
    with container:
        if not container.streams.video:
            raise VideoError("no video stream")
        stream = container.streams.video[0]
        try:
            context = stream.codec_context
        except RuntimeError as error:
            raise VideoError("its codec is unknown") from error
        if context is None:
            raise VideoError("its codec is unknown")
        check_size(context.width, context.height)
        context.thread_count = 1  # files are fanned out over processes, not frames over threads
        context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
        yield container, stream


def check_size(width: int, height: int) -> None:
    """Refuses frames of more than MAX_PIXELS pixels.

    Raises:
        VideoError: with both numbers.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(f"{width}×{height} pixels, at most {MAX_PIXELS} are decoded")


def read_timeline(path: Path) -> Timeline:
    """Frames and times by the packets: headers lie, and nothing needs decoding for this.

    Raises:
        VideoError: the file is no video, is cut off or damaged, has no frames or too many.
    """
    times: list[int] = []
    keys: list[tuple[int, int]] = []
    num_frames = 0
    with open_video(path) as (container, stream):
        # AVI has no presentation times. FFmpeg makes them up, wrongly where MPEG-4 packs two frames into one packet.
        is_timed = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        by_pts = container.format.name in _INDEXED_BY_PTS
        last_byte = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if last_byte > path.stat().st_size:
            raise VideoError(f"truncated: {path.stat().st_size} bytes, its index reaches to {last_byte}")
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise VideoError(f"truncated or damaged: packet {num_frames} is not whole")
                if packet.size == 0 or packet.is_discard:
                    continue
                num_frames += 1
                if num_frames > MAX_FRAMES:
                    raise VideoError(f"more than {MAX_FRAMES} frames")
                if packet.pts is None or packet.dts is None:
                    is_timed = False
                elif is_timed:
                    times.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append((packet.pts, packet.pts if by_pts else packet.dts))
        except FFmpegError as error:
            raise VideoError(f"truncated or damaged after {num_frames} frames ({error.strerror})") from error
    if num_frames == 0:
        raise VideoError("no frames")
    if not is_timed or len(set(times)) < len(times):
        return Timeline(num_frames)
    shown = np.sort(np.array(times, dtype=np.int64))
    keys.sort()
    numbers = np.searchsorted(shown, np.array([pts for pts, _ in keys], dtype=np.int64))
    return Timeline(num_frames, shown, numbers, tuple(seek for _, seek in keys))


def count_pictures(path: Path) -> int:
    """Frames that the decoder gives when it starts at the first packet.

    Raises:
        VideoError: it gives none, or stops at a damaged packet.
    """
    with open_video(path) as (container, stream):
        num_frames = sum(1 for packet in container.demux(stream) for _ in decode_packet(packet))
    if num_frames == 0:
        raise VideoError("damaged: no frame can be decoded")
    return num_frames


def decode_packet(packet: av.Packet) -> Sequence[av.VideoFrame]:
    """The frames that a packet completes.

    Raises:
        VideoError: the decoder refuses it.
    """
    try:
        return packet.decode()
    except (FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"damaged: a packet cannot be decoded ({reason})") from error
