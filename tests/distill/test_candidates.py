"""Recipes as training sets are what a release file gives, within the same bytes; what cannot be says why."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import class_coding, tucker
from lvdd_assets.distill.candidates import (
    CODEC,
    FULL,
    NAMES,
    PAPER,
    TIGHT,
    latent_sources,
    make_candidates,
    make_codec,
    make_full,
    make_paper,
    make_tight,
    video_ladders,
)
from lvdd_assets.distill.class_coding import ClassCoder, SharedBasis
from lvdd_assets.distill.filling import Source, fill_with_latents, fill_with_videos
from lvdd_assets.distill.release import CodedClips, ReleaseParts, load_release, pack
from lvdd_assets.distill.training_sets import NotPossible, TrainingSet
from lvdd_assets.distill.video_ladders import VideoLadder, build_ladder
from tests.distill.tiny_originals import COUNTS, SHAPE, make_originals

ORIGINALS = make_originals()
SOURCES = latent_sources(ORIGINALS)


@pytest.fixture(scope="module")
def ladders() -> dict[str, VideoLadder]:
    return {
        name: build_ladder(
            ORIGINALS.clips(name)[ORIGINALS.selected_items(name)], codec="h264", crfs=(24, 36, 51), sizes=((32, 32),)
        )
        for name in COUNTS
    }


def _pixels(made: TrainingSet) -> np.ndarray:
    return np.stack([np.asarray(made.dataset[index][0]) for index in range(made.num_clips)])


def _same_as_file(made: TrainingSet, parts: ReleaseParts, folder: Path) -> None:
    """Bytes, clips and labels are those of the release file of these parts."""
    data = pack(parts)
    assert made.stored_bytes == len(data)
    path = folder / "release.zarr.zip"
    path.write_bytes(data)
    release = load_release(path)
    assert release.num_clips == made.num_clips
    dataset = release.dataset()
    np.testing.assert_array_equal(_pixels(made), np.stack([dataset[i][0].numpy() for i in range(len(dataset))]))
    assert [made.dataset[i][1] for i in range(made.num_clips)] == release.labels.tolist()


def test_full_data_are_the_originals() -> None:
    made = make_full(ORIGINALS)
    assert (made.name, made.num_clips) == (FULL, 13)
    np.testing.assert_array_equal(_pixels(made), np.concatenate([ORIGINALS.clips(name) for name in COUNTS]))
    assert made.stored_bytes == _pixels(made).nbytes
    assert made.note == "3 to 6 clips a class, uint8 pixels"
    assert make_full(replace(ORIGINALS, file_bytes=123)).stored_bytes == 123


def _smallest_tight() -> int:
    made = make_tight(ORIGINALS, 100, sources=SOURCES)
    assert isinstance(made, NotPossible)
    return int(made.reason.split(" takes ")[1].split(" B")[0])


@pytest.mark.parametrize("cores", [60, 1200])
def test_tight_is_what_the_release_pipeline_writes_in_the_same_bytes(cores: int, tmp_path: Path) -> None:
    """Each class decomposed once, coded at the trial steps of the pipeline, filled, packed; here step by step."""
    allowed = _smallest_tight() + cores
    sources = {}
    for name in COUNTS:
        assert ORIGINALS.latents is not None
        latents = ORIGINALS.latents(name)[ORIGINALS.selected[name]].astype(np.float32)
        hosvd = tucker.decompose(latents)
        rates = {2.0 ** (half / 2): len(ClassCoder(hosvd).encode(2.0 ** (half / 2)).data) for half in range(-6, 5)}
        sources[name] = Source(functools.partial(lambda found: found, hosvd), len(latents), rates)
    decoding = ORIGINALS.decoding
    assert decoding is not None

    def build(classes: Mapping[str, CodedClips], shared: SharedBasis | None) -> ReleaseParts:
        made = {"made": "in a test"}
        return ReleaseParts("videos", SHAPE, classes, decoding.spec, decoding.weights, made, "channels", b"", shared)

    parts, fit = fill_with_latents(sources, build, allowed=allowed)
    made = make_tight(ORIGINALS, allowed)
    assert isinstance(made, TrainingSet)
    assert made.name == TIGHT
    assert f"step {fit.step:.2f}" in made.note
    _same_as_file(made, parts, tmp_path)
    for name, coded in parts.classes.items():
        assert made.items[name].tolist() == ORIGINALS.selected[name][: coded.num_clips].tolist()


def _paper_size(num_clips: int) -> int:
    made = make_paper(replace(ORIGINALS, selected={n: ORIGINALS.selected[n][:num_clips] for n in COUNTS}), None)
    assert isinstance(made, TrainingSet)
    return made.stored_bytes


def test_paper_keeps_as_many_clips_of_each_class_as_fit(tmp_path: Path) -> None:
    """At each size exactly, and a byte below it one fewer, the last of the selection first."""
    for num_clips in (1, 2, 4, 6):
        size = _paper_size(num_clips)
        made, fewer = make_paper(ORIGINALS, size), make_paper(ORIGINALS, size - 1)
        assert isinstance(made, TrainingSet)
        assert made.stored_bytes == size
        assert {name: len(items) for name, items in made.items.items()} == {
            name: min(num_clips, count) for name, count in COUNTS.items()
        }
        if num_clips == 1:
            assert isinstance(fewer, NotPossible)
            assert f"takes {size} B" in fewer.reason
            assert f"{size - 1} B are allowed" in fewer.reason
        else:
            assert isinstance(fewer, TrainingSet)
            assert len(fewer.items["jump"]) == num_clips - 1
    assert isinstance(make_paper(ORIGINALS, 10**9), TrainingSet)


def test_paper_is_the_truncated_hosvd_with_decoder_and_encoder(tmp_path: Path) -> None:
    decoding = ORIGINALS.paper_decoding
    assert decoding is not None
    classes: dict[str, CodedClips] = {}
    for name in COUNTS:
        # latents are 4 × 4 × 4 × 4, so that r = 0.75 keeps 3 of T, h and w, and all channels
        classes[name] = class_coding.encode_tucker(
            tucker.decompose(ORIGINALS.selected_latents(name), ranks=(3, 4, 3, 3))
        )
    parts = ReleaseParts("videos", SHAPE, classes, decoding.spec, decoding.weights, {"made": "in a test"})
    made = make_paper(ORIGINALS, None)
    assert isinstance(made, TrainingSet)
    assert made.name == PAPER
    _same_as_file(made, replace(parts, encoder=decoding.encoder), tmp_path)
    assert "r = 0.75, decoder and encoder counted" in made.note
    assert made.stored_bytes > len(pack(parts)) + len(decoding.encoder) / 4


def test_codec_is_what_the_release_pipeline_writes_in_the_same_bytes(
    ladders: dict[str, VideoLadder], tmp_path: Path
) -> None:
    def build(classes: Mapping[str, CodedClips], _shared: SharedBasis | None) -> ReleaseParts:
        return ReleaseParts("videos", SHAPE, classes, None, None, {"made": "in a test"})

    for allowed in (2000, 3500):
        made = make_codec(ORIGINALS, allowed, ladders=ladders)
        assert isinstance(made, TrainingSet)
        assert made.stored_bytes <= allowed
        _same_as_file(made, fill_with_videos(ladders, build, allowed=allowed), tmp_path)
        assert made.note.endswith("H.264 at rates chosen clip by clip")
    refused = make_codec(ORIGINALS, 300, ladders=ladders)
    assert isinstance(refused, NotPossible)
    assert "too small for video" in refused.reason


def test_ladders_are_of_the_selected_clips_in_their_order() -> None:
    few = make_originals(counts={"jump": 2, "run": 1}, selected={"jump": np.array([1, 0]), "run": np.array([0])})
    found = video_ladders(few, "h264")
    finest = found["jump"].keep([0, 0]).decode()
    originals = few.clips("jump")[[1, 0]]
    assert np.abs(finest.astype(int) - originals).mean() < np.abs(finest.astype(int) - originals[::-1]).mean()
    assert {name: ladder.num_clips for name, ladder in found.items()} == {"jump": 2, "run": 1}


@given(allowed=st.integers(2000, 150_000))
@settings(max_examples=7, deadline=None)
def test_no_recipe_passes_its_bytes_and_no_class_is_missing(ladders: dict[str, VideoLadder], allowed: int) -> None:
    for made in make_candidates(ORIGINALS, allowed, names=(TIGHT, PAPER, CODEC), sources=SOURCES, ladders=ladders):
        if isinstance(made, NotPossible):
            assert made.reason
            continue
        assert made.stored_bytes <= allowed
        assert list(made.items) == list(COUNTS)
        for name, items in made.items.items():
            assert items.tolist() == ORIGINALS.selected[name][: len(items)].tolist()
            assert len(items) >= 1


def test_recipes_without_latents_or_decoder_are_not_possible() -> None:
    for made in (make_tight(replace(ORIGINALS, decoding=None), 10**6), make_paper(replace(ORIGINALS, latents=None), 9)):
        assert isinstance(made, NotPossible)
        assert "no latents, or no decoder" in made.reason


def test_candidates_come_by_name_and_a_whole_set_of_video_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lvdd_assets.distill import video_budget

    filled = []
    fill_budget = video_budget.fill_budget

    def count(*arguments: object, **settings: object) -> object:
        filled.append(settings["codec"])
        return fill_budget(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(video_budget, "fill_budget", count)
    names = (FULL, "random, H.264", "herding, H.264", "k-means, H.264", "random, uint8")
    made = list(make_candidates(ORIGINALS, 13 * 12288, names=names))
    assert [candidate.name for candidate in made] == list(names)
    assert filled == ["h264"]
    videos = [candidate for candidate in made if candidate.name.endswith("H.264")]
    assert len({(v.stored_bytes, v.note) for v in videos if isinstance(v, TrainingSet)}) == 1
    with pytest.raises(ValueError, match="unknown training sets herding, gif"):
        next(make_candidates(ORIGINALS, 10**6, names=("herding, gif",)))
    assert len(NAMES) == 4 + 16
