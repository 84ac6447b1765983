"""Autoencoders: uint8 clips to latents and back, one interface over a closed list of `diffusers` classes.

What belongs here: finding and loading weights, the encoder with its decoder (`VideoAutoencoder`), and the decoder alone
as a release carries it (`DecoderSpec`, `LatentDecoder`). This is the only module that knows `diffusers` and the pixel
range [-1, 1]. What must NOT come here: quantising weights (`quantization`), coding latents (`coding`).

A 2D autoencoder sees a clip as a batch of frames. Latents are always multiplied by the configuration's scaling factor,
so that they are of about unit scale whatever the autoencoder; the decoder undoes it.

Legend: N clips, T frames, C channels, H, W pixels; h, w latent. [N, C, H, W] without T: a batch of frames.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdd_assets.distill.catalog import ClipShape

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
EMBEDDED = "embedded-2d"

_CONFIG_FILE = "config.json"
_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w.-]*))?")
_PIXELS_PER_BATCH = 2**18  # 64 frames of 64 × 64: more gains nothing on a CPU and a large model fills the memory

# A specification comes out of files that strangers wrote: these bound what a model built from it can ask for.
_MAX_STAGES = 8
_MAX_PARAMETERS = 256 * 10**6
_MAX_UPSAMPLING = 64
_CHANNEL_COUNTS = range(1, 4096 + 1)
_ALLOWED: dict[str, Sequence[Any]] = {  # of each key, or of each entry where the key holds a list
    "act_fn": ("swish", "silu", "mish", "gelu", "relu"),
    "block_out_channels": _CHANNEL_COUNTS,
    "decoder_block_out_channels": _CHANNEL_COUNTS,
    "latent_channels": _CHANNEL_COUNTS,
    "layers_per_block": range(1, 64 + 1),
    "mid_block_add_attention": (False, True),
    "norm_num_groups": _CHANNEL_COUNTS,
    "num_decoder_blocks": range(64 + 1),
    "out_channels": (3,),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
    "upsample_fn": ("nearest", "nearest-exact", "bilinear", "bicubic"),
    "upsampling_scaling_factor": range(1, 8 + 1),
    "use_post_quant_conv": (False, True),
}
_CHANNELS = {"AutoencoderTiny": "decoder_block_out_channels", "AutoencoderKL": "block_out_channels"}
_STAGES = {"AutoencoderTiny": "num_decoder_blocks", "AutoencoderKL": "up_block_types"}
_DECODER_KEYS = {
    "AutoencoderTiny": "act_fn decoder_block_out_channels latent_channels num_decoder_blocks out_channels "
    "scaling_factor shift_factor upsample_fn upsampling_scaling_factor",
    "AutoencoderKL": "act_fn block_out_channels latent_channels layers_per_block mid_block_add_attention "
    "norm_num_groups out_channels scaling_factor shift_factor up_block_types use_post_quant_conv",
}


def _check_value(key: str, value: Any) -> None:
    """ValueError unless `value` may stand in a specification under `key`."""
    if key in _ALLOWED:
        is_list = key in (*_CHANNELS.values(), *_STAGES.values())
        entries = value if is_list else [value]
        fits = isinstance(entries, list) and 1 <= len(entries) <= _MAX_STAGES
        if fits and all(type(entry) in (int, str, bool) and entry in _ALLOWED[key] for entry in entries):
            return
        expected = f"{f'1 to {_MAX_STAGES} of ' if is_list else ''}{_ALLOWED[key]}"
    else:
        low = 1e-6 if key == "scaling_factor" else -1e6
        if (key == "shift_factor" and value is None) or (type(value) in (int, float) and low <= value <= 1e6):
            return
        expected = f"a number from {low} to 1e6"
    raise ValueError(f"a decoder cannot have {key} = {str(value)[:80]}: expected {expected}; check where it comes from")


@dataclass(frozen=True)
class DecoderSpec:
    """What it takes to build a decoder without its weights; checked, because it may come from an untrusted file.

    Attributes:
        class_name: one of `AUTOENCODERS`.
        config: the keys of that class's configuration that shape the decoder, and no other; plain JSON values.
    """

    class_name: str
    config: dict[str, Any]

    def __post_init__(self) -> None:
        name, config = self.class_name, self.config
        _check_class(name, "the decoder's specification")
        if sorted(config) != (keys := _DECODER_KEYS[name].split()):
            raise ValueError(f"a decoder of {name} needs the keys {keys}, got {str(sorted(config))[:300]}")
        for key, value in config.items():
            _check_value(key, value)
        channels, stages = config[_CHANNELS[name]], config[_STAGES[name]]
        groups = config.get("norm_num_groups", 1)
        if len(channels) != len(stages) or any(channel % groups for channel in channels):
            raise ValueError(f"{channels = }, {stages = }: as many of each, and multiples of {groups} groups, needed")
        if name == "AutoencoderTiny" and len(set(channels)) > 1:
            raise ValueError(f"AutoencoderTiny needs the same number of channels in every stage, got {channels}")
        if self.upsampling > _MAX_UPSAMPLING:
            raise ValueError(f"the decoder enlarges {self.upsampling} times, at most {_MAX_UPSAMPLING} allowed")

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.config["latent_channels"])

    @property
    def upsampling(self) -> int:
        """Pixels along an edge of the frame for one latent."""
        num_stages = len(self.config[_CHANNELS[self.class_name]])
        return int(self.config.get("upsampling_scaling_factor", 2) ** (num_stages - 1))

    def to_json(self) -> str:
        """The specification as compact JSON, keys sorted: the same specification gives the same bytes."""
        return json.dumps([self.class_name, self.config], sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "DecoderSpec":
        """Reads what `to_json` wrote; ValueError for anything else."""
        try:
            class_name, config = json.loads(text)
            return cls(str(class_name), dict(config))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{str(text)[:80]!r} is no decoder's specification: {error}") from error

    @classmethod
    def from_config(cls, class_name: str, config: Mapping[str, Any]) -> "DecoderSpec":
        """Takes the decoder's keys out of a model's whole configuration."""
        chosen = {key: config[key] for key in _DECODER_KEYS[class_name].split()}
        return cls(class_name, {key: list(v) if isinstance(v, list | tuple) else v for key, v in chosen.items()})


def _check_class(class_name: str, where: str) -> None:
    if class_name not in AUTOENCODERS:
        raise ValueError(f"{where} names the class {class_name[:80]!r}; only {', '.join(AUTOENCODERS)} can be used")


class LatentDecoder(nn.Module):
    """A decoder alone, as a release carries it; its state dict holds zeros until weights are loaded."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scale = float(spec.config["scaling_factor"])
        self.shift = float(spec.config["shift_factor"] or 0.0)
        # On the meta device nothing is allocated and no random number is drawn before the size is known.
        with torch.device("meta"):
            self.decoder, self.post_quant_conv = _build_modules(spec)
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        if num_parameters > _MAX_PARAMETERS:
            raise ValueError(f"the decoder would have {num_parameters} parameters, at most {_MAX_PARAMETERS} allowed")
        self.to_empty(device="cpu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for tensor in self.state_dict().values():
            tensor.zero_()
        self.requires_grad_(False).eval()

    def forward(self, latents_NChw: Tensor) -> Tensor:
        """Frames in [-1, 1], not clamped: float [N, 3, H, W] from unit-scale latents [N, C, h, w]."""
        raw_NChw = latents_NChw / self.scale + self.shift
        if self.post_quant_conv is not None:
            raw_NChw = self.post_quant_conv(raw_NChw)
        frames: Tensor = self.decoder(raw_NChw)
        return frames

    @torch.inference_mode()
    def decode(self, latents_NTChw: NDArray | Tensor, *, dtype: torch.dtype = torch.float32) -> NDArray[np.uint8]:
        """Clips, uint8 [N, T, 3, H, W], from latents.

        Args:
            latents_NTChw: float [N, T, C, h, w] of unit scale, as `VideoAutoencoder.encode` gives them.
            dtype: what the convolutions compute in; anything but float32 trades exact repetition for speed.
        """
        latents, channels = torch.as_tensor(latents_NTChw), self.spec.latent_channels
        if latents.ndim != 5 or latents.shape[2] != channels or not latents.is_floating_point():
            raise ValueError(f"{latents.shape = }, {latents.dtype = }: float [N, T, {channels}, h, w] expected")
        if not latents.isfinite().all():
            raise ValueError("latents hold NaN or infinity; recompute them, and check the weights that made them")
        num_clips, num_frames, _, height, width = latents.shape
        factor = self.spec.upsampling
        clips = np.empty((num_clips * num_frames, 3, height * factor, width * factor), np.uint8)
        device = next(self.parameters()).device
        for part in _batches(len(clips), height * width * factor**2):
            batch = latents.flatten(0, 1)[part].to(device, torch.float32, memory_format=torch.channels_last)
            with _computing_in(dtype, device):
                frames = self(batch)
            clips[part] = frames.float().clamp(-1, 1).add(1).mul(127.5).round().byte().cpu().numpy()
        return clips.reshape(num_clips, num_frames, *clips.shape[1:])


def build_decoder(spec: DecoderSpec) -> LatentDecoder:
    """The decoder of a specification, without weights: all zeros, for `load_state_dict` to fill."""
    return LatentDecoder(spec)


def _build_modules(spec: DecoderSpec) -> tuple[nn.Module, nn.Module | None]:
    from diffusers.models.autoencoders.vae import Decoder, DecoderTiny

    config = dict(spec.config)
    channels = config.pop("latent_channels")
    del config["scaling_factor"], config["shift_factor"]
    if spec.class_name == "AutoencoderTiny":
        config["num_blocks"] = config.pop("num_decoder_blocks")
        config["block_out_channels"] = config.pop("decoder_block_out_channels")
        return DecoderTiny(in_channels=channels, **config), None
    post = nn.Conv2d(channels, channels, 1) if config.pop("use_post_quant_conv") else None
    return Decoder(in_channels=channels, **config), post


class VideoAutoencoder:
    """An autoencoder with its weights: clips to latents and back, always with the same answer for the same clip.

    Attributes:
        name: what the user called it.
        fingerprint: SHA-256 of configuration and weights, in hexadecimal.
        decoder_spec: what its decoder is built from.
    """

    def __init__(self, model: Any, spec: DecoderSpec, *, name: str, fingerprint: str, dtype: torch.dtype) -> None:
        self.name, self.fingerprint, self.decoder_spec, self._dtype = name, fingerprint, spec, dtype
        self._model = model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self._device: torch.device = next(model.parameters()).device
        self._decoder = LatentDecoder(spec)
        wanted = self._decoder.state_dict()
        self._decoder.load_state_dict({key: tensor for key, tensor in model.state_dict().items() if key in wanted})
        self._decoder.to(self._device)
        del model.decoder  # the weights now live in the decoder alone

    def latent_shape(self, shape: ClipShape) -> tuple[int, int, int, int]:
        """(T, C, h, w) of a clip's latents."""
        edge = self._divide(shape.size, shape.size)[0]
        return shape.frames, self.decoder_spec.latent_channels, edge, edge

    def _divide(self, height: int, width: int) -> tuple[int, int]:
        factor = self.decoder_spec.upsampling
        if height % factor or width % factor:
            raise ValueError(
                f"{self.name} makes one latent of {factor} × {factor} pixels, so a clip's size must be a multiple of "
                f"{factor}; got {height} × {width}: use {factor * max(1, round(height / factor))}"
            )
        return height // factor, width // factor

    @torch.inference_mode()
    def encode(self, clips_NTCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Latents of unit scale, float32 [N, T, C, h, w]; the mode of the posterior where the encoder gives one.

        Args:
            clips_NTCHW: uint8 [N, T, 3, H, W], H and W multiples of the downsampling.
        """
        if clips_NTCHW.dtype != np.uint8 or clips_NTCHW.ndim != 5 or clips_NTCHW.shape[2] != 3:
            raise ValueError(f"clips must be uint8 [N, T, 3, H, W], got {clips_NTCHW.dtype} {clips_NTCHW.shape}")
        num_clips, num_frames, _, height, width = clips_NTCHW.shape
        frames_NCHW = clips_NTCHW.reshape(-1, 3, height, width)
        spec, scale, shift = self.decoder_spec, self._decoder.scale, self._decoder.shift
        latents = np.empty((len(frames_NCHW), spec.latent_channels, *self._divide(height, width)), np.float32)
        for part in _batches(len(latents), height * width):
            pixels = torch.from_numpy(np.ascontiguousarray(frames_NCHW[part])).to(self._device)
            pixels = pixels.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1)
            with _computing_in(self._dtype, self._device):
                encoded = self._model.encode(pixels)
            raw = encoded.latents if spec.class_name == "AutoencoderTiny" else encoded.latent_dist.mode()
            latents[part] = ((raw.float() - shift) * scale).cpu().numpy()
        if not np.isfinite(latents).all():
            raise ValueError(f"{self.name} gave latents with NaN or infinity; its weights do not fit its configuration")
        return latents.reshape(num_clips, num_frames, *latents.shape[1:])

    def decode(self, latents_NTChw: NDArray | Tensor) -> NDArray[np.uint8]:
        """Clips uint8 [N, T, 3, H, W] from what `encode` gave."""
        return self._decoder.decode(latents_NTChw, dtype=self._dtype)

    def decoder(self) -> LatentDecoder:
        """A copy of the decoder with its weights, on the CPU; it decodes exactly as `decode` does in float32."""
        return copy.deepcopy(self._decoder).to("cpu")


def load_autoencoder(
    name: str, *, base: Path | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> VideoAutoencoder:
    """An autoencoder by name, with its weights.

    Args:
        name: "embedded-2d", which comes with the package; a folder in `diffusers` layout, absolute or relative; or a
            hub id, `organisation/name`, with `@revision` if one is to be fixed.
        base: where relative folders start, usually the registry's folder; the current folder if None.
        dtype: what to compute in. float32 repeats exactly; bfloat16 is about twice as fast on a CPU.
        device: where to compute.
    """
    class_name = _read_class(folder := _find_folder(name, base))
    model = _load_model(folder, class_name)
    spec = DecoderSpec.from_config(class_name, model.config)
    stages = model.config["num_encoder_blocks" if class_name == "AutoencoderTiny" else "block_out_channels"]
    downsampling = 2 ** (len(stages) - 1)
    if downsampling != spec.upsampling or model.config["in_channels"] != 3:
        raise ValueError(
            f"{name} takes {model.config['in_channels']} channels, makes frames {downsampling} times smaller, then "
            f"{spec.upsampling} times larger; it must take 3 channels and give back the same size"
        )
    return VideoAutoencoder(model.to(device), spec, name=name, fingerprint=_fingerprint(folder), dtype=dtype)


def autoencoder_fingerprint(name: str, base: Path | None = None) -> str:
    """`VideoAutoencoder.fingerprint` of a name, from the files alone: no weights are loaded."""
    _read_class(folder := _find_folder(name, base))
    return _fingerprint(folder)


def _find_folder(name: str, base: Path | None) -> Path:
    if name == EMBEDDED:
        return Path(__file__).parent.parent / "weights" / EMBEDDED
    folder = (base or Path.cwd()) / Path(name).expanduser()
    if folder.is_dir():
        return folder
    if hub_id := _HUB_ID.fullmatch(name):
        return _download(hub_id["repo"], hub_id["revision"], looked_for=folder)
    raise ValueError(
        f"no autoencoder {name!r}: there is no folder {folder}. Give {EMBEDDED!r}, a folder with {_CONFIG_FILE} and "
        f"{_WEIGHTS_FILE}, or a hub id such as organisation/name"
    )


def _download(repo: str, revision: str | None, *, looked_for: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[_CONFIG_FILE, _WEIGHTS_FILE]))
    except Exception as error:  # the client passes on its HTTP library's errors, which differ between its versions
        raise ValueError(
            f"the autoencoder {repo!r} could not be had from the hub ({type(error).__name__}: {str(error)[:200]}). "
            f"Without a network, put its {_CONFIG_FILE} and {_WEIGHTS_FILE} into {looked_for}, or name another folder "
            f"that holds them, or use {EMBEDDED!r}"
        ) from error


def _read_class(folder: Path) -> str:
    """The class that a folder's configuration names, once both files are known to be there."""
    for file in (_CONFIG_FILE, _WEIGHTS_FILE):
        if not (folder / file).is_file():
            found = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
            raise ValueError(
                f"{folder} has no {file} (found: {found}). Put {_CONFIG_FILE} and {_WEIGHTS_FILE} there; pickled "
                "weights (.bin) are refused because reading one can run code: save them again as safetensors"
            )
    try:
        class_name = str(dict(json.loads((folder / _CONFIG_FILE).read_text())).get("_class_name"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / _CONFIG_FILE} holds no JSON object ({error}); fetch it again") from error
    _check_class(class_name, str(folder / _CONFIG_FILE))
    return class_name


def _load_model(folder: Path, class_name: str) -> Any:
    import diffusers

    options = {"local_files_only": True, "use_safetensors": True, "low_cpu_mem_usage": False}
    try:
        # Building a model draws its initial weights; the caller's random state is none of its business.
        with torch.random.fork_rng(devices=[]):
            model, report = getattr(diffusers, class_name).from_pretrained(
                folder, torch_dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        problem = f"{type(error).__name__}: {str(error)[:300]}"
        raise ValueError(f"{folder} does not load as {class_name} ({problem}); fetch both files again") from error
    if keys := sorted([*report["missing_keys"], *report["unexpected_keys"]]):
        reason = f"{len(keys)} tensors are missing or not known, the first {keys[0]!r}"
        raise ValueError(f"{folder / _WEIGHTS_FILE} does not fit {_CONFIG_FILE}: {reason}; fetch both files again")
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{folder / _WEIGHTS_FILE}: {key} holds NaN or infinity; fetch or train the weights again")
    return model


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (_CONFIG_FILE, _WEIGHTS_FILE):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _computing_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def _batches(num_frames: int, num_pixels: int) -> Iterator[slice]:
    """Slices of frames, each of about `_PIXELS_PER_BATCH` pixels."""
    step = max(1, _PIXELS_PER_BATCH // max(1, num_pixels))
    for start in range(0, num_frames, step):
        yield slice(start, start + step)
