"""Ladders of encodings: what is on them, and how they are stored."""

import dataclasses
import json

import numpy as np
import pytest

from lvdd_assets.distill import video_ladders
from lvdd_assets.distill.bitstreams import CODECS
from lvdd_assets.distill.video_ladders import build_ladder, frame_sizes, pack_ladder, unpack_ladder
from tests.distill.films import textured_blobs

CRFS = {"av1": (30, 45, 58, 70), "hevc": (25, 35, 45, 51), "h264": (25, 35, 45, 51)}
SIZES = ((64, 64), (24, 24))


@pytest.fixture(scope="module")
def ladder():
    return build_ladder(textured_blobs(10, seed=1), crfs=CRFS["av1"], sizes=SIZES)


@pytest.mark.parametrize("codec", CODECS)
def test_rungs_are_on_the_hull_by_falling_size(codec):
    """Bytes fall, errors rise, ever faster; errors are those of what comes back."""
    clips = textured_blobs(4, seed=3)
    ladder = build_ladder(clips, codec=codec, crfs=CRFS[codec], sizes=SIZES)
    sizes, errors = ladder.clip_bytes.sum(axis=1), ladder.squared_errors.sum(axis=1)
    assert len(ladder.crfs) > 2
    assert (np.diff(sizes) < 0).all()
    assert (np.diff(errors) > 0).all()
    slopes = np.diff(errors) / np.diff(sizes)
    assert (np.diff(slopes) < 0).all()
    for rung in (0, len(ladder.crfs) - 1):
        decoded = ladder.keep([rung] * 4).decode().astype(np.int64)
        np.testing.assert_array_equal(np.square(decoded - clips).sum(axis=(1, 2, 3, 4)), ladder.squared_errors[rung])


def test_same_clips_same_bytes(ladder):
    again = build_ladder(textured_blobs(10, seed=1), crfs=CRFS["av1"], sizes=SIZES)
    assert again == ladder
    np.testing.assert_array_equal(again.squared_errors, ladder.squared_errors)
    assert again.keep([0] * 10).to_bytes() == ladder.keep([0] * 10).to_bytes()


def test_more_clips_than_the_sample(monkeypatch):
    """A sample chooses which rungs to encode: all of those are then on the hull of all clips."""
    monkeypatch.setattr(video_ladders, "_NUM_SAMPLED", 2)
    ladder = build_ladder(textured_blobs(10, seed=1), crfs=CRFS["av1"], sizes=SIZES)
    assert ladder.num_clips == 10
    assert (np.diff(ladder.squared_errors.sum(axis=1)) > 0).all()


def test_a_ladder_comes_back(ladder):
    data, table = pack_ladder(ladder)
    again = unpack_ladder(data, json.loads(json.dumps(table)))
    assert again == ladder
    np.testing.assert_array_equal(again.squared_errors, ladder.squared_errors)
    with pytest.raises(ValueError, match="adds up to"):
        unpack_ladder(data[:-1], table)


def test_shared_bytes_are_exact_where_all_heads_are_in_use(ladder):
    """What is counted beside the clips is what `to_bytes` writes, with and without patterns."""
    for variant in (ladder, ladder.without_pattern()):
        top, bottom = (ladder.sizes.index(size) for size in SIZES)
        rungs = [top if clip % 2 else bottom for clip in range(ladder.num_clips)]
        kept = variant.keep(rungs)
        assert len(kept.heads) == len(variant.heads) == 2
        clip_bytes = sum(int(variant.clip_bytes[rung, clip]) for clip, rung in enumerate(rungs))
        assert len(kept.to_bytes()) == variant.shared_bytes(ladder.num_clips) + clip_bytes


def test_frame_sizes():
    assert frame_sizes(64, 64) == ((64, 64), (48, 48), (32, 32), (24, 24), (16, 16))
    assert frame_sizes(112, 112) == ((112, 112), (84, 84), (56, 56), (42, 42), (28, 28))
    assert frame_sizes(12, 12) == ((12, 12),)
    assert frame_sizes(64, 64, "hevc") == ((64, 64), (48, 48), (32, 32), (24, 24))


def test_ladder_refuses():
    with pytest.raises(ValueError, match="at least one clip"):
        build_ladder(np.zeros((0, 8, 3, 64, 64), np.uint8))


def test_ladder_checks_its_parts(ladder):
    for changes in ({"crfs": (1,)}, {"head_of": ladder.head_of[:1]}, {"squared_errors": ladder.squared_errors[:1]}):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(ladder, **changes)
    with pytest.raises(ValueError, match="heads beyond"):
        dataclasses.replace(ladder, heads=ladder.heads[:1])
