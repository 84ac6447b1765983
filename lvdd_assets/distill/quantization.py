"""Weights of a module as 8-bit integers, and back.

What belongs here: which weights become integers, one scale for each output channel, and the bytes that a release
stores. What must NOT come here: choosing integers on calibration inputs (`weight_rounding`), any particular model, the
entropy coding of the bytes (`release`), quantised arithmetic: weights are made float32 again before they are used.

There are two schemes. "channels" makes int8 whatever a state dict holds with two or more dimensions: the weights of
convolutions and linear layers. "linear" makes int8 the weights of linear layers alone: the paper's two stages for 3D
autoencoders, int8 for what is fully connected, then float16 for all the rest. In both, an int8 weight has a float16
scale for each entry of its first dimension, and what is not int8 (biases, norms) is float16. The shapes, and the names
of the int8 weights, say which is which, so the bytes need no header:

    every int8 weight in the state dict's order, then every scale, then all the rest; little-endian

With scale s_o of output channel o and b bits, a weight w becomes q = clip(round(w / s_o), -(2^(b-1) - 1), 2^(b-1) - 1)
and is read back as s_o q.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Scheme = Literal["channels", "linear"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
_HALF = np.dtype("<f2")


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
        weights: what became integers, by name.
        rest: float16 arrays of all the rest, of any dimension, by name.
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
    def from_bytes(
        cls, data: bytes, template: Mapping[str, tuple[int, ...]], integer: Collection[str] | None = None
    ) -> "QuantizedWeights":
        """Reads what `to_bytes` wrote.

        Args:
            data: the bytes.
            template: shape of every entry of the module's state dict, in its order.
            integer: names of the entries that are stored as int8, e.g. `linear_weight_names` of the module; None: all
                that have two or more dimensions.
        """
        shapes = {name: tuple(int(size) for size in shape) for name, shape in template.items()}
        if integer is None:
            integer = [name for name, shape in shapes.items() if len(shape) >= 2]
        if unfit := sorted(name for name in integer if len(shapes.get(name, ())) < 2):
            raise ValueError(
                f"{', '.join(unfit)[:300]}: not among the {len(shapes)} tensors, or of fewer than two dimensions; only "
                "weights of two or more are stored as integers"
            )
        wide = {name: shape for name, shape in shapes.items() if name in integer}
        others = {name: shape for name, shape in shapes.items() if name not in integer}
        num_codes = sum(map(math.prod, wide.values()))
        num_scales = sum(shape[0] for shape in wide.values())
        expected = num_codes + _HALF.itemsize * (num_scales + sum(map(math.prod, others.values())))
        if len(data) != expected:
            raise ValueError(
                f"{len(data)} bytes of weights, but {len(shapes)} tensors of the given shapes take {expected}: the "
                "bytes are cut short or belong to another model"
            )
        codes = _split(np.frombuffer(data, np.int8, count=num_codes), wide.values())
        scale_shapes = [shape[:1] for shape in wide.values()]
        halves = _split(np.frombuffer(data, _HALF, offset=num_codes), [*scale_shapes, *others.values()])
        weights = map(IntegerWeight, codes, halves)
        return cls(
            dict(zip(wide, weights, strict=True)),
            dict(zip(others, halves[len(wide) :], strict=True)),
            tuple(shapes),
        )


def quantize_weights(module: nn.Module, *, bits: int = 8, scheme: Scheme = "channels") -> QuantizedWeights:
    """Rounds every weight to the nearest of its integers; no weight is clipped.

    Args:
        module: any module whose state dict is floating point, finite, and within float16 where it does not become
            integers.
        bits: 2 to 8. Every integer takes one byte whatever `bits` is; fewer bits leave fewer different bytes, which
            an entropy coder turns into a smaller file.
        scheme: which weights become integers: "channels", all of two or more dimensions; "linear", those of linear
            layers.
    """
    arrays = state_arrays(module)
    integer = set(integer_names(module, scheme))
    largest_code(bits)
    weights = {}
    for name in arrays:
        if name in integer:
            scales = fit_scales(name, arrays[name], bits=bits)
            weights[name] = round_weight(arrays[name], scales, bits=bits)
    rest = {name: _to_half(name, array) for name, array in arrays.items() if name not in integer}
    return QuantizedWeights(weights, rest, tuple(arrays))


def integer_names(module: nn.Module, scheme: Scheme) -> tuple[str, ...]:
    """Names, in the state dict's order, of what a scheme makes integers."""
    if scheme not in SCHEMES:
        raise ValueError(f'{scheme = }: "channels" or "linear" expected')
    if scheme == "linear":
        return linear_weight_names(module)
    return tuple(name for name, tensor in module.state_dict().items() if tensor.ndim >= 2)


def read_weights(data: bytes, module: nn.Module, scheme: Scheme) -> QuantizedWeights:
    """Quantised weights of a module, from what `QuantizedWeights.to_bytes` gave; ValueError if they do not fit it."""
    template = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return QuantizedWeights.from_bytes(data, template, integer_names(module, scheme))


def dequantize(quantized: QuantizedWeights) -> dict[str, Tensor]:
    """The state dict, float32, in the module's order: what `load_state_dict` takes."""
    return {
        name: torch.from_numpy(quantized.weights[name].values())
        if name in quantized.weights
        else torch.from_numpy(quantized.rest[name].astype(np.float32))
        for name in quantized.names
    }


def quantized_share(quantized: QuantizedWeights) -> float:
    """The share, 0 to 1, of all values in a state dict that became integers; 0 if it holds no value."""
    num_codes = sum(weight.codes.size for weight in quantized.weights.values())
    num_values = num_codes + sum(array.size for array in quantized.rest.values())
    return num_codes / max(1, num_values)


def linear_weight_names(module: nn.Module) -> tuple[str, ...]:
    """Names, in the state dict's order, of the weights of all `nn.Linear` layers: what scheme "linear" makes int8."""
    layers = module.named_modules(remove_duplicate=False)
    names = {f"{name}.weight".removeprefix(".") for name, layer in layers if isinstance(layer, nn.Linear)}
    return tuple(name for name in module.state_dict() if name in names)


def state_arrays(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The state dict as float32 arrays on the CPU; ValueError where it is no floating point or not finite."""
    arrays = {}
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}: only floating-point weights can be quantised; leave it out")
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; fetch or train the weights again")
        arrays[name] = array
    return arrays


def largest_code(bits: int) -> int:
    """The largest integer of `bits` bits, 2^(bits - 1) - 1; the smallest is its negative. 2 to 8 bits can be stored."""
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits = }: 2 to 8 can be stored")
    return 2 ** (bits - 1) - 1


def fit_scales(name: str, weight: NDArray[np.float32], *, bits: int, share: float = 1.0) -> NDArray[np.float16]:
    """The scales, float16 [O], with which the largest integer stands for a channel's largest weight.

    Args:
        name: what to call the weight in an error.
        weight: float32 [O, ...].
        bits: as in `quantize_weights`.
        share: how much of its largest weight a channel keeps; what is beyond gets clipped.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).astype(np.float64).max(axis=1, initial=0.0)
    limit = largest_code(bits)
    if (largest / limit > np.finfo(np.float16).max).any():
        raise ValueError(f"{name} reaches {largest.max()}: its scale does not fit float16")
    return _half_not_below(largest * share / limit)


def round_weight(weight: NDArray[np.float32], scales: NDArray[np.float16], *, bits: int) -> IntegerWeight:
    """A weight, float [O, ...], in the nearest integers for given scales, float16 [O]."""
    limit = largest_code(bits)
    steps = weight.astype(np.float64) / _along_first(np.where(scales > 0, scales, 1).astype(np.float64), weight.ndim)
    return IntegerWeight(np.clip(np.rint(steps), -limit, limit).astype(np.int8), scales)


def _to_half(name: str, array: NDArray[np.float32]) -> NDArray[np.float16]:
    if array.size and np.abs(array).max() > np.finfo(np.float16).max:
        raise ValueError(f"{name} reaches {np.abs(array).max()}, float16 holds up to {np.finfo(np.float16).max}")
    return array.astype(_HALF)


def _half_not_below(values: NDArray[np.float64]) -> NDArray[np.float16]:
    """The least float16 that is not below each value, so that rounding a scale never clips a weight."""
    halves = values.astype(_HALF)
    return np.where(halves < values, np.nextafter(halves, _HALF.type(np.inf)), halves).astype(_HALF)


def _along_first(values: NDArray, ndim: int) -> NDArray:
    return values.reshape(-1, *[1] * (ndim - 1))


def _split(flat: NDArray, shapes: Iterable[tuple[int, ...]]) -> list[NDArray]:
    """Cuts a flat array into arrays of the given shapes."""
    shapes = list(shapes)
    ends = np.cumsum([0, *map(math.prod, shapes)])
    return [flat[start:end].reshape(shape) for start, end, shape in zip(ends, ends[1:], shapes, strict=False)]
