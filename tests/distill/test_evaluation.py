import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.evaluation import Protocol

FRAMES, SIZE = 8, 44
QUICK = Protocol(epochs=10, batch_size=8, learning_rate=0.02, widths=(8, 8, 8))
Sample = tuple[torch.Tensor, int]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are so small that two threads mostly wait for each other, most of all on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def _brightness_clips(num_clips: int, num_classes: int, *, seed: int) -> list[Sample]:
    """Noise whose brightness rises, falls or stays in time: one frame alone does not give the class away."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, FRAMES).view(FRAMES, 1, 1, 1)
    samples = []
    for index in range(num_clips):
        label = index % num_classes
        slope = (1.0, -1.0, 0.0)[label]
        noise = torch.randn(FRAMES, 3, SIZE, SIZE, generator=generator)
        clip = 128 + 80 * slope * ramp + 20 * noise
        samples.append((clip.clamp(0, 255).to(torch.uint8), label))
    return samples


def _relabelled(samples: list[Sample], labels: list[int]) -> list[Sample]:
    return [(clip, label) for (clip, _), label in zip(samples, labels, strict=True)]


def _score(train: list[Sample], test: list[Sample], num_classes: int = 2, **changes: object) -> evaluation.Score:
    settings: dict[str, object] = {"protocol": QUICK, "seed": 0, **changes}
    return evaluation.train_and_test(train, test, num_classes=num_classes, **settings)  # type: ignore[arg-type]


def test_what_lies_in_time_is_learnt() -> None:
    score = _score(_brightness_clips(45, 3, seed=0), _brightness_clips(60, 3, seed=1), num_classes=3)
    assert score.top1 >= 0.95
    assert score.num_updates == evaluation.updates_for(45, QUICK)
    assert score.seconds > 0


def test_shuffled_labels_stay_at_chance() -> None:
    train, test = _brightness_clips(40, 2, seed=0), _brightness_clips(60, 2, seed=1)
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

    monkeypatch.setattr(evaluation.networks, "ConvNet3D", Oracle)
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
    score = _score(_brightness_clips(4, 2, seed=0), _brightness_clips(6, 2, seed=1), num_updates=1)
    assert score.top5 == 1.0


def test_same_seed_same_score_and_the_callers_random_state_stays() -> None:
    train, test = _brightness_clips(20, 2, seed=0), _brightness_clips(30, 2, seed=1)
    protocol = Protocol(epochs=2, batch_size=8, flip=True, widths=(4, 4, 4))
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
    network_class = evaluation.networks.ConvNet3D

    class Recording(network_class):  # type: ignore[misc, valid-type]
        def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
            logits = super().forward(clips_NTCHW)
            if not self.training:
                seen.append(logits.float().clone())
            return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.networks, "ConvNet3D", Recording)
        first = evaluation.train_and_test(train, test, num_classes=2, protocol=protocol, seed=seed)
        assert first.seed == seed
    return torch.cat(seen)


def test_every_row_of_a_comparison_gets_the_same_number_of_updates() -> None:
    large, small = _brightness_clips(20, 2, seed=0), _brightness_clips(2, 2, seed=1)
    test = _brightness_clips(10, 2, seed=2)
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


def test_mean_and_deviation_of_a_row() -> None:
    scores = [
        evaluation.Score(top1, 1.0, seed, 10, np.array([[2, 0], [1, 1]]), 0.1)
        for seed, top1 in enumerate((0.5, 0.6, 0.9))
    ]
    row = evaluation.Row("r", 4, tuple(scores))
    assert row.mean_top1 == pytest.approx(2 / 3)
    assert row.std_top1 == pytest.approx(np.std([0.5, 0.6, 0.9], ddof=1))
    assert (row.mean_top5, row.std_top5) == (1.0, 0.0)
    assert evaluation.Row("r", 4, (scores[0],)).std_top1 == 0.0
    np.testing.assert_allclose(row.class_accuracy, [1.0, 0.5])


def test_batches_are_full_and_every_clip_comes_once_before_any_comes_again() -> None:
    stream = evaluation._batches(5, 4, torch.Generator().manual_seed(0))
    batches = list(itertools.islice(stream, 5))
    assert [len(batch) for batch in batches] == [4] * 5
    order = torch.cat(batches).tolist()
    passes = [order[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_a_set_smaller_than_a_batch_repeats_within_it() -> None:
    batch = next(evaluation._batches(3, 8, torch.Generator().manual_seed(0)))
    assert sorted(torch.bincount(batch).tolist()) == [2, 3, 3]


def test_flips_mirror_clips_and_never_touch_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = _brightness_clips(4, 2, seed=0), _brightness_clips(2, 2, seed=1)
    originals = [clip.clone() for clip, _ in train]
    seen: list[torch.Tensor] = []
    network_class = evaluation.networks.ConvNet3D

    class Recording(network_class):  # type: ignore[misc, valid-type]
        def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.extend(clips_NTCHW)
            return super().forward(clips_NTCHW)

    monkeypatch.setattr(evaluation.networks, "ConvNet3D", Recording)
    protocol = Protocol(epochs=8, batch_size=4, flip=True, widths=(2, 2, 2))
    evaluation.train_and_test(train, test, num_classes=2, protocol=protocol, seed=0)
    plain = sum(any(torch.equal(clip, original) for original in originals) for clip in seen)
    mirrored = sum(any(torch.equal(clip, original.flip(-1)) for original in originals) for clip in seen)
    assert plain + mirrored == len(seen) == 32
    assert 6 <= mirrored <= 26
    assert all(torch.equal(clip, original) for (clip, _), original in zip(train, originals, strict=True))


def test_updates_are_epochs_over_clips() -> None:
    protocol = Protocol(epochs=3, batch_size=16)
    assert [evaluation.updates_for(n, protocol) for n in (1, 16, 17, 1200)] == [1, 3, 4, 225]
    with pytest.raises(ValueError, match="num_clips = 0"):
        evaluation.updates_for(0, protocol)


def test_learning_rate_rises_to_its_peak_and_falls() -> None:
    rates = [evaluation._cycle((step + 0.5) / 100) for step in range(100)]
    peak = rates.index(max(rates))
    assert 0 < min(rates) < 0.01
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert evaluation._cycle(0.5) > 0.5  # a single update is not made with a rate of 0


def test_a_loss_that_is_not_finite_stops_the_training_at_its_step() -> None:
    train, test = _brightness_clips(8, 2, seed=0), _brightness_clips(4, 2, seed=1)
    wild = Protocol(epochs=20, batch_size=4, learning_rate=1e30, clip_norm=1e30, widths=(2, 2, 2))
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+ of 40 \(seed 0\).*learning_rate"):
        evaluation.train_and_test(train, test, num_classes=2, protocol=wild, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"batch_size": -1}, "batch_size = -1"),
        ({"learning_rate": math.nan}, "learning_rate = nan"),
        ({"clip_norm": 0.0}, r"clip_norm = 0\.0"),
        ({"momentum": 1.0}, r"momentum = 1\.0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "all different"),
        ({"seeds": (-1,)}, "not negative"),
    ],
)
def test_wrong_protocols_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**settings)  # type: ignore[arg-type]


def _bad_sets() -> dict[str, tuple[list[Sample], list[Sample], str]]:
    good = _brightness_clips(4, 2, seed=0)
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
    good = _brightness_clips(4, 2, seed=0)
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
    good = _brightness_clips(4, 2, seed=0)
    with pytest.raises(ValueError, match=message):
        _score(good, good, **changes)
