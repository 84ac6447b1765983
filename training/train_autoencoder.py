"""Train the autoencoders that ship.

Three sources and nothing else may train weights that ship: a folder of free videos (`--videos`), the demo generator
under seeds that no demo dataset uses, and photographs that scikit-image and scikit-learn carry.

    pip install 'lvdd-assets[training]'
    python training/train_autoencoder.py 2d --videos FOLDER --out FOLDER --log FILE --minutes 80
    python training/train_autoencoder.py 3d --videos FOLDER --out FOLDER --log FILE --minutes 80 \\
        --initial FOLDER/embedded-2d

`2d` trains one encoder with two decoders: FOLDER/embedded-2d and FOLDER/embedded-2d-large. `3d` trains
FOLDER/embedded-3d.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from sources import Sources, fresh_demo_clips, held_out_clips
from torch import Tensor

from lvdd_assets.distill.tiny_video import AutoencoderTinyVideo
from lvdd_assets.distill.vae_training import Schedule, Trainee, export, train

TERMS = ("mse", "l1", "edges", "coarse", "kl", "moments")
ENCODER_2D = {"encoder_block_out_channels": (32,) * 4, "num_encoder_blocks": (0, 1, 2, 2)}
SMALL = {"decoder_block_out_channels": (24,) * 4, "num_decoder_blocks": (1, 1, 1, 0)}
LARGE = {"decoder_block_out_channels": (48,) * 4, "num_decoder_blocks": (4, 3, 1, 0)}


def build_2d(initial: Path | None) -> Trainee:
    """One encoder, a small and a large decoder; the encoder and the small decoder may start from trained weights."""
    small = AutoencoderTiny(**ENCODER_2D, **SMALL)
    if initial:
        small = AutoencoderTiny.from_pretrained(initial, local_files_only=True, low_cpu_mem_usage=False)
    large = AutoencoderTiny(**ENCODER_2D, **LARGE)
    with torch.no_grad():  # an untrained decoder's first errors would drown those of a trained one
        large.decoder.layers[-1].weight.mul_(0.05)
    return Trainee(small, large.decoder)


def build_3d(initial: Path | None) -> Trainee:
    """Causal in time: 4 frames and 8 × 8 pixels to one latent of 4 channels. Starts from a 2D autoencoder."""
    if not initial:
        return Trainee(AutoencoderTinyVideo(**ENCODER_2D, **SMALL))
    frames = AutoencoderTiny.from_pretrained(initial, local_files_only=True, low_cpu_mem_usage=False)
    return Trainee(AutoencoderTinyVideo.from_frames(frames))


@torch.no_grad()
def unit_scale(trainee: Trainee, next_batch: Callable[[], Tensor]) -> dict[str, float]:
    """What makes the latents unit-scale: the configuration's factor and shift, measured on training batches."""
    latents = torch.cat([trainee.posterior(next_batch())[0].flatten() for _ in range(64)])
    return {"scaling_factor": round(1 / float(latents.std()), 4), "shift_factor": round(float(latents.mean()), 4)}


def export_all(trainee: Trainee, folder: Path, **changes: float) -> None:
    """Writes every autoencoder of a trainee."""
    if trainee.spec.is_temporal:
        export(trainee.model, folder / "embedded-3d", **changes)
        return
    export(trainee.model, folder / "embedded-2d")
    for decoder in trainee.more_decoders:
        large = AutoencoderTiny(**ENCODER_2D, **LARGE)
        large.encoder.load_state_dict(trainee.model.encoder.state_dict())
        large.decoder.load_state_dict(decoder.state_dict())
        export(large, folder / "embedded-2d-large")


def logger(args: argparse.Namespace, sets: list[Tensor]) -> Callable[[int, float, dict[str, float], Trainee], None]:
    """What is called after each step: adds up the terms, now and then measures, logs and exports."""
    log = csv.writer(args.log.open("w", newline="", buffering=1))
    log.writerow(["step", "seconds", *TERMS, "held_out_psnr", "demo_psnr"])
    start = time.monotonic()
    sums = dict.fromkeys(TERMS, 0.0)

    def after_step(step: int, _done: float, terms: dict[str, float], average: Trainee) -> None:
        for name, value in terms.items():
            sums[name] += value / args.log_every
        if (step + 1) % args.log_every:
            return
        scores = ["/".join(f"{score:.3f}" for score in average.mean_psnrs(clips)) for clips in sets]
        row = [step + 1, round(time.monotonic() - start), *(f"{sums[name]:.5f}" for name in TERMS), *scores]
        log.writerow(row)
        print(*row, flush=True)
        sums.update(dict.fromkeys(TERMS, 0.0))
        export_all(average, args.out)

    return after_step


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("2d", "3d"))
    parser.add_argument("--videos", type=Path, required=True, help="folder of free videos, see training/README.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for the autoencoders' folders")
    parser.add_argument("--log", type=Path, required=True, help="CSV file of the training log")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="number of updates; the same count gives the same weights")
    length.add_argument("--minutes", type=float, help="wall time instead of a number of updates")
    parser.add_argument("--initial", type=Path, help="weights of embedded-2d to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--demo-clips", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="for machines that compute in it")
    parser.add_argument("--log-every", type=int, default=250)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", message=".*block_out_channels.*")
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    sources = Sources.read(args.videos, num_demo_clips=args.demo_clips)
    sets = [clips.to(args.device) for clips in (held_out_clips(args.videos), fresh_demo_clips(16))]
    build = build_2d if args.kind == "2d" else build_3d

    def copy_of() -> Trainee:
        return build(args.initial).to(args.device)

    def next_batch() -> Tensor:
        if args.kind == "2d":
            return sources.batch(16, 1, rng).to(args.device)
        num_clips, num_frames = ((4, 8), (2, 16))[int(rng.random() < 0.2)]  # later frames have more to look back on
        return sources.batch(num_clips, num_frames, rng).to(args.device)

    trained = train(
        copy_of(),
        next_batch,
        Schedule(args.steps, args.minutes, args.learning_rate),
        copy_of=copy_of,
        seed=args.seed,
        after_step=logger(args, sets),
        dtype=torch.bfloat16 if args.bfloat16 else torch.float32,
    )
    scale = unit_scale(trained, next_batch) if trained.spec.is_temporal else {}
    export_all(trained, args.out, **scale)
    print("held-out, demo PSNR:", *(trained.mean_psnrs(clips) for clips in sets))


if __name__ == "__main__":
    main()
