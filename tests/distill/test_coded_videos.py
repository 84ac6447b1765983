"""What a release keeps as video: the same clips from the bytes, and nothing but errors from damaged ones."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill.bitstreams import CODECS, learn_pattern, split_units, write_varint
from lvdd_assets.distill.codec import decode_clip, encode_clip
from lvdd_assets.distill.coded_videos import CodedVideos, Head
from tests.distill.release_mutations import memory_limit
from tests.distill.test_codec import moving_blobs


def code(codec, sizes=((64, 64), (32, 32)), num_clips=6, crf=50):
    clips = moving_blobs(num_clips, seed=1)
    encoded = [encode_clip(clip, codec=codec, crf=crf, size=sizes[i % len(sizes)]) for i, clip in enumerate(clips)]
    pattern = learn_pattern([split_units(clip.packets, codec) for clip in encoded])
    found = [Head(clip.size or (64, 64), clip.header, pattern) for clip in encoded]
    heads = tuple(dict.fromkeys(found))
    packets = tuple(clip.packets for clip in encoded)
    videos = CodedVideos(codec, 8, 64, 64, heads, tuple(heads.index(head) for head in found), packets)
    return videos, np.stack([decode_clip(clip) for clip in encoded])


@pytest.fixture(scope="module")
def coded():
    return code("av1")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sizes", [((64, 64),), ((64, 64), (32, 32))])
def test_round_trip(codec, sizes):
    videos, expected = code(codec, sizes)
    data = videos.to_bytes()
    again = CodedVideos.from_bytes(data)
    assert again == videos
    assert again.to_bytes() == data
    np.testing.assert_array_equal(again.decode(), expected)


def test_headers_that_clips_share_are_stored_once(coded):
    """The bytes are fewer than packets alone: what the frames' headers have in common is there once, too."""
    videos, _ = coded
    one_by_one = sum(len(head.header) for head in videos.heads) + sum(map(len, videos.packets))
    assert len(videos.to_bytes()) < one_by_one


def test_a_clip_that_follows_no_pattern_is_kept_whole(coded):
    videos, expected = coded
    longer = encode_clip(moving_blobs(1, frames=16)[0], codec="av1", crf=50)
    odd = CodedVideos("av1", 8, 64, 64, videos.heads, (*videos.head_of, 0), (*videos.packets, longer.packets))
    assert CodedVideos.from_bytes(odd.to_bytes()) == odd
    with pytest.raises(ValueError, match="damaged"):
        odd.decode()
    assert len(expected) == videos.num_clips


def test_cut_bytes_are_refused(coded):
    data = coded[0].to_bytes()
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"damaged|clips of|frames"):
            CodedVideos.from_bytes(data[:end])
    with pytest.raises(ValueError, match="are there"):
        CodedVideos.from_bytes(data + b"\x00")


def test_a_million_clips_are_read_in_linear_time():
    """Each a byte: lists of bits once took the square of their length, here hours."""
    count = 1 << 20
    heads = tuple(Head((2, 2), bytes([index])) for index in range(5))
    videos = CodedVideos("av1", 1, 2, 2, heads, tuple(index % 5 for index in range(count)), (b"",) * count)
    assert CodedVideos.from_bytes(videos.to_bytes()) == videos


def _with_heads(heads):
    return bytes([0, 1, 2, 2, 1]) + heads + bytes([0])


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (b"\xff\xff\xff\x7f", "stream headers in"),
        (write_varint(5000) + bytes(5 * 5000), "5000 stream headers"),
        (b"\x01" + b"\x02\x02\x00" + write_varint(2000) + bytes(2001), r"stream header of \[2, 2, 0, 2000\]"),
        # Headers that repeat a long one, three bytes each: once 100 kB for each of them.
        (
            b"\x02\x02\x02\x00" + write_varint(1000) + bytes(1001) + b"\x02\x02" + write_varint(1000) + b"\x19",
            "header of",
        ),
        (b"\x01\x00\x02\x00\x00\x00", r"stream header of \[0, 2, 0, 0\]"),
        (b"\x01\x10\x02\x00\x00\x00", "expected no larger"),
    ],
    ids=["count", "many", "long", "repeated", "empty", "large"],
)
def test_heads_that_nobody_writes_are_refused(heads, message):
    with memory_limit(1 << 24), pytest.raises(ValueError, match=message):
        CodedVideos.from_bytes(_with_heads(heads))


def test_clips_that_announce_more_than_a_memory_holds_are_refused_before_one_is_decoded(coded):
    videos, _ = coded
    many = replace(videos, num_frames=4096, height=4096, width=4096)
    with memory_limit(1 << 24), pytest.raises(ValueError, match=r"would take \d+ B decoded"):
        many.decode()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused_or_decode_to_the_announced_shape(coded, data):
    """One to four bytes changed anywhere: no crash, no other shape than what is said, no large allocation."""
    stream = bytearray(coded[0].to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        videos = CodedVideos.from_bytes(bytes(stream))
        if videos.num_clips * videos.num_frames * videos.height * videos.width > 1 << 22:
            return
        decoded = videos.decode()
    except ValueError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape == (videos.num_clips, videos.num_frames, 3, videos.height, videos.width)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(data):
    with contextlib.suppress(ValueError):
        assert CodedVideos.from_bytes(data).num_clips >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "vp9"}, "unknown codec"),
        ({"num_frames": 0}, "0 frames"),
        ({"height": 1 << 20}, "sides of 2"),
        ({"head_of": (0,)}, "a head for each"),
        ({"packets": (), "head_of": ()}, "1 or more clips"),
        ({"head_of": (0, 0, 0, 0, 0, 7)}, "head 7 of 2"),
    ],
)
def test_refuses(coded, changes, message):
    videos, _ = coded
    fields = {name: getattr(videos, name) for name in CodedVideos.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        CodedVideos(**{**fields, **changes})
