"""Weights of a module as 8-bit integers, and back.

What belongs here: rounding weights to integers with one scale for each output channel, choosing scales and correcting
biases on calibration inputs, and the bytes that a release stores. What must NOT come here: any particular model, the
entropy coding of the bytes (`release`), quantised arithmetic: weights are made float32 again before they are used.

Whatever a state dict holds with two or more dimensions (the weights of convolutions and linear layers) becomes int8
with a float16 scale for each entry of its first dimension; all the rest (biases, norms) becomes float16. The shapes
alone say which is which, so the bytes need no header:

    every int8 weight in the state dict's order, then every scale, then all the rest; little-endian

With scale s_o of output channel o and b bits, a weight w becomes q = clip(round(w / s_o), -(2^(b-1) - 1), 2^(b-1) - 1)
and is read back as s_o q.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_HALF = np.dtype("<f2")
# Shares of a channel's largest weight that `calibrate` tries as the largest weight it keeps.
_CLIPPING = tuple(1 - 0.025 * step for step in range(13))


@dataclass(frozen=True)
class IntegerWeight:
    """One weight: `codes` int8 [O, ...] and `scales` float16 [O], finite and not negative."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8 or self.codes.ndim < 2 or self.scales.dtype != _HALF:
            raise ValueError(
                f"expected int8 codes of two or more dimensions and float16 scales, got {self.codes.dtype} "
                f"{self.codes.shape} and {self.scales.dtype}"
            )
        if self.scales.shape != self.codes.shape[:1]:
            raise ValueError(f"{self.codes.shape[0]} output channels need as many scales, got {self.scales.shape}")
        if not np.isfinite(self.scales).all() or (self.scales < 0).any():
            raise ValueError(
                "scales must be finite and not negative: the bytes are damaged or the weights were not finite"
            )

    def values(self) -> NDArray[np.float32]:
        """What the weight is read back as, float32."""
        return self.codes.astype(np.float32) * _along_first(self.scales.astype(np.float32), self.codes.ndim)


@dataclass(frozen=True)
class QuantizedWeights:
    """A state dict in integers and float16, in the order of the module it came from.

    Attributes:
        weights: what has two or more dimensions, by name.
        rest: float16 arrays of all the rest, by name.
        names: all names in the state dict's order.
    """

    weights: Mapping[str, IntegerWeight]
    rest: Mapping[str, NDArray[np.float16]]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if sorted(self.names) != sorted([*self.weights, *self.rest]):
            raise ValueError(f"{len(self.names)} names for {len(self.weights)} weights and {len(self.rest)} others")
        for name, array in self.rest.items():
            if array.dtype != _HALF or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite float16: the bytes are damaged or the weights were not finite")

    @property
    def stored_bytes(self) -> int:
        """Length of `to_bytes()`."""
        weights = sum(weight.codes.nbytes + weight.scales.nbytes for weight in self.weights.values())
        return weights + sum(array.nbytes for array in self.rest.values())

    def to_bytes(self) -> bytes:
        """The bytes that a release stores; the module's docstring gives their order."""
        weights = [self.weights[name] for name in self.names if name in self.weights]
        arrays: list[NDArray] = [weight.codes for weight in weights] + [weight.scales for weight in weights]
        arrays += [self.rest[name] for name in self.names if name in self.rest]
        return b"".join(array.tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, data: bytes, template: Mapping[str, tuple[int, ...]]) -> "QuantizedWeights":
        """Reads what `to_bytes` wrote.

        Args:
            data: the bytes.
            template: shape of every entry of the module's state dict, in its order.
        """
        shapes = {name: tuple(int(size) for size in shape) for name, shape in template.items()}
        integer = {name: shape for name, shape in shapes.items() if len(shape) >= 2}
        others = {name: shape for name, shape in shapes.items() if len(shape) < 2}
        num_codes = sum(map(math.prod, integer.values()))
        num_scales = sum(shape[0] for shape in integer.values())
        expected = num_codes + _HALF.itemsize * (num_scales + sum(map(math.prod, others.values())))
        if len(data) != expected:
            raise ValueError(
                f"{len(data)} bytes of weights, but {len(shapes)} tensors of the given shapes take {expected}: the "
                "bytes are cut short or belong to another model"
            )
        codes = _split(np.frombuffer(data, np.int8, count=num_codes), integer.values())
        scale_shapes = [shape[:1] for shape in integer.values()]
        halves = _split(np.frombuffer(data, _HALF, offset=num_codes), [*scale_shapes, *others.values()])
        weights = map(IntegerWeight, codes, halves)
        return cls(
            dict(zip(integer, weights, strict=True)),
            dict(zip(others, halves[len(integer) :], strict=True)),
            tuple(shapes),
        )


def quantize_weights(module: nn.Module, *, bits: int = 8) -> QuantizedWeights:
    """Rounds every weight to the nearest of its integers; no weight is clipped.

    Args:
        module: any module whose state dict is floating point, finite, and within float16 where it has one dimension.
        bits: 2 to 8. Every integer takes one byte whatever `bits` is; fewer bits leave fewer different bytes, which
            an entropy coder turns into a smaller file.
    """
    return _quantize(_arrays(module), bits=bits, clipping=(1.0,))


def dequantize(quantized: QuantizedWeights) -> dict[str, Tensor]:
    """The state dict, float32, in the module's order: what `load_state_dict` takes."""
    return {
        name: torch.from_numpy(quantized.weights[name].values())
        if name in quantized.weights
        else torch.from_numpy(quantized.rest[name].astype(np.float32))
        for name in quantized.names
    }


def calibrate(
    module_fp: nn.Module,
    *,
    latents: Tensor,
    forward: Callable[[nn.Module, Tensor], Tensor],
    bits: int = 8,
) -> QuantizedWeights:
    """Quantises a module for the inputs that it will get.

    Two improvements over `quantize_weights` are tried, each alone and together: for every channel the clipping with
    the least squared error of its weights; and, from the first layer to the last, a correction of each bias that gives
    the layer's output the mean it has with the module's own weights. The one whose output is nearest to the module's
    own, in squared error over `latents`, is returned; plain rounding is among them, so the result is never worse.

    Args:
        module_fp: the module with its own weights; it is not changed.
        latents: a batch of inputs.
        forward: how to run a module on the batch, e.g. `lambda module, batch: module(batch)`.
        bits: as in `quantize_weights`.
    """
    arrays = _arrays(module_fp)
    rounded = copy.deepcopy(module_fp).eval()
    with torch.no_grad():
        means = _output_means(rounded, lambda: forward(rounded, latents))
        target = forward(rounded, latents).float()
        if not target.isfinite().all():
            raise ValueError(
                "the module's output on the calibration batch holds NaN or infinity; check weights and batch"
            )
        candidates = []
        for clipping in ((1.0,), _CLIPPING):
            quantized = _quantize(arrays, bits=bits, clipping=clipping)
            rounded.load_state_dict(dequantize(quantized))
            candidates.append(quantized)
            biases = _correct_biases(rounded, means, lambda: forward(rounded, latents))
            corrected = {name: bias for name, bias in biases.items() if name in quantized.rest}
            candidates.append(replace(quantized, rest={**quantized.rest, **corrected}))
        errors = []
        for candidate in candidates:
            rounded.load_state_dict(dequantize(candidate))
            error = (forward(rounded, latents).float() - target).double().square().mean().item()
            errors.append(error if math.isfinite(error) else math.inf)
    return candidates[int(np.argmin(errors))]


def _arrays(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The state dict as float32 arrays, checked."""
    arrays = {}
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}: only floating-point weights can be quantised; leave it out")
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; fetch or train the weights again")
        if array.ndim < 2 and array.size and np.abs(array).max() > np.finfo(np.float16).max:
            raise ValueError(f"{name} reaches {np.abs(array).max()}, float16 holds up to {np.finfo(np.float16).max}")
        arrays[name] = array
    return arrays


def _quantize(arrays: Mapping[str, NDArray[np.float32]], *, bits: int, clipping: tuple[float, ...]) -> QuantizedWeights:
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits = }: 2 to 8 can be stored")
    weights = {name: _round(name, array, bits, clipping) for name, array in arrays.items() if array.ndim >= 2}
    rest = {name: array.astype(_HALF) for name, array in arrays.items() if array.ndim < 2}
    return QuantizedWeights(weights, rest, tuple(arrays))


def _round(name: str, weight: NDArray[np.float32], bits: int, clipping: tuple[float, ...]) -> IntegerWeight:
    """Codes and scales of one weight: for each output channel the clipping with the least squared error."""
    limit = 2 ** (bits - 1) - 1
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    if (largest / limit > np.finfo(np.float16).max).any():
        raise ValueError(f"{name} reaches {largest.max()}: its scale does not fit float16")
    best_error = np.full(len(rows), np.inf)
    codes = np.zeros(rows.shape, np.int8)
    scales = np.zeros(len(rows), _HALF)
    for share in clipping:
        scale = _half_not_below(largest * share / limit)
        steps = rows / np.where(scale > 0, scale, 1)[:, None]
        code = np.clip(np.rint(steps), -limit, limit)
        error = ((code * scale[:, None] - rows) ** 2).sum(axis=1)
        better = error < best_error
        codes[better], scales[better], best_error[better] = code[better], scale[better], error[better]
    return IntegerWeight(codes.reshape(weight.shape), scales)


def _half_not_below(values: NDArray[np.float64]) -> NDArray[np.float16]:
    """The least float16 that is not below each value, so that rounding a scale never clips a weight."""
    halves = values.astype(_HALF)
    return np.where(halves < values, np.nextafter(halves, _HALF.type(np.inf)), halves).astype(_HALF)


def _output_means(module: nn.Module, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Mean output of every layer with a bias, for each output channel, while `run` runs the module."""
    means: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
            means.setdefault(name, _channel_means(layer, output))

        return hook

    _run_with_hooks(((layer, note(name)) for name, layer in _layers_with_bias(module)), run)
    return means


def _correct_biases(
    module: nn.Module, means: Mapping[str, Tensor], run: Callable[[], Tensor]
) -> dict[str, NDArray[np.float16]]:
    """Biases, by name, with which every layer's mean output is that of `means`.

    One run suffices: a layer's hook corrects its output at once, so the layers after it see what they will see.
    """
    biases: dict[str, NDArray[np.float16]] = {}

    def correct(name: str) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            before = layer.get_parameter("bias")
            if f"{name}.bias" not in biases:
                moved = before.float() + means[name] - _channel_means(layer, output)
                biases[f"{name}.bias"] = moved.clamp(-65504, 65504).cpu().numpy().astype(_HALF)
            after = torch.from_numpy(biases[f"{name}.bias"].astype(np.float32)).to(output.device)
            shape = [1] * output.ndim
            shape[_channel_axis(layer)] = -1
            return output + (after - before).to(output.dtype).reshape(shape)

        return hook

    layers = ((layer, correct(name)) for name, layer in _layers_with_bias(module) if name in means)
    _run_with_hooks(layers, run)
    return biases


def _layers_with_bias(module: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return [
        (name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds) and layer.bias is not None
    ]


def _run_with_hooks(hooks: Iterable[tuple[nn.Module, Callable]], run: Callable[[], Tensor]) -> None:
    handles = [layer.register_forward_hook(hook) for layer, hook in hooks]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()


def _channel_axis(layer: nn.Module) -> int:
    return -1 if isinstance(layer, nn.Linear) else 1


def _channel_means(layer: nn.Module, output: Tensor) -> Tensor:
    axis = _channel_axis(layer) % output.ndim
    return output.float().mean(dim=[i for i in range(output.ndim) if i != axis])


def _along_first(values: NDArray, ndim: int) -> NDArray:
    return values.reshape(-1, *[1] * (ndim - 1))


def _split(flat: NDArray, shapes: Iterable[tuple[int, ...]]) -> list[NDArray]:
    """Cuts a flat array into arrays of the given shapes."""
    shapes = list(shapes)
    ends = np.cumsum([0, *map(math.prod, shapes)])
    return [flat[start:end].reshape(shape) for start, end, shape in zip(ends, ends[1:], shapes, strict=False)]
