"""Measure autoencoders on clips that the embedded ones were not trained on: the tables of docs/autoencoders.md.

    python training/measure_autoencoder.py --videos FOLDER --clips FOLDER --autoencoder embedded-2d --autoencoder FOLDER

Clips have 8 frames, 4 source frames apart, 64 × 64 pixels. PSNR is the mean over clips, each over all its frames and
colours, after rounding to uint8. Below each autoencoder stands the same with its decoder quantised, and what that takes
in a release. The second table says from how many clips on the larger of two decoders pays for itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sources import DEMO_TEST_SEED, video_files

from lvdd_assets.distill import class_coding, tucker
from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.decoder_quantization import Reference, quantize_decoder
from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.vae import VideoAutoencoder, load_autoencoder
from lvdd_assets.distill.video import read_clips

SHAPE = ClipShape(frames=8, stride=4, size=64)
BITS = (8, 6, 4)
STEPS = tuple(0.125 * 2 ** (i / 2) for i in range(13))
NUM_CALIBRATE = 16


def mean_psnr(clips_NTCHW: np.ndarray, decoded_NTCHW: np.ndarray) -> float:
    """Mean over clips of the PSNR in dB; uint8 arrays."""
    return float(np.mean([psnr(clip, decoded) for clip, decoded in zip(clips_NTCHW, decoded_NTCHW, strict=True)]))


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
    latents = autoencoder.encode(clips_NTCHW)
    middle = time.perf_counter()
    autoencoder.decode(latents, num_frames=SHAPE.frames)
    return num_frames / (middle - start), num_frames / (time.perf_counter() - middle)


def measure(name: str, sets: dict[str, np.ndarray], bits: Sequence[int]) -> None:
    """Print the rows of one autoencoder: float32, then each number of bits."""
    autoencoder = load_autoencoder(name)
    latents = {key: autoencoder.encode(clips) for key, clips in sets.items()}
    values = int(np.prod(autoencoder.latent_shape(SHAPE)))
    few = {key: slice(None, None, max(1, len(clips) // NUM_CALIBRATE)) for key, clips in sets.items()}
    key = list(sets)[-1]
    calibration = Reference(autoencoder.decoder(), latents[key][few[key]], sets[key][few[key]])
    for number in (None, *bits):
        decoder, stored = autoencoder.decoder(), f"{autoencoder.num_bytes()['decoder']:,}"
        if number is not None:
            quantized = quantize_decoder(calibration, bits=number)
            decoder, stored = quantized.decoder, f"{quantized.figures['release_bytes']:,}"
        decoded = {set_name: decoder.decode(value, num_frames=SHAPE.frames) for set_name, value in latents.items()}
        scores = [f"{mean_psnr(clips, decoded[set_name]):.2f}" for set_name, clips in sets.items()]
        weights = "float32" if number is None else f"{number} bits"
        print("|", " | ".join([Path(name).name, str(values), weights, stored, *scores]), "|", flush=True)
    encode, decode = frames_per_second(autoencoder, sets["fresh demo clips"])
    print(f"{Path(name).name}: {encode:.0f} frames/s encoded, {decode:.0f} decoded", file=sys.stderr)


def rate_and_quality(name: str, clips_NTCHW: np.ndarray, bits: int) -> tuple[int, list[float], list[float]]:
    """Bytes of the quantised decoder; for each step of `STEPS` the bytes a clip and the PSNR in dB."""
    autoencoder = load_autoencoder(name)
    latents = autoencoder.encode(clips_NTCHW)
    few = slice(None, None, max(1, len(latents) // NUM_CALIBRATE))
    quantized = quantize_decoder(Reference(autoencoder.decoder(), latents[few], clips_NTCHW[few]), bits=bits)
    result = tucker.decompose(latents)
    rates, scores = [], []
    for step in STEPS:
        coded = class_coding.ClassCoder(result).encode(step)
        given_back = class_coding.decode(coded)
        rates.append(len(coded.data) / len(clips_NTCHW))
        scores.append(mean_psnr(clips_NTCHW, quantized.decoder.decode(given_back, num_frames=SHAPE.frames)))
    return int(quantized.figures["release_bytes"]), rates, scores


def compare_sizes(names: Sequence[str], clips_NTCHW: np.ndarray, bits: int) -> None:
    """Print bytes a clip at equal PSNR, and from how many clips on another decoder beats the first."""
    curves = {name: rate_and_quality(name, clips_NTCHW, bits) for name in names}
    first_bytes, first_rates, first_scores = curves[names[0]]
    print("| PSNR | " + " | ".join(f"{Path(name).name}: bytes a clip | pays from" for name in names) + " |")
    print("|---:" + "|---:|---:" * len(names) + "|")
    for target in np.arange(23.0, 29.0, 0.5):
        cells = []
        for num_bytes, rates, scores in curves.values():
            if not min(scores) <= target <= max(scores):
                cells += ["–", "–"]
                continue
            rate = float(np.exp(np.interp(target, scores[::-1], np.log(rates[::-1]))))
            own = float(np.exp(np.interp(target, first_scores[::-1], np.log(first_rates[::-1]))))
            reached = min(first_scores) <= target <= max(first_scores)
            more, saved = num_bytes - first_bytes, own - rate
            pays = (
                "out of the first's reach" if not reached else f"{more / saved:,.0f} clips" if saved > 0 < more else "–"
            )
            cells += [f"{rate:.0f}", pays]
        print(f"| {target:.1f} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="the folder that training read; its held-out files")
    parser.add_argument("--clips", type=Path, action="append", default=[], help="folder of <class>/<video>; repeatable")
    parser.add_argument("--autoencoder", action="append", required=True, help="name or folder; repeatable")
    parser.add_argument("--bits", type=int, nargs="*", default=BITS, help="quantised decoders to measure")
    parser.add_argument("--compare-bits", type=int, default=4, help="bits of the decoders in the second table")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sets = {"held-out free videos": read_all(video_files(args.videos, held_out=True))}
    sets["fresh demo clips"] = demo_clips(64)
    sets |= {folder.name: read_all(sorted(folder.glob("*/*.*"))) for folder in args.clips}
    columns = [f"{name} ({len(clips)} clips)" for name, clips in sets.items()]
    print("|", " | ".join(["autoencoder", "latents a clip", "decoder", "bytes", *columns]), "|")
    print("|---|---:|---|---:" + "|---:" * len(columns) + "|")
    for name in args.autoencoder:
        measure(name, sets, args.bits)
    print()
    compare_sizes(args.autoencoder, list(sets.values())[-1], args.compare_bits)


if __name__ == "__main__":
    main()
