"""`AutoencoderTinyVideo`: a small causal 3D autoencoder, 4 frames and 8 × 8 pixels to one latent.

`AutoencoderTiny` of diffusers on each frame, and between its two halves a stack of temporal blocks at the size of the
latents, where they cost next to nothing: two poolings of two frames into one on the way in, two doublings on the way
out, and blocks that see a frame's features and those of the frame before (the design of TAEHV, Bohan 2024). A clip of
4k frames becomes k latent frames; each depends on its own and on earlier frames alone. The frames of a group of four
come out of different weights, so none is a copy of another, which a causal decoder that repeats its latents in time
(`AutoencoderKLCogVideoX` at 8k frames) makes of its first four.

`from_frames` starts from a trained 2D autoencoder: it then is that autoencoder on the mean of every four frames.

This module imports diffusers; import it late. The decoder is `tiny_decoders.ClipDecoder`, which does without.

Legend: N clips, T frames, T' latent frames, C channels, H, W pixels; h, w latent; F features.
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution, EncoderTiny
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from lvdd_assets.distill.tiny_decoders import NUM_HALVINGS, ClipDecoder, FrameDecoder, TemporalBlocks, by_frame

FRAMES_PER_LATENT = 4


class _Halve(nn.Module):
    """Two frames into one."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * num_features, num_features, 1, bias=False)
        with torch.no_grad():
            eye = torch.eye(num_features)[:, :, None, None]
            self.conv.weight.copy_(torch.cat([eye, eye], dim=1) / 2)

    def forward(self, features_NTFhw: Tensor) -> Tensor:
        pairs = features_NTFhw.unflatten(1, (-1, 2)).flatten(2, 3)
        return by_frame(self.conv, pairs)


class _Encoder(nn.Module):
    def __init__(self, frames: EncoderTiny, num_features: int, num_blocks: int, latent_channels: int) -> None:
        super().__init__()
        self.frames = frames
        layers: list[nn.Module] = []
        for _ in range(NUM_HALVINGS):
            layers += [TemporalBlocks(num_features, num_blocks), _Halve(num_features)]
        self.clips = nn.Sequential(*layers, TemporalBlocks(num_features, num_blocks))
        self.moments = nn.Conv2d(num_features, 2 * latent_channels, 1)

    def forward(self, clips_NTCHW: Tensor) -> Tensor:
        return by_frame(self.moments, self.clips(by_frame(self.frames, clips_NTCHW)))


class AutoencoderTinyVideo(ModelMixin, ConfigMixin):
    """See the module's docstring. `encode` and `decode` are those of the 3D autoencoders of diffusers.

    Args:
        in_channels: colours of a frame.
        out_channels: the same.
        latent_channels: C of the latents.
        encoder_block_out_channels: channels of `AutoencoderTiny`'s encoder, one entry a stage.
        num_encoder_blocks: its blocks.
        decoder_block_out_channels: channels of `AutoencoderTiny`'s decoder.
        num_decoder_blocks: its blocks.
        temporal_channels: F, features of a frame between the two.
        num_temporal_blocks: temporal blocks at each of the three rates of frames.
        act_fn: activation of the 2D parts.
        upsample_fn: how the decoder enlarges.
        scaling_factor: what makes the latents unit-scale.
        shift_factor: what is taken off before.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        encoder_block_out_channels: tuple[int, ...] = (32, 32, 32, 32),
        num_encoder_blocks: tuple[int, ...] = (0, 1, 2, 2),
        decoder_block_out_channels: tuple[int, ...] = (24, 24, 24, 24),
        num_decoder_blocks: tuple[int, ...] = (1, 1, 1, 0),
        temporal_channels: int = 48,
        num_temporal_blocks: int = 1,
        act_fn: str = "relu",
        upsample_fn: str = "nearest",
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()
        encoder = EncoderTiny(in_channels, temporal_channels, num_encoder_blocks, encoder_block_out_channels, act_fn)
        self.encoder = _Encoder(encoder, temporal_channels, num_temporal_blocks, latent_channels)
        decoder = FrameDecoder(
            temporal_channels, out_channels, num_decoder_blocks, decoder_block_out_channels, 2, act_fn, upsample_fn
        )
        self.decoder = ClipDecoder(decoder, temporal_channels, num_temporal_blocks, latent_channels)

    @classmethod
    def from_frames(cls, model: Any, *, temporal_channels: int = 48, num_temporal_blocks: int = 1) -> Any:
        """Starts from a trained `AutoencoderTiny`: its frames' latents are the first features."""
        names = ("encoder_block_out_channels", "num_encoder_blocks", "decoder_block_out_channels", "num_decoder_blocks")
        config = {name: tuple(model.config[name]) for name in names}
        config |= {name: model.config[name] for name in ("latent_channels", "act_fn", "upsample_fn")}
        made = cls(**config, temporal_channels=temporal_channels, num_temporal_blocks=num_temporal_blocks)
        channels = model.config["latent_channels"]
        with torch.no_grad():
            _copy(model.encoder, made.encoder.frames, outputs=channels)
            _copy(model.decoder, made.decoder.frames, inputs=channels)
            nn.init.zeros_(made.encoder.moments.weight)
            nn.init.zeros_(made.encoder.moments.bias)
            made.encoder.moments.bias[channels:] = -4.0  # a variance that is small beside the latents' own
            for channel in range(channels):
                made.encoder.moments.weight[channel, channel] = 1
                made.decoder.features.weight[:, channel] = 0
                made.decoder.features.weight[channel, :] = 0
                made.decoder.features.weight[channel, channel] = 1
                made.decoder.features.bias[channel] = 0
        return made

    def encode(self, clips_NCTHW: Tensor) -> AutoencoderKLOutput:
        """The posterior of latents [N, C, T / 4, h, w]; T is a multiple of 4."""
        if clips_NCTHW.shape[2] % FRAMES_PER_LATENT:
            raise ValueError(f"got {clips_NCTHW.shape[2]} frames, expected a multiple of {FRAMES_PER_LATENT}")
        moments = self.encoder(clips_NCTHW.transpose(1, 2)).transpose(1, 2)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    def decode(self, latents_NCThw: Tensor) -> DecoderOutput:
        """Clips [N, 3, 4 T', H, W] in about [-1, 1]."""
        return DecoderOutput(sample=self.decoder(latents_NCThw.transpose(1, 2)).transpose(1, 2))


def _copy(source: nn.Module, target: nn.Module, *, inputs: int = 0, outputs: int = 0) -> None:
    """Weights of a 2D half into one with more channels where it meets the temporal blocks; new inputs count nothing."""
    state = target.state_dict()
    for name, value in source.state_dict().items():
        if state[name].shape == value.shape:
            state[name].copy_(value)
        elif inputs and value.ndim == 4:
            state[name].zero_()
            state[name][:, :inputs].copy_(value)
        else:
            state[name][:outputs].copy_(value)
