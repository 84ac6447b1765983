"""Autoencoders: uint8 clips to latents and back, one interface whatever the class.

What belongs here: loading an autoencoder's weights and encoding. Which names stand for what is decided in
`vae_folders`; the decoder, which a release carries without the rest, is `latent_decoders`.

Latents are of about unit scale whatever the autoencoder (see `latent_decoders`). A 2D autoencoder makes one latent of
each frame. A 3D one makes one of several frames: clips are padded to a number of frames that it takes by repeating the
last frame, and what was padded is cut off when they are decoded.

Legend: N clips, T frames, T' latent frames, C channels, H, W pixels; h, w latent.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.decoder_specs import DecoderSpec, FrameRule
from lvdd_assets.distill.latent_decoders import (
    PIXELS_PER_BATCH,
    LatentDecoder,
    class_of,
    computing_in,
    import_class,
    in_batches,
    latent_scale,
    lay_out,
    quiet,
    to_pixels,
)
from lvdd_assets.distill.vae_folders import WEIGHTS_FILE, AutoencoderFolder, find_autoencoder

_PROBE_EDGE = 64  # pixels of the clip on which a class of unknown build is tried


class VideoAutoencoder:
    """An autoencoder with its weights: clips to latents and back, always with the same answer for the same clip.

    Attributes:
        name: what the user called it.
        fingerprint: SHA-256 of configuration and weights, in hexadecimal.
        decoder_spec: what its decoder is built from.
        encoder: what a release leaves out: encoder and what belongs to it, for its weights to be counted.
    """

    def __init__(self, model: Any, spec: DecoderSpec, *, name: str, fingerprint: str, dtype: torch.dtype) -> None:
        self.name, self.fingerprint, self.decoder_spec, self._dtype = name, fingerprint, spec, dtype
        self._device: torch.device = next(model.parameters()).device
        self._decoder = LatentDecoder(spec, trusted_classes=(spec.class_name,))
        wanted = self._decoder.state_dict()
        state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
        self._decoder.load_state_dict({key: state[key] for key in wanted})
        self._decoder.to(self._device)
        self._model: Any = lay_out(model.requires_grad_(False).eval())
        _drop_decoder(self._model)  # the weights now live in the decoder alone
        self._factor, self._offset = (value.to(self._device) for value in latent_scale(spec))

    @property
    def encoder(self) -> nn.Module:
        """See the class's docstring."""
        encoder: nn.Module = self._model
        return encoder

    def clips_per_batch(self, shape: ClipShape) -> int:
        """How many clips are worth encoding at a time on the autoencoder's device."""
        pixels = self.decoder_spec.frame_rule.padded(shape.frames) * shape.size**2
        return max(1, PIXELS_PER_BATCH[self._device.type] // pixels)

    def num_bytes(self) -> dict[str, int]:
        """Bytes of the float32 weights: encoder and decoder."""
        parts = {"encoder": self._model, "decoder": self._decoder}
        return {name: 4 * sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def latent_shape(self, shape: ClipShape) -> tuple[int, int, int, int]:
        """(T', C, h, w) of a clip's latents."""
        edge = self._divide(shape.size, shape.size)[0]
        num_frames = self.decoder_spec.frame_rule.latent_frames(shape.frames)
        return num_frames, self.decoder_spec.latent_channels, edge, edge

    def _divide(self, height: int, width: int) -> tuple[int, int]:
        factor = self.decoder_spec.upsampling
        if height % factor or width % factor:
            raise ValueError(
                f"{self.name} makes one latent of {factor} × {factor} pixels, so a clip's size must be a multiple of "
                f"{factor}; got {height} × {width}: use {factor * max(1, round(height / factor))}"
            )
        return height // factor, width // factor

    @torch.inference_mode()
    def encode(self, clips_NTCHW: NDArray[np.uint8], *, draw: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Latents of unit scale, float32 [N, T', C, h, w].

        Args:
            clips_NTCHW: uint8 [N, T, 3, H, W], H and W multiples of the downsampling.
            draw: None for the posterior's mode. (seed, index of the first clip) draws from the posterior instead, each
                clip's noise from its own generator, so that no clip's latents depend on another's.
        """
        if clips_NTCHW.dtype != np.uint8 or clips_NTCHW.ndim != 5 or clips_NTCHW.shape[2] != 3:
            raise ValueError(f"clips must be uint8 [N, T, 3, H, W], got {clips_NTCHW.dtype} {clips_NTCHW.shape}")
        num_clips, num_frames, _, height, width = clips_NTCHW.shape
        spec = self.decoder_spec
        shape = (spec.frame_rule.latent_frames(num_frames), spec.latent_channels, *self._divide(height, width))
        noise = None if draw is None else _noise(draw, num_clips, shape)
        if spec.is_temporal:
            latents = self._encode_clips(clips_NTCHW, shape, noise)
        else:
            frames = clips_NTCHW.reshape(-1, 3, height, width)
            flat = None if noise is None else noise.reshape(-1, *shape[1:])
            latents = self._encode_frames(frames, shape[1:], flat).reshape(num_clips, *shape)
        if not np.isfinite(latents).all():
            raise ValueError(f"{self.name} gave latents with NaN or infinity; its weights do not fit its configuration")
        return latents

    def _encode_frames(
        self, frames_NCHW: NDArray[np.uint8], shape: tuple[int, ...], noise: NDArray | None
    ) -> NDArray[np.float32]:
        def encode(part: slice) -> NDArray[np.float32]:
            pixels = self._to_device(frames_NCHW[part]).contiguous(memory_format=torch.channels_last)
            return self._latents_of(pixels, None if noise is None else noise[part])

        height, width = frames_NCHW.shape[2:]
        encoded = in_batches(encode, len(frames_NCHW), height * width, self._device)
        return np.concatenate([np.empty((0, *shape), np.float32), *encoded])

    def _encode_clips(
        self, clips_NTCHW: NDArray[np.uint8], shape: tuple[int, ...], noise: NDArray | None
    ) -> NDArray[np.float32]:
        num_frames, _, height, width = clips_NTCHW.shape[1:]
        indices = self.decoder_spec.frame_rule.indices(num_frames)

        def encode(part: slice) -> NDArray[np.float32]:
            pixels_NCTHW = self._to_device(clips_NTCHW[part][:, indices]).transpose(1, 2)
            return self._latents_of(pixels_NCTHW, None if noise is None else noise[part].swapaxes(1, 2))

        encoded = in_batches(encode, len(clips_NTCHW), len(indices) * height * width, self._device)
        return np.concatenate([np.empty((0, *shape), np.float32), *encoded])

    def _to_device(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels as float32 in [-1, 1] on the device; they travel as uint8, past the host's cache."""
        tensor = torch.from_numpy(np.ascontiguousarray(pixels))
        if self._device.type == "cuda":
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return to_pixels(tensor.to(self._device))

    def _latents_of(self, pixels: Tensor, noise: NDArray | None) -> NDArray[np.float32]:
        """Unit-scale latents of one batch: [N, C, h, w], or [N, T', C, h, w] of clips [N, 3, T, H, W]."""
        with computing_in(self._dtype, self._device):
            own = _own_latents(self._model.encode(pixels), self.name, noise).float()
        if own.ndim == 5:
            own = own.transpose(1, 2)
        unit: NDArray[np.float32] = ((own - self._offset) * self._factor).cpu().numpy()
        return unit

    def decode(self, latents_NTChw: NDArray | Tensor, *, num_frames: int | None = None) -> NDArray[np.uint8]:
        """Clips uint8 [N, T, 3, H, W] from what `encode` gave.

        Args:
            latents_NTChw: float [N, T', C, h, w].
            num_frames: T, for an autoencoder that pads clips.
        """
        return self._decoder.decode(latents_NTChw, num_frames=num_frames, dtype=self._dtype)

    def decoder(self) -> LatentDecoder:
        """A copy of the decoder with its weights, on the CPU; it decodes exactly as `decode` does in float32."""
        return copy.deepcopy(self._decoder).to("cpu")


def load_autoencoder(
    name: str, *, base: Path | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> VideoAutoencoder:
    """An autoencoder by name, with its weights.

    Args:
        name: as in `vae_folders.find_autoencoder`.
        base: where relative folders start, usually the registry's folder; the current folder if None.
        dtype: what to compute in. float32 repeats exactly; bfloat16 is about twice as fast on a CPU that has it.
        device: where to compute.
    """
    found = find_autoencoder(name, base)
    if ":" in found.class_name:
        model, spec = _load_own(found)
    else:
        model = load_model(found)
        try:
            spec = DecoderSpec.from_config(found.class_name, model.config)
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {error}") from error
    return VideoAutoencoder(model.to(device), spec, name=name, fingerprint=found.fingerprint(), dtype=dtype)


def load_model(found: AutoencoderFolder) -> Any:
    """The model of a folder as its own class, float32; ValueError where weights and configuration do not fit."""
    folder = found.folder
    assert folder is not None
    options = {"local_files_only": True, "use_safetensors": True, "low_cpu_mem_usage": False}
    try:
        # Building a model draws its initial weights; the caller's random state is none of its business.
        with torch.random.fork_rng(devices=[]), quiet():
            model, report = class_of(found.class_name).from_pretrained(
                folder, torch_dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        problem = f"{type(error).__name__}: {str(error)[:300]}"
        raise ValueError(f"{folder} does not load as {found.class_name} ({problem}); fetch both files again") from error
    if keys := sorted([*report["missing_keys"], *report["unexpected_keys"]]):
        reason = f"{len(keys)} tensors are missing or not known, the first {keys[0]!r}"
        raise ValueError(f"{folder / WEIGHTS_FILE} does not fit config.json: {reason}; fetch both files again")
    _refuse_not_finite(model, str(folder / WEIGHTS_FILE))
    return model


def _refuse_not_finite(model: Any, where: str) -> None:
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{where}: {key} holds NaN or infinity; fetch or train the weights again")


def _load_own(found: AutoencoderFolder) -> tuple[Any, DecoderSpec]:
    """A class by import path: an `nn.Module` that encodes and decodes as the autoencoders of `diffusers` do.

    How much smaller latents are, and which numbers of frames it takes, is found by trying.
    """
    own = import_class(found.class_name)
    with torch.random.fork_rng(devices=[]):
        model = own.from_pretrained(str(found.folder)) if found.folder else own()
    model = model.float().requires_grad_(False).eval()
    _refuse_not_finite(model, found.class_name)
    config = dict(getattr(model, "config", {}))
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    shape, rule = _probe(model, found.class_name)
    spec = DecoderSpec(
        found.class_name,
        {
            "config": plain,
            "frames": [rule.ratio, rule.multiple, rule.remainder],
            "is_temporal": len(shape) == 5,
            "latent_channels": shape[1],
            "scaling_factor": float(config.get("scaling_factor") or 1.0),
            "shift_factor": config.get("shift_factor"),
            "upsampling": _PROBE_EDGE // shape[-1],
        },
    )
    return model, spec


@torch.inference_mode()
def _probe(model: Any, class_name: str) -> tuple[tuple[int, ...], FrameRule]:
    """Shape of the latents of a clip of 9 frames (or of one frame), and the rule for numbers of frames."""

    def decoded_frames(num_frames: int) -> tuple[tuple[int, ...], int]:
        latents = _own_latents(model.encode(torch.zeros(1, 3, num_frames, _PROBE_EDGE, _PROBE_EDGE)), class_name)
        output = model.decode(latents)
        frames = output if isinstance(output, Tensor) else output.sample
        return tuple(latents.shape), frames.shape[2]

    try:
        shapes = {n: decoded_frames(n) for n in (8, 9, 16, 17)}
    except (RuntimeError, ValueError, TypeError, AttributeError) as in_clips:
        try:
            latents = _own_latents(model.encode(torch.zeros(1, 3, _PROBE_EDGE, _PROBE_EDGE)), class_name)
        except (RuntimeError, ValueError, TypeError, AttributeError) as in_frames:
            raise ValueError(
                f"{class_name} takes neither clips [N, 3, T, H, W] ({in_clips}) nor frames [N, 3, H, W] ({in_frames})"
            ) from in_frames
        return tuple(latents.shape), FrameRule()
    for first, second, remainder in ((8, 16, 0), (9, 17, 1)):
        if shapes[first][1] == first and shapes[second][1] == second:
            ratio = 8 // (shapes[second][0][2] - shapes[first][0][2])
            # Eight frames divide by every ratio there is; a rule finer than that is the ratio itself.
            return shapes[first][0], FrameRule(ratio, ratio if remainder else 8, remainder % ratio)
    counts = {n: frames for n, (_, frames) in shapes.items()}
    raise ValueError(f"{class_name} does not give back as many frames as it takes, of frames in and out: {counts}")


def _own_latents(encoded: Any, name: str, noise: NDArray | None = None) -> Tensor:
    """The tensor in what an autoencoder's `encode` returns: latents, or mode or sample of a posterior."""
    posterior = getattr(encoded, "latent_dist", None)
    if posterior is None:
        if noise is not None:
            raise ValueError(f"{name} has no posterior to draw from: leave `posterior` at mode")
        latents: Tensor = encoded if isinstance(encoded, Tensor) else encoded.latents
        return latents
    mode: Tensor = posterior.mode()
    if noise is None:
        return mode
    return mode + posterior.std * torch.from_numpy(np.ascontiguousarray(noise)).to(mode.device)


def _noise(draw: tuple[int, int], num_clips: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    seed, first = draw
    if not num_clips:
        return np.empty((0, *shape), np.float32)
    generators = (np.random.default_rng([seed, first + i]) for i in range(num_clips))
    return np.stack([generator.standard_normal(shape, np.float32) for generator in generators])


def _drop_decoder(model: Any) -> None:
    for name in ("decoder", "post_quant_conv"):
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, None)
