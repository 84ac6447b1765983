"""The training loop: one network, from scratch, on clips in memory.

Here belong batches, augmentation, learning rates, precision, and what happens when memory or numbers run out. What must
NOT come here: scores and comparisons (`evaluation`), settings (`protocols`), networks (`networks`, `architectures`).

Legend: N clips, T frames, C channels, H, W pixels, B batch, K classes.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    with torch.random.fork_rng(devices=cuda_devices), torch.backends.cudnn.flags(deterministic=True):
        # Not torch.manual_seed: that would seed every GPU, of which fork_rng restores only the ones named.
        torch.default_generator.manual_seed(run.seed)
        if cuda_devices:
            torch.cuda.default_generators[device.index or 0].manual_seed(run.seed)
        network = build_network(run.protocol.network, num_classes, frames=frames, size=size, widths=run.protocol.widths)
        network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        _update(network, _resident(clips, device), run)
    return network


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
    network.train()
    pieces = 1
    for step in range(1, num_updates + 1):
        chosen_B = next(batches)
        clips_BTCHW, labels_B = clips[chosen_B.to(clips.tensors[0].device)]
        clips_BTCHW = augment(clips_BTCHW, protocol.augmentation, generator)
        while True:
            optimizer.zero_grad(set_to_none=True)
            try:
                loss = _backward(network, clips_BTCHW, labels_B, pieces, torch.device(run.device))
                break
            except RuntimeError as error:
                if not _is_out_of_memory(error) or pieces >= len(chosen_B):
                    raise
            pieces *= 2
            logger.warning(
                "out of memory at step %d of %d: batches of %d clips are computed in %d pieces from here on; the "
                "update is made of all of them",
                step,
                num_updates,
                len(chosen_B),
                pieces,
            )
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} at step {step} of {num_updates} (seed {run.seed}); expected a finite number: "
                f"lower learning_rate (now {protocol.learning_rate}) or clip_norm (now {protocol.clip_norm})"
            )
        if protocol.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), protocol.clip_norm)
        optimizer.step()
        schedule.step()
        if run.progress is not None:
            run.progress(step, num_updates)


def _backward(
    network: nn.Module, clips_BTCHW: torch.Tensor, labels_B: torch.Tensor, pieces: int, device: torch.device
) -> float:
    """Gradients of a batch's mean loss, in pieces where memory asks for it; returns the loss."""
    precision, total = precision_for(str(device)), 0.0
    for clips, labels in zip(clips_BTCHW.chunk(pieces), labels_B.chunk(pieces), strict=True):
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = network(clips.to(device))
        loss = nn.functional.cross_entropy(logits.float(), labels.to(device)) * (len(clips) / len(clips_BTCHW))
        if not torch.isfinite(loss):
            return loss.item()
        loss.backward()
        total += loss.item()
    return total


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch has an exception of its own for GPUs; the CPU's allocator only has words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def augment(clips_BTCHW: torch.Tensor, kinds: tuple[Augmentation, ...], generator: torch.Generator) -> torch.Tensor:
    """Changes each clip at random by the named kinds (see `Protocol.augmentation`): uint8 [B, T, C, H, W].

    A whole clip is changed alike, so that motion stays motion.
    """
    count, frames, _, height, width = clips_BTCHW.shape
    if "crop" in kinds:
        most = max(1, height // _CROP_SHARE)
        offsets = torch.randint(-most, most + 1, (count, 2), generator=generator)
        rows = (torch.arange(height) + offsets[:, :1]).clamp(0, height - 1)
        columns = (torch.arange(width) + offsets[:, 1:]).clamp(0, width - 1)
        moved = [clip[..., rows[i], :][..., columns[i]] for i, clip in enumerate(clips_BTCHW)]
        clips_BTCHW = torch.stack(moved)
    if "shift" in kinds:
        most = max(1, frames // _SHIFT_SHARE)
        offsets = torch.randint(-most, most + 1, (count, 1), generator=generator)
        times = (torch.arange(frames) + offsets).clamp(0, frames - 1)
        clips_BTCHW = torch.stack([clip[times[i]] for i, clip in enumerate(clips_BTCHW)])
    if "flip" in kinds:
        mirrored_B = torch.rand(count, generator=generator) < 0.5
        clips_BTCHW = torch.where(
            mirrored_B.view(-1, 1, 1, 1, 1).to(clips_BTCHW.device), clips_BTCHW.flip(-1), clips_BTCHW
        )
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
