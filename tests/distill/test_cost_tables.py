"""Bytes, memory, seconds and contrast are those of what is really there."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lvdd_assets.distill import benches, cost_tables, paper
from lvdd_assets.distill.candidates import CODEC, PAPER, TIGHT
from lvdd_assets.distill.cost_tables import contrast, contrast_of, frame_contrast, measure_stages, peak_memory, runtime
from lvdd_assets.distill.measuring import Stage, measure
from lvdd_assets.distill.training_sets import OriginalClips, Originals, TrainingSet
from lvdd_assets.distill.video_ladders import VideoLadder
from tests.distill.tiny_benches import bench_of, quick_ladders, small_bench
from tests.distill.tiny_originals import make_originals

BENCH = small_bench()


def test_storage_is_within_the_budget_beside_what_was_published() -> None:
    table = cost_tables.storage([BENCH], ipcs=(Fraction(1, 10), Fraction(5)))
    ours = [row for row in table.rows if row[0] == "videos"]
    assert [row[1:3] for row in ours] == [
        ("1/10", TIGHT),
        ("1/10", PAPER),
        ("1/10", CODEC),
        ("5", TIGHT),
        ("5", PAPER),
        ("5", CODEC),
    ]
    for row in ours:
        assert row[-1] is None
        if row[4] != "not possible":
            assert int(str(row[4])) <= int(str(row[3]))
            assert float(str(row[5])) == pytest.approx(100 * int(str(row[4])) / int(str(row[3])))
    assert any(row[4] == "not possible" for row in ours[:3])  # the decoder alone is larger
    assert any("videos, IPC 1/10" in note for note in table.notes)
    absent = {str(row[0]): row[-1] for row in table.rows if row[4] == "not run: dataset absent"}
    assert absent == paper.STORAGE_MEGABYTES[5]


def test_published_storage_stands_beside_recipe_paper_of_that_dataset() -> None:
    """Without recipe tight and with one encoding for all, which would take long for 51 classes."""
    originals = make_originals("HMDB51", {f"class {index}": 1 for index in range(51)}, decoding=None)
    ladder = quick_ladders(make_originals(counts={"jump": 1}))["jump"]
    bench = bench_of(originals, stored_ladders=dict.fromkeys(originals.num_clips, ladder))
    table = cost_tables.storage([bench], ipcs=(Fraction(1),))
    known = {str(row[2]): row[-1] for row in table.rows if row[0] == "HMDB51"}
    assert known == {TIGHT: None, PAPER: paper.STORAGE_MEGABYTES[1]["HMDB51"], CODEC: None}


def test_contrast_by_hand() -> None:
    clips = np.zeros((2, 3, 3, 2, 2), np.uint8)
    clips[0, 1] = 10
    clips[1, 2, 0] = 255
    # first step: 10 in one clip of two; second: 10 back, and 255 in one of three channels
    np.testing.assert_allclose(frame_contrast(clips), [5.0, (10 + 85) / 2])
    for wrong in (clips[:, :1], clips[:0], clips.astype(float)):
        with pytest.raises(ValueError, match="T ≥ 2"):
            frame_contrast(wrong)


def test_contrast_of_the_originals_is_their_own() -> None:
    items = {name: np.array([1, 0]) for name in BENCH.originals.num_clips}
    made = TrainingSet("some", OriginalClips(BENCH.originals, items), items, 1, "")
    before, after = contrast_of(BENCH.originals, made)
    np.testing.assert_array_equal(before, after)
    every = np.concatenate([BENCH.originals.clips(name)[:2] for name in items])
    np.testing.assert_allclose(before, frame_contrast(every))


def test_contrast_table_compares_the_same_clips_and_still_clips_have_none() -> None:
    table = contrast([BENCH], ipc=Fraction(1))
    assert table.column("set") == (TIGHT, PAPER, CODEC)
    for row in table.rows:
        if row[3] != "not possible":
            assert float(str(row[5])) == pytest.approx(100 * float(str(row[4])) / float(str(row[3])))
    assert any(row[3] != "not possible" for row in table.rows)
    frozen = {name: BENCH.originals.clips(name)[:, :1].repeat(4, axis=1) for name in BENCH.originals.num_clips}
    still = replace(BENCH.originals, clips=frozen.__getitem__)
    bench = bench_of(still, stored_ladders=quick_ladders(still))
    codec_row = contrast([bench], ipc=Fraction(1)).rows[-1]
    assert (codec_row[1], codec_row[3], codec_row[5]) == (CODEC, 0.0, None)


def test_stages_are_really_run_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that takes 60 MB more shows it; what it made stays, and is not made again."""
    taken = []

    def ladders(originals: Originals) -> dict[str, VideoLadder]:
        taken.append(np.ones(60_000_000, dtype=np.uint8).sum())
        return dict(BENCH.ladders)

    monkeypatch.setattr(benches, "video_ladders", ladders)
    with measure("probe") as probe:
        pass
    bench = replace(BENCH, stored_ladders=None)
    stages = measure_stages(bench, allowed=BENCH.allowed(Fraction(1)))
    names = [stage.name for stage in stages]
    assert names == [
        "select clips (k-DPP on latents)",
        "HOSVD, and code at trial steps",
        "fill the bytes and pack (recipe tight)",
        "decode all clips (recipe tight)",
        "encode video at all rates (recipe codec)",
    ]
    assert all(stage.seconds > 0 for stage in stages)
    if probe.peak_bytes is not None:
        assert stages[-1].grown_bytes is not None
        assert stages[-1].grown_bytes > 55_000_000
    assert bench.ladders == BENCH.ladders
    assert [stage.name for stage in measure_stages(bench, allowed=100)] == names[:3]  # nothing fits, nothing to decode
    assert taken == [60_000_000]


def test_tables_of_cost_hold_every_stage_and_say_what_was_not_measured() -> None:
    stage = Stage("here", 1.5, 100 * 2**20, 164 * 2**20)
    bench = replace(BENCH, stages=(Stage("pipeline's", 2.0),))
    memory = peak_memory([bench], {"videos": (stage,)})
    assert memory.rows == (
        ("videos", "pipeline's", "not measured", "not measured", "not measured"),
        ("videos", "here", 164.0, 64.0, "not measured"),
    )
    assert any("LVDD 11,085 MiB" in note and "not the same thing" in note for note in memory.notes)
    seconds = runtime([bench], {"videos": (stage,)})
    assert seconds.rows == (("videos", "pipeline's", 2.0), ("videos", "here", 1.5))
    assert any("LVDD under 10 min (small datasets)" in note for note in seconds.notes)
