"""The budget spent by each recipe, with soft labels and without."""

from pathlib import Path

import numpy as np
import pytest

from lvdd_assets import load_release
from lvdd_assets.distill.budget import FINEST_STEP
from lvdd_assets.distill.protocols import named_protocol
from lvdd_assets.distill.release import Release
from lvdd_assets.distill.soft_labels import train_teacher
from lvdd_assets.distill.stores import ZarrStore
from tests.conftest import Chain, MakeChain, failure, metadata


def _path(chain: Chain) -> Path:
    return chain.workspace.data_root / "release" / "tiny.zarr.zip"


def _load(chain: Chain) -> Release:
    return load_release(_path(chain))


def test_a_budget_too_small_for_one_clip_per_class(finished: MakeChain) -> None:
    before = _path(finished()).read_bytes()
    chain = finished(budget="{bytes: 10kB}")
    result = chain.materialize("release")
    assert not result.success
    message = failure(result)
    assert "the budget of 10000 B is too small: the smallest release of this dataset takes" in message
    assert "Raise `budget`" in message
    assert _path(chain).read_bytes() == before


def test_a_budget_above_the_whole_dataset_keeps_the_finest(finished: MakeChain) -> None:
    chain = finished(budget="{bytes: 50MB}")
    result = chain.materialize("release")
    shown = metadata(result, "release", "tiny")
    assert shown["finest_kept"] is True
    said = "the 6 selected clips are kept as finely as the recipe has them. For more of the 10 train clips raise "
    assert str(shown["verdict"]).endswith(f"{said}clips_per_class")
    assert _load(chain).coded[0].step == FINEST_STEP


def test_recipe_paper_writes_what_it_writes(finished: MakeChain) -> None:
    chain = finished(recipe="paper", budget="{ipc: 1}")  # counts the encoder as well
    result = chain.materialize("release")
    assert chain.computed(result) == {
        "hosvd_cores tiny/grow",
        "hosvd_cores tiny/move_left",
        "quantized_vae tiny",
        "release tiny",
    }
    assert _load(chain).coded[0].codec == "tucker-f32"
    assert (_load(chain).dataset()[5][0].shape) == (8, 3, 48, 48)


def test_recipe_codec_keeps_video_and_no_decoder(finished: MakeChain) -> None:
    chain = finished(recipe="codec", budget="{bytes: 4kB}")
    result = chain.materialize("quantized_vae", "release")
    assert result.success, failure(result)
    release = _load(chain)
    assert 0.97 * 4000 - 20 <= release.stored_bytes <= 4000
    assert set(release.ledger["part"]) == {"cores", "labels", "metadata"}
    clip, label = release.dataset()[3]
    assert (tuple(clip.shape), label) == ((8, 3, 48, 48), 1)
    with pytest.raises(ValueError, match="has no decoder: all of its classes are kept as video"):
        release.build_decoder()


@pytest.mark.parametrize(("budget", "picked"), [("6kB", "video"), ("50kB", None)])
def test_recipe_auto_picks_what_keeps_more_signal(finished: MakeChain, budget: str, picked: str | None) -> None:
    """Where the decoder alone does not fit, only video is left."""
    chain = finished(recipe="auto", budget=f"{{bytes: {budget}}}")
    result = chain.materialize("quantized_vae", "release")
    assert result.success, failure(result)
    figures = metadata(result, "release", "tiny")
    kept = figures["signal_kept"]
    assert figures["picked"] == max(kept, key=kept.__getitem__)
    if picked:
        assert figures["picked"] == picked
        assert "as latents: the budget of 6000 B is too small" in figures["not_possible"][0]
    else:
        assert set(kept) == {"latents", "video"}
        assert 0 < min(kept.values()) <= max(kept.values()) <= 1
    assert _load(chain).stored_bytes <= int(float(budget[:-2]) * 1000)


SOFT = {"release": {"soft_labels": True, "teacher_epochs": 2}}


@pytest.mark.parametrize(
    ("recipe", "budget"),
    [("tight", "{bytes: 47500}"), ("codec", "{bytes: 4kB}"), ("paper", "{ipc: 1}"), ("auto", "{bytes: 6kB}")],
)
def test_soft_labels_are_paid_for_out_of_the_budget(finished: MakeChain, recipe: str, budget: str) -> None:
    chain = finished(recipe=recipe, budget=budget)
    result = chain.materialize("quantized_vae", "release", config=SOFT)
    assert result.success, failure(result)
    release, figures = _load(chain), metadata(result, "release", "tiny")
    assert release.stored_bytes <= figures["allowed_bytes"]
    assert int(release.ledger["bytes"].sum()) == release.stored_bytes
    assert release.soft_labels.shape == (release.num_clips, 2)
    clip, label = release.dataset(labels="soft")[0]
    assert (tuple(clip.shape), tuple(label.shape)) == ((8, 3, 48, 48), (2,))
    assert 0 <= figures["teacher_agrees"] <= 1
    assert release.provenance["soft_labels"] == {"temperature": 2.0, "teacher_epochs": 2, "teacher_seed": 0}


def test_soft_labels_are_the_teachers_of_the_kept_clips(finished: MakeChain) -> None:
    """The same teacher again, asked about the originals of the clips that the file holds, in their order."""
    chain = finished()
    assert not _load(chain).has_soft_labels
    assert chain.materialize("release", config=SOFT).success
    names = ("grow", "move_left")
    stores = {step: ZarrStore(chain.workspace.data_root, step) for step in ("raw_clips", "dpp_subsets")}
    train = [stores["raw_clips"].open(f"tiny/{name}").read("train") for name in names]
    labels = np.repeat([0, 1], [len(clips) for clips in train])
    protocol = named_protocol("quick", len(labels), epochs=2)
    teacher = train_teacher(np.concatenate(train), labels, num_classes=2, protocol=protocol, seed=0)
    kept = [
        clips[stores["dpp_subsets"].open(f"tiny/{name}").read("items")]
        for name, clips in zip(names, train, strict=True)
    ]
    expected = teacher.label(np.concatenate(kept), temperature=2.0)
    # A level is half a step wide, and more threads may have trained the teacher in the run.
    np.testing.assert_allclose(_load(chain).soft_labels, expected, atol=0.01)
