"""A release beside its rivals: the same bytes, the same updates, the same test clips; what cannot be says why."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lvdd_assets.distill import candidates, comparison
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.comparison import Compared, Trainer, compare_release, needs_chain, paired_clips
from lvdd_assets.distill.filling import fill_with_latents
from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.release import Release, ReleaseParts, load_release, pack
from lvdd_assets.distill.score_cache import ScoreCache
from tests.distill.tiny_benches import quick_ladders
from tests.distill.tiny_originals import COUNTS, drifting_blobs, make_originals

ORIGINALS = make_originals()
SOURCES = candidates.latent_sources(ORIGINALS)
PROTOCOL = Protocol(epochs=2, batch_size=4, network="cnn-gru", seeds=(0, 1), widths=(8, 8, 8, 8))
TEST = TensorDataset(
    torch.from_numpy(np.concatenate([drifting_blobs(40, seed)[-3:] for seed in range(len(COUNTS))])),
    torch.arange(len(COUNTS)).repeat_interleave(3),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    decoding = ORIGINALS.decoding
    assert decoding is not None

    def build(classes: object, shared: object) -> ReleaseParts:
        parts = ReleaseParts("videos", ORIGINALS.shape, classes, decoding.spec, decoding.weights, {})  # type: ignore[arg-type]
        return dataclasses.replace(parts, shared=shared)  # type: ignore[arg-type]

    parts, _ = fill_with_latents(SOURCES, build, allowed=40_000)
    path = tmp_path_factory.mktemp("release") / "videos.zarr.zip"
    path.write_bytes(pack(parts))
    return load_release(path)


def _compare(release: Release, folder: Path | None = None, **changes: object) -> Compared:
    cache = None if folder is None else ScoreCache(folder)
    return compare_release(release, ORIGINALS, TEST, Trainer(PROTOCOL, cache=cache), **changes)  # type: ignore[arg-type]


def test_every_row_fits_the_releases_bytes_and_gets_the_same_updates(release: Release) -> None:
    said: list[str] = []
    trainer = Trainer(PROTOCOL, announce=said.append)
    compared = compare_release(release, ORIGINALS, TEST, trainer, rivals=("video", "paper", "random"))
    full, own, *rivals = compared.rows
    assert (full.role, own.role, own.stored_bytes) == ("full", "release", release.stored_bytes)
    assert {row.role for row in rivals} == {"video", "subset"}
    assert all(row.stored_bytes <= release.stored_bytes for row in rivals)
    assert len({score.num_updates for row in compared.rows for score in row.result.scores}) == 1
    assert all([score.seed for score in row.result.scores] == [0, 1] for row in compared.rows)
    # A clip of each class is 37 kB as uint8, and the paper's decoder alone is larger than the release.
    reasons = {one.name: one.reason for one in compared.not_run}
    assert set(reasons) == {"random, float32", "random, uint8", "recipe paper"}
    assert all(f"{release.stored_bytes} B" in reason for reason in reasons.values())
    assert said[0].startswith("make video, paper, random")
    assert "this release, seed 1" in said


def test_plain_video_is_the_better_of_two_codecs(release: Release) -> None:
    (row,) = [row for row in _compare(release, rivals=("video",)).rows if row.role == "video"]
    alone = {
        form: candidates.make_candidates(ORIGINALS, release.stored_bytes, names=(f"random, {form}",))
        for form in ("AV1", "H.264")
    }
    made = {form: next(iter(found)) for form, found in alone.items()}
    assert all(one.num_clips == 13 for one in made.values())  # type: ignore[union-attr]
    quality = {form: comparison._psnr(ORIGINALS, one) for form, one in made.items()}  # type: ignore[arg-type]
    assert row.name == f"the same bytes as {max(quality, key=quality.__getitem__)}"


def test_the_curve_has_each_recipe_at_each_size_that_it_fits(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "video_ladders", lambda originals: quick_ladders(originals))
    compared = _compare(release, curve=(120_000, 1_500, 2_300), rivals=("video",))
    points = [(point.recipe, point.stored_bytes) for point in compared.curve]
    assert [recipe for recipe, _ in points].count("recipe codec") >= 2
    assert all(len(point.accuracies) == 2 for point in compared.curve)
    for recipe in ("recipe tight", "recipe codec", "recipe paper", "plain video"):
        sizes = [size for name, size in points if name == recipe]
        assert sizes == sorted(sizes)
        assert len(sizes) + sum(one.name.startswith(f"{recipe} in ") for one in compared.not_run) == 3
    assert {one.name for one in compared.not_run} >= {"recipe tight in 1500 B", "recipe paper in 1500 B"}


def test_the_curve_has_plain_video_only_where_it_is_a_rival(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "video_ladders", lambda originals: quick_ladders(originals))
    monkeypatch.setattr(comparison, "CURVE_RECIPES", {})
    assert _compare(release, curve=(4_000,)).curve == ()
    compared = _compare(release, curve=(4_000, 30), rivals=("video",))
    (point,) = compared.curve
    assert point.recipe == "plain video"
    assert 2_000 < point.stored_bytes <= 4_000
    assert [one.name for one in compared.not_run] == ["plain video in 30 B"]


def test_a_recipe_that_can_use_no_more_has_one_point_and_says_so(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "video_ladders", lambda originals: quick_ladders(originals))
    monkeypatch.setattr(comparison, "CURVE_RECIPES", {"codec": "recipe codec"})
    compared = _compare(release, curve=(3_000_000, 4_000_000))
    (point,) = compared.curve
    (reason,) = [one.reason for one in compared.not_run if one.name == "recipe codec in 4000000 B"]
    assert f"no more than {point.stored_bytes} B" in reason


def test_known_scores_are_taken_from_the_cache(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _compare(release, tmp_path)

    def train(*_arguments: object) -> None:
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(comparison.evaluation.training, "train", train)
    again = _compare(release, tmp_path)
    assert [row.result.mean_top1 for row in again.rows] == [row.result.mean_top1 for row in first.rows]


def test_soft_labels_stand_beside_hard_ones(release: Release) -> None:
    levels = np.full((release.num_clips, 3), 255, dtype=np.uint8)
    compared = _compare(dataclasses.replace(release, soft_levels=levels))
    assert [row.name for row in compared.rows] == ["full data", "this release", "this release, soft labels"]
    # Labels that say nothing teach nothing: hard labels are another training.
    hard, soft = compared.rows[1:]
    assert soft.stored_bytes == hard.stored_bytes
    assert [len(row.result.scores) for row in (hard, soft)] == [2, 2]


def test_random_clips_stand_under_the_same_soft_labels(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    class Teacher:
        """Looks at brightness alone: what is bright is the first class."""

        def label(self, clips_NTCHW: np.ndarray, *, temperature: float) -> np.ndarray:
            asked.append({"clips": clips_NTCHW, "temperature": temperature})
            bright = clips_NTCHW.mean(axis=(1, 2, 3, 4)) / 255
            return np.stack([bright, (1 - bright) / 2, (1 - bright) / 2], axis=1).astype(np.float32)

    def train_teacher(clips: np.ndarray, labels: np.ndarray, **settings: object) -> Teacher:
        asked.append({"num_clips": len(clips), "seed": settings["seed"], "epochs": settings["protocol"].epochs})  # type: ignore[attr-defined]
        return Teacher()

    monkeypatch.setattr(comparison.soft_labels, "train_teacher", train_teacher)
    settings = {"temperature": 3.0, "teacher_epochs": 7, "teacher_seed": 5}
    levels = np.full((release.num_clips, 3), 255, dtype=np.uint8)
    soft = dataclasses.replace(release, soft_levels=levels, provenance={"soft_labels": settings})
    monkeypatch.setitem(comparison.RIVALS, "random", ("random, H.264",))  # type: ignore[arg-type]
    compared = _compare(soft, rivals=("random",))
    hard, softened = compared.rows[-2:]
    assert (hard.name, softened.name) == ("random, H.264", "random, H.264, soft labels")
    assert (hard.group, softened.group, softened.stored_bytes) == ("H.264", "H.264", hard.stored_bytes)
    # Trained on all originals, as the release's provenance says.
    assert asked[0] == {"num_clips": 13, "seed": 5, "epochs": 7}
    assert asked[1]["temperature"] == 3.0
    assert len(asked[1]["clips"]) == hard.result.num_clips  # type: ignore[arg-type]


def test_another_dataset_and_unknown_rivals_are_refused(release: Release) -> None:
    other = dataclasses.replace(ORIGINALS, shape=ClipShape(8, 2, 32), dataset="others")
    with pytest.raises(ValueError, match=r"the release 'videos' has .*4 frames of 32×32; dataset 'others' has .* 8 fr"):
        compare_release(release, other, TEST, Trainer(PROTOCOL))
    with pytest.raises(ValueError, match="unknown rivals jpeg; known: video, paper, tight"):
        _compare(release, rivals=("jpeg",))


def test_pairs_are_the_same_clip(release: Release) -> None:
    before, after, names = paired_clips(release, ORIGINALS, 2)
    assert names == list(COUNTS)[:2]
    assert before.shape == after.shape == (2, 4, 3, 32, 32)
    errors = np.abs(before[:, None].astype(int) - after[None]).mean(axis=(2, 3, 4, 5))
    assert errors.argmin(axis=1).tolist() == [0, 1]


def test_recipes_need_what_the_chain_stored() -> None:
    assert not needs_chain(("video", "random"), ())
    assert needs_chain(("paper",), ())
    assert needs_chain((), (1000,))
