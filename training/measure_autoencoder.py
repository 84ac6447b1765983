"""Measure autoencoders on clips that the embedded one was not trained on: the table of its model card.

    python training/measure_autoencoder.py --videos FOLDER --clips FOLDER --autoencoder embedded-2d --autoencoder FOLDER

Clips have 8 frames, 4 source frames apart, 64 × 64 pixels. PSNR is the mean over clips, each over all its frames and
colours, after rounding to uint8. Below each autoencoder stands the same with its decoder's weights quantised, and what
those weights take.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numcodecs import Zstd
from train_autoencoder import DEMO_TEST_SEED, video_files

from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.quantization import calibrate, dequantize
from lvdd_assets.distill.vae import VideoAutoencoder, build_decoder, load_autoencoder
from lvdd_assets.distill.video import read_clips

SHAPE = ClipShape(frames=8, stride=4, size=64)


def psnr(clips_NTCHW: np.ndarray, decoded_NTCHW: np.ndarray) -> float:
    """Mean over clips of the peak signal-to-noise ratio in dB; uint8 arrays."""
    error_N = ((clips_NTCHW.astype(np.float32) - decoded_NTCHW) ** 2).mean(axis=(1, 2, 3, 4))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error_N, 1e-9))))


def demo_clips(num_clips: int) -> np.ndarray:
    """Fresh clips of the demo generator, all motions in turn: uint8 [N, T, C, H, W]."""
    # Seeds behind those that the training log was measured on.
    seeds = range(DEMO_TEST_SEED + 1000, DEMO_TEST_SEED + 1000 + num_clips)
    clips = [render_clip(MOTIONS[i % len(MOTIONS)], seed=seed)[::3] for i, seed in enumerate(seeds)]
    return np.stack(clips).transpose(0, 1, 4, 2, 3)


def read_all(files: list[Path]) -> np.ndarray:
    """One clip of each file: uint8 [N, T, C, H, W]."""
    return np.stack([read_clips(path, SHAPE, Sampling())[0].frames_TCHW for path in files])


def frames_per_second(autoencoder: VideoAutoencoder, clips_NTCHW: np.ndarray) -> tuple[float, float]:
    """Speed of encode and of decode on this machine, float32."""
    num_frames = clips_NTCHW.shape[0] * clips_NTCHW.shape[1]
    start = time.perf_counter()
    latents_NTChw = autoencoder.encode(clips_NTCHW)
    middle = time.perf_counter()
    autoencoder.decode(latents_NTChw)
    return num_frames / (middle - start), num_frames / (time.perf_counter() - middle)


def measure(name: str, sets: dict[str, np.ndarray]) -> None:
    """Print the rows of one autoencoder."""
    autoencoder = load_autoencoder(name)
    latents = {key: autoencoder.encode(clips) for key, clips in sets.items()}
    batch = torch.from_numpy(latents["fresh demo clips"]).flatten(0, 1)[:256]
    for bits in (None, 8, 6):
        decoder, stored, coded = autoencoder.decoder(), "", ""
        if bits is None:
            weights = "float32"
        else:
            weights = f"{bits} bits"
            quantized = calibrate(decoder, latents=batch, forward=lambda module, part: module(part), bits=bits)
            decoder = build_decoder(autoencoder.decoder_spec)
            decoder.load_state_dict(dequantize(quantized))
            stored, coded = f"{quantized.stored_bytes:,}", f"{len(Zstd(22).encode(quantized.to_bytes())):,}"
        scores = [f"{psnr(sets[key], decoder.decode(value)):.2f}" for key, value in latents.items()]
        print("|", " | ".join([Path(name).name, weights, stored, coded, *scores]), "|", flush=True)
    encode, decode = frames_per_second(autoencoder, sets["fresh demo clips"])
    print(f"{Path(name).name}: {encode:.0f} frames/s encoded, {decode:.0f} decoded", file=sys.stderr)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="the folder that training read; its held-out files")
    parser.add_argument("--clips", type=Path, action="append", default=[], help="folder of <class>/<video>; repeatable")
    parser.add_argument("--autoencoder", action="append", required=True, help="name or folder; repeatable")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sets = {"held-out free videos": read_all(video_files(args.videos, held_out=True))}
    sets["fresh demo clips"] = demo_clips(64)
    sets |= {folder.name: read_all(sorted(folder.glob("*/*.*"))) for folder in args.clips}
    columns = [f"{name} ({len(clips)} clips)" for name, clips in sets.items()]
    print("|", " | ".join(["autoencoder", "decoder", "bytes", "after zstd", *columns]), "|")
    print("|---|---|---:|---:" + "|---:" * len(columns) + "|")
    for name in args.autoencoder:
        measure(name, sets)


if __name__ == "__main__":
    main()
