"""A small decoder to be quantised in the tests."""

import torch
from torch import Tensor, nn

from lvdd_assets.distill.quantization import QuantizedWeights, dequantize


class SmallDecoder(nn.Module):
    """A small decoder with everything that occurs: convolutions with and without bias, a norm, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 16)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.second = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, latents_NChw: Tensor) -> Tensor:
        hidden = self.linear(latents_NChw.movedim(1, -1)).movedim(-1, 1).relu()
        hidden = self.norm(self.first(hidden)).relu()
        return self.last(self.second(hidden).relu())


@torch.no_grad()
def output_error(module: nn.Module, quantized: QuantizedWeights, latents: Tensor) -> float:
    """Mean squared error of the output with quantised weights."""
    expected = module(latents)
    rounded = SmallDecoder()
    rounded.load_state_dict(dequantize(quantized))
    return (rounded(latents) - expected).double().square().mean().item()
