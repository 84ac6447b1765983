"""What a release keeps of one class as video: packets, the headers they share, and all of it as bytes and back.

What belongs here: the layout of those bytes, checks of bytes from strangers, decoding. What must NOT come here:
choosing what is kept (`video_coding`), encoders (`codec`), the syntax of streams (`bitstreams`).

Legend: N clips, T frames, H, W pixels.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.bitstreams import (
    CODECS,
    Codec,
    Pattern,
    join_units,
    read_varint,
    split_units,
    write_varint,
)
from lvdd_assets.distill.codec import EncodedClip, decode_clip

Size = tuple[int, int]

_MAX_SIDE, _MAX_FRAMES, _MAX_CLIPS = 1 << 12, 1 << 12, 1 << 20
_MAX_DECODED_BYTES = 1 << 33
# Stream headers are some tens of bytes, one a frame size and quality; each repeats what it shares with the one before.
_MAX_HEADER, _MAX_HEADS = 1 << 10, 1 << 12
_HAS_WHOLE = 16
_NO_PATTERN, _SAME_PATTERN, _NEW_PATTERN = range(3)


@dataclass(frozen=True)
class Head:
    """What clips of one frame size share.

    Attributes:
        size: height and width of the coded frames in pixels.
        header: the stream header (`codec.EncodedClip.header`).
        pattern: how the units of these clips begin, or None.
    """

    size: Size
    header: bytes
    pattern: Pattern | None = None


@dataclass(frozen=True)
class CodedVideos:
    """What a release keeps of one class as video.

    Attributes:
        codec: "av1", "hevc" or "h264".
        num_frames, height, width: T, H, W of the clips, whatever the coded size.
        heads: every head in use, once.
        head_of: index into `heads` of each clip.
        packets: the packets of each clip.
    """

    codec: Codec
    num_frames: int
    height: int
    width: int
    heads: tuple[Head, ...]
    head_of: tuple[int, ...]
    packets: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_shape(self.codec, self.num_frames, self.height, self.width)
        if not 1 <= len(self.packets) == len(self.head_of) <= _MAX_CLIPS:
            raise ValueError(
                f"expected a head for each of 1 or more clips, got {len(self.head_of)} and {self.num_clips}"
            )
        if any(not 0 <= index < len(self.heads) for index in self.head_of):
            raise ValueError(f"clips refer to head {max(self.head_of)} of {len(self.heads)}")
        for head in self.heads:
            # Coded frames are scaled down, if at all; odd sides are rounded to even ones.
            if head.size[0] > self.height + 1 or head.size[1] > self.width + 1:
                raise ValueError(
                    f"frames coded as {head.size} for clips of {self.height}×{self.width}: expected no larger"
                )

    @property
    def num_clips(self) -> int:
        """N."""
        return len(self.packets)

    def to_bytes(self) -> bytes:
        """All of it as bytes, every one of which counts."""
        bodies = [
            pack_clip(packets, self.codec, self.heads[index].pattern)
            for index, packets in zip(self.head_of, self.packets, strict=True)
        ]
        whole = [is_whole for is_whole, _ in bodies]
        kind = CODECS.index(self.codec) | _HAS_WHOLE * any(whole)
        parts = [bytes([kind])]
        parts += map(write_varint, (self.num_frames, self.height, self.width, self.num_clips))
        parts.append(_write_heads(self.heads))
        parts.append(_write_bits(self.head_of, _index_bits(len(self.heads))))
        parts.append(_write_bits(whole, 1) if any(whole) else b"")
        parts += [body for _, body in bodies]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "CodedVideos":
        """What `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged.
        """
        if not data or data[0] & 15 >= len(CODECS) or data[0] >> 5:
            raise ValueError(f"damaged video bytes: they begin with {data[:1].hex() or 'nothing'}, which is no codec's")
        codec, start, shape = CODECS[data[0] & 15], 1, []
        for _ in range(4):
            value, start = read_varint(data, start)
            shape.append(value)
        num_frames, height, width, num_clips = shape
        check_shape(codec, num_frames, height, width)
        if not 1 <= num_clips <= min(len(data), _MAX_CLIPS):
            raise ValueError(f"damaged video bytes: {num_clips} clips in {len(data)} bytes")
        heads, start = _read_heads(data, start)
        head_of, start = _read_bits(data, start, num_clips, _index_bits(len(heads)))
        whole, start = _read_bits(data, start, num_clips, 1 if data[0] & _HAS_WHOLE else 0)
        packets = []
        for is_whole, index in zip(whole, head_of, strict=True):
            if index >= len(heads):
                raise ValueError(f"damaged video bytes: a clip refers to head {index} of {len(heads)}")
            clip, start = _read_clip(data, start, codec, None if is_whole else heads[index].pattern)
            packets.append(clip)
        if start != len(data):
            raise ValueError(f"damaged video bytes: they end at byte {start}, {len(data)} are there")
        return cls(codec, num_frames, height, width, heads, tuple(head_of), tuple(packets))

    def decode(self) -> NDArray[np.uint8]:
        """The clips: uint8 [N, T, 3, H, W].

        Raises:
            ValueError: the bytes are damaged, or announce more pixels than are plausible.
        """
        needed = self.num_clips * self.num_frames * 3 * self.height * self.width
        if needed > _MAX_DECODED_BYTES:
            raise ValueError(f"{self.num_clips} clips would take {needed} B decoded, at most {_MAX_DECODED_BYTES}")
        clips_NTCHW = np.empty((self.num_clips, self.num_frames, 3, self.height, self.width), dtype=np.uint8)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for index, clip_TCHW in enumerate(pool.map(decode_clip, self._encoded())):
                clips_NTCHW[index] = clip_TCHW
        return clips_NTCHW

    def _encoded(self) -> Iterator[EncodedClip]:
        for index, packets in zip(self.head_of, self.packets, strict=True):
            head, shape = self.heads[index], (self.num_frames, self.height, self.width)
            size = None if head.size == shape[1:] else head.size
            yield EncodedClip(packets, head.header, *shape, self.codec, size)


def check_shape(codec: str, num_frames: int, height: int, width: int) -> None:
    """Refuses clips that nobody would keep, before anything of their size is allocated.

    Raises:
        ValueError: the codec is unknown, or there are too many frames or pixels.
    """
    if codec not in CODECS:
        raise ValueError(f"unknown codec {codec!r}: expected one of {', '.join(CODECS)}")
    if not (1 <= num_frames <= _MAX_FRAMES and 2 <= height <= _MAX_SIDE and 2 <= width <= _MAX_SIDE):
        raise ValueError(
            f"clips of {num_frames} frames of {height}×{width}: expected 1 to {_MAX_FRAMES} frames and sides of 2 to "
            f"{_MAX_SIDE}"
        )


def pack_clip(packets: bytes, codec: Codec, pattern: Pattern | None) -> tuple[bool, bytes]:
    """Whether a clip is stored whole although there is a pattern, and its bytes within `CodedVideos`."""
    if pattern is not None:
        units = split_units(packets, codec)
        if len(units) == len(pattern.prefixes) and join_units(units, codec) == packets:
            return False, pattern.pack(units)
    return pattern is not None, write_varint(len(packets)) + packets


def _read_clip(data: bytes, start: int, codec: Codec, pattern: Pattern | None) -> tuple[bytes, int]:
    if pattern is not None:
        units, end = pattern.unpack(data, start)
        return join_units(units, codec), end
    length, start = read_varint(data, start)
    if start + length > len(data):
        raise ValueError(f"damaged video bytes: a clip ends at byte {start + length} of {len(data)}")
    return data[start : start + length], start + length


def _write_heads(heads: Sequence[Head]) -> bytes:
    """Each header without the bytes with which it begins as the one before it, each pattern unless it is the one
    before it."""
    pattern: Pattern | None = None
    parts, before = [write_varint(len(heads))], b""
    for head in heads:
        num_same = next(
            (i for i, (a, b) in enumerate(zip(before, head.header, strict=False)) if a != b),
            min(len(before), len(head.header)),
        )
        numbers = (*head.size, num_same, len(head.header) - num_same)
        parts += [*map(write_varint, numbers), head.header[num_same:]]
        if head.pattern is None:
            parts.append(bytes([_NO_PATTERN]))
        elif head.pattern == pattern:
            parts.append(bytes([_SAME_PATTERN]))
        else:
            parts.append(bytes([_NEW_PATTERN]) + head.pattern.to_bytes())
        before, pattern = head.header, head.pattern or pattern
    return b"".join(parts)


def _read_heads(data: bytes, start: int) -> tuple[tuple[Head, ...], int]:
    num_heads, start = read_varint(data, start)
    if not 1 <= num_heads <= min(len(data) - start, _MAX_HEADS):
        raise ValueError(f"damaged video bytes: {num_heads} stream headers in {len(data) - start} bytes")
    heads, before = [], b""
    pattern: Pattern | None = None
    for _ in range(num_heads):
        numbers = []
        for _ in range(4):
            value, start = read_varint(data, start)
            numbers.append(value)
        height, width, num_same, num_more = numbers
        fits = num_same <= len(before) and num_same + num_more <= _MAX_HEADER and start + num_more <= len(data)
        if not (2 <= height <= _MAX_SIDE and 2 <= width <= _MAX_SIDE and fits):
            raise ValueError(f"damaged video bytes: a stream header of {numbers} at byte {start} of {len(data)}")
        before = before[:num_same] + data[start : start + num_more]
        start += num_more + 1
        mark = data[start - 1] if start <= len(data) else None
        if mark == _NEW_PATTERN:
            pattern, start = Pattern.read(data, start)
        elif mark not in (_NO_PATTERN, _SAME_PATTERN) or (mark == _SAME_PATTERN and pattern is None):
            raise ValueError(f"damaged video bytes: a pattern marked {mark} at byte {start - 1} of {len(data)}")
        heads.append(Head((height, width), before, None if mark == _NO_PATTERN else pattern))
    return tuple(heads), start


def _index_bits(count: int) -> int:
    return (count - 1).bit_length()


def _write_bits(values: Sequence[int], width: int) -> bytes:
    """Numbers of `width` bits each, the lowest first."""
    bits = np.asarray(values, dtype=np.uint32)[:, None] >> np.arange(width, dtype=np.uint32) & 1
    return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").tobytes()


def _read_bits(data: bytes, start: int, count: int, width: int) -> tuple[list[int], int]:
    end = start + (count * width + 7) // 8
    if end > len(data):
        raise ValueError(f"damaged video bytes: {count} numbers of {width} bits at byte {start} of {len(data)}")
    bits = np.unpackbits(np.frombuffer(data[start:end], np.uint8), count=count * width, bitorder="little")
    return (bits.reshape(count, width) @ (1 << np.arange(width))).tolist(), end
