"""What a dataset is worth: train a network from scratch on it, test it on real clips, repeat over seeds.

Here belong what a comparison is, and tests. It sees only datasets of pixels and labels, such as a stranger gets from a
release. What must NOT come here: how the clips were selected or compressed, files, reports; settings belong to
`protocols`, the training loop to `training`.

Legend: N clips, T frames, C channels, H, W pixels, B batch, K classes.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from typing import Protocol as StructuralType

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from lvdd_assets.distill import training
from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.protocols import Protocol, updates_for
from lvdd_assets.distill.score_cache import ScoreCache, digest, score_key
from lvdd_assets.distill.scores import Row, Score
from lvdd_assets.distill.training import DivergedError, Progress, Run

__all__ = [
    "LabelledClips",
    "Progress",
    "Protocol",
    "Row",
    "Score",
    "compare",
    "train_and_test",
    "train_network",
    "updates_for",
]

_TEST_BATCH = 64
_SOFT_TOLERANCE = 1e-3


class _Sized(StructuralType):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


LabelledClips = Dataset[Any] | _Sized
"""A dataset of (clip uint8 [T, C, H, W], label) with a length, which torch's own type does not promise. A label is an
int or, soft and only to train on, float32 [K] that adds up to 1."""


def train_and_test(
    train: LabelledClips,
    test: LabelledClips,
    *,
    num_classes: int,
    protocol: Protocol,
    seed: int,
    num_updates: int | None = None,
    progress: Progress | None = None,
    class_names: Sequence[str] = (),
    device: str = "cpu",
) -> Score:
    """Train a network from scratch on one set and test it on another.

    The training set is decoded once and kept as one uint8 tensor. Batches are cut from an endless row of fresh
    permutations of it, so that every batch is full: a set smaller than a batch repeats within it, shuffled anew each
    time. Same sets, seed, number of threads and machine: the same score, bit by bit. The caller's random state stays.

    Args:
        train: Training set; every class must occur.
        test: Test set with clips of the same shape; every class must occur.
        num_classes: Labels are 0 to num_classes - 1.
        protocol: How to train; its `seeds` are not used here.
        seed: Of initialisation, dropout, order and augmentation.
        num_updates: Optimiser steps, the same for all sets that are compared; by default `updates_for(len(train))`.
        progress: Called after each update.
        class_names: For messages; without them labels are named by number.
        device: Where to train, in torch's words.

    Raises:
        ValueError: A set does not fit, or the loss is not finite.
    """
    test_set = _in_memory(test, "test", num_classes, class_names)
    train_set = _in_memory(train, "training", num_classes, class_names, like=test_set)
    updates = updates_for(len(train_set), protocol) if num_updates is None else num_updates
    run = Run(protocol, seed, updates, progress, device)
    return _train_and_test(train_set, test_set, num_classes, run)


def compare(
    rows: Mapping[str, LabelledClips],
    test: LabelledClips,
    *,
    num_classes: int,
    protocol: Protocol,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    class_names: Sequence[str] = (),
    device: str = "cpu",
    cache: ScoreCache | None = None,
    num_updates: int | None = None,
) -> list[Row]:
    """Train on several sets alike, once for each seed, and test all on the same clips.

    Every network gets as many updates as the largest set needs for `protocol.epochs`: a smaller set is seen more often,
    never trained for less. (A protocol that counts epochs trains each set for its own.) Where a training diverges, its
    row goes on with the other seeds and says so.

    Args:
        rows: Training sets by name; they give the order of the result. The rest is as for `train_and_test`.
        progress: Called after each update with the updates of the whole comparison, done and to do.
        announce: Called with the row and the seed before each training.
        cache: Scores measured before, which are not measured again; each new one is kept as soon as it is there.
        num_updates: Optimiser steps of every network instead, so that comparisons made one by one stay comparable.

    Raises:
        ValueError: A set does not fit, or every training of a row diverged.
    """
    if not rows:
        raise ValueError("got no training sets to compare; expected at least one")
    test_set = _in_memory(test, "test", num_classes, class_names)
    sets = {name: _in_memory(train, name, num_classes, class_names, like=test_set) for name, train in rows.items()}
    largest = max(len(train) for train in sets.values())
    updates = {
        name: num_updates or updates_for(len(train) if protocol.counting == "epochs" else largest, protocol)
        for name, train in sets.items()
    }
    bench = _Bench(
        test_set,
        num_classes,
        protocol,
        device,
        _Counter(sum(updates.values()) * len(protocol.seeds), progress),
        announce or (lambda _text: None),
        cache,
    )
    return [
        _row(name, len(train), protocol.seeds, functools.partial(bench.score, name, train, updates[name]))
        for name, train in sets.items()
    ]


@dataclass
class _Counter:
    """Updates of a whole comparison; trainings that were cut short or not needed count as done."""

    total: int
    progress: Progress | None
    done: int = 0

    def step(self, _step: int, _num_updates: int) -> None:
        self.move_to(self.done + 1)

    def move_to(self, done: int) -> None:
        self.done = done
        if self.progress is not None:
            self.progress(done, self.total)


@dataclass(frozen=True)
class _Bench:
    """Where every row of a comparison is trained and tested alike."""

    test: TensorDataset
    num_classes: int
    protocol: Protocol
    device: str
    counter: _Counter
    announce: Callable[[str], None]
    cache: ScoreCache | None

    @functools.cached_property
    def _test_digest(self) -> str:
        return digest(self.test)

    def score(self, name: str, train: TensorDataset, num_updates: int, seed: int) -> Score:
        """A score that was kept, or a new one, which then is."""
        end = self.counter.done + num_updates
        key = self._key(train, num_updates, seed) if self.cache is not None else ""
        found = self.cache.get(key) if self.cache is not None else None
        if found is None:
            self.announce(f"{name}, seed {seed}")
            try:
                run = Run(self.protocol, seed, num_updates, self.counter.step, self.device)
                found = _train_and_test(train, self.test, self.num_classes, run)
            finally:
                self.counter.done = end
            if self.cache is not None:
                self.cache.put(key, found)
        else:
            self.counter.move_to(end)
        return found

    def _key(self, train: TensorDataset, num_updates: int, seed: int) -> str:
        return score_key(
            digest(train),
            self._test_digest,
            self.protocol,
            num_classes=self.num_classes,
            seed=seed,
            num_updates=num_updates,
            device=self.device,
        )


def _row(name: str, num_clips: int, seeds: Sequence[int], score: Callable[[int], Score]) -> Row:
    """A row's scores; a seed that diverges is noted, and the others go on."""
    scores, failures = [], []
    for seed in seeds:
        try:
            scores.append(score(seed))
        except DivergedError as error:
            failures.append((seed, str(error)))
    if not scores:
        raise DivergedError(f"{name}: no training ended. {failures[0][1]}")
    return Row(name, num_clips, tuple(scores), tuple(failures))


def train_network(
    train: TensorDataset,
    *,
    num_classes: int,
    protocol: Protocol,
    seed: int,
    updates: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> nn.Module:
    """Train one network from scratch, and give it back.

    Args:
        train: clips uint8 [N, T, C, H, W] and labels int64 [N].
        num_classes: Number of classes.
        protocol: How it is trained; its epochs and seeds play no part.
        seed: Of initialisation, dropout, order and augmentation.
        updates: Optimiser steps.
        device: Where it is trained.
        progress: Called after each update.
    """
    return training.train(train, num_classes, Run(protocol, seed, updates, progress, device))


def _train_and_test(train: TensorDataset, test: TensorDataset, num_classes: int, run: Run) -> Score:
    started = time.perf_counter()
    network = training.train(train, num_classes, run)
    with training.repeatable():
        ranking_NK = _rank(network, test, torch.device(run.device))
    labels_N = test.tensors[1]
    hits_NK = ranking_NK == labels_N[:, None]
    confusion = torch.bincount(labels_N * num_classes + ranking_NK[:, 0], minlength=num_classes**2)
    return Score(
        top1=hits_NK[:, 0].double().mean().item(),
        top5=hits_NK[:, :5].any(dim=1).double().mean().item(),
        seed=run.seed,
        num_updates=run.num_updates,
        confusion=confusion.view(num_classes, num_classes).numpy(),
        seconds=time.perf_counter() - started,
    )


def _rank(network: nn.Module, test: TensorDataset, device: torch.device) -> torch.Tensor:
    """Classes of each test clip from the likeliest to the least likely: int64 [N, K]."""
    precision = precision_for(str(device))
    network.eval()
    logits = []
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        for clips_BTCHW in test.tensors[0].split(_TEST_BATCH):
            logits.append(network(clips_BTCHW.to(device)).float().cpu())
    logits_NK = torch.cat(logits)
    if not torch.isfinite(logits_NK).all():
        raise DivergedError("the trained network's logits are not finite; lower the protocol's learning_rate")
    return logits_NK.argsort(dim=1, descending=True, stable=True)


def _in_memory(
    clips: LabelledClips,
    role: str,
    num_classes: int,
    class_names: Sequence[str],
    *,
    like: TensorDataset | None = None,
) -> TensorDataset:
    """Decode a dataset into tensors and check them; `like` is a set whose clip shape it must have.

    Returns:
        Clips uint8 [N, T, C, H, W] and labels, int64 [N] or, where they are soft, float32 [N, K].
    """
    if class_names and len(class_names) != num_classes:
        raise ValueError(f"got {len(class_names)} class names for {num_classes = }; expected as many")
    dataset = cast(_Sized, clips)
    if len(dataset) == 0:
        raise ValueError(f"the {role} set is empty; expected clips of all {num_classes} classes")
    shape_TCHW = like.tensors[0].shape[1:] if like is not None else torch.as_tensor(dataset[0][0]).shape
    clips_NTCHW = torch.empty((len(dataset), *shape_TCHW), dtype=torch.uint8)
    soft = torch.as_tensor(dataset[0][1]).ndim == 1
    labels_N = torch.empty(
        (len(dataset), num_classes) if soft else len(dataset), dtype=torch.float32 if soft else torch.int64
    )
    for index in range(len(dataset)):
        clip_TCHW, label = dataset[index]
        clip_TCHW = torch.as_tensor(clip_TCHW)
        if clip_TCHW.dtype != torch.uint8 or clip_TCHW.ndim != 4 or clip_TCHW.shape != shape_TCHW:
            raise ValueError(
                f"clip {index} of the {role} set is {clip_TCHW.dtype} {list(clip_TCHW.shape)}; expected uint8 "
                f"[T, C, H, W], here {list(shape_TCHW)}: read all sets of a comparison with one clip shape"
            )
        clips_NTCHW[index], labels_N[index] = clip_TCHW, _checked(label, index, role, num_classes, soft=soft)
    if soft:
        return TensorDataset(clips_NTCHW, labels_N)
    counts_K = torch.bincount(labels_N, minlength=num_classes)
    missing = [class_names[k] if class_names else f"label {k}" for k in range(num_classes) if counts_K[k] == 0]
    if missing:
        raise ValueError(
            f"the {role} set has no clip of {', '.join(missing)}; expected every one of the {num_classes} "
            "classes: give it clips, or leave the class out of both sets"
        )
    return TensorDataset(clips_NTCHW, labels_N)


def _checked(label: Any, index: int, role: str, num_classes: int, *, soft: bool) -> torch.Tensor:
    """A label as it is trained on: a class, or the probabilities of all."""
    value = torch.as_tensor(label)
    if soft and role != "test":
        adds_up = value.ndim == 1 and len(value) == num_classes and bool((value >= 0).all())
        if not adds_up or abs(float(value.sum()) - 1) > _SOFT_TOLERANCE:
            raise ValueError(
                f"clip {index} of the {role} set has the soft label {value.tolist()}; expected {num_classes} "
                "probabilities that add up to 1"
            )
        return value.float()
    if value.ndim != 0 or not 0 <= int(value) < num_classes:
        raise ValueError(f"clip {index} of the {role} set has label {value.tolist()}; expected 0 to {num_classes - 1}")
    return value.long()
