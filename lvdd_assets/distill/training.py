"""The training loop: one network, from scratch, on clips in memory.

Here belong batches, augmentation, learning rates, precision, and what happens when memory or numbers run out. What must
NOT come here: scores and comparisons (`evaluation`), settings (`protocols`), networks (`networks`, `architectures`).

Legend: N clips, T frames, C channels, H, W pixels, B batch, K classes.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import TensorDataset

from lvdd_assets.distill import paper
from lvdd_assets.distill.architectures import build_network
from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.protocols import Augmentation, Protocol

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of updates done and the number there will be."""

_WARM_UP = 0.3
_STEP_AT = 0.5  # the paper's: after half of the epochs
_CROP_SHARE, _SHIFT_SHARE = 8, 4
# A set takes at most this share of a GPU's free memory; a larger one stays in the host's and is sent batch by batch.
_RESIDENT_SHARE = 0.5
# Reading a loss from a GPU waits for all that it was given to do; one look at so many losses hardly does.
_LOSSES_A_LOOK = 50


class DivergedError(ValueError):
    """A loss or a logit was not finite. The message says at which step."""


@dataclass(frozen=True)
class Run:
    """One training: a protocol, a seed, the number of updates, and where."""

    protocol: Protocol
    seed: int
    num_updates: int
    progress: Progress | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.num_updates < 1:
            raise ValueError(f"got num_updates = {self.num_updates}; expected at least 1")


def train(clips: TensorDataset, num_classes: int, run: Run) -> nn.Module:
    """Trains a network from scratch. The same arguments, number of threads and machine give the same network, bit by
    bit; the caller's random state stays.

    Args:
        clips: uint8 [N, T, C, H, W] and labels, int64 [N] or, soft, float32 [N, K] that add up to 1.
        num_classes: K.
        run: how.

    Raises:
        DivergedError: the loss is not finite.
    """
    _, frames, _, size, _ = clips.tensors[0].shape
    device = torch.device(run.device)
    cuda_devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda_devices), repeatable():
        # Not torch.manual_seed: that would seed every GPU, of which fork_rng restores only the ones named.
        torch.default_generator.manual_seed(run.seed)
        if cuda_devices:
            torch.cuda.default_generators[device.index or 0].manual_seed(run.seed)
        network = build_network(run.protocol.network, num_classes, frames=frames, size=size, widths=run.protocol.widths)
        network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        _update(network, _resident(clips, device), run)
    return network


def repeatable() -> contextlib.AbstractContextManager[None]:
    """Within it a GPU's convolutions give the same bits each time, whatever the caller has set.

    `enabled` must be said: without it, `flags` turns cuDNN off, and convolutions take twenty times as long.
    `benchmark` would choose among kernels by the clock, and not always the same.
    """
    context: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True
    )
    return context


def _resident(clips: TensorDataset, device: torch.device) -> TensorDataset:
    """The set on the device where there is room for it."""
    if device.type != "cuda":
        return clips
    free, _ = torch.cuda.mem_get_info(device)
    if sum(tensor.nbytes for tensor in clips.tensors) > _RESIDENT_SHARE * free:
        return clips
    return TensorDataset(*(tensor.to(device) for tensor in clips.tensors))


def _update(network: nn.Module, clips: TensorDataset, run: Run) -> None:
    protocol, num_updates = run.protocol, run.num_updates
    optimizer = torch.optim.SGD(
        network.parameters(), protocol.learning_rate, protocol.momentum, weight_decay=protocol.weight_decay
    )
    rate = _cycle if protocol.schedule == "one-cycle" else _step
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate((step + 0.5) / num_updates))
    generator = torch.Generator().manual_seed(run.seed)
    batch_size = min(protocol.batch_size, len(clips)) if protocol.counting == "epochs" else protocol.batch_size
    batches = _batches(len(clips), batch_size, generator, whole_epochs=protocol.counting == "epochs")
    gradients = _Gradients(network, optimizer, run)
    losses = _Losses(run, a_look=1 if gradients.device.type == "cpu" else _LOSSES_A_LOOK)
    network.train()
    for step in range(1, num_updates + 1):
        clips_BTCHW, labels_B = clips[_sent(next(batches), clips.tensors[0].device)]
        clips_BTCHW = augment(clips_BTCHW, protocol.augmentation, generator)
        losses.add(gradients.of(clips_BTCHW, labels_B, step), step)
        if protocol.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), protocol.clip_norm)
        optimizer.step()
        schedule.step()
        if run.progress is not None:
            run.progress(step, num_updates)


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor on the device, without waiting for what a GPU still has to do."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass
class _Losses:
    """Ends a training whose loss is not finite. A GPU is asked once for many updates, so that it need not wait for the
    processor after each; what it computes behind the first such loss is thrown away."""

    run: Run
    a_look: int
    waiting: list[torch.Tensor] = field(default_factory=list)

    def add(self, loss: torch.Tensor, step: int) -> None:
        self.waiting.append(loss)
        if len(self.waiting) < self.a_look and step < self.run.num_updates:
            return
        protocol, first = self.run.protocol, step - len(self.waiting) + 1
        for at, found in enumerate(torch.stack(self.waiting).tolist(), first):
            if not math.isfinite(found):
                raise DivergedError(
                    f"the loss is {found} at step {at} of {self.run.num_updates} (seed {self.run.seed}); expected a "
                    f"finite number: lower learning_rate (now {protocol.learning_rate}) or clip_norm (now "
                    f"{protocol.clip_norm})"
                )
        self.waiting.clear()


class _Gradients:
    """Gradients of a batch's mean loss, in pieces where memory asks for it."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, run: Run) -> None:
        self.network, self.optimizer, self.num_updates = network, optimizer, run.num_updates
        self.device, self.precision, self.pieces = torch.device(run.device), precision_for(run.device), 1

    def of(self, clips_BTCHW: torch.Tensor, labels_B: torch.Tensor, step: int) -> torch.Tensor:
        """Fills the network's gradients and returns the loss, which lies on the device."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._backward(clips_BTCHW, labels_B)
            except RuntimeError as error:
                if not _is_out_of_memory(error) or self.pieces >= len(clips_BTCHW):
                    raise
            self.pieces *= 2
            logger.warning(
                "out of memory at step %d of %d: batches of %d clips are computed in %d pieces from here on; the "
                "update is made of all of them",
                step,
                self.num_updates,
                len(clips_BTCHW),
                self.pieces,
            )

    def _backward(self, clips_BTCHW: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        losses = []
        for clips, labels in zip(clips_BTCHW.chunk(self.pieces), labels_B.chunk(self.pieces), strict=True):
            with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                logits = self.network(clips.to(self.device))
            loss = nn.functional.cross_entropy(logits.float(), labels.to(self.device))
            loss = loss * (len(clips) / len(clips_BTCHW))
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch has an exception of its own for GPUs; the CPU's allocator only has words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def augment(clips_BTCHW: torch.Tensor, kinds: tuple[Augmentation, ...], generator: torch.Generator) -> torch.Tensor:
    """Changes each clip at random by the named kinds (see `Protocol.augmentation`): uint8 [B, T, C, H, W].

    A whole clip is changed alike, so that motion stays motion.
    """
    count, frames, channels, height, width = clips_BTCHW.shape
    device = clips_BTCHW.device
    if "crop" in kinds:
        most = max(1, height // _CROP_SHARE)
        offsets = _sent(torch.randint(-most, most + 1, (count, 2), generator=generator), device)
        rows = (torch.arange(height, device=device) + offsets[:, :1]).clamp(0, height - 1)
        columns = (torch.arange(width, device=device) + offsets[:, 1:]).clamp(0, width - 1)
        places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
        pictures = clips_BTCHW.reshape(count, frames * channels, -1)
        clips_BTCHW = pictures.gather(2, places.expand_as(pictures)).view(clips_BTCHW.shape)
    if "shift" in kinds:
        most = max(1, frames // _SHIFT_SHARE)
        offsets = _sent(torch.randint(-most, most + 1, (count, 1), generator=generator), device)
        times = (torch.arange(frames, device=device) + offsets).clamp(0, frames - 1)
        clips_BTCHW = clips_BTCHW[torch.arange(count, device=device)[:, None], times]
    if "flip" in kinds:
        mirrored_B = _sent(torch.rand(count, generator=generator) < 0.5, device)
        clips_BTCHW = torch.where(mirrored_B.view(-1, 1, 1, 1, 1), clips_BTCHW.flip(-1), clips_BTCHW)
    return clips_BTCHW


def _cycle(done: float) -> float:
    """Part of the peak learning rate when part `done` of the training is behind: up in a line, down in a cosine."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))


def _step(done: float) -> float:
    return 1.0 if done < _STEP_AT else paper.TRAINING_DECAY_FACTOR


def _batches(
    num_clips: int, batch_size: int, generator: torch.Generator, *, whole_epochs: bool = False
) -> Iterator[torch.Tensor]:
    """Indices of batches without end, cut from one permutation of the set after the other.

    All are full and run over from one permutation to the next; with `whole_epochs` the last of each is what remains.
    """
    if whole_epochs:
        while True:
            yield from torch.randperm(num_clips, generator=generator).split(batch_size)
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(num_clips, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
