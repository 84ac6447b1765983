"""How networks are trained for a comparison: the settings, the presets, and how many updates a set gets.

The literature's protocol has traps that change its figures; each is closed here whatever the settings say. Pixels are
normalised by constants, not batch by batch, so that a clip's score does not depend on its neighbours at test. Test
clips are the same frames each time. Everything random has a seed. And all rows of a comparison get the same number of
updates, where counting epochs gives a set of 1,200 clips five times the updates of one below a batch; that
counting is an option.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lvdd_assets.distill import paper

Schedule = Literal["one-cycle", "step"]
Counting = Literal["equal", "epochs"]
Augmentation = Literal["flip", "crop", "shift"]

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
NETWORKS = ("convnet3d", "cnn-gru", "cnn-lstm", "c3d", "r2plus1d")
"""What `architectures.build_network` builds."""
SOFT_LABEL_TEMPERATURE = 2.0
"""By what a teacher's logits are divided where nothing else is said."""


@dataclass(frozen=True)
class Protocol:
    """How a network is trained: SGD on cross-entropy.

    Attributes:
        epochs: Passes over the largest set of a comparison; what `updates_for` multiplies.
        batch_size: Clips per update.
        learning_rate: The largest of the schedule.
        momentum: Of SGD.
        weight_decay: Of SGD.
        clip_norm: Largest gradient norm; a longer gradient is scaled down to it. ConvNet3D has no normalisation
            layers, so that a rare steep step would otherwise end the training. None: not scaled.
        augmentation: What is done at random to the clips of each batch. `flip` mirrors half of them, wrong where left
            and right are different classes; `crop` moves the picture by up to an eighth of its side, its edge repeated;
            `shift` moves it in time by up to a quarter of the frames, the first or last one repeated.
        network: Name of the network (`NETWORKS`).
        schedule: `one-cycle` rises in a line and falls in a cosine; `step` falls to a tenth half-way (paper).
        counting: `equal` gives every row of a comparison the updates that the largest needs; `epochs` passes over
            each row as often, in batches no larger than it, as the literature does.
        seeds: One network is trained for each.
        widths: Channels of the network's layers, for faster ones than its own; None: its own.
    """

    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = paper.TRAINING_LEARNING_RATE
    momentum: float = paper.TRAINING_MOMENTUM
    weight_decay: float = paper.TRAINING_WEIGHT_DECAY
    clip_norm: float | None = 5.0
    augmentation: tuple[Augmentation, ...] = ()
    network: str = "convnet3d"
    schedule: Schedule = "one-cycle"
    counting: Counting = "equal"
    seeds: tuple[int, ...] = (0,)
    widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is None and name == "clip_norm":
                continue
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"got {name} = {value}; expected a positive number")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"got momentum = {self.momentum}; expected 0 <= momentum < 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"got weight_decay = {self.weight_decay}; expected 0 or more")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"got seeds = {self.seeds}; expected at least one, all different and not negative")
        choices = {
            "augmentation": (self.augmentation, AUGMENTATIONS),
            "schedule": ((self.schedule,), get_args(Schedule)),
            "counting": ((self.counting,), get_args(Counting)),
        }
        for name, (chosen, known) in choices.items():
            unknown = [value for value in chosen if value not in known]
            if unknown or len(set(chosen)) != len(chosen):
                raise ValueError(f"got {name} = {', '.join(chosen)}; expected each at most once of {', '.join(known)}")


def updates_for(num_clips: int, protocol: Protocol) -> int:
    """Optimiser steps that pass `protocol.epochs` times over `num_clips` clips."""
    if num_clips < 1:
        raise ValueError(f"got {num_clips = }; expected at least 1")
    if protocol.counting == "epochs":
        return protocol.epochs * math.ceil(num_clips / protocol.batch_size)
    return math.ceil(num_clips * protocol.epochs / protocol.batch_size)


QUICK = Protocol(learning_rate=0.02)
"""For processors and the demo: one cycle, a few hundred updates."""

LITERATURE = Protocol(
    epochs=paper.TRAINING_EPOCHS,
    batch_size=paper.TRAINING_BATCH_SIZE,
    clip_norm=None,
    augmentation=("flip",),
    schedule="step",
    seeds=tuple(range(paper.TRAINING_NUM_SEEDS)),
)
"""500 epochs in batches of 256, five networks (released code, training); its traps closed as said above."""

PROTOCOLS = {"quick": QUICK, "literature": LITERATURE}

_MIN_EPOCHS, _MIN_UPDATES = 12, 150


def named_protocol(name: str, num_clips: int, **changes: Any) -> Protocol:
    """A preset with some of its settings changed.

    Args:
        name: one of `PROTOCOLS`.
        num_clips: clips of the largest set. The quick protocol passes 12 times over them, or more often where they are
            few, until there are 150 updates.
        changes: settings by name; None leaves the preset's.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    given = {setting: value for setting, value in changes.items() if value is not None}
    protocol = replace(PROTOCOLS[name], **given)
    if name == "quick" and "epochs" not in given:
        enough = max(_MIN_EPOCHS, math.ceil(_MIN_UPDATES * protocol.batch_size / num_clips))
        protocol = replace(protocol, epochs=enough)
    return protocol
