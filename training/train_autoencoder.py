"""Train the embedded 2D autoencoder: a diffusers `AutoencoderTiny` with a small decoder.

Two sources, half and half: frames of a folder of free videos (`--videos`), cut at several scales, and frames of
the demo generator under seeds that no demo dataset uses. Nothing else may train weights that ship.

    python training/train_autoencoder.py --videos FOLDER --out FOLDER --log FILE --steps 22000

Legend: N frames, C channels, H, W pixels; h, w latent.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

SIZE = 64
SHORT_SIDES = (64, 64, 80, 96, 128)  # twice 64: whole frames are what a dataset of small clips looks like
HELD_OUT_EVERY = 8  # every eighth file, sorted by name, is never trained on
DEMO_SEED = 1_000_000  # first seed of the training clips; demo datasets use small seeds
DEMO_TEST_SEED = 2_000_000


def video_files(folder: Path, *, held_out: bool) -> list[Path]:
    """Files of the folder, sorted by name: either the training part or the held-out part."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".mp4", ".mkv", ".webm", ".avi", ".mov"})
    if len(files) < HELD_OUT_EVERY:
        raise ValueError(f"{len(files)} videos in {folder}, at least {HELD_OUT_EVERY} needed; see training/README.md")
    return [p for i, p in enumerate(files) if (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]


def read_frames(path: Path, *, short_side: int, every: int) -> np.ndarray:
    """Every `every`-th frame of a video, short side resized. Returns uint8 [N, H, W, C]."""
    frames = []
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i % every:
                continue
            scale = short_side / min(frame.width, frame.height)
            size = {"width": max(short_side, round(frame.width * scale))}
            size["height"] = max(short_side, round(frame.height * scale))
            frames.append(frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray())
    if not frames:
        raise ValueError(f"{path.name}: no frames could be decoded; remove the file or replace it")
    return np.stack(frames)


def demo_frames(num_clips: int, *, seed: int, every: int) -> np.ndarray:
    """Every `every`-th frame of `num_clips` demo clips, all motions in turn. Returns uint8 [N, H, W, C]."""
    from lvdd_assets.distill.demo import MOTIONS, render_clip

    clips = [render_clip(MOTIONS[i % len(MOTIONS)], seed=seed + i)[i % every :: every] for i in range(num_clips)]
    return np.concatenate(clips)


@dataclass
class FrameBank:
    """Frames in memory, and how a batch is drawn from them.

    Attributes:
        banks: for each short side, one uint8 array [N, H, W, C] per video.
        demo: uint8 [N, H, W, C], frames of the demo generator, or None to train on the videos alone.
    """

    banks: dict[int, list[np.ndarray]]
    demo: np.ndarray | None

    @classmethod
    def read(cls, files: list[Path], *, every: int, num_demo_clips: int) -> FrameBank:
        """Decode the videos at every scale and render the demo clips."""
        banks = {side: [read_frames(p, short_side=side, every=every) for p in files] for side in set(SHORT_SIDES)}
        return cls(banks, demo_frames(num_demo_clips, seed=DEMO_SEED, every=8) if num_demo_clips else None)

    def batch(self, size: int, rng: np.random.Generator) -> Tensor:
        """Random crops, flips and light colour jitter. Returns float32 [size, 3, 64, 64] in [-1, 1]."""
        frames = np.empty((size, SIZE, SIZE, 3), np.uint8)
        for i in range(size):
            if self.demo is not None and i % 2:
                frame = self.demo[rng.integers(len(self.demo))]
            else:
                videos = self.banks[SHORT_SIDES[rng.integers(len(SHORT_SIDES))]]
                video = videos[rng.integers(len(videos))]
                frame = video[rng.integers(len(video))]
            top, left = (rng.integers(side - SIZE + 1) for side in frame.shape[:2])
            frame = frame[top : top + SIZE, left : left + SIZE]
            frames[i] = frame[:, ::-1] if rng.random() < 0.5 else frame
        pixels_NCHW = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        gain = rng.uniform(0.8, 1.2, (size, 1, 1, 1)) * rng.uniform(0.93, 1.07, (size, 3, 1, 1))
        shift = rng.uniform(-0.15, 0.15, (size, 1, 1, 1))
        pixels_NCHW.mul_(torch.from_numpy(gain).float()).add_(torch.from_numpy(shift).float()).clamp_(-1, 1)
        return pixels_NCHW.contiguous(memory_format=torch.channels_last)


def loss_terms(decoded_NCHW: Tensor, frames_NCHW: Tensor, latents_NChw: Tensor) -> dict[str, Tensor]:
    """The weighted terms of the loss: squared error, absolute error, edges, coarse colours, latent scale."""
    error = decoded_NCHW - frames_NCHW
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    mean_C = latents_NChw.mean(dim=(0, 2, 3))
    std_C = latents_NChw.std(dim=(0, 2, 3))
    return {
        "mse": 4.0 * error.square().mean(),
        "l1": 0.5 * error.abs().mean(),
        "edges": 0.25 * edges,
        "coarse": 0.5 * nn.functional.avg_pool2d(error, 8).abs().mean(),
        "latent": 0.1 * (mean_C.square().mean() + (std_C - 1).square().mean()),
    }


def psnr(clip_NHWC: np.ndarray, decoded_NHWC: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 arrays."""
    error = np.mean((clip_NHWC.astype(np.float64) - decoded_NHWC) ** 2)
    return 10 * math.log10(255**2 / max(error, 1e-12))


@torch.no_grad()
def measure(model: AutoencoderTiny, clips: list[np.ndarray]) -> float:
    """Mean over clips of the PSNR in dB after encode and decode in float32; clips are uint8 [N, H, W, C]."""
    scores = []
    for clip_NHWC in clips:
        pixels = torch.from_numpy(clip_NHWC).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        decoded = model.decode(model.encode(pixels).latents).sample
        decoded_NHWC = decoded.add(1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1).byte().numpy()
        scores.append(psnr(clip_NHWC, decoded_NHWC))
    return float(np.mean(scores))


class Average:
    """Exponential moving average of a model's weights, warmed up so that early weights are forgotten."""

    def __init__(self, model: AutoencoderTiny, *, decay: float) -> None:
        self.model = AutoencoderTiny.from_config(model.config)
        self.model.load_state_dict(model.state_dict())
        self.model.requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: AutoencoderTiny, step: int) -> None:
        """Move the average towards the model's weights."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)

    def export(self, folder: Path) -> None:
        """Write the averaged weights as fp16 safetensors; a reader of the folder never sees half a file."""
        half = AutoencoderTiny.from_config(self.model.config)
        half.load_state_dict(self.model.state_dict())
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            half.half().save_pretrained(temporary, safe_serialization=True)
            config = json.loads((Path(temporary) / "config.json").read_text())
            for key in ("block_out_channels", "_name_or_path"):  # diffusers warns about the one; the other is a path
                config.pop(key, None)
            (Path(temporary) / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            for file in Path(temporary).iterdir():
                file.chmod(0o644)
                file.replace(folder / file.name)


def progress_of(args: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Steps and how much of the run is done, in [0, 1): by count if `--steps` is given, else by the clock."""
    start, step = time.monotonic(), 0
    while (done := step / args.steps if args.steps else (time.monotonic() - start) / 60 / args.minutes) < 1:
        if step == args.stop:
            return
        yield step, done
        step += 1


def build(args: argparse.Namespace) -> AutoencoderTiny:
    """The autoencoder to train: wide encoder, decoder small enough to be shipped inside a release."""
    if args.initial:
        return AutoencoderTiny.from_pretrained(args.initial, local_files_only=True, low_cpu_mem_usage=False)
    return AutoencoderTiny(
        encoder_block_out_channels=(args.encoder_channels,) * 4,
        num_encoder_blocks=tuple(args.encoder_blocks),
        decoder_block_out_channels=(args.decoder_channels,) * 4,
        num_decoder_blocks=tuple(args.decoder_blocks),
    )


def train(args: argparse.Namespace) -> None:
    """Train, log, and export the averaged weights every few minutes and at the end."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    bank = FrameBank.read(video_files(args.videos, held_out=False), every=args.every, num_demo_clips=args.demo_clips)
    held_out = [read_frames(p, short_side=SIZE, every=8) for p in video_files(args.videos, held_out=True)]
    held_out = [frames_NHWC[:, :SIZE, :SIZE] for frames_NHWC in held_out]
    demo = np.split(demo_frames(16, seed=DEMO_TEST_SEED, every=8), 16) if args.demo_clips else []
    model = build(args).to(memory_format=torch.channels_last)
    average = Average(model, decay=args.ema)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    count = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("encoder", "decoder")}
    print(
        f"{count} parameters; {sum(map(len, bank.banks[SIZE]))} video frames; "
        f"{0 if bank.demo is None else len(bank.demo)} demo frames",
        flush=True,
    )
    start = last_export = time.monotonic()
    sums: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        log = csv.writer(stack.enter_context(args.log.open("w", newline="", buffering=1)))
        log.writerow(["step", "seconds", "lr", "mse", "l1", "edges", "coarse", "latent", "held_out_psnr", "demo_psnr"])
        for step, done in progress_of(args):
            rate = args.learning_rate * min(1, (step + 1) / 300) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
            for group in optimiser.param_groups:
                group["lr"] = rate
            frames_NCHW = bank.batch(args.batch_size, rng)
            with torch.autocast("cpu", torch.bfloat16):
                latents_NChw = model.encode(frames_NCHW).latents.float()
                width = torch.rand(args.batch_size, 1, 1, 1)
                noise = (torch.rand_like(latents_NChw) - 0.5) * width
                decoded_NCHW = model.decode(latents_NChw + noise).sample.float()
            terms = loss_terms(decoded_NCHW, frames_NCHW, latents_NChw)
            optimiser.zero_grad(set_to_none=True)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise ValueError(f"the loss is {loss.item()} at step {step}; lower --learning-rate")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            average.update(model, step)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item()
            if (step + 1) % args.log_every == 0:
                scores = [f"{measure(average.model, clips):.3f}" if clips else "" for clips in (held_out, demo)]
                means = [f"{value / args.log_every:.5f}" for value in sums.values()]
                row = [step + 1, round(time.monotonic() - start), f"{rate:.2e}", *means, *scores]
                log.writerow(row)
                print(*row, flush=True)
                sums.clear()
            if time.monotonic() - last_export > 60 * args.export_minutes:
                average.export(args.out)
                last_export = time.monotonic()
    average.export(args.out)
    print(f"wrote {args.out} after {step + 1} steps; held-out PSNR {measure(average.model, held_out):.2f} dB")


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="folder of free videos, see training/README.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for config.json and the weights")
    parser.add_argument("--log", type=Path, required=True, help="CSV file of the training log")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="number of updates; the same count gives the same weights")
    length.add_argument("--minutes", type=float, help="wall time instead of a number of updates")
    parser.add_argument("--stop", type=int, help="leave a run of --steps after so many updates, its rate still high")
    parser.add_argument("--initial", type=Path, help="start from the weights of this folder instead of random ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights")
    parser.add_argument("--every", type=int, default=2, help="use every n-th frame of the videos")
    parser.add_argument("--demo-clips", type=int, default=1600, help="number of demo clips; 0 for none")
    parser.add_argument("--encoder-channels", type=int, default=32)
    parser.add_argument("--encoder-blocks", type=int, nargs=4, default=(0, 1, 2, 2))
    parser.add_argument("--decoder-channels", type=int, default=24)
    parser.add_argument("--decoder-blocks", type=int, nargs=4, default=(1, 1, 1, 0))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=250)
    parser.add_argument("--export-minutes", type=float, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", message=".*block_out_channels.*")
    train(args)


if __name__ == "__main__":
    main()
