"""Clips as AV1 or H.264 bytes and back: what an engineer would keep in the same budget without this project.

What belongs here: encoding a clip, decoding it from the stored bytes alone, filling a byte budget with encoded clips.
What must NOT come here: containers and files (`video`), latents, the ledger of a release.

The comparison is meant to be hard to beat, so only what a decoder needs is counted: packets without a
container, banners or delimiters, and the stream header once for the whole set. Lengths and labels are not counted.

Legend: N clips, T frames, C channels, H, W pixels.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from numpy.typing import NDArray

Codec = Literal["av1", "h264"]

BEST_CRF = 1
WORST_CRF: dict[str, int] = {"av1": 63, "h264": 51}

_ENCODERS = {"av1": "libsvtav1", "h264": "libx264"}
_DECODERS = {"av1": "libdav1d", "h264": "h264"}
# lp=1 and one thread: the bytes do not depend on the machine's cores. Slower presets add 0.1 dB at twice the time.
_OPTIONS = {
    "av1": {"preset": "4", "svtav1-params": "lp=1"},
    # psy off: x264 else spends bytes on what looks sharp, 0.8 dB at equal bytes. asm=SSE2: as in `video.write_clip`.
    "h264": {"preset": "veryslow", "x264-params": "psy=0:asm=SSE2"},
}
# Clips encoded to find the neighbourhood of the right quality before all of them are.
_NUM_SAMPLED = 16

_OBU_SEQUENCE_HEADER, _OBU_TEMPORAL_DELIMITER = 1, 2
_NAL_SEI = 6
_NAL_START = re.compile(rb"\x00*\x00\x00\x01")


@dataclass(frozen=True)
class EncodedClip:
    """One clip as a codec's bytes.

    Attributes:
        packets: all packets of the clip, one after the other, without `header`.
        header: what the decoder must be told first (AV1 sequence header; H.264 SPS and PPS); clips of one size and crf
            share it.
    """

    packets: bytes
    header: bytes
    num_frames: int
    height: int
    width: int
    codec: Codec

    @property
    def stored_bytes(self) -> int:
        """Bytes of the packets; the header comes on top, once for a set of clips."""
        return len(self.packets)


@dataclass(frozen=True)
class KeptVideos:
    """What a byte budget holds as plain video.

    Attributes:
        clips_NTCHW: uint8, decoded from the stored bytes.
        labels_N: int64, the label of each kept clip.
        stored_bytes: packets of all kept clips and the header that they share.
        crf: the quality of all of them.
        num_clips: N.
    """

    clips_NTCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    stored_bytes: int
    crf: int
    num_clips: int

    def __post_init__(self) -> None:
        if not len(self.clips_NTCHW) == len(self.labels_N) == self.num_clips:
            raise ValueError(f"{self.num_clips = }, {self.clips_NTCHW.shape = }, {self.labels_N.shape = } disagree")


def encode_clip(clip_TCHW: NDArray[np.uint8], *, codec: Codec, crf: int) -> EncodedClip:
    """Encodes a clip as one group of pictures, 4:2:0.

    Args:
        clip_TCHW: uint8 [T, 3, H, W], RGB; H and W even.
        codec: "av1" (SVT-AV1) or "h264" (x264).
        crf: constant quality, from 1 (best) to `WORST_CRF[codec]`.
    """
    if codec not in get_args(Codec):
        raise ValueError(f"unknown codec {codec!r}: expected one of {', '.join(get_args(Codec))}")
    if not BEST_CRF <= crf <= WORST_CRF[codec]:
        raise ValueError(f"{crf = } is outside {BEST_CRF} to {WORST_CRF[codec]}, the range of {codec}")
    if clip_TCHW.dtype != np.uint8 or clip_TCHW.ndim != 4 or clip_TCHW.shape[1] != 3 or len(clip_TCHW) == 0:
        raise ValueError(f"expected uint8 [T, 3, H, W] with T of at least 1, got {clip_TCHW.dtype} {clip_TCHW.shape}")
    num_frames, _, height, width = clip_TCHW.shape
    if height % 2 or width % 2:
        raise ValueError(f"{codec} in 4:2:0 needs even sides, got {height}×{width}: choose an even clip size")
    try:
        raw, extradata = _encode(clip_TCHW, codec, crf)
    except FFmpegError as error:
        raise ValueError(
            f"{codec} cannot encode {num_frames} frames of {height}×{width} ({error.strerror}): choose another size"
        ) from error
    if codec == "av1":
        header, packets = _split_obus(raw)
    else:
        header, packets = extradata, _drop_sei(raw)
    return EncodedClip(packets, header, num_frames, height, width, codec)


def _encode(clip_TCHW: NDArray[np.uint8], codec: Codec, crf: int) -> tuple[bytes, bytes]:
    """All packets joined, and the encoder's extradata."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its settings to stderr for every clip otherwise
    encoder = av.CodecContext.create(_ENCODERS[codec], "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = clip_TCHW.shape[2:]
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(12), Fraction(1, 12)
    encoder.gop_size = max(len(clip_TCHW), 2)
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    encoder.options = {"crf": str(crf), **_OPTIONS[codec]}
    packets = []
    for index, pixels_CHW in enumerate(clip_TCHW):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)), format="rgb24")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets), encoder.extradata or b""


def _split_obus(stream: bytes) -> tuple[bytes, bytes]:
    """The sequence header, and all other units but temporal delimiters, of an AV1 stream (its section 5.3)."""
    header, rest, start = b"", [], 0
    while start < len(stream):
        kind, has_extension = stream[start] >> 3 & 15, stream[start] >> 2 & 1
        position, size, shift = start + 1 + has_extension, 0, 0
        while True:  # leb128: seven bits a byte, the lowest first
            byte = stream[position]
            size |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
        unit = stream[start : position + size]
        if kind == _OBU_SEQUENCE_HEADER:
            header = unit
        elif kind != _OBU_TEMPORAL_DELIMITER:
            rest.append(unit)
        start = position + size
    return header, b"".join(rest)


def _drop_sei(stream: bytes) -> bytes:
    """An H.264 stream without supplemental units: x264 spells its settings out there, some 700 bytes a clip."""
    units = [unit for unit in _NAL_START.split(stream) if unit]
    return b"".join(b"\x00\x00\x01" + unit for unit in units if unit[0] & 31 != _NAL_SEI)


def decode_clip(encoded: EncodedClip) -> NDArray[np.uint8]:
    """The clip, from header and packets alone: uint8 [T, 3, H, W].

    Raises:
        ValueError: the bytes are damaged.
    """
    decoder = av.CodecContext.create(_DECODERS[encoded.codec], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    stream = encoded.header + encoded.packets
    try:
        # dav1d takes a whole stream at once; the H.264 decoder wants one picture at a time, which the parser finds.
        packets = [av.Packet(stream)] if encoded.codec == "av1" else [*decoder.parse(stream), *decoder.parse(None)]
        frames = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    except FFmpegError as error:
        raise ValueError(f"damaged {encoded.codec} bytes: {error.strerror}") from error
    expected = (encoded.num_frames, encoded.height, encoded.width)
    if any((frame.height, frame.width) != expected[1:] for frame in frames) or len(frames) != encoded.num_frames:
        got = [(frame.height, frame.width) for frame in frames]
        raise ValueError(f"damaged {encoded.codec} bytes: frames {got}, expected [T, H, W] = {list(expected)}")
    return np.stack([frame.to_ndarray(format="rgb24").transpose(2, 0, 1) for frame in frames])


def fill_budget(
    clips_NTCHW: NDArray[np.uint8], labels_N: NDArray[np.integer], *, num_bytes: int, codec: Codec, seed: int
) -> KeptVideos:
    """Keeps as much plain video as the bytes allow: all clips at the best quality that fits, else fewer at the worst.

    Fewer clips are drawn at random, as many of each class as of any other (give or take one).

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        labels_N: class of each clip.
        num_bytes: the allowance.
        codec: "av1" or "h264".
        seed: of the draw.

    Raises:
        ValueError: not even one clip of each class fits at the worst quality.
    """
    if len(clips_NTCHW) != len(labels_N) or len(labels_N) == 0:
        raise ValueError(f"expected as many labels as clips, at least one: {clips_NTCHW.shape = }, {labels_N.shape = }")
    order = _draw_order(labels_N, seed)
    crf, encoded = _find_quality([clips_NTCHW[index] for index in order], num_bytes, codec)
    sizes = np.cumsum([clip.stored_bytes for clip in encoded]) + _header_bytes(encoded)
    num_clips = int(np.searchsorted(sizes, num_bytes, side="right"))
    num_classes = len(np.unique(labels_N))
    if num_clips < num_classes:
        raise ValueError(
            f"{num_bytes} bytes hold {num_clips} clips as {codec} at its lowest quality (crf {crf}); one of each of "
            f"the {num_classes} classes takes {sizes[num_classes - 1]} bytes: raise the budget or leave classes out"
        )
    kept = np.sort(order[:num_clips])
    rank = np.argsort(order[:num_clips])
    return KeptVideos(
        clips_NTCHW=np.stack([decode_clip(encoded[index]) for index in rank]),
        labels_N=np.asarray(labels_N[kept], dtype=np.int64),
        stored_bytes=int(sizes[num_clips - 1]),
        crf=crf,
        num_clips=num_clips,
    )


def _draw_order(labels_N: NDArray[np.integer], seed: int) -> NDArray[np.intp]:
    """A random order of the clips in which every class has its turn before any has its next: [N] indices."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels_N))
    labels = labels_N[shuffled]
    turn = np.array([np.count_nonzero(labels[:place] == label) for place, label in enumerate(labels)])
    return shuffled[np.argsort(turn, kind="stable")]


def _find_quality(clips: list[NDArray[np.uint8]], num_bytes: int, codec: Codec) -> tuple[int, list[EncodedClip]]:
    """The lowest crf at which all clips fit, with the clips at it; the worst crf when none does.

    Encoding costs, so a few clips say where to begin, and all are encoded only around there.
    """
    worst = WORST_CRF[codec]
    sample = clips[:_NUM_SAMPLED]
    low, high = BEST_CRF, worst
    while low < high:
        middle = (low + high) // 2
        if _measure(_encode_all(sample, codec, middle)) * len(clips) <= num_bytes * len(sample):
            high = middle
        else:
            low = middle + 1
    crf, encoded = low, _encode_all(clips, codec, low)
    while crf < worst and _measure(encoded) > num_bytes:
        crf += 1
        encoded = _encode_all(clips, codec, crf)
    while low == crf > BEST_CRF and _measure(encoded) <= num_bytes:
        better = _encode_all(clips, codec, crf - 1)
        if _measure(better) > num_bytes:
            break
        crf, encoded, low = crf - 1, better, crf - 1
    return crf, encoded


def _encode_all(clips: Sequence[NDArray[np.uint8]], codec: Codec, crf: int) -> list[EncodedClip]:
    # Each clip is encoded by one thread, so that its bytes do not depend on how many clips are encoded side by side.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda clip: encode_clip(clip, codec=codec, crf=crf), clips))


def _measure(encoded: Sequence[EncodedClip]) -> int:
    return sum(clip.stored_bytes for clip in encoded) + _header_bytes(encoded)


def _header_bytes(encoded: Sequence[EncodedClip]) -> int:
    """Bytes of the headers, each different one once; clips of one size and crf have the same one."""
    return sum(len(header) for header in {clip.header for clip in encoded})
