"""What a dataset is worth: train a network from scratch on it, test it on real clips, repeat over seeds.

Here belong the evaluation protocol, the training loop and the scores. It sees only datasets of pixels and labels, such
as a stranger gets from a release. What must NOT come here: how the clips were selected or compressed, files, reports.

Against the traps of the field's protocol: pixels are normalised by constants (`networks`), the test set is whole and
fixed, everything random has a seed, and all rows of a comparison get the same number of updates.

Legend: N clips, T frames, C channels, H, W pixels, B batch, K classes.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from typing import Protocol as StructuralType

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from lvdd_assets.distill import networks, paper
from lvdd_assets.distill.devices import precision_for

Progress = Callable[[int, int], None]
"""Called with the number of updates done and the number there will be."""

_TEST_BATCH = 64
_WARM_UP = 0.3


class _Sized(StructuralType):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


LabelledClips = Dataset[Any] | _Sized
"""A dataset of (clip uint8 [T, C, H, W], label int) with a length, which torch's own type does not promise."""


@dataclass(frozen=True)
class Protocol:
    """How a network is trained for a comparison: SGD on cross-entropy, the learning rate one cycle up and down.

    A quick protocol, for comparing rows with each other on one machine; the literature's 500 epochs are in `paper`.

    Attributes:
        epochs: Passes over the largest set of a comparison; what `updates_for` multiplies.
        batch_size: Clips per update.
        learning_rate: Peak of the cycle.
        momentum: Of SGD.
        weight_decay: Of SGD.
        clip_norm: Largest gradient norm; a longer gradient is scaled down to it. The network has no normalisation
            layers, so that a rare steep step would otherwise end the training.
        flip: Mirror half of the clips of each batch; wrong where left and right are different classes.
        seeds: One network is trained for each.
        widths: Channels of ConvNet3D's convolutions.
    """

    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = paper.TRAINING_LEARNING_RATE
    momentum: float = paper.TRAINING_MOMENTUM
    weight_decay: float = paper.TRAINING_WEIGHT_DECAY
    clip_norm: float = 5.0
    flip: bool = False
    seeds: tuple[int, ...] = (0,)
    widths: tuple[int, ...] = paper.CONVNET3D_WIDTHS

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"got {name} = {value}; expected a positive number")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"got momentum = {self.momentum}; expected 0 <= momentum < 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"got weight_decay = {self.weight_decay}; expected 0 or more")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"got seeds = {self.seeds}; expected at least one, all different and not negative")


@dataclass(frozen=True)
class Score:
    """How one trained network did on the test set.

    Attributes:
        top1: Part of the test clips whose first guess is right, in [0, 1].
        top5: Part with the right class among the first five guesses (all guesses below five classes).
        seed: Of initialisation, dropout, order and flips.
        num_updates: Optimiser steps.
        confusion: int64 [K, K], test clips by true class (row) and first guess (column).
        seconds: Wall time of training and test.
    """

    top1: float
    top5: float
    seed: int
    num_updates: int
    confusion: np.ndarray
    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= self.top5 <= 1:
            raise ValueError(f"got {self.top1 = }, {self.top5 = }; expected 0 <= top1 <= top5 <= 1")

    @property
    def class_accuracy(self) -> np.ndarray:
        """Part of each class's test clips that was guessed right: float64 [K] in [0, 1]."""
        return np.diag(self.confusion) / self.confusion.sum(axis=1)


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a training set and its scores, one for each seed.

    Attributes:
        name: What was trained on.
        num_clips: Clips in that training set.
        scores: In the order of the protocol's seeds.
    """

    name: str
    num_clips: int
    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError(f"row {self.name!r} has no scores; expected one for each seed")

    @property
    def mean_top1(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return statistics.fmean(score.top1 for score in self.scores)

    @property
    def mean_top5(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return statistics.fmean(score.top5 for score in self.scores)

    @property
    def std_top1(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed, which says nothing about the spread."""
        return statistics.stdev(score.top1 for score in self.scores) if len(self.scores) > 1 else 0.0

    @property
    def std_top5(self) -> float:
        """Like `std_top1`."""
        return statistics.stdev(score.top5 for score in self.scores) if len(self.scores) > 1 else 0.0

    @property
    def class_accuracy(self) -> np.ndarray:
        """Mean over seeds of each class's accuracy: float64 [K] in [0, 1]."""
        return np.mean([score.class_accuracy for score in self.scores], axis=0)


def updates_for(num_clips: int, protocol: Protocol) -> int:
    """Optimiser steps that pass `protocol.epochs` times over `num_clips` clips."""
    if num_clips < 1:
        raise ValueError(f"got {num_clips = }; expected at least 1")
    return math.ceil(num_clips * protocol.epochs / protocol.batch_size)


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
    """Train ConvNet3D from scratch on one set and test it on another.

    The training set is decoded once and kept as one uint8 tensor. Batches are cut from an endless row of fresh
    permutations of it, so that every batch is full: a set smaller than a batch repeats within it, shuffled anew each
    time. Same sets, seed, number of threads and machine: the same score, bit by bit. The caller's random state stays.

    Args:
        train: Training set; every class must occur.
        test: Test set with clips of the same shape; every class must occur.
        num_classes: Labels are 0 to num_classes - 1.
        protocol: How to train; its `seeds` are not used here.
        seed: Of initialisation, dropout, order and flips.
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
    run = _Run(protocol, seed, updates, progress, torch.device(device))
    return _train_and_test(train_set, test_set, num_classes, run)


def compare(
    rows: Mapping[str, LabelledClips],
    test: LabelledClips,
    *,
    num_classes: int,
    protocol: Protocol,
    progress: Progress | None = None,
    class_names: Sequence[str] = (),
    device: str = "cpu",
) -> list[Row]:
    """Train on several sets alike, once for each seed, and test all on the same clips.

    Every network gets as many updates as the largest set needs for `protocol.epochs`: a smaller set is seen more often,
    never trained for less.

    Args:
        rows: Training sets by name; they give the order of the result. The rest is as for `train_and_test`.
        progress: Called after each update with the updates of the whole comparison, done and to do.
    """
    if not rows:
        raise ValueError("got no training sets to compare; expected at least one")
    test_set = _in_memory(test, "test", num_classes, class_names)
    sets = {name: _in_memory(train, name, num_classes, class_names, like=test_set) for name, train in rows.items()}
    updates = updates_for(max(len(train) for train in sets.values()), protocol)
    total = updates * len(sets) * len(protocol.seeds)
    done = 0

    def count(_step: int, _num_updates: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    def score(train: TensorDataset, seed: int) -> Score:
        return _train_and_test(train, test_set, num_classes, _Run(protocol, seed, updates, count, torch.device(device)))

    return [
        Row(name=name, num_clips=len(train), scores=tuple(score(train, seed) for seed in protocol.seeds))
        for name, train in sets.items()
    ]


@dataclass(frozen=True)
class _Run:
    """One training: a protocol, a seed, the number of updates, and where."""

    protocol: Protocol
    seed: int
    num_updates: int
    progress: Progress | None
    device: torch.device

    def __post_init__(self) -> None:
        if self.num_updates < 1:
            raise ValueError(f"got num_updates = {self.num_updates}; expected at least 1")


def train_network(
    train: TensorDataset,
    *,
    num_classes: int,
    protocol: Protocol,
    seed: int,
    updates: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> networks.ConvNet3D:
    """Train one ConvNet3D from scratch, and give it back.

    Args:
        train: clips uint8 [N, T, C, H, W] and labels int64 [N].
        num_classes: Number of classes.
        protocol: How it is trained; its epochs and seeds play no part.
        seed: Of initialisation, dropout, order and flips.
        updates: Optimiser steps.
        device: Where it is trained.
        progress: Called after each update.
    """
    return _train_network(train, num_classes, _Run(protocol, seed, updates, progress, torch.device(device)))


def _train_network(train: TensorDataset, num_classes: int, run: _Run) -> networks.ConvNet3D:
    _, frames, _, size, _ = train.tensors[0].shape
    cuda_devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda_devices), torch.backends.cudnn.flags(deterministic=True):
        # Not torch.manual_seed: that would seed every GPU, of which fork_rng restores only the ones named.
        torch.default_generator.manual_seed(run.seed)
        if cuda_devices:
            torch.cuda.default_generators[run.device.index or 0].manual_seed(run.seed)
        network = networks.ConvNet3D(num_classes, frames=frames, size=size, widths=run.protocol.widths)
        network.to(run.device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        _train(network, train, run)
    return network


def _train_and_test(train: TensorDataset, test: TensorDataset, num_classes: int, run: _Run) -> Score:
    started = time.perf_counter()
    network = _train_network(train, num_classes, run)
    with torch.backends.cudnn.flags(deterministic=True):
        ranking_NK = _rank(network, test, run.device)
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


def _train(network: nn.Module, train: TensorDataset, run: _Run) -> None:
    protocol, num_updates, device = run.protocol, run.num_updates, run.device
    optimizer = torch.optim.SGD(
        network.parameters(), protocol.learning_rate, protocol.momentum, weight_decay=protocol.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cycle((step + 0.5) / num_updates))
    generator = torch.Generator().manual_seed(run.seed)
    batches = _batches(len(train), protocol.batch_size, generator)
    precision = precision_for(str(device))
    network.train()
    for step in range(1, num_updates + 1):
        chosen_B = next(batches)
        clips_BTCHW, labels_B = train[chosen_B]
        if protocol.flip:
            mirrored_B = torch.rand(len(chosen_B), generator=generator) < 0.5
            clips_BTCHW[mirrored_B] = clips_BTCHW[mirrored_B].flip(-1)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits_BK = network(clips_BTCHW.to(device))
        loss = nn.functional.cross_entropy(logits_BK.float(), labels_B.to(device))
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {loss.item()} at step {step} of {num_updates} (seed {run.seed}); expected a finite "
                f"number: lower learning_rate (now {protocol.learning_rate}) or clip_norm (now {protocol.clip_norm})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), protocol.clip_norm)
        optimizer.step()
        schedule.step()
        if run.progress is not None:
            run.progress(step, num_updates)


def _cycle(done: float) -> float:
    """Part of the peak learning rate when part `done` of the training is behind: up in a line, down in a cosine."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))


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
        raise ValueError("the trained network's logits are not finite; lower the protocol's learning_rate")
    return logits_NK.argsort(dim=1, descending=True, stable=True)


def _batches(num_clips: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices of full batches, cut without end from one permutation of the set after the other."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(num_clips, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


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
        Clips uint8 [N, T, C, H, W] and labels int64 [N].
    """
    if class_names and len(class_names) != num_classes:
        raise ValueError(f"got {len(class_names)} class names for {num_classes = }; expected as many")
    dataset = cast(_Sized, clips)
    if len(dataset) == 0:
        raise ValueError(f"the {role} set is empty; expected clips of all {num_classes} classes")
    shape_TCHW = like.tensors[0].shape[1:] if like is not None else torch.as_tensor(dataset[0][0]).shape
    clips_NTCHW = torch.empty((len(dataset), *shape_TCHW), dtype=torch.uint8)
    labels_N = torch.empty(len(dataset), dtype=torch.int64)
    for index in range(len(dataset)):
        clip_TCHW, label = dataset[index]
        clip_TCHW = torch.as_tensor(clip_TCHW)
        if clip_TCHW.dtype != torch.uint8 or clip_TCHW.ndim != 4 or clip_TCHW.shape != shape_TCHW:
            raise ValueError(
                f"clip {index} of the {role} set is {clip_TCHW.dtype} {list(clip_TCHW.shape)}; expected uint8 "
                f"[T, C, H, W], here {list(shape_TCHW)}: read all sets of a comparison with one clip shape"
            )
        if not 0 <= int(label) < num_classes:
            raise ValueError(f"clip {index} of the {role} set has label {int(label)}; expected 0 to {num_classes - 1}")
        clips_NTCHW[index], labels_N[index] = clip_TCHW, int(label)
    counts_K = torch.bincount(labels_N, minlength=num_classes)
    missing = [class_names[k] if class_names else f"label {k}" for k in range(num_classes) if counts_K[k] == 0]
    if missing:
        raise ValueError(
            f"the {role} set has no clip of {', '.join(missing)}; expected every one of the {num_classes} "
            "classes: give it clips, or leave the class out of both sets"
        )
    return TensorDataset(clips_NTCHW, labels_N)
