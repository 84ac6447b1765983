"""A decoder quantised for the latents that it will decode, and what that costs against the clips they stand for.

How weights become integers belongs to `weight_rounding`, how they are stored to `quantization`; here they meet a
decoder, clips, and the number of bits.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numcodecs import Zstd
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.latent_decoders import LatentDecoder, build_decoder, to_uint8
from lvdd_assets.distill.quantization import (
    QuantizedWeights,
    Scheme,
    dequantize,
    quantize_weights,
    quantized_share,
)
from lvdd_assets.distill.weight_rounding import calibrate

BITS_TRIED = (8, 6, 4)
# Enough for the statistics of a small decoder's layers, and seconds instead of minutes.
_MAX_CALIBRATION_FRAMES = 64
_RELEASE_LEVEL = 22  # of zstd, as in a release file


@dataclass(frozen=True)
class Reference:
    """What a quantised decoder is calibrated on and measured against: the full one, latents, the clips they stand for.

    Attributes:
        full: the decoder with its own weights.
        latents: float32 [N, T', C, h, w], as a release gives them back.
        originals: uint8 [N, T, 3, H, W].
    """

    full: LatentDecoder
    latents: NDArray[np.float32]
    originals: NDArray[np.uint8]

    def batch(self) -> Tensor:
        """A batch for the decoder's `forward`: frames, or clips for a temporal one; at most 64 frames, evenly taken."""
        latents = torch.from_numpy(self.latents)
        if not self.full.spec.is_temporal:
            latents = latents.flatten(0, 1)
            limit = _MAX_CALIBRATION_FRAMES
        else:
            limit = max(1, _MAX_CALIBRATION_FRAMES // self.originals.shape[1])
        indices = np.unique(np.linspace(0, len(latents) - 1, min(limit, len(latents))).round().astype(int))
        return latents[torch.from_numpy(indices)].contiguous()

    @functools.cached_property
    def full_clips(self) -> NDArray[np.uint8]:
        """What the full decoder makes of the latents."""
        return self.decode(self.full)

    @functools.cached_property
    def full_psnr(self) -> float:
        """PSNR of the full decoder to the originals, in dB."""
        return psnr(self.originals, self.full_clips)

    @torch.inference_mode()
    def decode(self, decoder: Any, *, dtype: torch.dtype = torch.float32) -> NDArray[np.uint8]:
        """Clips, uint8 [N, T, 3, H, W], by a `LatentDecoder` or by any callable with its `forward`."""
        num_frames = self.originals.shape[1]
        if isinstance(decoder, LatentDecoder) and dtype == torch.float32:
            return decoder.decode(self.latents, num_frames=num_frames)
        clips = []
        for latents in torch.from_numpy(self.latents).to(dtype).split(1):
            if self.full.spec.is_temporal:
                clips.append(to_uint8(decoder(latents))[:, :num_frames])
            else:
                clips.append(to_uint8(decoder(latents[0]))[None])
        return np.concatenate(clips)

    def psnr_to_full(self, decoder: Any, *, dtype: torch.dtype = torch.float32) -> float:
        """PSNR of a decoder to the full one, in dB."""
        return psnr(self.full_clips, self.decode(decoder, dtype=dtype))

    def loss(self, decoder: Any, *, dtype: torch.dtype = torch.float32) -> float:
        """How much lower a decoder's PSNR to the originals is than the full one's, in dB."""
        return self.full_psnr - psnr(self.originals, self.decode(decoder, dtype=dtype))


@dataclass(frozen=True)
class QuantizedDecoder:
    """Quantised weights and the decoder that has them.

    Attributes:
        figures: plain figures: parameters, bytes before and after, bits, scheme, share of values that are integers.
    """

    weights: QuantizedWeights
    decoder: LatentDecoder
    figures: dict[str, Any]


def quantize_decoder(calibration: Reference, *, bits: int, scheme: Scheme = "channels") -> QuantizedDecoder:
    """Quantises a decoder.

    Args:
        calibration: the decoder and what it is calibrated on.
        bits: of a weight.
        scheme: as in `quantization.quantize_weights`; "linear" is the paper's two stages and is not calibrated.
    """
    full = calibration.full
    if scheme == "linear":
        weights = quantize_weights(full, bits=bits, scheme=scheme)
    else:
        weights = calibrate(full, latents=calibration.batch(), forward=_forward, bits=bits)
    decoder = build_decoder(full.spec, trusted_classes=(full.spec.class_name,))
    decoder.load_state_dict(dequantize(weights))
    num_parameters = sum(value.numel() for value in full.state_dict().values())
    figures = {
        "num_parameters": num_parameters,
        "float32_bytes": 4 * num_parameters,
        "stored_bytes": weights.stored_bytes,
        "release_bytes": len(Zstd(_RELEASE_LEVEL).encode(weights.to_bytes())),
        "bits": bits,
        "scheme": scheme,
        "quantized_share": quantized_share(weights),
    }
    return QuantizedDecoder(weights, decoder, figures)


def choose_bits(
    calibration: Reference, judged: Reference, *, max_loss_db: float, bits_tried: Sequence[int] = BITS_TRIED
) -> tuple[QuantizedDecoder, list[dict[str, Any]]]:
    """The fewest bits that cost at most `max_loss_db` on `judged`, and a row for each number of bits.

    The first of `bits_tried` is taken if none is cheap enough.
    """
    chosen, rows = None, []
    for bits in bits_tried:
        candidate = quantize_decoder(calibration, bits=bits)
        loss = judged.loss(candidate.decoder)
        rows.append(
            {
                "bits": bits,
                "release_bytes": candidate.figures["release_bytes"],
                "psnr_db": judged.psnr_to_full(candidate.decoder),
                "loss_db": loss,
            }
        )
        if chosen is None or loss <= max_loss_db:
            chosen = candidate
        if loss > max_loss_db:
            break
    assert chosen is not None
    return chosen, rows


def _forward(module: nn.Module, latents: Tensor) -> Tensor:
    frames: Tensor = module(latents)
    return frames
