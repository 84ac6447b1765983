"""The decoders of `AutoencoderTiny` and `AutoencoderTinyVideo`, in plain torch.

A release with an embedded decoder is read with these alone: diffusers, its hub client and what they bring along stay
out of the base install. `FrameDecoder` is the network of diffusers' `DecoderTiny` (TAESD, Bohan 2023), with the same
names of weights and the same results to the bit, which a test holds it to. What must NOT come here: encoders, loading
of weights, other autoencoders (`latent_decoders` imports those from diffusers).

Legend: N clips, T frames, T' latent frames, C channels, H, W pixels; h, w latent; F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NUM_HALVINGS = 2
"""How often `AutoencoderTinyVideo` makes one frame of two."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "swish": nn.SiLU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
}


class FrameDecoder(nn.Module):
    """Frames from latents: [N, C, h, w] to [N, 3, H, W] in about [-1, 1].

    Args:
        in_channels: C.
        out_channels: colours of a frame.
        num_blocks: residual blocks of each stage; between two stages the frame is enlarged.
        block_out_channels: channels of each stage.
        upsampling: how many times a frame is enlarged between two stages.
        act_fn: name of the activation.
        upsample_fn: `nn.Upsample`'s mode.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: Sequence[int],
        block_out_channels: Sequence[int],
        upsampling: int,
        act_fn: str,
        upsample_fn: str,
    ) -> None:
        super().__init__()
        activation = _ACTIVATIONS[act_fn]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, block_out_channels[0], 3, padding=1), activation()]
        for stage, (count, channels) in enumerate(zip(num_blocks, block_out_channels, strict=True)):
            is_last = stage == len(num_blocks) - 1
            layers += [_FrameBlock(channels, activation) for _ in range(count)]
            if not is_last:
                layers.append(nn.Upsample(scale_factor=upsampling, mode=upsample_fn))
            layers.append(nn.Conv2d(channels, out_channels if is_last else channels, 3, padding=1, bias=is_last))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents_NChw: Tensor) -> Tensor:
        """Pixels, not clamped."""
        pixels: Tensor = self.layers(torch.tanh(latents_NChw / 3) * 3)
        return pixels.mul(2).sub(1)


class _FrameBlock(nn.Module):
    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.fuse = nn.ReLU()

    def forward(self, features_NFhw: Tensor) -> Tensor:
        fused: Tensor = self.fuse(self.conv(features_NFhw) + features_NFhw)
        return fused


class ClipDecoder(nn.Module):
    """Clips from latents: [N, T', C, h, w] to [N, 4 T', 3, H, W]; causal, as `tiny_video` says.

    Args:
        frames: the 2D half, from F features.
        num_features: F.
        num_blocks: temporal blocks at each of the three rates of frames.
        latent_channels: C.
    """

    def __init__(self, frames: FrameDecoder, num_features: int, num_blocks: int, latent_channels: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(latent_channels, num_features, 1)
        layers: list[nn.Module] = [TemporalBlocks(num_features, num_blocks)]
        for _ in range(NUM_HALVINGS):
            layers += [_Double(num_features), TemporalBlocks(num_features, num_blocks)]
        self.clips = nn.Sequential(*layers)
        self.frames = frames

    def forward(self, latents_NTChw: Tensor) -> Tensor:
        """Pixels, not clamped."""
        return by_frame(self.frames, self.clips(by_frame(self.features, latents_NTChw)))


class TemporalBlocks(nn.Sequential):
    """Residual blocks over [N, T, F, h, w]: each sees a frame's features and those of the frame before."""

    def __init__(self, num_features: int, num_blocks: int) -> None:
        super().__init__(*(_TemporalBlock(num_features) for _ in range(num_blocks)))


class _TemporalBlock(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        last = nn.Conv2d(num_features, num_features, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.conv = nn.Sequential(
            nn.Conv2d(2 * num_features, num_features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(num_features, num_features, 3, padding=1),
            nn.ReLU(),
            last,
        )

    def forward(self, features_NTFhw: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(features_NTFhw[:, :1]), features_NTFhw[:, :-1]], dim=1)
        both = torch.cat([features_NTFhw, before], dim=2)
        return features_NTFhw + by_frame(self.conv, both)


class _Double(nn.Module):
    """One frame into two."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_features, 2 * num_features, 1, bias=False)
        with torch.no_grad():
            eye = torch.eye(num_features)[:, :, None, None]
            self.conv.weight.copy_(torch.cat([eye, eye], dim=0))

    def forward(self, features_NTFhw: Tensor) -> Tensor:
        return by_frame(self.conv, features_NTFhw).unflatten(2, (2, -1)).flatten(1, 2)


def by_frame(layer: nn.Module, items: Tensor) -> Tensor:
    """A layer for frames over [N, T, ...]."""
    made: Tensor = layer(items.flatten(0, 1))
    return made.unflatten(0, items.shape[:2])


class FrameModel(nn.Module):
    """A `FrameDecoder` under the names that the weights of an `AutoencoderTiny` have."""

    def __init__(self, decoder: FrameDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def decode(self, latents_NChw: Tensor) -> Tensor:
        """Frames [N, 3, H, W]."""
        frames: Tensor = self.decoder(latents_NChw)
        return frames


class ClipModel(nn.Module):
    """A `ClipDecoder` under the names that the weights of an `AutoencoderTinyVideo` have."""

    def __init__(self, decoder: ClipDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def decode(self, latents_NCThw: Tensor) -> Tensor:
        """Clips [N, 3, T, H, W]."""
        clips: Tensor = self.decoder(latents_NCThw.transpose(1, 2))
        return clips.transpose(1, 2)
