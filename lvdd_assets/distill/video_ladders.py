"""A class's clips as video at many rates.

What belongs here: ladders of encodings with their bytes and errors, how a ladder is stored.
What must NOT come here: encoders and decoders (`codec`), the syntax of streams (`bitstreams`), the choice among rates
(`video_coding`), files.

Below the rate at which a codec's worst quality ends, smaller frames go on. Stream headers are stored once each, and of
the units' own headers only what differs from clip to clip (`bitstreams.Pattern`).

Legend: N clips, R rungs, T frames, H, W pixels.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.allocation import lower_hull
from lvdd_assets.distill.bitstreams import Codec, Pattern, learn_pattern, split_units
from lvdd_assets.distill.codec import LEAST_WIDTH, EncodedClip, decode_clip, encode_clip
from lvdd_assets.distill.coded_videos import CodedVideos, Head, Size, check_shape, pack_clip

# Quality and frame size, as a share of the clip's: steps of some 20 % in bytes. What is not on the hull is dropped.
CRFS: dict[Codec, tuple[int, ...]] = {
    "av1": (20, 27, 33, 38, 42, 46, 50, 53, 56, 59, 61, 63, 66, 70),
    "hevc": (16, 20, 24, 27, 30, 33, 36, 39, 42, 45, 48, 51),
    "h264": (16, 20, 24, 27, 30, 33, 36, 39, 42, 45, 48, 51),
}
SIZE_SHARES = (1.0, 0.75, 0.5, 0.375, 0.25)
_LEAST_SIDE = 16
# Clips encoded at every rung to find those worth having.
_NUM_SAMPLED = 8


@dataclass(frozen=True)
class VideoLadder:
    """A class's clips, each encoded at every rung; rungs by falling mean size, on the lower convex hull of bytes
    against squared error.

    Attributes:
        codec: "av1", "hevc" or "h264".
        num_frames, height, width: T, H, W of the clips.
        crfs: crf of each rung.
        heads: distinct heads of all encodings.
        head_of: index into `heads`: R rows of N.
        packets: R rows of N.
        squared_errors: int64 [R, N], summed over a clip's pixels and channels.
    """

    codec: Codec
    num_frames: int
    height: int
    width: int
    crfs: tuple[int, ...]
    heads: tuple[Head, ...]
    head_of: tuple[tuple[int, ...], ...]
    packets: tuple[tuple[bytes, ...], ...]
    squared_errors: NDArray[np.int64] = field(compare=False)

    def __post_init__(self) -> None:
        check_shape(self.codec, self.num_frames, self.height, self.width)
        shape = (len(self.crfs), len(self.packets[0]) if self.packets else 0)
        rows = {len(row) for row in (*self.packets, *self.head_of)}
        if 0 in shape or not len(self.packets) == len(self.head_of) == shape[0] or rows != {shape[1]}:
            raise ValueError(
                f"expected R rows of N encodings, got {len(self.packets)} and {len(self.head_of)} of {rows}"
            )
        if self.squared_errors.shape != shape or self.squared_errors.dtype != np.int64:
            raise ValueError(
                f"expected int64 {shape} errors, got {self.squared_errors.dtype} {self.squared_errors.shape}"
            )
        if any(not 0 <= index < len(self.heads) for row in self.head_of for index in row):
            raise ValueError(f"encodings refer to heads beyond the {len(self.heads)} that there are")

    @property
    def num_clips(self) -> int:
        """N."""
        return len(self.packets[0])

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Height and width of each rung's frames."""
        return tuple(self.heads[row[0]].size for row in self.head_of)

    @cached_property
    def _packed(self) -> list[list[tuple[bool, bytes]]]:
        return [
            [
                pack_clip(clip, self.codec, self.heads[index].pattern)
                for index, clip in zip(self.head_of[rung], row, strict=True)
            ]
            for rung, row in enumerate(self.packets)
        ]

    @property
    def has_whole(self) -> bool:
        """Whether some encoding does not follow the pattern."""
        return any(is_whole for row in self._packed for is_whole, _ in row)

    @cached_property
    def clip_bytes(self) -> NDArray[np.int64]:
        """Bytes of each encoding within `CodedVideos`, but for its index of a head: int64 [R, N]."""
        return np.array([[len(body) for _, body in row] for row in self._packed], dtype=np.int64)

    @cached_property
    def _shared_bytes(self) -> dict[int, int]:
        return {}

    def shared_bytes(self, num_clips: int) -> int:
        """Most bytes of `CodedVideos` of some clips beside the clips' own: shape, heads, pattern, indices of heads."""
        if num_clips not in self._shared_bytes:
            shape = (self.codec, self.num_frames, self.height, self.width)
            empty = CodedVideos(*shape, self.heads, (0,) * num_clips, (b"",) * num_clips)
            clips = num_clips * len(pack_clip(b"", self.codec, self.heads[0].pattern)[1])
            flags = (num_clips + 7) // 8 if self.heads[0].pattern else 0  # as no empty clip follows a pattern
            whole = (num_clips + 7) // 8 if self.has_whole else 0
            self._shared_bytes[num_clips] = len(empty.to_bytes()) - clips - flags + whole
        return self._shared_bytes[num_clips]

    def keep(self, rungs: Sequence[int]) -> CodedVideos:
        """The first len(rungs) clips, each at its rung; heads in the order of the ladder, those in use."""
        used = sorted({self.head_of[rung][clip] for clip, rung in enumerate(rungs)})
        return CodedVideos(
            self.codec,
            self.num_frames,
            self.height,
            self.width,
            tuple(self.heads[index] for index in used),
            tuple(used.index(self.head_of[rung][clip]) for clip, rung in enumerate(rungs)),
            tuple(self.packets[rung][clip] for clip, rung in enumerate(rungs)),
        )

    def without_pattern(self) -> "VideoLadder":
        """The same encodings, every unit whole."""
        return replace(self, heads=tuple(replace(head, pattern=None) for head in self.heads))

    def select_rungs(self, rungs: Sequence[int]) -> "VideoLadder":
        """Some of the rungs, by index; at least one. Heads that none of them refers to are left out."""
        used = sorted({index for rung in rungs for index in self.head_of[rung]})
        selected = replace(
            self,
            crfs=tuple(self.crfs[rung] for rung in rungs),
            heads=tuple(self.heads[index] for index in used),
            head_of=tuple(tuple(used.index(index) for index in self.head_of[rung]) for rung in rungs),
            packets=tuple(self.packets[rung] for rung in rungs),
            squared_errors=self.squared_errors[list(rungs)],
        )
        vars(selected)["_packed"] = [self._packed[rung] for rung in rungs]  # packing takes longer than choosing
        return selected

    def least_bytes(self, num_clips: int) -> int:
        """Bytes of the first clips, up to all that there are, each at its smallest."""
        kept = min(num_clips, self.num_clips)
        return self.shared_bytes(kept) + int(self.clip_bytes[:, :kept].min(axis=0).sum())

    def at_slope(self, slope: float, num_clips: int) -> tuple[float, int]:
        """Least squared error + slope · bytes of the first clips, and the bytes at which it is reached."""
        kept = min(num_clips, self.num_clips)
        costs = self.squared_errors[:, :kept] + slope * self.clip_bytes[:, :kept]
        shared, rungs = self.shared_bytes(kept), costs.argmin(axis=0)
        size = shared + int(self.clip_bytes[rungs, range(kept)].sum())
        return float(costs.min(axis=0).sum() + slope * shared), size


def frame_sizes(height: int, width: int, codec: Codec = "av1") -> tuple[Size, ...]:
    """Even frame sizes to code a clip of H × W at, falling: none with a side under 16 pixels or narrower than the codec
    takes, but the clip's own."""
    shares = [(2 * round(height * share / 2), 2 * round(width * share / 2)) for share in SIZE_SHARES]
    return tuple(
        size
        for size in shares
        if size == (height, width) or (min(size) >= _LEAST_SIDE and size[1] >= LEAST_WIDTH[codec])
    )


def build_ladder(
    clips_NTCHW: NDArray[np.uint8],
    *,
    codec: Codec = "av1",
    crfs: Sequence[int] | None = None,
    sizes: Sequence[Size] | None = None,
) -> VideoLadder:
    """Encodes a class's clips at every frame size and crf that is on the lower convex hull of mean bytes against mean
    squared error.

    A few clips, evenly spread, are encoded at all of them to find the hull; the rest only on it.

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W], in the order in which a small budget keeps them.
        codec: "av1", "hevc" or "h264".
        crfs: qualities to try; `CRFS[codec]` by default.
        sizes: even heights and widths to try; `frame_sizes(H, W, codec)` by default.
    """
    if clips_NTCHW.ndim != 5 or len(clips_NTCHW) == 0:
        raise ValueError(f"expected uint8 [N, T, 3, H, W] with at least one clip, got {clips_NTCHW.shape}")
    height, width = clips_NTCHW.shape[-2:]
    rungs = list(product(sizes or frame_sizes(height, width, codec), crfs or CRFS[codec]))
    num_clips = len(clips_NTCHW)
    sample = sorted({index * num_clips // _NUM_SAMPLED for index in range(_NUM_SAMPLED)})
    sampled = _encode_rungs(clips_NTCHW[sample], codec, rungs)
    rungs = [rungs[index] for index in _hull_of(sampled)]
    whole = sampled if len(sample) == num_clips else _encode_rungs(clips_NTCHW, codec, rungs)
    if len(sample) == num_clips:
        return sampled.select_rungs(_hull_of(sampled))
    return whole.select_rungs(_hull_of(whole))


def _encode_rungs(clips_NTCHW: NDArray[np.uint8], codec: Codec, rungs: Sequence[tuple[Size, int]]) -> VideoLadder:
    """All clips at all rungs, in the order given."""

    def encode(job: tuple[tuple[Size, int], NDArray[np.uint8]]) -> tuple[EncodedClip, int]:
        (size, crf), clip = job
        encoded = encode_clip(clip, codec=codec, crf=crf, size=size)
        error = np.square(decode_clip(encoded).astype(np.int64) - clip).sum()
        return encoded, int(error)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(encode, product(rungs, clips_NTCHW)))
    num_clips, (num_frames, _, height, width) = len(clips_NTCHW), clips_NTCHW.shape[1:]
    units: dict[Size, list[list[bytes]]] = {}
    for encoded, _ in results:
        units.setdefault(encoded.size or (height, width), []).append(split_units(encoded.packets, codec))
    patterns = {size: learn_pattern(clips) for size, clips in units.items()}
    found = [Head(size := encoded.size or (height, width), encoded.header, patterns[size]) for encoded, _ in results]
    heads = list(dict.fromkeys(found))
    rows = range(0, len(results), num_clips)
    return VideoLadder(
        codec,
        num_frames,
        height,
        width,
        tuple(crf for _, crf in rungs),
        tuple(heads),
        tuple(tuple(heads.index(head) for head in found[row : row + num_clips]) for row in rows),
        tuple(tuple(encoded.packets for encoded, _ in results[row : row + num_clips]) for row in rows),
        np.array([error for _, error in results], dtype=np.int64).reshape(len(rungs), num_clips),
    )


def _hull_of(ladder: VideoLadder) -> list[int]:
    """Rungs on the hull, by falling size."""
    return lower_hull(ladder.clip_bytes.sum(axis=1).tolist(), ladder.squared_errors.sum(axis=1).tolist())[::-1]


def pack_ladder(ladder: VideoLadder) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """A ladder as one array of bytes (uint8 [M]) and a table of plain values."""
    table = {
        "codec": ladder.codec,
        "shape": [ladder.num_frames, ladder.height, ladder.width],
        "crfs": list(ladder.crfs),
        "heads": [_head_row(head) for head in ladder.heads],
        "head_of": [list(row) for row in ladder.head_of],
        "bytes": [[len(clip) for clip in row] for row in ladder.packets],
        "squared_errors": ladder.squared_errors.tolist(),
    }
    return np.frombuffer(b"".join(clip for row in ladder.packets for clip in row), dtype=np.uint8), table


def unpack_ladder(data: NDArray[np.uint8], table: Mapping[str, Any]) -> VideoLadder:
    """The ladder that `pack_ladder` packed.

    Raises:
        ValueError: table and bytes do not belong together.
    """
    total = sum(length for row in table["bytes"] for length in row)
    if total != len(data) or any(length < 0 for row in table["bytes"] for length in row):
        raise ValueError(f"a ladder's table adds up to {total} B, {len(data)} B are stored")
    stream, start, packets = data.tobytes(), 0, []
    for row in table["bytes"]:
        ends = (start + np.cumsum(row)).tolist()
        packets.append(tuple(stream[begin:end] for begin, end in zip([start, *ends[:-1]], ends, strict=True)))
        start = ends[-1]
    num_frames, height, width = table["shape"]
    return VideoLadder(
        table["codec"],
        num_frames,
        height,
        width,
        tuple(table["crfs"]),
        tuple(_read_head(row) for row in table["heads"]),
        tuple(tuple(row) for row in table["head_of"]),
        tuple(packets),
        np.array(table["squared_errors"], dtype=np.int64),
    )


def _head_row(head: Head) -> dict[str, Any]:
    pattern = head.pattern.to_bytes().hex() if head.pattern else None
    return {"size": list(head.size), "header": head.header.hex(), "pattern": pattern}


def _read_head(row: Mapping[str, Any]) -> Head:
    pattern = Pattern.read(bytes.fromhex(row["pattern"]), 0)[0] if row["pattern"] else None
    height, width = row["size"]
    return Head((height, width), bytes.fromhex(row["header"]), pattern)
