"""What several tests of the method start from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.distill.autoencoders import KINDS
from tests.distill.small_decoder import SmallDecoder


@pytest.fixture(params=KINDS)
def any_folder(request: pytest.FixtureRequest, saved: dict[str, Path]) -> Path:
    """A folder with an autoencoder of each class."""
    return saved[request.param]


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    built = SmallDecoder()
    with torch.no_grad():
        built.norm.weight.uniform_(0.5, 2)
        built.first.weight[3] = 0  # a dead channel
        built.first.weight[4] *= 1e-7  # a scale below the least normal float16
        built.second.weight[2, 1, 0, 0] = 3  # an outlier
    return built


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1))
