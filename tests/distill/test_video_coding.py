"""A budget filled with video, each clip at a rate of its own."""

import dataclasses
from itertools import product

import numpy as np
import pytest

from lvdd_assets.distill.budget import BudgetError
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.video_coding import fill
from lvdd_assets.distill.video_ladders import build_ladder
from tests.distill.films import textured_blobs

CRFS = (30, 45, 58, 70)
SIZES = ((64, 64), (24, 24))
BUDGETS = (600, 900, 1400, 2200, 3500, 5000, 8000)


@pytest.fixture(scope="module")
def ladders():
    return {
        name: build_ladder(textured_blobs(num_clips, seed=seed), crfs=CRFS, sizes=SIZES)
        for name, seed, num_clips in (("left", 1, 10), ("right", 2, 7))
    }


def stored(videos):
    return sum(len(kept.to_bytes()) for kept in videos.values())


def squared_error(videos, seeds):
    return sum(
        int(np.square(kept.decode().astype(np.int64) - textured_blobs(10, seed=seeds[name])[: kept.num_clips]).sum())
        for name, kept in videos.items()
    )


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
    ladder = build_ladder(textured_blobs(10, seed=1), crfs=crfs, sizes=SIZES[:1])
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
