"""`weight_rounding`: never worse than plain rounding, error feedback against its definition and against enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lvdd_assets.distill.quantization import dequantize, fit_scales, quantize_weights
from lvdd_assets.distill.weight_rounding import calibrate, round_by_feedback
from tests.distill.small_decoder import SmallDecoder, output_error

SHARES = tuple(1 - 0.025 * step for step in range(13))


def _run(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_calibration_is_never_worse_than_rounding(module: nn.Module, latents: Tensor, bits: int) -> None:
    calibrated = calibrate(module, latents=latents, forward=_run, bits=bits)
    rounded = quantize_weights(module, bits=bits)
    assert output_error(module, calibrated, latents) <= output_error(module, rounded, latents)
    assert calibrated.stored_bytes == rounded.stored_bytes


@pytest.mark.parametrize("seed", range(5))
def test_calibration_helps_at_few_bits(latents: Tensor, seed: int) -> None:
    torch.manual_seed(seed)
    module = SmallDecoder()
    calibrated = calibrate(module, latents=latents, forward=_run, bits=3)
    other = torch.randn(64, 4, 6, 6, generator=torch.Generator().manual_seed(99))
    assert output_error(module, calibrated, other) < 0.9 * output_error(module, quantize_weights(module, bits=3), other)


def test_bias_correction_restores_the_mean_of_the_output(latents: Tensor) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    batch = latents + 2  # a mean far from zero, so that rounding shifts it
    calibrated = calibrate(module, latents=batch, forward=_run, bits=3)
    plain, corrected = (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1)) for _ in range(2))
    plain.load_state_dict(dequantize(quantize_weights(module, bits=3)))
    corrected.load_state_dict(dequantize(calibrated))
    with torch.no_grad():
        means = [net(batch).mean(dim=(0, 2, 3)) for net in (module, plain, corrected)]
    assert (means[2] - means[0]).abs().max() < 2e-3  # biases are float16
    assert (means[1] - means[0]).abs().max() > 1e-2


def test_calibration_leaves_the_module_as_it_was(module: nn.Module, latents: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first = calibrate(module, latents=latents, forward=_run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert calibrate(module, latents=latents, forward=_run).to_bytes() == first.to_bytes()


def test_calibration_on_nan_is_refused(module: nn.Module, latents: Tensor) -> None:
    with pytest.raises(ValueError, match="calibration batch holds NaN"):
        calibrate(module, latents=latents * float("nan"), forward=_run)


def _correlated(num: int, size: int, generator: torch.Generator) -> Tensor:
    """Inputs [num, size] of which three directions hold nearly all."""
    mixing = torch.randn(3, size, generator=generator)
    return torch.randn(num, 3, generator=generator) @ mixing + 0.1 * torch.randn(num, size, generator=generator)


def _hessian(inputs: Tensor) -> np.ndarray:
    return (2 * inputs.double().T @ inputs.double()).numpy()


def _output_errors(values: np.ndarray, weight: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """(w - q) H (w - q)ᵀ of every row."""
    moved = values.astype(np.float64) - weight
    return np.einsum("ok,kl,ol->o", moved, hessian, moved)


def _least_of_rounding(weight: np.ndarray, hessian: np.ndarray, bits: int) -> np.ndarray:
    """The least output error of every row over all clippings, each weight in its nearest integer."""
    limit, errors = 2 ** (bits - 1) - 1, []
    for share in SHARES:
        scales = fit_scales("w", weight, bits=bits, share=share).astype(np.float64)[:, None]
        codes = np.clip(np.rint(weight / np.where(scales > 0, scales, 1)), -limit, limit)
        errors.append(_output_errors(codes * scales, weight, hessian))
    return np.min(errors, axis=0)


def _feed_back_slowly(weight: np.ndarray, scales: np.ndarray, inverses: list[np.ndarray], limit: int) -> np.ndarray:
    """GPTQ as its equations 2 and 3 have it: the inverse of what is left of H is taken anew for each weight."""
    left, codes = weight.astype(np.float64), np.zeros(weight.shape)
    for j, inverse in enumerate(inverses):
        codes[:, j] = np.clip(np.rint(left[:, j] / scales), -limit, limit)
        error = (left[:, j] - codes[:, j] * scales) / inverse[0, 0]
        left[:, j:] -= np.outer(error, inverse[0])
    return codes * scales[:, None]


@pytest.mark.parametrize(("bits", "size"), [(2, 5), (3, 70), (4, 130), (8, 9)])
def test_feedback_is_what_its_equations_say(bits: int, size: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(3, size, generator=generator).numpy()
    hessian = _hessian(_correlated(200, size, generator))
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(size)
    inverses = [np.linalg.inv(damped[j:, j:]) for j in range(size)]
    limit, errors = 2 ** (bits - 1) - 1, [_least_of_rounding(weight, hessian, bits)]
    for share in SHARES:
        scales = fit_scales("w", weight, bits=bits, share=share).astype(np.float64)
        errors.append(_output_errors(_feed_back_slowly(weight, scales, inverses, limit), weight, hessian))
    rounded = round_by_feedback("w", weight, hessian, bits=bits)
    assert np.abs(rounded.codes.astype(int)).max() <= limit
    ours = _output_errors(rounded.values(), weight, hessian)
    np.testing.assert_allclose(ours, np.min(errors, axis=0), rtol=1e-4)  # values() multiplies in float32


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 4), size=st.integers(1, 12), num=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_feedback_is_never_worse_than_rounding(seed: int, bits: int, size: int, num: int) -> None:
    """Whatever the inputs: none, fewer than weights, or equal ones."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, size, generator=generator).numpy()
    weight[1] = 0
    hessian = _hessian(_correlated(num, size, generator).round())
    rounded = round_by_feedback("w", weight, hessian, bits=bits)
    errors, plain = (_output_errors(rounded.values(), weight, hessian), _least_of_rounding(weight, hessian, bits))
    assert (errors <= plain * (1 + 1e-5) + 1e-9).all()
    assert np.abs(rounded.codes.astype(int)).max() <= 2 ** (bits - 1) - 1
    assert not rounded.values()[1].any()


def test_feedback_lies_between_rounding_and_the_best_of_all_integers() -> None:
    """Three weights in two bits can be enumerated: 27 codes under 13 clippings."""
    generator = torch.Generator().manual_seed(0)
    grid = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    gaps = []
    for _ in range(60):
        weight = torch.randn(1, 3, generator=generator).numpy()
        hessian = _hessian(_correlated(20, 3, generator))
        scales = [float(fit_scales("w", weight, bits=2, share=share)[0]) for share in SHARES]
        best = min(_output_errors(grid * scale, weight, hessian).min() for scale in scales)
        plain = _least_of_rounding(weight, hessian, 2)[0]
        fed_back = _output_errors(round_by_feedback("w", weight, hessian, bits=2).values(), weight, hessian)[0]
        assert best * (1 - 1e-5) <= fed_back <= plain * (1 + 1e-5)
        gaps.append((plain - best, fed_back - best))
    plain_gap, feedback_gap = np.sum(gaps, axis=0)
    assert 0 < feedback_gap < 0.5 * plain_gap  # measured 0.36


def test_independent_inputs_leave_nothing_to_feed_back() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).numpy()
    rounded = round_by_feedback("w", weight, np.eye(6), bits=4)
    np.testing.assert_allclose(
        _output_errors(rounded.values(), weight, np.eye(6)), _least_of_rounding(weight, np.eye(6), 4), rtol=1e-5
    )


def test_feedback_helps_a_linear_layer_with_correlated_inputs() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    layer = nn.Linear(32, 16)
    mixing = torch.randn(4, 32, generator=generator)
    seen, fresh = (torch.randn(500, 4, generator=generator) @ mixing for _ in range(2))
    errors = []
    for quantized in (calibrate(layer, latents=seen, forward=_run, bits=4), quantize_weights(layer, bits=4)):
        state = dequantize(quantized)
        moved = functional.linear(fresh, state["weight"], state["bias"]) - layer(fresh)
        errors.append(moved.detach().square().mean().item())
    assert errors[0] < 0.2 * errors[1]  # measured 0.07


class _CausalConv3d(nn.Conv3d):
    """Pads by itself, with what came before only in time: as the causal layers of video autoencoders do."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, (1, 1, 1, 1, 2, 0)))


class _SplitConv3d(nn.Conv3d):
    """Works on two parts of its input in turn, as layers do that save memory or go frame by frame."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([super(_SplitConv3d, self).forward(part) for part in input.split(3, dim=0)])


CONVOLUTIONS = {
    "1d": (nn.Conv1d, 2, {"padding": 1}),
    "2d": (nn.Conv2d, 3, {"padding": 1}),
    "stride and dilation": (nn.Conv2d, (3, 2), {"stride": (2, 1), "dilation": (1, 2), "padding": (0, 2)}),
    "same": (nn.Conv2d, (2, 3), {"padding": "same"}),
    "valid": (nn.Conv2d, 2, {"padding": "valid"}),
    "reflected": (nn.Conv2d, 3, {"padding": 1, "padding_mode": "reflect"}),
    "3d": (nn.Conv3d, (1, 2, 3), {"stride": (1, 2, 1), "padding": (0, 0, 1)}),
    "causal": (_CausalConv3d, 3, {}),
    "in parts": (_SplitConv3d, 2, {}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_a_linear_layer_on_its_patches(kind: str) -> None:
    layer_class, kernel, settings = CONVOLUTIONS[kind]
    torch.manual_seed(4)
    layer = layer_class(2, 5, kernel, bias=False, **settings)
    size = layer.weight[0].numel()
    # A layer of the same kind whose kernels each pick one number shows the patches, one in each position.
    probe = layer_class(2, size, kernel, bias=False, **settings)
    probe.load_state_dict({"weight": torch.eye(size).reshape(size, *layer.weight.shape[1:])})
    smooth = functional.avg_pool1d(torch.randn(6, 2, 5 ** (layer.weight.ndim - 2) + 2), 3, stride=1)
    batch = smooth.reshape(6, 2, *[5] * (layer.weight.ndim - 2)) + 0.5
    patches = probe(batch).detach().movedim(1, -1).reshape(-1, size)
    linear = nn.Linear(size, 5, bias=False)
    linear.load_state_dict({"weight": layer.weight.detach().flatten(1)})
    ours = calibrate(layer, latents=batch, forward=_run, bits=3).weights["weight"]
    same = calibrate(linear, latents=patches, forward=_run, bits=3).weights["weight"]
    np.testing.assert_array_equal(ours.codes.reshape(5, size), same.codes)
    np.testing.assert_array_equal(ours.scales, same.scales)
    plain = quantize_weights(linear, bits=3).weights["weight"]
    assert (same.codes != plain.codes).any()


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3), nn.Bilinear(4, 4, 3), nn.Linear(2400, 2)],
    ids=["groups", "transposed", "bilinear", "too many columns"],
)
def test_layers_without_feedback_are_clipped(layer: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    shape = (8, 4, 6, 6) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else (8, layer.weight.shape[1])
    batch = torch.randn(shape, generator=generator)

    def run(module: nn.Module, inputs: Tensor) -> Tensor:
        return module(inputs, inputs) if isinstance(module, nn.Bilinear) else module(inputs)

    calibrated = calibrate(layer, latents=batch, forward=run, bits=3).weights["weight"]
    weight = layer.weight.detach().numpy()
    for codes, scale, row in zip(calibrated.codes, calibrated.scales.astype(float), weight, strict=True):
        np.testing.assert_array_equal(codes, np.clip(np.rint(row / scale), -3, 3))


def test_a_large_batch_is_seen_at_some_positions_only() -> None:
    """65,536 positions of which every fourth column is another: the ones seen must show all columns."""
    generator = torch.Generator().manual_seed(6)
    stripes = _correlated(16 * 64 * 64, 8, generator).reshape(16, 64, 64, 8)
    stripes[:, :, ::4] = torch.randn(16, 64, 16, 8, generator=generator)
    batch = stripes.movedim(-1, 1).contiguous()
    layer = nn.Conv2d(8, 4, 1, bias=False)
    calibrated = calibrate(layer, latents=batch, forward=_run, bits=3).weights["weight"]
    everything = _hessian(stripes.reshape(-1, 8))
    weight = layer.weight.detach().flatten(1).numpy()
    ours = _output_errors(calibrated.values().reshape(4, 8), weight, everything)
    best = _output_errors(round_by_feedback("w", weight, everything, bits=3).values(), weight, everything)
    assert ours.sum() < 1.02 * best.sum()


def test_layers_whose_inputs_are_not_finite_are_clipped() -> None:
    class Saturated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3, bias=False)

        def forward(self, batch: Tensor) -> Tensor:
            return functional.linear(input=batch / 0, weight=self.inner.weight).clamp(-1, 1)

    module = Saturated()
    with torch.no_grad():
        module.inner.weight.abs_().add_(0.5)
    calibrated = calibrate(module, latents=torch.ones(2, 3), forward=_run, bits=4)
    assert (calibrated.weights["inner.weight"].codes > 0).all()


def test_layers_before_and_after_are_rounded_together() -> None:
    """The second layer makes up for what rounding the first one does, so it needs the first one's rounded output."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    module = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4))
    batch = _correlated(400, 12, generator)
    calibrated = calibrate(module, latents=batch, forward=_run, bits=3)
    errors = []
    for quantized in (calibrated, quantize_weights(module, bits=3)):
        rounded = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4))
        rounded.load_state_dict(dequantize(quantized))
        errors.append((rounded(batch) - module(batch)).detach().square().mean().item())
    assert math.isfinite(errors[0])
    assert errors[0] < 0.3 * errors[1]


@pytest.mark.parametrize("bits", [1, 9])
def test_unfit_bits(module: nn.Module, latents: Tensor, bits: int) -> None:
    with pytest.raises(ValueError, match=f"bits = {bits}: 2 to 8"):
        calibrate(module, latents=latents, forward=_run, bits=bits)


def test_embedded_decoder_survives_eight_bits() -> None:
    """The release's decoder: int8 against float32 on latents of demo clips, and its size in a release of 100 kB."""
    from numcodecs import Zstd

    from lvdd_assets.distill.demo import MOTIONS, render_clip
    from lvdd_assets.distill.vae import load_autoencoder

    autoencoder = load_autoencoder("embedded-2d")
    clips = np.stack([render_clip(motion, seed=6_000_000)[::6] for motion in MOTIONS]).transpose(0, 1, 4, 2, 3)
    latents = autoencoder.encode(clips)
    decoder = autoencoder.decoder()
    quantized = calibrate(decoder, latents=torch.from_numpy(latents).flatten(0, 1), forward=_run)
    rounded = autoencoder.decoder()
    rounded.load_state_dict(dequantize(quantized))
    error = np.mean((rounded.decode(latents).astype(float) - decoder.decode(latents)) ** 2)
    assert 10 * np.log10(255**2 / error) > 48  # measured 54 dB; a damaged layer gives below 40
    assert len(Zstd(22).encode(quantized.to_bytes())) < 65_000
