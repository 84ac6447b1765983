"""`quantization`: what rounding promises, and bytes there and back under both schemes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lvdd_assets.distill.quantization import (
    IntegerWeight,
    QuantizedWeights,
    dequantize,
    linear_weight_names,
    quantize_weights,
    quantized_share,
)
from tests.distill.small_decoder import output_error


def _template(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _num_values(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values())


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


def test_a_module_without_wide_weights() -> None:
    module = nn.GroupNorm(2, 4)
    quantized = quantize_weights(module)
    assert quantized.stored_bytes == 16
    assert quantized_share(quantized) == 0
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
def test_unfit_bits(module: nn.Module, bits: int) -> None:
    with pytest.raises(ValueError, match=f"bits = {bits}: 2 to 8"):
        quantize_weights(module, bits=bits)


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
    psnr = 10 * np.log10(peak**2 / output_error(module, quantize_weights(module), latents))
    assert psnr > 39  # measured 40.8; the one weight that is forty times its neighbours costs most of it


def test_error_falls_with_every_bit(module: nn.Module, latents: Tensor) -> None:
    errors = [output_error(module, quantize_weights(module, bits=bits), latents) for bits in (3, 4, 5, 6, 7, 8)]
    assert errors == sorted(errors, reverse=True)


def test_two_stages_keep_all_but_linear_weights_in_float16(module: nn.Module) -> None:
    quantized = quantize_weights(module, scheme="linear")
    state = module.state_dict()
    assert list(quantized.weights) == ["linear.weight"] == list(linear_weight_names(module))
    for name, array in quantized.rest.items():
        np.testing.assert_array_equal(array, state[name].half().numpy())
        assert array.shape == state[name].shape
    weight = quantized.weights["linear.weight"]
    error = np.abs(weight.values() - state["linear.weight"].numpy())
    assert (error <= weight.scales.astype(np.float64)[:, None] / 2 * (1 + 1e-6)).all()
    assert quantized.stored_bytes == len(quantized.to_bytes()) == 64 + 2 * 16 + 2 * (_num_values(module) - 64)


def test_two_stages_lose_less_and_store_more(module: nn.Module, latents: Tensor) -> None:
    channels, linear = quantize_weights(module), quantize_weights(module, scheme="linear")
    assert output_error(module, linear, latents) < 0.1 * output_error(module, channels, latents)
    assert linear.stored_bytes > 1.8 * channels.stored_bytes


def test_two_stages_take_the_linear_layers_bits(module: nn.Module) -> None:
    weight = quantize_weights(module, bits=3, scheme="linear").weights["linear.weight"]
    assert np.abs(weight.codes.astype(int)).max() == 3


def test_linear_weights_are_found_wherever_they_are() -> None:
    class Special(nn.Linear):
        pass

    shared = nn.Linear(2, 2)
    module = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Sequential(Special(2, 2), nn.Embedding(3, 2)), shared, shared)
    assert linear_weight_names(module) == ("1.0.weight", "2.weight", "3.weight")
    assert linear_weight_names(nn.Linear(2, 2, bias=False)) == ("weight",)
    assert linear_weight_names(nn.Conv2d(2, 2, 1)) == ()


def test_share_of_values_that_became_integers(module: nn.Module) -> None:
    num_wide = 4 * 16 + 16 * 16 * 9 * 2 + 16 * 3 * 9
    assert quantized_share(quantize_weights(module)) == num_wide / _num_values(module)
    assert quantized_share(quantize_weights(module, scheme="linear")) == 64 / _num_values(module)
    assert quantized_share(quantize_weights(nn.Conv2d(2, 2, 3), scheme="linear")) == 0
    assert quantized_share(quantize_weights(nn.Linear(2, 2, bias=False), scheme="linear")) == 1
    assert quantized_share(QuantizedWeights({}, {}, ())) == 0


def test_two_stages_there_and_back(module: nn.Module) -> None:
    quantized = quantize_weights(module, scheme="linear")
    data = quantized.to_bytes()
    again = QuantizedWeights.from_bytes(data, _template(module), linear_weight_names(module))
    assert again.to_bytes() == data
    assert list(dequantize(again)) == list(module.state_dict())
    for name, tensor in dequantize(quantized).items():
        assert torch.equal(dequantize(again)[name], tensor)
        assert tensor.dtype == torch.float32
    with pytest.raises(ValueError, match="bytes of weights"):
        QuantizedWeights.from_bytes(data, _template(module))


@st.composite
def _quantized(draw: st.DrawFn) -> tuple[QuantizedWeights, dict[str, tuple[int, ...]]]:
    """Any state in integers and float16, some entries of two or more dimensions among the float16, and its template."""
    shapes = draw(st.lists(st.lists(st.integers(1, 4), max_size=4).map(tuple), min_size=1, max_size=6))
    template = {f"entry{i}": shape for i, shape in enumerate(shapes)}
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights, rest = {}, {}
    for name, shape in template.items():
        halves = generator.normal(scale=100, size=shape).astype("<f2")
        if len(shape) >= 2 and draw(st.booleans()):
            codes = generator.integers(-127, 128, size=shape).astype(np.int8)
            weights[name] = IntegerWeight(codes, np.abs(halves).reshape(shape[0], -1)[:, 0])
        else:
            rest[name] = np.asarray(halves)
    return QuantizedWeights(weights, rest, tuple(template)), template


@given(case=_quantized())
@settings(max_examples=100, deadline=None)
def test_any_state_comes_back_exactly(case: tuple[QuantizedWeights, dict[str, tuple[int, ...]]]) -> None:
    quantized, template = case
    data = quantized.to_bytes()
    assert len(data) == quantized.stored_bytes
    again = QuantizedWeights.from_bytes(data, template, quantized.weights.keys())
    assert again.to_bytes() == data
    for name, weight in quantized.weights.items():
        np.testing.assert_array_equal(again.weights[name].codes, weight.codes)
        np.testing.assert_array_equal(again.weights[name].scales, weight.scales)
    for name, array in quantized.rest.items():
        np.testing.assert_array_equal(again.rest[name], array)
    if all(len(shape) < 2 for name, shape in template.items() if name in quantized.rest):
        assert QuantizedWeights.from_bytes(data, template).to_bytes() == data


def test_the_bytes_are_those_of_earlier_releases() -> None:
    layer = nn.Linear(3, 2)
    layer.load_state_dict({"weight": torch.tensor([[127.0, -5, 0], [-254, 128, 2]]), "bias": torch.tensor([0.5, -2])})
    data = bytes.fromhex("7ffb00 814001 003c 0040 0038 00c0")
    assert quantize_weights(layer).to_bytes() == data
    assert quantize_weights(layer, scheme="linear").to_bytes() == data
    assert QuantizedWeights.from_bytes(data, _template(layer)).rest["bias"].tolist() == [0.5, -2]


@pytest.mark.parametrize("name", ["nothing.weight", "norm.bias"])
def test_names_that_cannot_be_integers_are_refused(module: nn.Module, name: str) -> None:
    data = quantize_weights(module).to_bytes()
    with pytest.raises(ValueError, match=rf"^{name}: not among the 9 tensors, or of fewer than two dimensions"):
        QuantizedWeights.from_bytes(data, _template(module), ["linear.weight", name])


def test_wide_weights_beyond_float16_are_refused_where_they_stay_float16(module: nn.Module) -> None:
    with torch.no_grad():
        module.get_parameter("first.weight").view(-1)[0] = 70_000
    assert quantize_weights(module).weights["first.weight"].scales[0] > 500
    with pytest.raises(ValueError, match=r"first\.weight reaches 70000.*65504"):
        quantize_weights(module, scheme="linear")


def test_an_unknown_scheme_is_refused(module: nn.Module) -> None:
    with pytest.raises(ValueError, match='scheme = \'rows\': "channels" or "linear"'):
        quantize_weights(module, scheme="rows")  # type: ignore[arg-type]
