"""Networks beside ConvNet3D: does a dataset teach other architectures too?

CNN+GRU and CNN+LSTM of the literature's cross-architecture table, Tran's C3D, and a small modern network with factored
convolutions and batch normalisation; `build_network` makes any of them by name. What all share belongs to `networks`.
What must NOT come here: training, data loading, autoencoders.

Legend: N clips, T frames, C channels, H, W pixels, M frames of all clips.
"""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lvdd_assets.distill import paper
from lvdd_assets.distill.networks import ClipNetwork, ConvNet3D, check_widths
from lvdd_assets.distill.protocols import NETWORKS

RECURRENT_WIDTHS = (128, 128, 128, 128)
C3D_WIDTHS = (64, 128, 256, 512, 512, 4096)
R2PLUS1D_WIDTHS = (32, 64, 128, 256)

# Convolutions in each of C3D's five stages.
_C3D_DEPTHS = (1, 1, 2, 2, 2)
_C3D_DROPOUT = 0.5


class FrameConvolution(nn.Conv3d):
    """A 3×3 convolution of single frames, [M, C, H, W], whose weights have the shape of a 3D layer's.

    So one call lays out the weights of any network. Normalising and pooling frames on their own is faster where
    channels do not come last, on processors at least, so that the layout is undone here.
    """

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside, (1, 3, 3))

    def forward(self, frames_MCHW: torch.Tensor) -> torch.Tensor:
        """Of the same height and width."""
        return nn.functional.conv2d(frames_MCHW, self.weight.squeeze(2).contiguous(), self.bias, padding=1)


class FrameCNN(nn.Sequential):
    """Three times [3×3 convolution, instance normalisation, ReLU, 2×2 average pool], then the mean over the map.

    The ConvNet of the literature on dataset distillation, for single frames: [M, 3, H, W] to [M, C].
    """

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for inside, outside in zip((paper.BUDGET_CHANNELS, *widths), widths, strict=False):
            layers += [FrameConvolution(inside, outside), nn.GroupNorm(outside, outside), nn.ReLU(), nn.AvgPool2d(2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Recurrent(ClipNetwork):
    """A CNN for each frame, a recurrent layer over time, the mean of its states, a linear classifier."""

    recurrent: nn.GRU | nn.LSTM

    def __init__(self, name: str, num_classes: int, *, frames: int, size: int, widths: Sequence[int]) -> None:
        super().__init__(num_classes, frames=frames, size=size)
        check_widths(name, widths, len(RECURRENT_WIDTHS))
        _check_clip(name, frames, size, min_frames=1, min_size=8)
        self.features = FrameCNN(widths[:-1])
        self.classifier = nn.Linear(widths[-1], num_classes)

    def embed(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """The mean state over time: [N, C]."""
        frames_MCHW = self.normalise(clips_NTCHW).transpose(1, 2).flatten(0, 1).contiguous()
        features_NTC = self.features(frames_MCHW).view(len(clips_NTCHW), self.frames, -1)
        states_NTC, _ = self.recurrent(features_NTC)
        mean_NC: torch.Tensor = states_NTC.mean(dim=1)
        return mean_NC


class CNNGRU(_Recurrent):
    """CNN+GRU of the cross-architecture table, smaller than there.

    As there, a ConvNet of width 128 sees each frame, and the mean of the states is classified. There the whole 8×8 map
    of 64×64 pixels goes into the recurrent layer, which makes 28 million parameters of the GRU and 537 million of the
    LSTM, for 64×64 pixels alone; here its mean does, at any size.
    """

    def __init__(self, num_classes: int, *, frames: int, size: int, widths: Sequence[int] = RECURRENT_WIDTHS) -> None:
        """Build the network with torch's default initialisation.

        Args:
            num_classes: Number of logits, at least 2.
            frames: Frames of a clip, at least 1.
            size: Height and width of a frame, pixels, at least 8.
            widths: Channels of the three convolutions and of the recurrent state.
        """
        super().__init__("CNN+GRU", num_classes, frames=frames, size=size, widths=widths)
        self.recurrent = nn.GRU(widths[-2], widths[-1], batch_first=True)


class CNNLSTM(_Recurrent):
    """CNN+LSTM of the cross-architecture table, smaller than there as said at `CNNGRU`."""

    def __init__(self, num_classes: int, *, frames: int, size: int, widths: Sequence[int] = RECURRENT_WIDTHS) -> None:
        """Build the network; arguments as for `CNNGRU`."""
        super().__init__("CNN+LSTM", num_classes, frames=frames, size=size, widths=widths)
        self.recurrent = nn.LSTM(widths[-2], widths[-1], batch_first=True)


class C3D(ClipNetwork):
    """C3D (Tran et al., ICCV 2015): eight 3×3×3 convolutions, five max pools, three linear layers; no normalisation.

    For 16 frames at 112×112 it is the original, 78 million parameters for 101 classes. For other shapes the pools
    round up, as the original's do in space: an axis that has come to 1 stays there, and the first linear layer takes
    what is left (at 8×64×64: 512 × 1 × 2 × 2). Batch normalisation, which later versions add, is left out.
    """

    def __init__(self, num_classes: int, *, frames: int, size: int, widths: Sequence[int] = C3D_WIDTHS) -> None:
        """Build the network with torch's default initialisation.

        Args:
            num_classes: Number of logits, at least 2.
            frames: Frames of a clip, at least 2.
            size: Height and width of a frame, pixels, at least 17: below that the last pool finds a single pixel.
            widths: Channels of the five stages and of the linear layers.
        """
        super().__init__(num_classes, frames=frames, size=size)
        check_widths("C3D", widths, len(C3D_WIDTHS))
        _check_clip("C3D", frames, size, min_frames=2, min_size=17)
        layers: list[nn.Module] = []
        channels, map_T, map_H = paper.BUDGET_CHANNELS, frames, size
        for stage, (width, depth) in enumerate(zip(widths, _C3D_DEPTHS, strict=False)):
            for _ in range(depth):
                layers += [nn.Conv3d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            pool_T = 1 if stage == 0 else 2
            layers.append(nn.MaxPool3d((pool_T, 2, 2), ceil_mode=True))
            map_T, map_H = -(-map_T // pool_T), -(-map_H // 2)
        self.features = nn.Sequential(*layers, nn.Flatten())
        for inside, outside in ((channels * map_T * map_H**2, widths[-1]), (widths[-1], widths[-1])):
            self.features.extend([nn.Linear(inside, outside), nn.ReLU(), nn.Dropout(_C3D_DROPOUT)])
        self.classifier = nn.Linear(widths[-1], num_classes)

    def embed(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """What the second linear layer gives: [N, C]."""
        features: torch.Tensor = self.features(self.normalise(clips_NTCHW))
        return features


class FactoredConvolution(nn.Sequential):
    """A 3D convolution as one over space and one over time, batch normalisation and ReLU between them.

    The width between them is the one with which both have as many parameters as the whole 3D convolution would have
    (Tran et al., CVPR 2018, section 3.5).
    """

    def __init__(self, inside: int, outside: int, *, stride: int = 1) -> None:
        between = max(1, (3 * 9 * inside * outside) // (9 * inside + 3 * outside))
        super().__init__(
            nn.Conv3d(inside, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(between),
            nn.ReLU(),
            nn.Conv3d(between, outside, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class _ResidualBlock(nn.Module):
    """Two factored convolutions around which the input goes, by a 1×1×1 convolution where shapes differ."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            FactoredConvolution(inside, outside, stride=stride),
            nn.BatchNorm3d(outside),
            nn.ReLU(),
            FactoredConvolution(outside, outside),
            nn.BatchNorm3d(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv3d(inside, outside, 1, stride, bias=False), nn.BatchNorm3d(outside))

    def forward(self, features_NCTHW: torch.Tensor) -> torch.Tensor:
        """Of [N, C, T, H, W]."""
        return nn.functional.relu(self.residual(features_NCTHW) + self.shortcut(features_NCTHW))


class R2Plus1D(ClipNetwork):
    """R(2+1)D with ten layers at half the published widths: 3.6 million parameters (Tran et al., CVPR 2018).

    A factored stem that halves height and width, four residual blocks of which the last three halve time and space
    each, the mean over what is left, a linear layer. Batch normalisation after each convolution: in training, clips of
    a batch depend on each other, at test they do not.
    """

    def __init__(self, num_classes: int, *, frames: int, size: int, widths: Sequence[int] = R2PLUS1D_WIDTHS) -> None:
        """Build the network with torch's default initialisation.

        Args:
            num_classes: Number of logits, at least 2.
            frames: Frames of a clip, at least 1.
            size: Height and width of a frame, pixels, at least 17: batch normalisation of a single clip needs more
                than one pixel.
            widths: Channels of the four blocks; the stem has those of the first.
        """
        super().__init__(num_classes, frames=frames, size=size)
        check_widths("R(2+1)D", widths, len(R2PLUS1D_WIDTHS))
        _check_clip("R(2+1)D", frames, size, min_frames=1, min_size=17)
        stem = max(1, round(widths[0] * 45 / 64))  # the published 45 channels of a stem of 64
        self.features = nn.Sequential(
            nn.Conv3d(paper.BUDGET_CHANNELS, stem, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(stem),
            nn.ReLU(),
            nn.Conv3d(stem, widths[0], (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(),
            _ResidualBlock(widths[0], widths[0], stride=1),
            *(_ResidualBlock(before, after, stride=2) for before, after in itertools.pairwise(widths)),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def embed(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """The mean over the last map: [N, C]."""
        features: torch.Tensor = self.features(self.normalise(clips_NTCHW))
        return features


def _check_clip(network: str, frames: int, size: int, *, min_frames: int, min_size: int) -> None:
    if frames < min_frames or size < min_size:
        raise ValueError(
            f"got clips of {frames} frames at {size}×{size} pixels; {network} needs at least {min_frames} frames and "
            f"{min_size} pixels"
        )


_BUILDERS: Mapping[str, type[ConvNet3D | CNNGRU | CNNLSTM | C3D | R2Plus1D]] = {
    "convnet3d": ConvNet3D,
    "cnn-gru": CNNGRU,
    "cnn-lstm": CNNLSTM,
    "c3d": C3D,
    "r2plus1d": R2Plus1D,
}

DEFAULT_WIDTHS: Mapping[str, tuple[int, ...]] = {
    "convnet3d": paper.CONVNET3D_WIDTHS,
    "cnn-gru": RECURRENT_WIDTHS,
    "cnn-lstm": RECURRENT_WIDTHS,
    "c3d": C3D_WIDTHS,
    "r2plus1d": R2PLUS1D_WIDTHS,
}
"""Channels of each network's layers where nothing else is said; others must be as many."""


def build_network(
    name: str, num_classes: int, *, frames: int, size: int, widths: Sequence[int] | None = None
) -> ClipNetwork:
    """A new network with torch's default initialisation from torch's global random state.

    Args:
        name: One of `protocols.NETWORKS`.
        num_classes: Number of logits, at least 2.
        frames: Frames of a clip.
        size: Height and width of a frame, pixels.
        widths: Channels of its layers, as many as `DEFAULT_WIDTHS` has for it; None takes those.

    Raises:
        ValueError: The network is unknown, or clips or widths do not fit it.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    return _BUILDERS[name](num_classes, frames=frames, size=size, widths=widths or DEFAULT_WIDTHS[name])
