"""Training of autoencoders: the loss, the averaged weights, the loop. Where the clips come from is the caller's affair.

Used by `training/train_autoencoder.py`, which makes the weights that ship, and by `lvdd train-vae`, which adapts them
to a dataset. The loss is the negative evidence lower bound of a Gaussian posterior (Kingma and Welling 2014; the
paper's autoencoders are trained with it), with reconstruction terms that the eye and a classifier care for:

    4 MSE + 0.5 L1 + 0.25 (differences of neighbours in space and time) + 0.5 L1 of 8 × 8 means
    + beta KL(q(z | x) ‖ N(0, I)) + 0.1 (moments of z away from mean 0, deviation 1)

A class with a posterior of its own (all but `AutoencoderTiny`) learns its variance. `AutoencoderTiny` has none: its
posterior has the latent as mean and a deviation drawn anew for each clip, up to that of a unit quantiser step, because
a release stores latents quantised.

Legend: N clips, T frames, C channels, H, W pixels; h, w latent. Pixels in [-1, 1].
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import quiet

KL_WEIGHT = 1e-4
_UNIT_STEP_DEVIATION = 1 / math.sqrt(12)  # of the error that a quantiser with step 1 makes
_WARMUP_STEPS = 300
_LAST_RATE = 0.02  # share of the learning rate with which training ends


@dataclass(frozen=True)
class Schedule:
    """How long to train and how fast. Exactly one of `steps` and `minutes` is set.

    Attributes:
        steps: number of updates; the same number gives the same weights on the same kind of machine.
        minutes: wall time instead.
        learning_rate: highest rate of AdamW; reached after a linear warm-up, then a cosine down to 2 % of it.
        average_decay: decay of the moving average of the weights, which is what comes out.
        kl_weight: beta, the weight of the KL term.
    """

    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 2e-3
    average_decay: float = 0.999
    kl_weight: float = KL_WEIGHT

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None) or (self.steps or self.minutes or 0) <= 0:
            raise ValueError(f"give either steps or minutes, above 0; got {self.steps = }, {self.minutes = }")

    def progress(self) -> Iterator[tuple[int, float]]:
        """Steps and how much of the run is done, in [0, 1)."""
        start, step = time.monotonic(), 0
        while True:
            done = step / self.steps if self.steps else (time.monotonic() - start) / 60 / (self.minutes or 1)
            if done >= 1:
                return
            yield step, done
            step += 1

    def rate(self, step: int, done: float) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / _WARMUP_STEPS) if not self.steps else min(1.0, 10 * (step + 1) / self.steps)
        return self.learning_rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


class Trainee(nn.Module):
    """A `diffusers` autoencoder as the loop sees it, with more decoders for the same latents if there are any."""

    def __init__(self, model: Any, *more_decoders: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.more_decoders = nn.ModuleList(more_decoders)
        name = type(model).__name__
        self.spec = DecoderSpec.from_config(name, model.config)
        if more_decoders and name != "AutoencoderTiny":
            raise ValueError(f"only AutoencoderTiny can be trained with more than one decoder, got {name}")

    def posterior(self, clips_NTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance: float [N, T', C, h, w] and one that broadcasts to it."""
        if self.spec.is_temporal:
            posterior = self.model.encode(clips_NTCHW.transpose(1, 2)).latent_dist
            return posterior.mean.transpose(1, 2), posterior.logvar.transpose(1, 2)
        shape = clips_NTCHW.shape[:2]
        encoded = self.model.encode(clips_NTCHW.flatten(0, 1))
        if hasattr(encoded, "latent_dist"):
            posterior = encoded.latent_dist
            return posterior.mean.unflatten(0, shape), posterior.logvar.unflatten(0, shape)
        mean = encoded.latents.unflatten(0, shape)
        deviation = torch.rand(len(mean), 1, 1, 1, 1, device=mean.device).clamp_min(1e-3) * _UNIT_STEP_DEVIATION
        return mean, 2 * deviation.log()

    def decode(self, latents_NTChw: Tensor) -> list[Tensor]:
        """Clips in about [-1, 1], one for each decoder."""
        if self.spec.is_temporal:
            return [self.model.decode(latents_NTChw.transpose(1, 2)).sample.transpose(1, 2)]
        frames = latents_NTChw.flatten(0, 1)
        decoded = [self.model.decode(frames).sample, *(decoder(frames) for decoder in self.more_decoders)]
        return [clip.unflatten(0, latents_NTChw.shape[:2]) for clip in decoded]

    @torch.no_grad()
    def mean_psnrs(self, clips_NTCHW: Tensor) -> list[float]:
        """Mean over clips of the PSNR in dB of what comes back from the posterior's mean, for each decoder.

        Args:
            clips_NTCHW: float [N, T, 3, H, W] in [-1, 1].
        """
        scores = []
        for clip in clips_NTCHW.split(1):
            decoded = self.decode(self.posterior(clip)[0])
            errors = [(one.clamp(-1, 1) - clip).square().mean().clamp_min(1e-12) for one in decoded]
            scores.append([float(10 * torch.log10(4 / error)) for error in errors])
        return torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()


def reconstruction_terms(decoded_NTCHW: Tensor, clips_NTCHW: Tensor) -> dict[str, Tensor]:
    """The weighted terms of the loss that compare clips: squared and absolute error, edges and motion, coarse colour.

    Args:
        decoded_NTCHW: float [N, T, 3, H, W].
        clips_NTCHW: the same shape; H and W at least 8.
    """
    error = (decoded_NTCHW - clips_NTCHW).float()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    if error.shape[1] > 1:
        edges = edges + error.diff(dim=1).abs().mean()
    return {
        "mse": 4.0 * error.square().mean(),
        "l1": 0.5 * error.abs().mean(),
        "edges": 0.25 * edges,
        "coarse": 0.5 * nn.functional.avg_pool2d(error.flatten(0, 1), 8).abs().mean(),
    }


def latent_terms(mean_NTChw: Tensor, log_variance: Tensor, *, kl_weight: float) -> dict[str, Tensor]:
    """The weighted terms that shape the latents: KL to the unit normal, in nats a latent, and the channels' moments."""
    variance = log_variance.exp()
    kl = 0.5 * (mean_NTChw.square() + variance - 1 - log_variance).mean()
    mean_C = mean_NTChw.mean(dim=(0, 1, 3, 4))
    second_C = (mean_NTChw.square() + variance).mean(dim=(0, 1, 3, 4))
    moments = mean_C.square().mean() + (second_C.sqrt() - 1).square().mean()
    return {"kl": kl_weight * kl, "moments": 0.1 * moments}


class Average:
    """Exponential moving average of weights, warmed up so that early weights are forgotten."""

    def __init__(self, trainee: Trainee, copy_of: Callable[[], Trainee], *, decay: float) -> None:
        self.trainee = copy_of()
        self.trainee.load_state_dict(trainee.state_dict())
        self.trainee.requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, trainee: Trainee, step: int) -> None:
        """Moves the average towards the present weights."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.trainee.parameters()), list(trainee.parameters()), weight)


def train(
    trainee: Trainee,
    next_batch: Callable[[], Tensor],
    schedule: Schedule,
    *,
    copy_of: Callable[[], Trainee],
    seed: int,
    after_step: Callable[[int, float, dict[str, float], Trainee], None] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Trainee:
    """Trains in place and returns the averaged weights.

    Args:
        trainee: what to train.
        next_batch: gives float32 [N, T, 3, H, W] in [-1, 1], on the trainee's device.
        schedule: how long and how fast.
        copy_of: makes another trainee of the same build, for the average.
        seed: of the noise; what `next_batch` draws is its own affair.
        after_step: called with the step, the share done, the values of the loss's terms and the averaged weights.
        dtype: what convolutions compute in.

    Raises:
        ValueError: the loss is not finite; the message says at which step.
    """
    average = Average(trainee, copy_of, decay=schedule.average_decay)
    torch.manual_seed(seed)  # now: building the copy draws initial weights
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    for step, done in schedule.progress():
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step, done)
        terms = _update(trainee, next_batch(), optimizer, schedule, dtype)
        if not math.isfinite(sum(terms.values())):
            raise ValueError(f"the loss is {sum(terms.values())} at step {step}; lower the learning rate")
        average.update(trainee, step)
        if after_step:
            after_step(step, done, terms, average.trainee)
    return average.trainee


def _update(
    trainee: Trainee, clips_NTCHW: Tensor, optimizer: torch.optim.Optimizer, schedule: Schedule, dtype: torch.dtype
) -> dict[str, float]:
    """One step of the optimiser; the values of the loss's terms, the decoders' summed."""
    with torch.autocast(clips_NTCHW.device.type, dtype, enabled=dtype != torch.float32):
        mean, log_variance = trainee.posterior(clips_NTCHW)
        mean, log_variance = mean.float(), log_variance.float()
        sample = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        decoded = trainee.decode(sample)
    terms: dict[str, Tensor] = {}
    for clips in decoded:
        for name, value in reconstruction_terms(clips, clips_NTCHW).items():
            terms[name] = terms.get(name, torch.zeros(())) + value
    terms |= latent_terms(mean, log_variance, kl_weight=schedule.kl_weight)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
    optimizer.step()
    return {name: value.item() for name, value in terms.items()}


def export(model: Any, folder: Path, **changes: object) -> None:
    """Writes a model as `config.json` and fp16 safetensors; a reader of the folder never sees half a file.

    Args:
        model: a `diffusers` autoencoder.
        folder: made if it is not there.
        **changes: keys of the configuration that get another value, e.g. the scaling factor measured after training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, quiet():
        half = type(model).from_config(model.config)
        half.load_state_dict(model.state_dict())
        half.half().save_pretrained(temporary, safe_serialization=True)
        config_file = Path(temporary) / "config.json"
        config = json.loads(config_file.read_text())
        config.pop("_name_or_path", None)  # a path of this machine
        if type(model).__name__ == "AutoencoderTiny":
            config.pop("block_out_channels", None)  # diffusers warns about it
        config |= changes
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for file in sorted(Path(temporary).iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)
