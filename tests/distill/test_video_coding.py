"""Ladders of encodings and how a budget is filled from them."""

import dataclasses
import json
from itertools import product

import numpy as np
import pytest

from lvdd_assets.distill import video_coding
from lvdd_assets.distill.bitstreams import CODECS
from lvdd_assets.distill.budget import BudgetError
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.video_coding import build_ladder, fill, frame_sizes, pack_ladder, unpack_ladder
from tests.distill.test_codec import moving_blobs

CRFS = {"av1": (30, 45, 58, 70), "hevc": (25, 35, 45, 51), "h264": (25, 35, 45, 51)}
SIZES = ((64, 64), (24, 24))
BUDGETS = (600, 900, 1400, 2200, 3500, 5000, 8000)


def clips_of(seed, num_clips):
    """Blobs before a fine still texture, which small frames lose."""
    texture = np.random.default_rng(seed).integers(0, 40, (3, 64, 64))
    return np.minimum(moving_blobs(num_clips, seed=seed) + texture, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def ladders():
    return {
        name: build_ladder(clips_of(seed, num_clips), crfs=CRFS["av1"], sizes=SIZES)
        for name, seed, num_clips in (("left", 1, 10), ("right", 2, 7))
    }


def stored(videos):
    return sum(len(kept.to_bytes()) for kept in videos.values())


def squared_error(videos, seeds):
    return sum(
        int(np.square(kept.decode().astype(np.int64) - clips_of(seeds[name], 10)[: kept.num_clips]).sum())
        for name, kept in videos.items()
    )


@pytest.mark.parametrize("codec", CODECS)
def test_rungs_are_on_the_hull_by_falling_size(codec):
    """Bytes fall, errors rise, ever faster; errors are those of what comes back."""
    clips = clips_of(3, 4)
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


def test_same_clips_same_bytes(ladders):
    again = build_ladder(clips_of(1, 10), crfs=CRFS["av1"], sizes=SIZES)
    assert again == ladders["left"]
    np.testing.assert_array_equal(again.squared_errors, ladders["left"].squared_errors)
    assert fill({"a": again}, 2000)["a"].to_bytes() == fill({"a": ladders["left"]}, 2000)["a"].to_bytes()


def test_more_clips_than_the_sample(monkeypatch, ladders):
    """A sample chooses which rungs to encode: all of those are then on the hull of all clips."""
    monkeypatch.setattr(video_coding, "_NUM_SAMPLED", 2)
    ladder = build_ladder(clips_of(1, 10), crfs=CRFS["av1"], sizes=SIZES)
    assert ladder.num_clips == 10
    assert (np.diff(ladder.squared_errors.sum(axis=1)) > 0).all()


def test_ladders_come_back(ladders):
    for ladder in ladders.values():
        data, table = pack_ladder(ladder)
        again = unpack_ladder(data, json.loads(json.dumps(table)))
        assert again == ladder
        np.testing.assert_array_equal(again.squared_errors, ladder.squared_errors)
    with pytest.raises(ValueError, match="adds up to"):
        unpack_ladder(data[:-1], table)


def test_shared_bytes_are_exact_where_all_heads_are_in_use(ladders):
    """What is counted beside the clips is what `to_bytes` writes, with and without patterns."""
    for ladder in ladders.values():
        for variant in (ladder, ladder.without_pattern()):
            top, bottom = (ladder.sizes.index(size) for size in SIZES)
            rungs = [top if clip % 2 else bottom for clip in range(ladder.num_clips)]
            kept = variant.keep(rungs)
            assert len(kept.heads) == len(variant.heads) == 2
            clip_bytes = sum(int(variant.clip_bytes[rung, clip]) for clip, rung in enumerate(rungs))
            assert len(kept.to_bytes()) == variant.shared_bytes(ladder.num_clips) + clip_bytes


def test_budget_is_filled_never_passed_and_more_is_never_worse(ladders):
    """Clips, then fidelity, rise with the budget, up to the finest of all."""
    seeds, ranks = {"left": 1, "right": 2}, []
    finest = stored({name: ladder.keep([0] * ladder.num_clips) for name, ladder in ladders.items()})
    for budget in (*BUDGETS, finest + 500):
        videos = fill(ladders, budget)
        assert stored(videos) <= budget
        num_clips = sum(kept.num_clips for kept in videos.values())
        again = {name: CodedVideos.from_bytes(kept.to_bytes()) for name, kept in videos.items()}
        assert again == videos
        ranks.append((num_clips, -squared_error(videos, seeds)))
    assert ranks == sorted(ranks)
    assert ranks[0][0] < 17 == ranks[-1][0]
    least = sum(int(ladder.squared_errors.min(axis=0).sum()) for ladder in ladders.values())
    assert ranks[-1][1] == -least


def test_at_least_97_percent_are_filled():
    """From where all clips fit to where the finest do, where one rung is no more than a third above the next."""
    crfs = (20, 24, 28, 32, 36, 40, 44, 48, 52, 55, 58, 60, 62, 64, 66, 68, 70)
    ladder = build_ladder(clips_of(1, 10), crfs=crfs, sizes=SIZES[:1])
    least, most = (len(ladder.keep([rung] * 10).to_bytes()) for rung in (-1, 0))
    for budget in np.linspace(least + 50, most - 50, 12).astype(int).tolist():
        assert 0.97 * budget <= stored(fill({"a": ladder}, budget)) <= budget


def test_small_budgets_keep_the_first_clips_of_each_class(ladders):
    videos = fill(ladders, 500)
    counts = {name: kept.num_clips for name, kept in videos.items()}
    assert 1 <= counts["left"] == counts["right"] < 7
    for name, kept in videos.items():
        for clip, packets in enumerate(kept.packets):
            assert packets in [row[clip] for row in ladders[name].packets]


def test_all_of_a_small_class_and_more_of_a_large_one(ladders):
    few = dataclasses.replace(
        ladders["right"],
        packets=tuple(row[:2] for row in ladders["right"].packets),
        head_of=tuple(row[:2] for row in ladders["right"].head_of),
        squared_errors=ladders["right"].squared_errors[:, :2],
    )
    videos = fill({"left": ladders["left"], "right": few}, 600)
    assert videos["right"].num_clips == 2 < videos["left"].num_clips < 10


def test_choice_is_optimal_at_its_own_size(ladders):
    """Against every choice of rungs for three clips, at the sizes that the common slope reaches."""
    ladder = ladders["left"].select_rungs(range(1, len(ladders["left"].crfs), 2))
    ladder = dataclasses.replace(
        ladder,
        packets=tuple(row[:3] for row in ladder.packets),
        head_of=tuple(row[:3] for row in ladder.head_of),
        squared_errors=ladder.squared_errors[:, :3],
    ).without_pattern()
    every = {}
    for rungs in product(range(len(ladder.crfs)), repeat=3):
        error = sum(int(ladder.squared_errors[rung, clip]) for clip, rung in enumerate(rungs))
        size = ladder.shared_bytes(3) + sum(int(ladder.clip_bytes[rung, clip]) for clip, rung in enumerate(rungs))
        every[rungs] = (size, error)
    for slope in (1, 10, 100, 1000, 10_000):
        size, error = min(every.values(), key=lambda point: point[1] + slope * point[0])
        kept = fill({"a": ladder}, size)["a"]
        reached = squared_error({"a": kept}, {"a": 1})
        assert reached <= error
        assert reached <= min(other for others, other in every.values() if others <= size)


def test_less_than_one_clip_of_each_class_is_an_error(ladders):
    with pytest.raises(BudgetError, match=r"each of the 2 classes takes \d+ B .* 40 B are left for clips") as refusal:
        fill(ladders, 40)
    least = int(str(refusal.value).split("takes ")[1].split(" B")[0])
    assert all(kept.num_clips == 1 for kept in fill(ladders, least).values())
    with pytest.raises(BudgetError):
        fill(ladders, least - 1)
    with pytest.raises(ValueError, match="at least one class"):
        fill({}, 1000)


def test_frame_sizes():
    assert frame_sizes(64, 64) == ((64, 64), (48, 48), (32, 32), (24, 24), (16, 16))
    assert frame_sizes(112, 112) == ((112, 112), (84, 84), (56, 56), (42, 42), (28, 28))
    assert frame_sizes(12, 12) == ((12, 12),)
    assert frame_sizes(64, 64, "hevc") == ((64, 64), (48, 48), (32, 32), (24, 24))


def test_ladder_refuses():
    with pytest.raises(ValueError, match="at least one clip"):
        build_ladder(np.zeros((0, 8, 3, 64, 64), np.uint8))


def test_ladder_checks_its_parts(ladders):
    ladder = ladders["left"]
    for changes in ({"crfs": (1,)}, {"head_of": ladder.head_of[:1]}, {"squared_errors": ladder.squared_errors[:1]}):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(ladder, **changes)
    with pytest.raises(ValueError, match="heads beyond"):
        dataclasses.replace(ladder, heads=ladder.heads[:1])
