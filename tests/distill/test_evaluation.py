import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lvdd_assets.distill import evaluation, networks, training
from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.score_cache import ScoreCache
from lvdd_assets.distill.training import DivergedError
from tests.distill.moving_noise import FRAMES, SIZE, Sample, brightness_clips

QUICK = Protocol(epochs=10, batch_size=8, learning_rate=0.02, widths=(8, 8, 8))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are so small that two threads mostly wait for each other, most of all on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def _relabelled(samples: list[Sample], labels: list[int]) -> list[Sample]:
    return [(clip, label) for (clip, _), label in zip(samples, labels, strict=True)]


def _score(train: list[Sample], test: list[Sample], num_classes: int = 2, **changes: object) -> evaluation.Score:
    settings: dict[str, object] = {"protocol": QUICK, "seed": 0, **changes}
    return evaluation.train_and_test(train, test, num_classes=num_classes, **settings)  # type: ignore[arg-type]


def test_what_lies_in_time_is_learnt() -> None:
    score = _score(brightness_clips(45, 3, seed=0), brightness_clips(60, 3, seed=1), num_classes=3)
    assert score.top1 >= 0.95
    assert score.num_updates == evaluation.updates_for(45, QUICK)
    assert score.seconds > 0


def test_shuffled_labels_stay_at_chance() -> None:
    train, test = brightness_clips(40, 2, seed=0), brightness_clips(60, 2, seed=1)
    # Each true class gets both labels equally often: there is nothing to learn.
    labels = [(index // 2) % 2 for index in range(len(train))]
    score = _score(_relabelled(train, labels), test)
    assert abs(score.top1 - 0.5) <= 0.25


def test_accuracies_and_confusion_agree_with_an_independent_count(monkeypatch: pytest.MonkeyPatch) -> None:
    num_classes, num_test = 7, 90
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(num_test, num_classes, generator=generator)
    clips = torch.arange(num_test, dtype=torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, FRAMES, 3, SIZE, SIZE)
    labels = [int(label) for label in torch.randint(0, num_classes, (num_test,), generator=generator)]
    labels[:num_classes] = range(num_classes)

    class Oracle(torch.nn.Module):
        """Looks up the logits of a clip by the number painted on it."""

        def __init__(self, *_: object, **__: object) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
            return logits[clips_NTCHW[:, 0, 0, 0, 0].long()] * self.scale

    monkeypatch.setattr(training, "build_network", Oracle)
    samples = list(zip(clips, labels, strict=True))
    score = _score(samples[:num_classes], samples, num_classes=num_classes, num_updates=1)

    top1, top5, confusion = 0, 0, np.zeros((num_classes, num_classes), dtype=np.int64)
    for row, label in zip(logits.tolist(), labels, strict=True):
        better = sum(value > row[label] for value in row)
        top1 += better == 0
        top5 += better < 5
        confusion[label, row.index(max(row))] += 1
    assert 0 < top1 < top5 < num_test
    assert (score.top1, score.top5) == (top1 / num_test, top5 / num_test)
    np.testing.assert_array_equal(score.confusion, confusion)
    np.testing.assert_allclose(score.class_accuracy, np.diag(confusion) / confusion.sum(axis=1))
    assert confusion.sum() == num_test


def test_fewer_than_five_classes_make_top5_certain() -> None:
    score = _score(brightness_clips(4, 2, seed=0), brightness_clips(6, 2, seed=1), num_updates=1)
    assert score.top5 == 1.0


def test_same_seed_same_score_and_the_callers_random_state_stays() -> None:
    train, test = brightness_clips(20, 2, seed=0), brightness_clips(30, 2, seed=1)
    protocol = Protocol(epochs=2, batch_size=8, augmentation=("flip",), widths=(4, 4, 4))
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = _logits_of_training(train, test, protocol, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(_logits_of_training(train, test, protocol, seed=5), first)
    assert not torch.equal(_logits_of_training(train, test, protocol, seed=6), first)


def _logits_of_training(train: list[Sample], test: list[Sample], protocol: Protocol, *, seed: int) -> torch.Tensor:
    """Logits of the network that `train_and_test` trains, which say more than its accuracy."""
    seen: list[torch.Tensor] = []

    class Recording(networks.ConvNet3D):
        def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
            logits = super().forward(clips_NTCHW)
            if not self.training:
                seen.append(logits.float().clone())
            return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_network", lambda _name, classes, **shape: Recording(classes, **shape))
        first = evaluation.train_and_test(train, test, num_classes=2, protocol=protocol, seed=seed)
        assert first.seed == seed
    return torch.cat(seen)


def test_every_row_of_a_comparison_gets_the_same_number_of_updates() -> None:
    large, small = brightness_clips(20, 2, seed=0), brightness_clips(2, 2, seed=1)
    test = brightness_clips(10, 2, seed=2)
    protocol = Protocol(epochs=2, batch_size=8, seeds=(3, 4), widths=(2, 2, 2))
    calls: list[tuple[int, int]] = []
    rows = evaluation.compare(
        {"all": large, "two clips": small},
        test,
        num_classes=2,
        protocol=protocol,
        progress=lambda done, total: calls.append((done, total)),
    )
    updates = math.ceil(20 * 2 / 8)
    assert [(row.name, row.num_clips) for row in rows] == [("all", 20), ("two clips", 2)]
    assert [[(s.seed, s.num_updates) for s in row.scores] for row in rows] == [[(3, updates), (4, updates)]] * 2
    assert calls == [(done, 4 * updates) for done in range(1, 4 * updates + 1)]


def _bad_sets() -> dict[str, tuple[list[Sample], list[Sample], str]]:
    good = brightness_clips(4, 2, seed=0)
    clip = good[0][0]
    return {
        "class missing in training": ([(clip, 0)], good, "training set has no clip of right; expected every one of"),
        "class missing in test": (good, [(clip, 1)], "test set has no clip of left"),
        "empty": ([], good, "training set is empty"),
        "label too large": ([*good, (clip, 2)], good, "clip 4 of the training set has label 2; expected 0 to 1"),
        "negative label": (good, [*good, (clip, -1)], "clip 4 of the test set has label -1"),
        "float pixels": ([(clip.float(), 0)], good, r"clip 0 of the training set is torch.float32"),
        "other shape": ([*good, (clip[:, :, :-1], 0)], good, r"clip 4 .* \[8, 3, 43, 44\]; expected uint8"),
    }


@pytest.mark.parametrize("case", list(_bad_sets()))
def test_sets_that_do_not_fit_are_refused(case: str) -> None:
    train, test, message = _bad_sets()[case]
    with pytest.raises(ValueError, match=message):
        _score(train, test, class_names=["left", "right"], num_updates=1)


def test_a_bad_row_of_a_comparison_is_refused_before_any_training() -> None:
    good = brightness_clips(4, 2, seed=0)
    steps: list[int] = []
    with pytest.raises(ValueError, match="the short set has no clip of label 1"):
        evaluation.compare(
            {"good": good, "short": good[:1]},
            good,
            num_classes=2,
            protocol=Protocol(epochs=1, widths=(2, 2, 2)),
            progress=lambda done, _total: steps.append(done),
        )
    assert not steps
    with pytest.raises(ValueError, match="no training sets"):
        evaluation.compare({}, good, num_classes=2, protocol=QUICK)


@pytest.mark.parametrize(
    ("changes", "message"), [({"num_updates": 0}, "num_updates = 0"), ({"class_names": ["a"]}, "1 class names")]
)
def test_wrong_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    good = brightness_clips(4, 2, seed=0)
    with pytest.raises(ValueError, match=message):
        _score(good, good, **changes)


def test_a_comparison_that_was_cut_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    train, test = brightness_clips(8, 2, seed=0), brightness_clips(10, 2, seed=1)
    cache = ScoreCache(tmp_path)
    protocol = Protocol(epochs=2, batch_size=8, seeds=(0, 1, 2), widths=(2, 2, 2))
    started: list[str] = []

    def cut_after_two(name: str) -> None:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(name)

    def compare(rows: dict[str, list[Sample]], **more: object) -> list[evaluation.Row]:
        return evaluation.compare(rows, test, num_classes=2, protocol=protocol, **more)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        compare({"all": train}, cache=cache, announce=cut_after_two)
    assert started == ["all, seed 0", "all, seed 1"]
    started.clear()
    calls: list[tuple[int, int]] = []
    rows = {"all": train, "the same": train, "fewer": train[:4]}
    found = compare(
        rows, cache=cache, announce=started.append, progress=lambda done, total: calls.append((done, total))
    )
    # An equal set is not trained again either.
    assert started == ["all, seed 2", "fewer, seed 0", "fewer, seed 1", "fewer, seed 2"]
    assert calls[-1] == (18, 18)
    plain = compare(rows)
    for row, other in zip(found, plain, strict=True):
        for score, again in zip(row.scores, other.scores, strict=True):
            assert (score.top1, score.top5, score.seed) == (again.top1, again.top5, again.seed)
            np.testing.assert_array_equal(score.confusion, again.confusion)


def test_a_seed_that_diverges_is_noted_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = brightness_clips(8, 2, seed=0), brightness_clips(10, 2, seed=1)
    whole = training.train

    def train_or_diverge(clips: object, num_classes: int, run: training.Run) -> torch.nn.Module:
        if run.seed in bad:
            raise DivergedError(f"the loss is nan at step 2 of 2 (seed {run.seed})")
        return whole(clips, num_classes, run)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", train_or_diverge)
    protocol = Protocol(epochs=2, batch_size=8, seeds=(0, 1, 2), widths=(2, 2, 2))
    bad = {1}
    (row,) = evaluation.compare({"all": train}, test, num_classes=2, protocol=protocol)
    assert [score.seed for score in row.scores] == [0, 2]
    assert row.failures == ((1, "the loss is nan at step 2 of 2 (seed 1)"),)
    bad = {0, 1, 2}
    with pytest.raises(DivergedError, match=r"all: no training ended. the loss is nan at step 2 of 2 \(seed 0\)"):
        evaluation.compare({"all": train}, test, num_classes=2, protocol=protocol)


def test_counting_epochs_trains_each_row_for_its_own() -> None:
    large, small = brightness_clips(20, 2, seed=0), brightness_clips(2, 2, seed=1)
    protocol = Protocol(epochs=2, batch_size=8, counting="epochs", widths=(2, 2, 2))
    rows = evaluation.compare({"a": large, "b": small}, large, num_classes=2, protocol=protocol)
    assert [row.scores[0].num_updates for row in rows] == [6, 2]


@pytest.mark.parametrize("label", [[0.5, 0.4], [1.5, -0.5], [1.0], [0.2, 0.3, 0.5]])
def test_soft_labels_are_probabilities_of_all_classes(label: list[float]) -> None:
    test = brightness_clips(4, 2, seed=0)
    with pytest.raises(ValueError, match="2 probabilities that add up to 1"):
        _score([(clip, torch.tensor(label)) for clip, _ in test], test, num_updates=1)  # type: ignore[misc]


def test_soft_labels_teach_and_are_never_tested_on() -> None:
    train, test = brightness_clips(24, 2, seed=0), brightness_clips(40, 2, seed=1)
    soft = [(clip, torch.tensor([0.9, 0.1] if label == 0 else [0.1, 0.9])) for clip, label in train]
    assert _score(soft, test).top1 >= 0.9  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clip 0 of the test set has label"):
        _score(train, soft, num_updates=1)  # type: ignore[arg-type]
