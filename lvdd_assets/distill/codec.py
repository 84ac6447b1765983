"""Clips as AV1, HEVC or H.264 bytes and back.

What belongs here: encoding a clip, decoding it from the stored bytes alone.
What must NOT come here: containers and files (`video`), the syntax of streams (`bitstreams`), how many clips a budget
holds (`video_budget`), rates chosen clip by clip (`video_coding`), latents, the ledger of a release.

Only what a decoder needs is kept: packets without a container, banners or delimiters, and the stream header.

Legend: T frames, H, W pixels.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from lvdd_assets.distill.bitstreams import (
    CODECS,
    NAL_PARAMETERS,
    NAL_SEI,
    OBU_SEQUENCE_HEADER,
    OBU_TEMPORAL_DELIMITER,
    Codec,
    join_units,
    split_units,
    unit_kind,
)
from lvdd_assets.distill.thread_priority import keep_priority

BEST_CRF = 1
# SVT-AV1 goes on beyond the coarsest quantiser of AV1, at 63, by weighing bytes more; FFmpeg's own option does not.
WORST_CRF: dict[str, int] = {"av1": 70, "hevc": 51, "h264": 51}
_WORST_CRF_OPTION = 63
# Where a frame is one block wide, x265 reads memory beside it that nothing wrote: the bytes differ from one call to the
# next. Its smallest block is 16.
LEAST_WIDTH: dict[str, int] = {"av1": 2, "hevc": 18, "h264": 2}

_ENCODERS = {"av1": "libsvtav1", "hevc": "libx265", "h264": "libx264"}
_PIXELS = "yuv420p"
_DECODERS = {"av1": "libdav1d", "hevc": "hevc", "h264": "h264"}
# One thread everywhere: the bytes do not depend on the machine's cores.
_OPTIONS = {
    # Filters in the loop and temporal filtering cost header bits and detail that frames as small as these do not get
    # back, 10 % of the bytes at equal PSNR. No lookahead= here: it makes the bytes differ from one call to the next.
    "av1": {
        "preset": "2",
        "svtav1-params": "lp=1:enable-tf=0:enable-cdef=0:enable-restoration=0:enable-dlf=0",
    },
    # psy off: both else spend bytes on what looks sharp, 0.8 dB at equal bytes; weights are headers in every slice.
    # asm=false: x265's own code for processors reads and writes beside its memory where frames are this small (its
    # lookahead by eights of blocks), and dies of it; the bytes and the speed are the same without it. What the first
    # encoder of a process says holds for all of them. With blocks of 64 bytes differ from one call to the next.
    "hevc": {
        "preset": "veryslow",
        "x265-params": "log-level=none:info=0:pools=none:frame-threads=1:wpp=0:asm=false:psy-rd=0:psy-rdoq=0:"
        "aq-mode=0:sao=0:weightp=0:weightb=0:cbqpoffs=-3:crqpoffs=-3",
    },
    # asm=SSE2: as in `video.write_clip`.
    "h264": {"preset": "veryslow", "x264-params": "psy=0:aq-mode=0:weightp=0:weightb=0:asm=SSE2"},
}
# Computed the same on every machine, and not by the scaler's fast tables, which cost 1.4 dB at 40 dB.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_SCALE_DOWN, _SCALE_UP = Interpolation.AREA | _EXACT, Interpolation.BICUBIC | _EXACT
_CODED_UNIT = 64  # decoders allocate whole blocks


@dataclass(frozen=True)
class EncodedClip:
    """One clip as a codec's bytes.

    Attributes:
        packets: all packets of the clip, one after the other, without `header`.
        header: what the decoder must be told first (AV1 sequence header; H.264 SPS and PPS, HEVC also VPS); clips of
            one frame size share it, H.264's also depends on the crf.
        num_frames: T.
        height, width: H and W of the clip, in pixels.
        size: height and width of the coded frames; None where they are the clip's. Others are scaled to the clip's.
    """

    packets: bytes
    header: bytes
    num_frames: int
    height: int
    width: int
    codec: Codec
    size: tuple[int, int] | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes of the packets; the header comes on top, once for a set of clips."""
        return len(self.packets)


def encode_clip(
    clip_TCHW: NDArray[np.uint8], *, codec: Codec, crf: int, size: tuple[int, int] | None = None
) -> EncodedClip:
    """Encodes a clip as one group of pictures, 4:2:0.

    A process that writes HEVC by other means as well should give x265 `asm=false` there: what its first encoder says
    holds for all later ones, and x265's code for processors damages memory at frames as small as these.

    Args:
        clip_TCHW: uint8 [T, 3, H, W], RGB; H and W even.
        codec: "av1" (SVT-AV1), "hevc" (x265) or "h264" (x264).
        crf: constant quality, from 1 (best) to `WORST_CRF[codec]`.
        size: even height and width to which frames are scaled (by area) before they are coded; decoding scales back
            (bicubic). None codes them as they are. The width is at least `LEAST_WIDTH[codec]`.
    """
    if codec not in CODECS:
        raise ValueError(f"unknown codec {codec!r}: expected one of {', '.join(CODECS)}")
    if not BEST_CRF <= crf <= WORST_CRF[codec]:
        raise ValueError(f"{crf = } is outside {BEST_CRF} to {WORST_CRF[codec]}, the range of {codec}")
    if clip_TCHW.dtype != np.uint8 or clip_TCHW.ndim != 4 or clip_TCHW.shape[1] != 3 or len(clip_TCHW) == 0:
        raise ValueError(f"expected uint8 [T, 3, H, W] with T of at least 1, got {clip_TCHW.dtype} {clip_TCHW.shape}")
    num_frames, _, height, width = clip_TCHW.shape
    coded_height, coded_width = size or (height, width)
    if coded_height % 2 or coded_width % 2 or min(coded_height, coded_width) < 2:
        raise ValueError(f"{codec} in 4:2:0 needs even sides, got {coded_height}×{coded_width}: choose an even size")
    if coded_width < LEAST_WIDTH[codec]:
        raise ValueError(
            f"{codec} needs frames of {LEAST_WIDTH[codec]} pixels or wider, got {coded_height}×{coded_width}: choose a "
            "wider size or another codec"
        )
    try:
        raw, extradata = _encode(clip_TCHW, codec, crf, coded_height, coded_width)
    except FFmpegError as error:
        raise ValueError(
            f"{codec} cannot encode {num_frames} frames of {coded_height}×{coded_width} ({error.strerror}): choose "
            "another size"
        ) from error
    header, packets = _take_apart(raw, extradata, codec)
    size = None if size == (height, width) else size
    return EncodedClip(packets, header, num_frames, height, width, codec, size)


def _encode(clip_TCHW: NDArray[np.uint8], codec: Codec, crf: int, height: int, width: int) -> tuple[bytes, bytes]:
    """All packets joined, and the encoder's extradata."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its settings to stderr for every clip otherwise
    encoder = av.CodecContext.create(_ENCODERS[codec], "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = height, width
    encoder.pix_fmt = _PIXELS
    encoder.framerate, encoder.time_base = Fraction(12), Fraction(1, 12)
    encoder.gop_size = max(len(clip_TCHW), 2)
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    options = dict(_OPTIONS[codec])
    if codec == "hevc":
        options["x265-params"] += f":ctu={32 if width > 32 else 16}"
    if codec == "av1" and crf > _WORST_CRF_OPTION:
        options["svtav1-params"] += f":crf={crf}"
    encoder.options = {"crf": str(min(crf, _WORST_CRF_OPTION)), **options}
    with keep_priority():
        encoder.open()
    packets = []
    for index, pixels_CHW in enumerate(clip_TCHW):
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)), format="rgb24")
        frame = image.reformat(width, height, _PIXELS, interpolation=_SCALE_DOWN)
        frame.pts, frame.time_base = index, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets), encoder.extradata or b""


def _take_apart(raw: bytes, extradata: bytes, codec: Codec) -> tuple[bytes, bytes]:
    """Header and packets, without what a decoder does not need: delimiters, and the settings that x264 and x265 spell
    out, some 700 bytes a clip."""
    units = split_units(raw, codec)
    if codec == "av1":
        header = [unit for unit in units if unit_kind(unit, codec) == OBU_SEQUENCE_HEADER][:1]
        left_out: tuple[int, ...] = (OBU_SEQUENCE_HEADER, OBU_TEMPORAL_DELIMITER)
    else:
        header = [unit for unit in split_units(extradata, codec) if unit_kind(unit, codec) in NAL_PARAMETERS[codec]]
        left_out = NAL_SEI[codec]
    kept = [unit for unit in units if unit_kind(unit, codec) not in left_out]
    return join_units(header, codec), join_units(kept, codec)


def decode_clip(encoded: EncodedClip) -> NDArray[np.uint8]:
    """The clip, from header and packets alone: uint8 [T, 3, H, W].

    One of three decoders gets the units one by one, on one thread, without a demuxer; it stops at the first frame that
    is too many, of another size or of another format than the encoders here write.

    Raises:
        ValueError: the bytes are damaged.
    """
    height, width = encoded.size or (encoded.height, encoded.width)
    decoder = av.CodecContext.create(_DECODERS[encoded.codec], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    # A damaged header that announces larger frames is refused before they are allocated.
    decoder.options = {"max_pixels": str((height + _CODED_UNIT) * (width + _CODED_UNIT))}
    expected = [encoded.num_frames, height, width]
    clip_TCHW = np.empty((encoded.num_frames, 3, encoded.height, encoded.width), dtype=np.uint8)
    num_frames = 0
    try:
        for frame in _decode_frames(decoder, encoded):
            got = f"frame {num_frames} of {frame.height}×{frame.width} in {frame.format.name}"
            if (frame.height, frame.width) != (height, width) or frame.format.name != _PIXELS:
                raise ValueError(f"damaged {encoded.codec} bytes: {got}, expected [T, H, W] = {expected} in {_PIXELS}")
            if num_frames == encoded.num_frames:
                raise ValueError(f"damaged {encoded.codec} bytes: {got}, expected [T, H, W] = {expected}")
            clip_TCHW[num_frames] = _to_pixels(frame, encoded.height, encoded.width)
            num_frames += 1
    except FFmpegError as error:
        raise ValueError(f"damaged {encoded.codec} bytes: {error.strerror}") from error
    if num_frames != encoded.num_frames:
        raise ValueError(f"damaged {encoded.codec} bytes: {num_frames} frames, expected [T, H, W] = {expected}")
    return clip_TCHW


def _decode_frames(decoder: av.VideoCodecContext, encoded: EncodedClip) -> Iterator[av.VideoFrame]:
    """Frames as they come: of all packets at once, a stream of empty frames would be a bomb."""
    stream = encoded.header + encoded.packets
    if encoded.codec == "av1":
        packets = [av.Packet(join_units([unit], "av1")) for unit in split_units(stream, "av1")]
    else:  # these want one picture at a time, which the parser finds
        packets = [*decoder.parse(stream), *decoder.parse(None)]
    for packet in [*packets, None]:
        yield from decoder.decode(packet)


def _to_pixels(frame: av.VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
    """RGB of the clip's size: uint8 [3, H, W]."""
    try:
        image = frame.reformat(width, height, "rgb24", interpolation=_SCALE_UP)
    except FFmpegError as error:  # colours that a damaged header made up
        raise ValueError(f"damaged bytes: a frame cannot become RGB ({error.strerror})") from error
    return image.to_ndarray().transpose(2, 0, 1)
