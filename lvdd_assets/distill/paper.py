"""Numbers that "Latent Video Dataset Distillation" (LVDD, arXiv 2504.17132) and its field print.

Each stands with its place there. Here belongs every figure taken from that paper, from its released code, or from the
papers it is compared with. Where text and code differ, the name says whose number it is (`RELEASED_...` is the code's).
What must NOT come here: our own settings, measured figures, any function that works on video, and any number that was
not printed by its source.
"""

from dataclasses import dataclass
from typing import Literal

ARXIV_ID = "2504.17132"

# --- Method ---------------------------------------------------------------------------------------

RANK_RATIO = 0.75
"""Part of each latent mode that HOSVD keeps (method, latent compression; its ablation chooses it)."""

RANK_RATIO_COLLAPSED = 0.10
"""The ratio at which the same ablation falls to about 4 % accuracy."""

WEIGHT_BITS = 8
"""Static post-training quantisation of the 2D autoencoder's weights, 32 to 8 bit (method, quantisation)."""

RELEASED_IPC1_CLIPS_PER_CLASS = 24
"""Clips per class that the released code calls IPC 1 on MiniUCF and HMDB51; the text does not say so."""

RELEASED_KERNEL_BANDWIDTH = 1.0
"""The released code's kernel is exp(-distance / bandwidth) on standardised flattened latents."""

RELEASED_TUCKER_CHUNK = 400
"""Clips, of mixed classes, that the released code decomposes together."""

RELEASED_TUCKER_ITERATIONS = 100
"""Upper bound on the alternating (HOOI) iterations of the released code."""

# --- Storage budget of the field ------------------------------------------------------------------

BUDGET_BYTES_PER_VALUE = 4
"""IPC n counts n clips per class as float32 pixels (experiments, storage; the field's convention)."""

BUDGET_CHANNELS = 3
"""RGB."""


@dataclass(frozen=True)
class Benchmark:
    """One dataset as the paper uses it (experiments, datasets).

    Attributes:
        name: Name in the tables.
        num_classes: Classes of the benchmark.
        frames: Frames of a clip.
        size: Height and width of a frame, pixels.
        metric: What the tables report for it.
    """

    name: str
    num_classes: int
    frames: int
    size: int
    metric: Literal["top-1", "top-5"]


SAMPLING_INTERVAL = 4
"""Source frames between two frames of a clip (experiments, datasets)."""

BENCHMARKS = {
    "MiniUCF": Benchmark("MiniUCF", 50, 16, 112, "top-1"),
    "HMDB51": Benchmark("HMDB51", 51, 16, 112, "top-1"),
    "K400": Benchmark("K400", 400, 8, 64, "top-5"),
}
"""Benchmarks whose shape text and budgets agree on; SSv2 is left out because its two sources differ."""

# --- Network and training of the evaluation -------------------------------------------------------

CONVNET3D_WIDTHS = (64, 128, 128)
"""Channels of the three convolutions (released code, networks)."""

CONVNET3D_KERNEL = (3, 7, 7)
"""Kernel over time, height, width (released code, networks)."""

CONVNET3D_STRIDE = (1, 2, 2)
"""Stride of every convolution (released code, networks)."""

CONVNET3D_PADDING = (1, 3, 3)
"""Padding of every convolution (released code, networks)."""

CONVNET3D_POOLS = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
"""Max pools behind the three convolutions (released code, networks)."""

CONVNET3D_AVERAGE_POOL_112 = (2, 2, 2)
"""Average pool before the classifier at 112 pixels (released code, networks)."""

CONVNET3D_AVERAGE_POOL_64 = (2, 1, 1)
"""The same at 64 pixels and less."""

CONVNET3D_AVERAGE_STRIDE = 1
"""Step of the average pool along every axis: its windows overlap (released code, networks)."""

CONVNET3D_DROPOUT = 0.5
"""Dropout before the classifier (released code, networks)."""

CONVNET3D_PARAMETERS_MILLIONS = 3.65
"""Size of the network for 50 or 51 classes."""

TRAINING_EPOCHS = 500
"""Released code, training."""

TRAINING_LEARNING_RATE = 0.01
"""SGD (released code, training)."""

TRAINING_MOMENTUM = 0.9
"""SGD (released code, training)."""

TRAINING_WEIGHT_DECAY = 5e-4
"""SGD (released code, training)."""

TRAINING_DECAY_FACTOR = 0.1
"""The learning rate is multiplied by this after half of the epochs (released code, training)."""

TRAINING_BATCH_SIZE = 256
"""Released code, training."""

TRAINING_NUM_SEEDS = 5
"""Networks whose mean accuracy is reported (released code, training)."""

# --- Published results ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedResult:
    """One accuracy printed in a paper.

    Attributes:
        method: Name of the method in the tables.
        dataset: Name of the benchmark.
        ipc: Instances per class, by the budget's convention.
        metric: Which accuracy.
        accuracy_percent: In [0, 100].
    """

    method: str
    dataset: str
    ipc: Literal[1, 5]
    metric: Literal["top-1", "top-5"]
    accuracy_percent: float

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy_percent <= 100:
            raise ValueError(f"{self.accuracy_percent = } is not a percentage; expected 0 to 100")


_COLUMNS: tuple[tuple[str, Literal[1, 5], Literal["top-1", "top-5"]], ...] = (
    ("MiniUCF", 1, "top-1"),
    ("MiniUCF", 5, "top-1"),
    ("HMDB51", 1, "top-1"),
    ("HMDB51", 5, "top-1"),
    ("K400", 1, "top-5"),
    ("K400", 5, "top-5"),
    ("SSv2", 1, "top-5"),
    ("SSv2", 5, "top-5"),
)

# Main results tables of LVDD; the last two lines are PRISM's (CVPR 2026), which ran herding again. None: not
# printed.
_ACCURACIES: dict[str, tuple[float | None, ...]] = {
    "LVDD": (34.8, 41.1, 12.1, 17.6, 9.0, 13.8, 6.9, 10.5),
    "IDTD": (22.5, 33.3, 9.5, 16.2, 6.1, None, None, None),
    "MTT+VDSD": (23.3, None, None, None, None, None, None, None),
    "DM+VDSD": (17.5, 27.2, 6.0, 8.2, None, None, 4.0, None),
    "DM": (15.3, 25.7, 6.1, 8.0, None, 9.1, None, None),
    "Herding": (13.2, 26.3, 3.0, 9.0, None, None, None, None),
    "PRISM": (17.9, 28.0, 7.5, 10.5, None, 8.1, 3.9, None),
}

PUBLISHED_RESULTS = tuple(
    PublishedResult(method, dataset, ipc, metric, accuracy)
    for method, accuracies in _ACCURACIES.items()
    for (dataset, ipc, metric), accuracy in zip(_COLUMNS, accuracies, strict=True)
    if accuracy is not None
)
"""Every accuracy of the main comparison, in the order of the tables."""

CROSS_ARCHITECTURE_PERCENT = {"ConvNet3D": 34.8, "CNN+GRU": 19.9, "CNN+LSTM": 18.3}
"""LVDD on MiniUCF, IPC 1, top-1 by the network that is trained (cross-architecture table)."""

SVD_INSTEAD_OF_HOSVD_PERCENT = {"MiniUCF": 38.5, "HMDB51": 15.8}
"""LVDD at IPC 5, top-1, with a plain SVD in place of HOSVD (ablation of the compression)."""

SAMPLING_PERCENT = {"k-means": 7.2, "DPP only": 9.3, "DPP + HOSVD": 10.5}
"""SSv2 at IPC 5, top-5, by how clips are selected (ablation of the sampling)."""

STORAGE_MEGABYTES = {
    1: {"MiniUCF": 107, "HMDB51": 107, "K400": 148, "SSv2": 223},
    5: {"MiniUCF": 475, "HMDB51": 475, "K400": 455, "SSv2": 458},
}
"""What LVDD says it stores, by IPC and dataset (storage table)."""

PEAK_GPU_MEMORY_MEBIBYTES = {"LVDD": 11_085, "VDSD": 12_545, "DM": 20_457}
"""Peak GPU memory by method (memory table); for which dataset is not on record here."""

DISTILLATION_TIME = {
    "LVDD": {"small": "under 10 min", "large": "about 1 h"},
    "VDSD": {"small": "2.5 h", "large": "over 5 h"},
}
"""Time on one H100 by method, for the small (MiniUCF, HMDB51) and the large datasets, in the source's words."""
