"""Clips as codec bytes: they come back from those bytes alone."""

import dataclasses
import os
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lvdd_assets.distill import codec
from lvdd_assets.distill.codec import decode_clip, encode_clip
from tests.distill.films import moving_blobs, psnr

CODECS = ("av1", "hevc", "h264")


@pytest.fixture(scope="module")
def clips():
    return moving_blobs(12)


@pytest.mark.parametrize(
    ("name", "crf", "least"),
    [
        ("av1", 10, 37.0),
        ("hevc", 10, 37.0),
        ("h264", 10, 37.0),
        ("av1", 63, 22.0),
        ("av1", 70, 20.0),
        ("hevc", 51, 20.0),
        ("h264", 51, 20.0),
    ],
)
def test_round_trip(clips, name, crf, least):
    """Bounds some 3 dB below what was measured (40.7, 41.6, 28.3, 25.8 dB): encoders change from version to version."""
    for clip in clips[:3]:
        encoded = encode_clip(clip, codec=name, crf=crf)
        decoded = decode_clip(encoded)
        assert decoded.shape == clip.shape
        assert decoded.dtype == np.uint8
        assert psnr(decoded, clip) > least
        assert encoded.stored_bytes == len(encoded.packets) < clip.nbytes / 4


@pytest.mark.parametrize("name", CODECS)
def test_frames_keep_their_order(name):
    """Every frame is nearest to its own source, also where the codec reorders pictures."""
    clip = moving_blobs(1, frames=16, seed=3)[0]
    decoded = decode_clip(encode_clip(clip, codec=name, crf=5))
    errors = np.square(decoded[:, None].astype(float) - clip[None]).mean(axis=(2, 3, 4))
    assert errors.argmin(axis=1).tolist() == list(range(16))


@pytest.mark.parametrize("name", CODECS)
def test_lower_crf_is_larger_and_better(clips, name):
    encoded = [encode_clip(clips[0], codec=name, crf=crf) for crf in (5, 25, 50)]
    sizes = [clip.stored_bytes for clip in encoded]
    quality = [psnr(decode_clip(clip), clips[0]) for clip in encoded]
    assert sizes == sorted(sizes, reverse=True)
    assert quality == sorted(quality, reverse=True)


@pytest.mark.parametrize("name", CODECS)
def test_bytes_are_deterministic_and_hold_no_banner(clips, name):
    """Again and again, in any order: x264 left to itself fails this for frames as small as these."""
    first = [encode_clip(clip, codec=name, crf=19) for clip in clips]
    for _ in range(3):
        assert [encode_clip(clip, codec=name, crf=19) for clip in clips[::-1]] == first[::-1]
    assert not any(b"x26" in clip.packets + clip.header for clip in first)


@pytest.mark.parametrize("name", CODECS)
def test_clips_of_a_set_share_the_header(clips, name):
    headers = {encode_clip(clip, codec=name, crf=40).header for clip in clips[:4]}
    assert len(headers) == 1
    assert 8 <= len(headers.pop()) <= 100


@pytest.mark.parametrize("name", CODECS)
def test_header_and_packets_are_both_needed(clips, name):
    """What is counted is what the decoder needs: without either part nothing comes back."""
    encoded = encode_clip(clips[0], codec=name, crf=40)
    for without in ({"header": b""}, {"packets": b""}, {"packets": encoded.packets[: len(encoded.packets) // 3]}):
        with pytest.raises(ValueError, match="damaged"):
            decode_clip(dataclasses.replace(encoded, **without))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(("frames", "size"), [(1, 64), (2, 64), (16, 112)])
def test_other_shapes(name, frames, size):
    clip = moving_blobs(1, frames=frames, size=size)[0]
    assert psnr(decode_clip(encode_clip(clip, codec=name, crf=20)), clip) > 32


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [(16, 18), (24, 24), (32, 18), (32, 32), (48, 34)], ids=str)
def test_bytes_of_small_frames_are_deterministic(clips, name, size):
    """Also where a frame is hardly wider than a block, at which x265 left to itself fails this."""
    for clip in clips[:4]:
        assert len({encode_clip(clip, codec=name, crf=20, size=size).packets for _ in range(4)}) == 1


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="SVT-AV1 makes threads real-time for root alone"
)
@pytest.mark.parametrize("name", CODECS)
def test_no_thread_becomes_a_real_time_one(clips, name):
    """Neither this one, which hands it on to all that it begins, nor the encoder's own once they are all there."""
    last_seen: dict[int, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for entry in Path("/proc/self/task").iterdir():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:  # it has ended
                    continue
                last_seen[int(entry.name)] = int(fields[38])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for clip in clips:
            encode_clip(clip, codec=name, crf=30)
            assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        done.set()
        watcher.join()
    assert set(last_seen.values()) == {os.SCHED_OTHER}
    assert len(last_seen) > (10 if name == "av1" else 1)


@pytest.mark.parametrize(
    ("name", "side"), [(name, side) for name in CODECS for side in (16, 24, 32, 48) if (name, side) != ("hevc", 16)]
)
def test_smaller_frames(clips, name, side):
    """The clip's own size comes back, and only with the size at which it was coded."""
    small = encode_clip(clips[0], codec=name, crf=20, size=(side, side))
    decoded = decode_clip(small)
    assert decoded.shape == clips[0].shape
    assert psnr(decoded, clips[0]) > 26
    with pytest.raises(ValueError, match="damaged"):
        decode_clip(dataclasses.replace(small, size=None))


@pytest.mark.parametrize("name", CODECS)
def test_the_clips_own_size_is_no_smaller_frame(clips, name):
    assert encode_clip(clips[0], codec=name, crf=40, size=(64, 64)) == encode_clip(clips[0], codec=name, crf=40)


@pytest.mark.parametrize("name", CODECS)
def test_frames_larger_than_announced_are_refused(name):
    """A damaged header cannot make the decoder allocate more than the clip's size."""
    large = encode_clip(moving_blobs(1, size=256)[0], codec=name, crf=50)
    with pytest.raises(ValueError, match="damaged"):
        decode_clip(dataclasses.replace(large, height=64, width=64))


@pytest.mark.parametrize("name", CODECS)
def test_a_stream_of_more_frames_than_announced_is_left_at_the_first_that_is_too_many(monkeypatch, name):
    encoded = encode_clip(moving_blobs(1, frames=64, size=32)[0], codec=name, crf=50)
    taken = []
    to_pixels = codec._to_pixels
    monkeypatch.setattr(codec, "_to_pixels", lambda *arguments: taken.append(1) or to_pixels(*arguments))
    with pytest.raises(ValueError, match=r"damaged .* frame 3 of 32×32 in yuv420p, expected .* = .3, 32, 32"):
        decode_clip(dataclasses.replace(encoded, num_frames=3))
    assert len(taken) == 3


def test_frames_of_another_format_are_refused():
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height = encoder.width = 32
    encoder.pix_fmt, encoder.time_base = "yuv444p", Fraction(1, 12)
    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24").reformat(format="yuv444p")
    packets = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    with pytest.raises(ValueError, match=r"in yuv444p, expected .* in yuv420p"):
        decode_clip(codec.EncodedClip(packets, b"", 1, 32, 32, "h264"))


def test_grey_stays_grey():
    """Colours go there and back by exact arithmetic: flat grey is off by no more than limited range rounds."""
    for level in (0, 17, 128, 255):
        clip = np.full((4, 3, 64, 64), level, np.uint8)
        decoded = decode_clip(encode_clip(clip, codec="h264", crf=1))
        assert np.abs(decoded.astype(int) - level).max() <= 1


@pytest.mark.parametrize(
    ("shape", "dtype", "arguments", "message"),
    [
        ((8, 3, 64, 64), np.uint8, {"codec": "vp9", "crf": 20}, "unknown codec 'vp9'"),
        ((8, 3, 64, 64), np.uint8, {"codec": "h264", "crf": 52}, "outside 1 to 51"),
        ((8, 3, 64, 64), np.uint8, {"codec": "av1", "crf": 0}, "outside 1 to 70"),
        ((8, 3, 64, 65), np.uint8, {"codec": "av1", "crf": 20}, "even sides, got 64×65"),
        ((8, 3, 64, 16), np.uint8, {"codec": "hevc", "crf": 20}, "hevc needs frames of 18 pixels or wider, got 64×16"),
        ((8, 64, 64, 3), np.uint8, {"codec": "av1", "crf": 20}, r"expected uint8 \[T, 3, H, W\]"),
        ((8, 3, 64, 64), np.float32, {"codec": "av1", "crf": 20}, "got float32"),
    ],
)
def test_refuses(shape, dtype, arguments, message):
    with pytest.raises(ValueError, match=message):
        encode_clip(np.zeros(shape, dtype), **arguments)
