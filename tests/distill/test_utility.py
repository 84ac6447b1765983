"""The judge: nothing lost is 1, everything lost is 0, and worse clips are worth less."""

import numpy as np
import pytest
import torch

from lvdd_assets.distill.utility import Judge, decode_judged, judged_positions, train_judge

GENERATOR = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 8)


def _clips() -> np.ndarray:
    """Two classes: a bright bar that moves down or to the right."""
    clips = np.full((16, 8, 3, 48, 48), 90, dtype=np.uint8)
    for index, label in enumerate(LABELS):
        start = int(GENERATOR.integers(4, 16))
        for frame in range(8):
            place = slice(start + 3 * frame, start + 3 * frame + 6)
            clips[index, frame][(slice(None), place) if label == 0 else (slice(None), slice(None), place)] = 220
    return clips


CLIPS = _clips()


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge(CLIPS, LABELS, num_classes=2)


def test_nothing_lost_and_everything_lost(judge: Judge) -> None:
    everything = np.arange(16)
    assert judge.signal_kept(CLIPS, CLIPS, everything) == pytest.approx(1.0)
    grey = np.full_like(CLIPS, 0)
    assert judge.signal_kept(CLIPS, grey, everything) < 0.6


def test_a_clip_that_is_left_out_keeps_nothing(judge: Judge) -> None:
    assert judge.signal_kept(CLIPS, CLIPS[:4], np.arange(4)) == pytest.approx(4 / 16)
    assert judge.signal_kept(CLIPS, CLIPS[[9, 2]], np.array([9, 2])) == pytest.approx(2 / 16)


def test_more_noise_keeps_less(judge: Judge) -> None:
    noise = GENERATOR.normal(size=CLIPS.shape)
    kept = [
        judge.signal_kept(CLIPS, np.clip(CLIPS + scale * noise, 0, 255).astype(np.uint8), np.arange(16))
        for scale in (5, 40, 160)
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1] + 0.05


def test_the_same_clips_and_seed_give_the_same_judge(judge: Judge) -> None:
    again = train_judge(CLIPS, LABELS, num_classes=2)
    np.testing.assert_array_equal(again.features(CLIPS), judge.features(CLIPS))


def test_clips_without_any_difference_cannot_be_judged(judge: Judge) -> None:
    same = np.repeat(CLIPS[:1], 4, axis=0)
    with pytest.raises(ValueError, match="look the same"):
        judge.signal_kept(same, same, np.arange(4))


def test_judged_clips_are_spread_over_every_class() -> None:
    positions = judged_positions({"run": 100, "jump": 3}, most=20)
    assert positions["run"][[0, -1]].tolist() == [0, 99]
    assert len(positions["run"]) == 10
    assert positions["jump"].tolist() == [0, 1, 2]


def test_a_release_that_holds_fewer_clips_is_matched_with_the_right_ones() -> None:
    dataset = [(torch.full((1, 3, 2, 2), value, dtype=torch.uint8), 0) for value in (0, 1, 10, 11, 12)]
    judged = {"a": np.array([0, 2, 3]), "b": np.array([1, 2])}
    decoded, positions = decode_judged(dataset, {"a": 2, "b": 3}, judged)
    assert decoded[:, 0, 0, 0, 0].tolist() == [0, 11, 12]
    assert positions.tolist() == [0, 3, 4]
