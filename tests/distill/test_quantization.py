"""`quantization`: what rounding promises, bytes there and back, and calibration that never makes things worse."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lvdd_assets.distill.quantization import (
    IntegerWeight,
    QuantizedWeights,
    calibrate,
    dequantize,
    quantize_weights,
)


class _Decoder(nn.Module):
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


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    built = _Decoder()
    with torch.no_grad():
        built.norm.weight.uniform_(0.5, 2)
        built.first.weight[3] = 0  # a dead channel
        built.first.weight[4] *= 1e-7  # a scale below the least normal float16
        built.second.weight[2, 1, 0, 0] = 3  # an outlier
    return built


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def _run(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch)


def _template(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@torch.no_grad()
def _error(module: nn.Module, quantized: QuantizedWeights, latents: Tensor) -> float:
    """Mean squared error of the output with quantised weights."""
    expected = module(latents)
    rounded = _Decoder()
    rounded.load_state_dict(dequantize(quantized))
    return (rounded(latents) - expected).double().square().mean().item()


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_no_weight_moves_by_more_than_half_a_step(module: nn.Module, bits: int) -> None:
    quantized = quantize_weights(module, bits=bits)
    state = module.state_dict()
    assert sorted(quantized.weights) == ["first.weight", "last.weight", "linear.weight", "second.weight"]
    for name, weight in quantized.weights.items():
        rows = state[name].double().flatten(1).numpy()
        error = np.abs(rows - weight.values().astype(np.float64).reshape(rows.shape))
        assert (error <= weight.scales.astype(np.float64)[:, None] / 2 * (1 + 1e-6)).all()
        assert np.abs(weight.codes.astype(int)).max() == 2 ** (bits - 1) - 1
    for name, array in quantized.rest.items():
        np.testing.assert_allclose(array.astype(np.float32), state[name].numpy(), rtol=2**-11, atol=2**-25)


def test_each_channel_has_its_own_scale(module: nn.Module) -> None:
    weight = quantize_weights(module).weights["second.weight"]
    largest = module.get_parameter("second.weight").detach().flatten(1).abs().amax(dim=1).numpy()
    np.testing.assert_allclose(weight.scales.astype(float), largest / 127, rtol=2**-10)
    assert (np.abs(weight.codes.astype(int)).reshape(16, -1).max(axis=1) >= 126).all()


def test_a_channel_of_zeros_stays_zero(module: nn.Module) -> None:
    weight = quantize_weights(module).weights["first.weight"]
    assert weight.scales[3] == 0
    assert not weight.values()[3].any()


def test_weights_on_the_grid_come_back_exactly() -> None:
    layer = nn.Linear(3, 2)
    grid = torch.tensor([[127.0, -5, 0], [-127, 64, 1]]) * torch.tensor([[0.5], [0.0078125]])
    layer.load_state_dict({"weight": grid, "bias": torch.tensor([0.25, -2.0])})
    for name, tensor in dequantize(quantize_weights(layer)).items():
        assert torch.equal(tensor, layer.state_dict()[name])


def test_bytes_there_and_back(module: nn.Module) -> None:
    quantized = quantize_weights(module)
    data = quantized.to_bytes()
    again = QuantizedWeights.from_bytes(data, _template(module))
    assert again.to_bytes() == data
    assert list(dequantize(again)) == list(module.state_dict())
    for name, tensor in dequantize(quantized).items():
        assert torch.equal(dequantize(again)[name], tensor)
        assert tensor.dtype == torch.float32


def test_stored_bytes_are_counted_exactly(module: nn.Module) -> None:
    quantized = quantize_weights(module)
    num_codes = 4 * 16 + 16 * 16 * 9 * 2 + 16 * 3 * 9
    num_scales = 16 + 16 + 16 + 3
    num_rest = 16 + 16 + 16 + 16 + 3
    assert quantized.stored_bytes == len(quantized.to_bytes()) == num_codes + 2 * num_scales + 2 * num_rest


def test_the_order_of_memory_does_not_change_the_bytes(module: nn.Module) -> None:
    expected = quantize_weights(module).to_bytes()
    assert quantize_weights(module.to(memory_format=torch.channels_last)).to_bytes() == expected


@pytest.mark.parametrize("change", [-1, 1, -1000])
def test_bytes_of_another_length_are_refused(module: nn.Module, change: int) -> None:
    data = quantize_weights(module).to_bytes()
    other = data[:change] if change < 0 else data + b"\0"
    with pytest.raises(ValueError, match=rf"^{len(other)} bytes of weights.* take {len(data)}: "):
        QuantizedWeights.from_bytes(other, _template(module))


def test_bytes_with_a_nan_scale_are_refused(module: nn.Module) -> None:
    quantized = quantize_weights(module)
    data = bytearray(quantized.to_bytes())
    num_codes = sum(weight.codes.size for weight in quantized.weights.values())
    data[num_codes : num_codes + 2] = np.array([np.nan], "<f2").tobytes()
    with pytest.raises(ValueError, match="finite and not negative"):
        QuantizedWeights.from_bytes(bytes(data), _template(module))
    data = bytearray(quantized.to_bytes())
    data[-2:] = np.array([np.inf], "<f2").tobytes()
    with pytest.raises(ValueError, match=r"last\.bias must be finite"):
        QuantizedWeights.from_bytes(bytes(data), _template(module))


def test_a_module_without_wide_weights(latents: Tensor) -> None:
    module = nn.GroupNorm(2, 4)
    quantized = quantize_weights(module)
    assert quantized.stored_bytes == 16
    assert QuantizedWeights.from_bytes(quantized.to_bytes(), _template(module)).to_bytes() == quantized.to_bytes()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("first.weight", float("nan"), r"first\.weight holds NaN"),
        ("first.weight", 1e8, r"first\.weight reaches .*float16"),
        ("norm.bias", 1e6, r"norm\.bias reaches .*65504"),
    ],
)
def test_weights_that_cannot_be_stored(module: nn.Module, name: str, value: float, message: str) -> None:
    with torch.no_grad():
        module.get_parameter(name).view(-1)[0] = value
    with pytest.raises(ValueError, match=message):
        quantize_weights(module)


def test_integers_in_the_state_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_batches_tracked is torch\.int64"):
        quantize_weights(nn.BatchNorm2d(3))


@pytest.mark.parametrize("bits", [1, 9])
def test_unfit_bits(module: nn.Module, latents: Tensor, bits: int) -> None:
    with pytest.raises(ValueError, match=f"bits = {bits}: 2 to 8"):
        quantize_weights(module, bits=bits)
    with pytest.raises(ValueError, match=f"bits = {bits}: 2 to 8"):
        calibrate(module, latents=latents, forward=_run, bits=bits)


def test_parts_must_fit_each_other() -> None:
    codes, scales = np.zeros((2, 3), np.int8), np.ones(2, np.float16)
    with pytest.raises(ValueError, match="2 output channels need as many scales"):
        IntegerWeight(codes, scales[:1])
    with pytest.raises(ValueError, match="int8 codes"):
        IntegerWeight(codes.astype(np.int16), scales)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 names for 1 weights and 1 others"):
        QuantizedWeights({"a": IntegerWeight(codes, scales)}, {"b": scales}, ("a",))


def test_eight_bits_are_nearly_lossless(module: nn.Module, latents: Tensor) -> None:
    with torch.no_grad():
        peak = float(module(latents).abs().max())
    psnr = 10 * np.log10(peak**2 / _error(module, quantize_weights(module), latents))
    assert psnr > 39  # measured 40.8; the one weight that is forty times its neighbours costs most of it


def test_error_falls_with_every_bit(module: nn.Module, latents: Tensor) -> None:
    errors = [_error(module, quantize_weights(module, bits=bits), latents) for bits in (3, 4, 5, 6, 7, 8)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_calibration_is_never_worse_than_rounding(module: nn.Module, latents: Tensor, bits: int) -> None:
    calibrated = calibrate(module, latents=latents, forward=_run, bits=bits)
    rounded = quantize_weights(module, bits=bits)
    assert _error(module, calibrated, latents) <= _error(module, rounded, latents)
    assert calibrated.stored_bytes == rounded.stored_bytes


@pytest.mark.parametrize("seed", range(5))
def test_calibration_helps_at_few_bits(latents: Tensor, seed: int) -> None:
    torch.manual_seed(seed)
    module = _Decoder()
    calibrated = calibrate(module, latents=latents, forward=_run, bits=3)
    other = torch.randn(64, 4, 6, 6, generator=torch.Generator().manual_seed(99))
    assert _error(module, calibrated, other) < 0.9 * _error(module, quantize_weights(module, bits=3), other)


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


def test_embedded_decoder_survives_eight_bits() -> None:
    """The release's decoder: int8 against float32 on latents of demo clips, and its size in a release of 100 kB."""
    from numcodecs import Zstd

    from lvdd_assets.distill.demo import MOTIONS, render_clip
    from lvdd_assets.distill.vae import build_decoder, load_autoencoder

    autoencoder = load_autoencoder("embedded-2d")
    clips = np.stack([render_clip(motion, seed=6_000_000)[::6] for motion in MOTIONS]).transpose(0, 1, 4, 2, 3)
    latents = autoencoder.encode(clips)
    decoder = autoencoder.decoder()
    quantized = calibrate(decoder, latents=torch.from_numpy(latents).flatten(0, 1), forward=_run)
    rounded = build_decoder(autoencoder.decoder_spec)
    rounded.load_state_dict(dequantize(quantized))
    error = np.mean((rounded.decode(latents).astype(float) - decoder.decode(latents)) ** 2)
    assert 10 * np.log10(255**2 / error) > 48  # measured 54 dB; a damaged layer gives below 40
    assert len(Zstd(22).encode(quantized.to_bytes())) < 65_000
