from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.score_cache import ScoreCache, digest, score_key
from lvdd_assets.distill.scores import Score

SCORE = Score(0.5, 0.75, 3, 20, np.array([[3, 1], [2, 2]]), 1.25)


def _set(first_pixel: int = 0, first_label: int = 0) -> TensorDataset:
    clips = torch.arange(2 * 3 * 3 * 4 * 4).view(2, 3, 3, 4, 4).to(torch.uint8)
    clips[0, 0, 0, 0, 0] = first_pixel
    return TensorDataset(clips, torch.tensor([first_label, 1]))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores")
    assert cache.get("a") is None
    cache.put("a", SCORE)
    found = cache.get("a")
    assert found is not None
    np.testing.assert_array_equal(found.confusion, SCORE.confusion)
    assert replace(found, confusion=SCORE.confusion) == SCORE
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"top1": 2}'])
def test_a_damaged_score_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert ScoreCache(tmp_path).get("a") is None


def test_a_digest_sees_pixels_labels_shape_and_type() -> None:
    clips, labels = _set().tensors
    others = [
        _set(first_pixel=1),
        _set(first_label=1),
        TensorDataset(clips.view(2, 3, 3, 2, 8), labels),
        TensorDataset(clips, labels.to(torch.int32)),
    ]
    assert digest(_set()) == digest(_set())
    assert len({digest(clips) for clips in (_set(), *others)}) == 5


def test_a_key_sees_all_that_a_score_depends_on() -> None:
    def key(protocol: Protocol = Protocol(), **changes: object) -> str:  # noqa: B008
        facts = {"num_classes": 2, "seed": 0, "num_updates": 10, "device": "cpu", "train": "a", "test": "b", **changes}
        train, test = facts.pop("train"), facts.pop("test")
        return score_key(train, test, protocol, **facts)  # type: ignore[arg-type]

    changed = [
        key(train="c"),
        key(test="c"),
        key(num_classes=3),
        key(seed=1),
        key(num_updates=11),
        key(device="cuda:1"),
        key(Protocol(learning_rate=0.5)),
        key(Protocol(augmentation=("flip",))),
        key(Protocol(network="c3d")),
    ]
    assert len({key(), *changed}) == len(changed) + 1
    # Which seeds there are and how updates were counted does not matter to one score.
    assert key() == key(Protocol(seeds=(0, 1), epochs=3))
    assert key(device="cuda:1") == key(device="cuda:0")
