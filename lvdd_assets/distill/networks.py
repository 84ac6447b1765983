"""The networks that judge a dataset: they are trained from scratch on it and then tested on real clips.

Here belong what all of them share, the literature's ConvNet3D, and the only place that knows by which mean and
deviation pixels are normalised; the other networks stand in `architectures`. What must NOT come here: training, data
loading, autoencoders.

Legend: N clips, T frames, C channels, H, W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from lvdd_assets.distill import paper

# Constants per channel, in [0, 1], the same for every set and at test: the released code of LVDD normalises
# each batch by itself, so that there a clip's score depends on its neighbours in the batch. These are the
# ones commonly used for action recognition; no set that is compared here had a part in them.
_MEAN_C = (0.432, 0.395, 0.376)
_STD_C = (0.228, 0.221, 0.217)


class ClipNetwork(nn.Module, ABC):
    """A classifier of clips of one shape: uint8 pixels in, logits out, normalisation by constants in between.

    A subclass builds its layers and defines `embed`, and `forward` if its classifier is not a linear layer.

    Attributes:
        num_classes: Number of logits.
        frames: Frames of a clip.
        size: Height and width of a frame, pixels.
        classifier: Layer that turns what `embed` gives into logits.
    """

    mean: torch.Tensor
    std: torch.Tensor
    classifier: nn.Module

    def __init__(self, num_classes: int, *, frames: int, size: int) -> None:
        """Note the shape.

        Args:
            num_classes: Number of logits, at least 2.
            frames: Frames of a clip.
            size: Height and width of a frame, pixels.
        """
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"got {num_classes = }; a classifier needs at least 2 classes")
        self.num_classes, self.frames, self.size = num_classes, frames, size
        self.register_buffer("mean", torch.tensor(_MEAN_C).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD_C).view(1, -1, 1, 1, 1), persistent=False)

    def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """Logits of clips.

        Args:
            clips_NTCHW: uint8 [N, T, 3, H, W] with the frames and size the network was built for.

        Returns:
            float32 or, under autocast, bfloat16 [N, num_classes].
        """
        logits: torch.Tensor = self.classifier(self.embed(clips_NTCHW))
        return logits

    @abstractmethod
    def embed(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """What the classifier sees of clips (as for `forward`): [N, ...]."""

    def normalise(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """Pixels as the first layer sees them: float32 [N, 3, T, H, W], channels last in memory.

        Raises:
            ValueError: The clips are not uint8, or not of the shape that the network was built for.
        """
        expected = (self.frames, paper.BUDGET_CHANNELS, self.size, self.size)
        if clips_NTCHW.dtype != torch.uint8 or tuple(clips_NTCHW.shape[1:]) != expected:
            raise ValueError(
                f"got {clips_NTCHW.dtype} {tuple(clips_NTCHW.shape)}; this network expects uint8 "
                f"[N, T, C, H, W] with [T, C, H, W] = {list(expected)}: build it for the clips' shape"
            )
        pixels_NCTHW = clips_NTCHW.transpose(1, 2).float() / 255
        pixels_NCTHW = (pixels_NCTHW - self.mean) / self.std
        return pixels_NCTHW.contiguous(memory_format=torch.channels_last_3d)


class ConvNet3D(ClipNetwork):
    """Three 3D convolutions, a linear classifier and the maximum over time; no normalisation layers.

    The network with which the literature on video dataset distillation compares (often called C3D there):
    widths, kernels, pools and dropout stand in `paper`. Its average pool takes the whole map of height and
    width that is left, which is the paper's 2×2 at 112 pixels and 1×1 at 64.

    Attributes:
        feature_shape_THW: Frames, height and width of the feature map that the classifier sees after pooling.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        frames: int,
        size: int,
        widths: Sequence[int] = paper.CONVNET3D_WIDTHS,
    ) -> None:
        """Build the network with torch's default initialisation.

        Args:
            num_classes: Number of logits, at least 2.
            frames: Frames of a clip.
            size: Height and width of a frame, pixels.
            widths: Channels of the three convolutions; narrower ones make a faster network than the paper's.
        """
        super().__init__(num_classes, frames=frames, size=size)
        check_widths("ConvNet3D", widths, len(paper.CONVNET3D_POOLS))
        map_T, map_H = _feature_map(frames, size)
        average = (paper.CONVNET3D_AVERAGE_POOL_112[0], map_H, map_H)
        self.feature_shape_THW = ((map_T - average[0]) // paper.CONVNET3D_AVERAGE_STRIDE + 1, 1, 1)

        layers: list[nn.Module] = []
        channels = (paper.BUDGET_CHANNELS, *widths)
        for index, pool in enumerate(paper.CONVNET3D_POOLS):
            layers += [
                nn.Conv3d(
                    channels[index],
                    channels[index + 1],
                    paper.CONVNET3D_KERNEL,
                    stride=paper.CONVNET3D_STRIDE,
                    padding=paper.CONVNET3D_PADDING,
                ),
                # The literature's ReLU stands before the pool; behind it, it gives the same values and gradients on
                # a quarter or an eighth of the map.
                nn.MaxPool3d(pool),
                nn.ReLU(),
            ]
        pool_over_map = nn.AvgPool3d(average, stride=paper.CONVNET3D_AVERAGE_STRIDE)
        self.features = nn.Sequential(*layers, pool_over_map, nn.Dropout(paper.CONVNET3D_DROPOUT))
        self.classifier = nn.Conv3d(channels[-1], num_classes, kernel_size=1)

    def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """Logits of clips, as in `ClipNetwork`: the largest over time."""
        return super().forward(clips_NTCHW).flatten(2).amax(dim=2)

    def embed(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        """What the classifier sees of clips (as for `forward`): [N, C, T', 1, 1], T' as in `feature_shape_THW`."""
        features: torch.Tensor = self.features(self.normalise(clips_NTCHW))
        return features


def check_widths(network: str, widths: Sequence[int], expected: int) -> None:
    """Raise a ValueError unless there are as many widths as the network has, all positive."""
    if len(widths) != expected or min(widths) < 1:
        raise ValueError(f"got widths = {tuple(widths)}; {network} expects {expected} positive widths")


def num_parameters(network: nn.Module) -> int:
    """Number of trainable values of a network."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _feature_map(frames: int, size: int) -> tuple[int, int]:
    """Frames and height (= width) behind the last max pool; an error where nothing would be left."""
    map_T, map_H = frames, size
    kernel, stride, padding = paper.CONVNET3D_KERNEL, paper.CONVNET3D_STRIDE, paper.CONVNET3D_PADDING
    for pool in paper.CONVNET3D_POOLS:
        map_T = ((map_T + 2 * padding[0] - kernel[0]) // stride[0] + 1) // pool[0]
        map_H = ((map_H + 2 * padding[1] - kernel[1]) // stride[1] + 1) // pool[1]
    if map_T < paper.CONVNET3D_AVERAGE_POOL_112[0] or map_H < 1:
        raise ValueError(
            f"got clips of {frames} frames at {size}×{size} pixels; ConvNet3D pools them to nothing "
            f"({map_T} frames before an average over {paper.CONVNET3D_AVERAGE_POOL_112[0]}, {map_H} pixels): "
            f"use at least {MIN_FRAMES} frames and {MIN_SIZE} pixels"
        )
    return map_T, map_H


MIN_FRAMES = 8
"""Fewest frames that leave a feature map."""

MIN_SIZE = 43
"""Smallest height and width, in pixels, that leave a feature map."""
