"""Small autoencoders with random weights, one of each class, for the tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLCogVideoX, AutoencoderKLWan, AutoencoderTiny

from lvdd_assets.distill.tiny_video import AutoencoderTinyVideo

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
FRAME_KINDS = ("AutoencoderTiny", "AutoencoderKL")
CLIP_KINDS = ("AutoencoderTinyVideo", "AutoencoderKLCogVideoX", "AutoencoderKLWan")
KINDS = FRAME_KINDS + CLIP_KINDS
_TINY_STAGES: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (0, 1, 1),
    "decoder_block_out_channels": (6, 6, 6),
    "num_decoder_blocks": (1, 0, 1),
}


def small_model(kind: str) -> Any:
    """A model of that class; 4 × 4 pixels a latent, and 4 frames for those that see clips."""
    torch.manual_seed(0)
    if kind == "AutoencoderTiny":
        return AutoencoderTiny(
            **_TINY_STAGES,
            scaling_factor=1.5,
        )
    if kind == "AutoencoderTinyVideo":
        model = AutoencoderTinyVideo(
            **_TINY_STAGES,
            temporal_channels=8,
            scaling_factor=0.9,
        )
        with torch.no_grad():  # as built, temporal blocks do nothing yet
            for name, parameter in model.named_parameters():
                if ".clips." in name:
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        return model
    if kind == "AutoencoderKLCogVideoX":
        model = AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 16),
            down_block_types=("CogVideoXDownBlock3D",) * 3,
            up_block_types=("CogVideoXUpBlock3D",) * 3,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.7,
        )
        with torch.no_grad():  # random weights give nearly grey frames, which rounding to uint8 would make alike
            model.decoder.conv_out.conv.weight.mul_(20)
        return model
    if kind == "AutoencoderKLWan":
        return AutoencoderKLWan(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            latents_mean=[0.1, 0.2, 0.3, 0.4],
            latents_std=[0.5, 1.0, 1.5, 2.0],
        )
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    )


def random_clips(num_clips: int = 3, num_frames: int = 2, height: int = 16, width: int = 16) -> np.ndarray:
    """uint8 [N, T, 3, H, W], every pixel drawn by itself: no frame is like another."""
    return np.random.default_rng(0).integers(0, 256, (num_clips, num_frames, 3, height, width), dtype=np.uint8)


def edit_config(folder: Path, **changes: object) -> None:
    """Changes keys of a folder's configuration."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
