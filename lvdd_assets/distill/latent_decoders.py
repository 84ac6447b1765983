"""Decoders alone, as a release carries them: built from a `DecoderSpec`, filled with weights, decoding to uint8.

What must NOT come here: encoders and loading weights (`vae`), quantised weights (`quantization`).

A 2D autoencoder sees a clip as a batch of frames. A 3D one makes one latent of several frames, and takes only some
numbers of frames (`FrameRule`). Latents are of about unit scale whatever the autoencoder: the configuration's scaling
factor, or its means and deviations by channel, are undone by the decoder.

Legend: N clips, T frames, T' latent frames, C channels, H, W pixels; h, w latent.
"""

import importlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdd_assets.distill.decoder_specs import OWN_CLASS, DecoderSpec
from lvdd_assets.distill.extras import needing
from lvdd_assets.distill.tiny_decoders import ClipDecoder, ClipModel, FrameDecoder, FrameModel

# Pixels of a batch: 64 frames of 64 × 64. More gains nothing on a CPU; a GPU wants more.
PIXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}
_MAX_PARAMETERS = 256 * 10**6  # a specification may come from a stranger


def import_class(class_name: str) -> Any:
    """The class that `package.module:Class` names. Importing runs its author's code."""
    match = OWN_CLASS.fullmatch(class_name)
    assert match is not None
    try:
        return getattr(importlib.import_module(match["module"]), match["name"])
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the autoencoder class {class_name} cannot be imported ({error}); install its package or put its module "
            "on PYTHONPATH"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what diffusers logs of libraries and keys that nobody asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def class_of(name: str) -> Any:
    """One of `AUTOENCODERS`, imported."""
    with quiet(), needing("pipeline", f"an {name}"):
        if name == "AutoencoderTinyVideo":
            from lvdd_assets.distill.tiny_video import AutoencoderTinyVideo

            return AutoencoderTinyVideo
        import diffusers

        return getattr(diffusers, name)


class LatentDecoder(nn.Module):
    """A decoder alone, as a release carries it; its state dict holds zeros until weights are loaded.

    Args:
        spec: what to build.
        trusted_classes: classes by import path whose code may be run.
        allocate: False leaves the weights without memory until `allocate` is called.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, spec: DecoderSpec, trusted_classes: Collection[str] = (), *, allocate: bool = True) -> None:
        super().__init__()
        self.spec = spec
        if spec.is_own_class and spec.class_name not in trusted_classes:
            raise ValueError(
                f"this decoder is of the class {spec.class_name}, whose author's code is not run unasked: pass "
                f"trusted_classes=({spec.class_name!r},) if you trust it"
            )
        # On the meta device nothing is allocated and no random number is drawn before the size is known.
        with torch.device("meta"):
            self.model = _build_model(spec)
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        if num_parameters > _MAX_PARAMETERS:
            raise ValueError(f"the decoder would have {num_parameters} parameters, at most {_MAX_PARAMETERS} allowed")
        if allocate:
            self.allocate()

    def allocate(self) -> None:
        """Gives the weights memory, and makes them zeros."""
        self.to_empty(device="cpu")
        for tensor in self.state_dict().values():
            tensor.zero_()
        lay_out(self).requires_grad_(False).eval()
        factor, offset = latent_scale(self.spec)
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Pixels in [-1, 1], not clamped, from unit-scale latents.

        A 2D decoder makes float [N, 3, H, W] of [N, C, h, w], a temporal one float [N, T, 3, H, W] of [N, T', C, h, w].
        """
        raw = latents / self.factor + self.offset
        if self.spec.is_temporal:
            return _sample(self.model.decode(raw.transpose(1, 2))).transpose(1, 2)
        return _sample(self.model.decode(raw))

    @torch.inference_mode()
    def decode(
        self,
        latents_NTChw: NDArray | Tensor,
        *,
        num_frames: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> NDArray[np.uint8]:
        """Clips, uint8 [N, T, 3, H, W], from latents.

        Args:
            latents_NTChw: float [N, T', C, h, w] of unit scale, as `VideoAutoencoder.encode` gives them.
            num_frames: T, where a 3D encoder padded the clips; what was padded is cut off. By default all frames.
            dtype: what the convolutions compute in; anything but float32 trades exact repetition for speed.
        """
        latents, channels = torch.as_tensor(latents_NTChw), self.spec.latent_channels
        if latents.ndim != 5 or latents.shape[2] != channels or not latents.is_floating_point():
            raise ValueError(f"{latents.shape = }, {latents.dtype = }: float [N, T, {channels}, h, w] expected")
        if not latents.isfinite().all():
            raise ValueError("latents hold NaN or infinity; recompute them, and check the weights that made them")
        if num_frames is not None and self.spec.frame_rule.latent_frames(num_frames) != latents.shape[1]:
            needed = self.spec.frame_rule.latent_frames(num_frames)
            raise ValueError(f"{num_frames} frames need {needed} latent frames, got {latents.shape[1]}")
        if self.spec.is_temporal:
            return self._decode_clips(latents, num_frames, dtype)
        frames = self._decode_frames(latents.flatten(0, 1), dtype)
        return frames.reshape(*latents.shape[:2], *frames.shape[1:])

    def _decode_frames(self, latents_NChw: Tensor, dtype: torch.dtype) -> NDArray[np.uint8]:
        height, width = (edge * self.spec.upsampling for edge in latents_NChw.shape[2:])
        device = self.factor.device

        def decode(part: slice) -> NDArray[np.uint8]:
            batch = latents_NChw[part].to(device, torch.float32, memory_format=torch.channels_last)
            with computing_in(dtype, device):
                return to_uint8(self(batch))

        decoded = in_batches(decode, len(latents_NChw), height * width, device)
        return np.concatenate([np.empty((0, 3, height, width), np.uint8), *decoded])

    def _decode_clips(self, latents_NTChw: Tensor, num_frames: int | None, dtype: torch.dtype) -> NDArray[np.uint8]:
        height, width = (edge * self.spec.upsampling for edge in latents_NTChw.shape[3:])
        device = self.factor.device

        def decode(part: slice) -> NDArray[np.uint8]:
            with computing_in(dtype, device):
                return to_uint8(self(latents_NTChw[part].to(device, torch.float32))[:, :num_frames])

        pixels_of_one = latents_NTChw.shape[1] * self.spec.frame_rule.ratio * height * width
        decoded = in_batches(decode, len(latents_NTChw), pixels_of_one, device)
        return np.concatenate(decoded) if decoded else np.empty((0, num_frames or 0, 3, height, width), np.uint8)


def build_decoder(spec: DecoderSpec, trusted_classes: Collection[str] = (), *, allocate: bool = True) -> LatentDecoder:
    """The decoder of a specification, without weights: all zeros, for `load_state_dict` to fill.

    Args:
        spec: what to build.
        trusted_classes: classes by import path whose code may be run.
        allocate: False leaves the weights without memory, so that their shapes can be compared with a file first.
    """
    return LatentDecoder(spec, trusted_classes, allocate=allocate)


def drop_encoder(model: Any) -> Any:
    """The model without what only encodes."""
    for name in ("encoder", "quant_conv"):
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, None)
    return model


def _build_model(spec: DecoderSpec) -> Any:
    if spec.is_own_class:
        own = import_class(spec.class_name)
        build = getattr(own, "from_config", None) or (lambda config: own(**config))
        return drop_encoder(build(dict(spec.config["config"])))
    config = dict(spec.config)
    if spec.class_name == "AutoencoderTiny":
        return FrameModel(_frame_decoder(config, config["latent_channels"], config["upsampling_scaling_factor"]))
    if spec.class_name == "AutoencoderTinyVideo":
        features, num_blocks = config["temporal_channels"], config["num_temporal_blocks"]
        frames = _frame_decoder(config, features, upsampling=2)
        return ClipModel(ClipDecoder(frames, features, num_blocks, config["latent_channels"]))
    if spec.class_name == "AutoencoderKL":
        config |= {"down_block_types": ("DownEncoderBlock2D",) * len(config["block_out_channels"])}
    elif spec.class_name == "AutoencoderKLCogVideoX":
        config |= {"down_block_types": ("CogVideoXDownBlock3D",) * len(config["block_out_channels"])}
    return drop_encoder(class_of(spec.class_name)(**config))


def _frame_decoder(config: Mapping[str, Any], in_channels: int, upsampling: int) -> FrameDecoder:
    return FrameDecoder(
        in_channels,
        config["out_channels"],
        config["num_decoder_blocks"],
        config["decoder_block_out_channels"],
        upsampling,
        config["act_fn"],
        config["upsample_fn"],
    )


def latent_scale(spec: DecoderSpec) -> tuple[Tensor, Tensor]:
    """Factor and offset that make the autoencoder's own latents unit-scale: unit = (own - offset) * factor.

    Both broadcast to [N, C, h, w] and, for a temporal decoder, to [N, T, C, h, w].
    """
    config = spec.config
    if spec.class_name == "AutoencoderKLWan":
        shape = (-1, 1, 1)
        factor = 1 / torch.tensor(config["latents_std"], dtype=torch.float32).reshape(shape)
        return factor, torch.tensor(config["latents_mean"], dtype=torch.float32).reshape(shape)
    return torch.tensor(float(config["scaling_factor"])), torch.tensor(float(config["shift_factor"] or 0.0))


def lay_out(module: nn.Module) -> nn.Module:
    """Weights of 2D convolutions channels-last, which CPUs and GPUs compute faster in; others as they are."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def to_pixels(frames: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1], the range of every autoencoder."""
    return frames.float().div_(127.5).sub_(1)


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """Pixels in [-1, 1], clamped, to 0 … 255."""
    frames: NDArray[np.uint8] = pixels.float().clamp(-1, 1).add(1).mul(127.5).round().byte().cpu().numpy()
    return frames


def computing_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """The context in which convolutions compute in `dtype`."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def in_batches(
    run: Callable[[slice], NDArray], num_items: int, pixels_of_one: int, device: torch.device
) -> list[NDArray]:
    """Results of `run` on slices of items, each of about `PIXELS_PER_BATCH` pixels.

    A batch that does not fit the memory is halved and tried again.

    Raises:
        ValueError: not even one item fits.
    """
    size = max(1, PIXELS_PER_BATCH[device.type] // max(1, pixels_of_one))
    results: list[NDArray] = []
    start = 0
    while start < num_items:
        try:
            results.append(run(slice(start, start + size)))
        except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's allocator raises the plain class
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            if size == 1:
                raise ValueError(
                    f"the memory of {device} does not hold one item of {pixels_of_one} pixels: take smaller clips, a "
                    f"smaller autoencoder or another device ({str(error).splitlines()[0][:200]})"
                ) from error
            size //= 2
            continue
        start += size
    return results


def _sample(output: Any) -> Tensor:
    """The tensor in what an autoencoder's `decode` returns."""
    sample: Tensor = output if isinstance(output, Tensor) else output.sample
    return sample
