"""What a decoder is built from (`DecoderSpec`), and how many latents the frames of a clip become (`FrameRule`).

What belongs here: the closed list of classes with the keys that shape their decoders, checked because they may come out
of a file that a stranger wrote. No module is built and nothing heavy is imported: that is `latent_decoders`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A specification comes out of files that strangers wrote: these bound what a model built from it can ask for.
_MAX_STAGES = 8
_MAX_UPSAMPLING = 64
_MAX_OWN_CONFIG = 16_000
_COUNTS = range(1, 1024 + 1)  # what a layer makes of a batch takes a gigabyte at most
_ALLOWED: dict[str, Sequence[Any]] = {  # of each key, or of each entry where the key holds a list
    "act_fn": ("swish", "silu", "mish", "gelu", "relu"),
    "base_dim": _COUNTS,
    "block_out_channels": _COUNTS,
    "decoder_base_dim": (None, *_COUNTS),
    "decoder_block_out_channels": _COUNTS,
    "dim_mult": range(1, 32 + 1),
    "latent_channels": _COUNTS,
    "layers_per_block": range(1, 64 + 1),
    "mid_block_add_attention": (False, True),
    "norm_num_groups": _COUNTS,
    "num_decoder_blocks": range(64 + 1),
    "num_res_blocks": range(64 + 1),
    "num_temporal_blocks": range(1, 16 + 1),
    "out_channels": (3,),
    "temperal_downsample": (False, True),
    "temporal_channels": _COUNTS,
    "temporal_compression_ratio": (4,),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "CogVideoXUpBlock3D"),
    "upsample_fn": ("nearest", "nearest-exact", "bilinear", "bicubic"),
    "upsampling_scaling_factor": range(1, 8 + 1),
    "use_post_quant_conv": (False, True),
    "z_dim": _COUNTS,
}
_STAGE_LISTS = {"block_out_channels", "decoder_block_out_channels", "dim_mult", "num_decoder_blocks", "up_block_types"}
_LISTS = _STAGE_LISTS | {"temperal_downsample"}
_CHANNEL_LISTS = ("latents_mean", "latents_std")


@dataclass(frozen=True)
class FrameRule:
    """Which numbers of frames an autoencoder takes, and how many latent frames they become.

    Attributes:
        ratio: frames for one latent frame; 1 for a 2D autoencoder.
        multiple: a number of frames is taken if, divided by this,
        remainder: it leaves this. Multiple 4 and remainder 1 is the 4k + 1 of causal autoencoders.
    """

    ratio: int = 1
    multiple: int = 1
    remainder: int = 0

    def padded(self, num_frames: int) -> int:
        """The least number of frames that is taken and not below `num_frames`."""
        return num_frames + (self.remainder - num_frames) % self.multiple

    def indices(self, num_frames: int) -> NDArray[np.intp]:
        """The frames of a padded clip, by their place in the clip: what is padded is the last frame again."""
        return np.minimum(np.arange(self.padded(num_frames)), num_frames - 1)

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of a clip: a first frame that stands alone has one of its own."""
        return -(-self.padded(num_frames) // self.ratio)


@dataclass(frozen=True)
class _Kind:
    """One class of the list: the keys of its decoder's specification, and what they say.

    Attributes:
        keys: words in alphabetical order.
        channels: the key that has one entry for each stage.
        latents: the key with the number of latent channels.
        stages: another key with as many entries.
        encoder: the key that has one entry for each stage of the encoder, which halves a frame between two stages.
        frames: the numbers of frames that it takes; None where the configuration says.
        fixed: keys of the model's configuration that must have this value for the decoder to be the one built here.
        is_temporal: whether it sees whole clips.
    """

    keys: str
    channels: str
    latents: str = "latent_channels"
    stages: str = ""
    encoder: str = "block_out_channels"
    frames: FrameRule | None = FrameRule()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    is_temporal: bool = False


_KINDS = {
    "AutoencoderKL": _Kind(
        "act_fn block_out_channels latent_channels layers_per_block mid_block_add_attention "
        "norm_num_groups out_channels scaling_factor shift_factor up_block_types use_post_quant_conv",
        channels="block_out_channels",
        stages="up_block_types",
    ),
    "AutoencoderTiny": _Kind(
        "act_fn decoder_block_out_channels latent_channels num_decoder_blocks out_channels scaling_factor "
        "shift_factor upsample_fn upsampling_scaling_factor",
        channels="decoder_block_out_channels",
        stages="num_decoder_blocks",
        encoder="num_encoder_blocks",
    ),
    "AutoencoderTinyVideo": _Kind(
        "act_fn decoder_block_out_channels latent_channels num_decoder_blocks num_temporal_blocks "
        "out_channels scaling_factor shift_factor temporal_channels upsample_fn",
        channels="decoder_block_out_channels",
        stages="num_decoder_blocks",
        encoder="num_encoder_blocks",
        frames=FrameRule(4, 4),
        is_temporal=True,
    ),
    "AutoencoderKLCogVideoX": _Kind(
        "act_fn block_out_channels latent_channels layers_per_block norm_eps norm_num_groups out_channels "
        "scaling_factor shift_factor temporal_compression_ratio up_block_types",
        channels="block_out_channels",
        stages="up_block_types",
        # diffusers cuts a clip into pieces of 8 frames; one frame more goes with the first piece. It takes 8k frames as
        # well, but then decodes the first latent, which has none before it, to four equal frames.
        frames=FrameRule(4, 8, 1),
        fixed={"use_post_quant_conv": False, "invert_scale_latents": False, "latents_mean": None, "latents_std": None},
        is_temporal=True,
    ),
    "AutoencoderKLWan": _Kind(
        "base_dim decoder_base_dim dim_mult latents_mean latents_std num_res_blocks out_channels "
        "temperal_downsample z_dim",
        channels="dim_mult",
        latents="z_dim",
        encoder="dim_mult",
        frames=None,
        fixed={"attn_scales": [], "is_residual": False, "patch_size": None},
        is_temporal=True,
    ),
}
AUTOENCODERS = tuple(_KINDS)
# A class by import path, for autoencoders that are no part of diffusers.
OWN_CLASS = re.compile(r"(?P<module>[A-Za-z_]\w*(\.\w+)*):(?P<name>[A-Za-z_]\w*)")
_OWN_KEYS = ("config", "frames", "is_temporal", "latent_channels", "scaling_factor", "shift_factor", "upsampling")


def _check_value(key: str, value: Any) -> None:
    """ValueError unless `value` may stand in a specification under `key`."""
    if key in _ALLOWED:
        entries = value if key in _LISTS else [value]
        fits = isinstance(entries, list) and 1 <= len(entries) <= _MAX_STAGES
        known = (int, str, bool, type(None))
        if fits and all(type(entry) in known and entry in _ALLOWED[key] for entry in entries):
            return
        expected = f"{f'1 to {_MAX_STAGES} of ' if key in _LISTS else ''}{_ALLOWED[key]}"
    elif key in _CHANNEL_LISTS:
        low = 1e-6 if key == "latents_std" else -1e6
        if isinstance(value, list) and 1 <= len(value) <= len(_COUNTS) and all(_is_number(v, low) for v in value):
            return
        expected = f"a list of numbers from {low} to 1e6"
    else:
        low = {"scaling_factor": 1e-6, "norm_eps": 1e-12}.get(key, -1e6)
        if (key == "shift_factor" and value is None) or _is_number(value, low):
            return
        expected = f"a number from {low} to 1e6"
    raise ValueError(f"a decoder cannot have {key} = {str(value)[:80]}: expected {expected}; check where it comes from")


def _is_number(value: Any, low: float) -> bool:
    return type(value) in (int, float) and low <= value <= 1e6


@dataclass(frozen=True)
class DecoderSpec:
    """What it takes to build a decoder without its weights; checked, because it may come from an untrusted file.

    Attributes:
        class_name: one of `AUTOENCODERS`, or `package.module:Class` for a class that its author ships.
        config: the keys of that class's configuration that shape the decoder, and no other; plain JSON values.
    """

    class_name: str
    config: dict[str, Any]

    def __post_init__(self) -> None:
        name, config = self.class_name, self.config
        check_class(name, "the decoder's specification")
        keys = _OWN_KEYS if self.is_own_class else _KINDS[name].keys.split()
        if sorted(config) != list(keys):
            raise ValueError(f"a decoder of {name} needs the keys {list(keys)}, got {str(sorted(config))[:300]}")
        if self.is_own_class:
            self._check_own()
            return
        for key, value in config.items():
            _check_value(key, value)
        self._check_lists()
        if self.upsampling > _MAX_UPSAMPLING:
            raise ValueError(f"the decoder enlarges {self.upsampling} times, at most {_MAX_UPSAMPLING} allowed")

    def _check_lists(self) -> None:
        """ValueError unless lists fit each other."""
        kind, config = _KINDS[self.class_name], self.config
        channels = config[kind.channels]
        stages = config[kind.stages] if kind.stages else channels
        groups = config.get("norm_num_groups", 1)
        if len(channels) != len(stages) or (kind.stages and any(channel % groups for channel in channels)):
            raise ValueError(f"{channels = }, {stages = }: as many of each, and multiples of {groups} groups, needed")
        if kind.channels == "decoder_block_out_channels" and len(set(channels)) > 1:
            raise ValueError(f"{self.class_name} needs the same number of channels in every stage, got {channels}")
        if self.class_name == "AutoencoderKLWan":
            if len(config["temperal_downsample"]) != len(channels) - 1:
                raise ValueError(f"{config['temperal_downsample'] = } needs one entry less than dim_mult = {channels}")
            for key in _CHANNEL_LISTS:
                if len(config[key]) != self.latent_channels:
                    raise ValueError(f"{key} has {len(config[key])} entries for {self.latent_channels} latent channels")
        wanted = "3D" if kind.is_temporal else "2D"
        if any(not block.endswith(wanted) for block in config.get("up_block_types", ())):
            raise ValueError(f"{self.class_name} cannot have up_block_types = {config['up_block_types']}")

    def _check_own(self) -> None:
        config = self.config
        sizes = [config["latent_channels"], config["upsampling"], *np.ravel(config["frames"]).tolist()]
        is_whole = all(type(size) is int and 0 <= size <= 4096 for size in sizes)
        if len(sizes) != 5 or not is_whole or min(sizes[:2]) < 1:
            raise ValueError(f"{self.class_name}: {sizes} are no latent channels, upsampling and rule for frames")
        if type(config["is_temporal"]) is not bool or len(json.dumps(config["config"])) > _MAX_OWN_CONFIG:
            raise ValueError(f"{self.class_name}: its configuration is damaged or over {_MAX_OWN_CONFIG} characters")
        for key in ("scaling_factor", "shift_factor"):
            _check_value(key, config[key])

    @property
    def is_own_class(self) -> bool:
        """Whether the class is one that its author ships, not one of `AUTOENCODERS`."""
        return self.class_name not in _KINDS

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.config["latent_channels" if self.is_own_class else _KINDS[self.class_name].latents])

    @property
    def upsampling(self) -> int:
        """Pixels along an edge of the frame for one latent."""
        if self.is_own_class:
            return int(self.config["upsampling"])
        num_stages = len(self.config[_KINDS[self.class_name].channels])
        return int(self.config.get("upsampling_scaling_factor", 2) ** (num_stages - 1))

    @property
    def is_temporal(self) -> bool:
        """Whether it decodes whole clips, not frames."""
        return bool(self.config["is_temporal"]) if self.is_own_class else _KINDS[self.class_name].is_temporal

    @property
    def frame_rule(self) -> FrameRule:
        """Which numbers of frames it takes."""
        if self.is_own_class:
            ratio, multiple, remainder = self.config["frames"]
            return FrameRule(max(1, ratio), max(1, multiple), remainder)
        if rule := _KINDS[self.class_name].frames:
            return rule
        ratio = 2 ** sum(self.config["temperal_downsample"])
        return FrameRule(ratio, ratio, 1 % ratio)

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
        """Takes the decoder's keys out of a model's whole configuration.

        Raises:
            ValueError: a decoder cannot be built of them, or the encoder does not fit it.
        """
        kind = _KINDS[class_name]
        for key, value in kind.fixed.items():
            got = config.get(key, value)
            if (list(got) if isinstance(got, tuple) else got) != value:
                raise ValueError(f"{class_name} with {key} = {got!r} cannot be used, only with {value!r}")
        chosen = {key: config[key] for key in kind.keys.split()}
        if "temporal_compression_ratio" in chosen:
            chosen["temporal_compression_ratio"] = int(chosen["temporal_compression_ratio"])
        spec = cls(class_name, {key: list(v) if isinstance(v, list | tuple) else v for key, v in chosen.items()})
        downsampling = 2 ** (len(config[kind.encoder]) - 1)
        if downsampling != spec.upsampling or config["in_channels"] != 3:
            raise ValueError(
                f"this {class_name} takes {config['in_channels']} channels, makes frames {downsampling} times smaller, "
                f"then {spec.upsampling} times larger; it must take 3 channels and give back the same size"
            )
        return spec


def check_class(class_name: str, where: str) -> None:
    """ValueError unless a decoder of that class can be built."""
    if class_name not in _KINDS and not OWN_CLASS.fullmatch(class_name):
        raise ValueError(
            f"{where} names the class {class_name[:80]!r}; only {', '.join(AUTOENCODERS)} and classes by import path, "
            "package.module:Class, can be used"
        )
