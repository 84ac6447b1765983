"""A budget is filled with video but never passed."""

import numpy as np
import pytest

from lvdd_assets.distill import codec, video_budget
from lvdd_assets.distill.codec import decode_clip, encode_clip
from lvdd_assets.distill.video_budget import fill_budget
from tests.distill.films import moving_blobs, psnr


@pytest.fixture(scope="module")
def clips():
    return moving_blobs(12)


@pytest.fixture(scope="module")
def labels():
    return np.repeat([3, 5, 7], 4)


@pytest.mark.parametrize("name", ["av1", "h264"])
def test_budget_is_filled_and_never_passed(clips, labels, name):
    """From one clip per class to all at high quality: within the bytes, and more bytes never keep less."""
    floor = sum(encode_clip(clip, codec=name, crf=codec.WORST_CRF[name]).stored_bytes for clip in clips)
    kept = [
        fill_budget(clips, labels, num_bytes=int(floor * share), codec=name, seed=0)
        for share in (0.5, 0.8, 1.3, 3.0, 1000.0)
    ]
    for share, result in zip((0.5, 0.8, 1.3, 3.0, 1000.0), kept, strict=True):
        assert result.stored_bytes <= int(floor * share)
        assert result.clips_NTCHW.shape == (result.num_clips, *clips.shape[1:])
        assert set(result.labels_N) == set(labels)
    num_clips = [result.num_clips for result in kept]
    assert num_clips == sorted(num_clips)
    assert num_clips[0] < num_clips[1] < 12
    assert num_clips[2:] == [12] * 3
    crfs = [result.crf for result in kept]
    assert crfs == sorted(crfs, reverse=True)
    assert crfs[0] == crfs[1] == codec.WORST_CRF[name]
    assert crfs[-1] == codec.BEST_CRF
    quality = [psnr(result.clips_NTCHW, clips) for result in kept[2:]]
    assert quality == sorted(quality)


def test_budget_takes_the_best_quality_that_fits(clips, labels):
    """One step better would no longer fit, and the count is the packets and one header."""
    kept = fill_budget(clips, labels, num_bytes=9000, codec="h264", seed=0)
    encoded, better = ([encode_clip(clip, codec="h264", crf=crf) for clip in clips] for crf in (kept.crf, kept.crf - 1))
    assert kept.stored_bytes == sum(len(clip.packets) for clip in encoded) + len(encoded[0].header)
    assert sum(len(clip.packets) for clip in better) + len(better[0].header) > 9000
    np.testing.assert_array_equal(kept.clips_NTCHW, np.stack([decode_clip(clip) for clip in encoded]))
    np.testing.assert_array_equal(kept.labels_N, labels)


def test_budget_with_more_clips_than_the_sample(monkeypatch, clips, labels):
    """The sample only says where to begin: a misleading one gives the same quality."""
    whole = fill_budget(clips, labels, num_bytes=9000, codec="h264", seed=0)
    monkeypatch.setattr(video_budget, "_NUM_SAMPLED", 1)
    few = fill_budget(clips, labels, num_bytes=9000, codec="h264", seed=0)
    assert (few.crf, few.stored_bytes) == (whole.crf, whole.stored_bytes)


def test_fewer_clips_are_balanced_drawn_by_seed_and_still_with_their_labels(clips, labels):
    drawn = set()
    for seed in range(6):
        kept = fill_budget(clips, labels, num_bytes=1000, codec="h264", seed=seed)
        assert kept.num_clips < 12
        counts = [np.count_nonzero(kept.labels_N == label) for label in (3, 5, 7)]
        assert max(counts) - min(counts) <= 1
        sources = [
            int(np.square(clips.astype(float) - clip).mean(axis=(1, 2, 3, 4)).argmin()) for clip in kept.clips_NTCHW
        ]
        assert labels[sources].tolist() == kept.labels_N.tolist()
        assert sources == sorted(set(sources))
        drawn.add(tuple(sources))
    assert len(drawn) > 1
    again = fill_budget(clips, labels, num_bytes=1000, codec="h264", seed=5)
    np.testing.assert_array_equal(again.clips_NTCHW, kept.clips_NTCHW)


@pytest.mark.parametrize("name", ["av1", "h264"])
def test_less_than_one_clip_per_class_is_an_error(clips, labels, name):
    with pytest.raises(ValueError, match=r"100 bytes hold [012] clips .* 3 classes takes \d+ bytes"):
        fill_budget(clips, labels, num_bytes=100, codec=name, seed=0)


def test_budget_refuses_unequal_lengths(clips, labels):
    with pytest.raises(ValueError, match="as many labels as clips"):
        fill_budget(clips, labels[:-1], num_bytes=9000, codec="h264", seed=0)


def test_smaller_frames_hold_more_in_a_small_budget(clips, labels):
    """Where the clips' own size cannot keep all, a smaller one keeps more; where both can, the better one wins."""
    own = fill_budget(clips, labels, num_bytes=1500, codec="av1", seed=0)
    both = fill_budget(clips, labels, num_bytes=1500, codec="av1", seed=0, sizes=(None, (16, 16)))
    assert own.num_clips < both.num_clips
    assert both.size == (16, 16)
    assert both.stored_bytes <= 1500
    ample = fill_budget(clips, labels, num_bytes=9000, codec="av1", seed=0)
    again = fill_budget(clips, labels, num_bytes=9000, codec="av1", seed=0, sizes=((16, 16), None))
    assert again.size is None
    np.testing.assert_array_equal(again.clips_NTCHW, ample.clips_NTCHW)


def test_budget_needs_a_size_to_try(clips, labels):
    with pytest.raises(ValueError, match="at least one frame size"):
        fill_budget(clips, labels, num_bytes=9000, codec="h264", seed=0, sizes=())


@pytest.mark.parametrize("at_once", [3, 64])
def test_a_given_order_says_which_clips_a_small_budget_keeps(monkeypatch, clips, labels, at_once):
    """The first of the order that fit, whatever the seed, however many clips are encoded side by side."""
    monkeypatch.setattr(video_budget, "_CLIPS_AT_ONCE", at_once)
    order = np.array([3, 7, 11, 0, 4, 8, 1, 5, 9, 2, 6, 10])
    kept = [fill_budget(clips, labels, num_bytes=1000, codec="h264", seed=seed, order_N=order) for seed in (0, 1)]
    assert 3 <= kept[0].num_clips < 12
    for result in kept:
        assert result.items_N.tolist() == sorted(order[: result.num_clips].tolist())
        assert result.labels_N.tolist() == labels[result.items_N].tolist()
    sizes = [encode_clip(clips[item], codec="h264", crf=51).stored_bytes for item in order]
    header = len(encode_clip(clips[0], codec="h264", crf=51).header)
    assert kept[0].num_clips == np.searchsorted(np.cumsum(sizes) + header, 1000, side="right")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0] * 12, "each once"),
        ([0, 1, 2], "got 3 indices"),
        (range(12), "the first 3 clips of the order are of 1 classes"),
    ],
)
def test_an_order_that_is_none_is_refused(clips, labels, order, message):
    with pytest.raises(ValueError, match=message):
        fill_budget(clips, labels, num_bytes=9000, codec="h264", seed=0, order_N=np.array(order))
