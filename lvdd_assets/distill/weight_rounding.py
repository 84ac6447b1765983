"""Choosing a module's integer weights by what they do to its output on calibration inputs.

What belongs here: clipping, bias correction, rounding by error feedback, and the choice among them. What must NOT come
here: how integers are stored (`quantization`), any particular model, training: no gradient is computed.

Rounding by error feedback is GPTQ (Frantar et al. 2022, arXiv:2210.17323, equations 2 and 3 and section 3.3). A layer's
rows of weights w meet inputs x; with H = 2 X Xᵀ the squared error of its output is (w - q) H (w - q)ᵀ / 2. Columns are
rounded one after another, and the columns not yet rounded take up what they can of each one's error:

    q_j = round(w_j),  w_k -= (w_j - q_j) U_jk / U_jj for k > j,  with H⁻¹ = Uᵀ U and U upper triangular

A convolution is a linear layer on the patches of its input. Patches are taken from what reaches PyTorch's convolution,
not from what reaches the layer: a layer that pads or splits its input by itself, as those of causal video autoencoders
do, needs no rule of its own. Grouped and transposed convolutions, and layers with more than `_MAX_COLUMNS` weights for
each output channel, are clipped and rounded only.

Legend: O output channels, K weights of each, P positions, S scales tried, T roundings tried, R rows: S times O.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lvdd_assets.distill.quantization import (
    IntegerWeight,
    QuantizedWeights,
    dequantize,
    fit_scales,
    largest_code,
    quantize_weights,
    round_weight,
    state_arrays,
)

# Shares of a channel's largest weight that are tried as the largest weight it keeps.
_CLIPPING = tuple(1 - 0.025 * step for step in range(13))
# Positions that a layer's H is summed over, and how many at once.
_MAX_POSITIONS = 20_000
_POSITIONS_AT_ONCE = 4096
# H of more columns takes minutes to invert: 2304 are a kernel of 3 × 3 on 256 channels.
_MAX_COLUMNS = 2304
# Added to H's diagonal as a share of its mean, as in GPTQ: H of few or equal inputs has no inverse.
_DAMPING = 0.01
# Columns whose error is spread over the columns behind them in one product.
_BLOCK = 64
_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)


def calibrate(
    module_fp: nn.Module,
    *,
    latents: Tensor,
    forward: Callable[[nn.Module, Tensor], Tensor],
    bits: int = 8,
) -> QuantizedWeights:
    """Quantises a module for the inputs that it will get.

    Three ways of rounding are tried: `quantize_weights`; for every channel the clipping with the least squared error of
    its weights; and error feedback with the clipping that goes best with it. Each is tried alone and together with a
    correction of each bias, from the first layer to the last, that gives the layer's output the mean it has with the
    module's own weights. The one whose output is nearest to the module's own, in squared error over `latents`, is
    returned; plain rounding is among them, so the result is never worse.

    Args:
        module_fp: the module with its own weights; it is not changed.
        latents: a batch of inputs.
        forward: how to run a module on the batch, e.g. `lambda module, batch: module(batch)`.
        bits: as in `quantize_weights`.
    """
    plain = quantize_weights(module_fp, bits=bits)
    arrays = state_arrays(module_fp)
    clipped = replace(plain, weights={name: _clip(name, arrays[name], bits) for name in plain.weights})
    working = copy.deepcopy(module_fp).eval()

    def run() -> Tensor:
        return forward(working, latents)

    with torch.no_grad():
        calls = _Calls(working)
        with calls:
            means, target = _output_means(working, run)
        if not target.isfinite().all():
            raise ValueError(
                "the module's output on the calibration batch holds NaN or infinity; check weights and batch"
            )
        feedback = _Feedback(working, calls.count, bits)
        with feedback:
            run()
        fed_back = replace(clipped, weights={**clipped.weights, **feedback.weights})
        errors, candidates = [], []
        for rounded in (plain, clipped, fed_back):
            working.load_state_dict(dequantize(rounded))
            biases = _correct_biases(working, means, run)
            corrected = {name: bias for name, bias in biases.items() if name in rounded.rest}
            candidates += [rounded, replace(rounded, rest={**rounded.rest, **corrected})]
        for candidate in candidates:
            working.load_state_dict(dequantize(candidate))
            error = (run().float() - target).double().square().mean().item()
            errors.append(error if math.isfinite(error) else math.inf)
    return candidates[int(np.argmin(errors))]


def _clip(name: str, weight: NDArray[np.float32], bits: int) -> IntegerWeight:
    """For each output channel the clipping with the least squared error of its weights."""
    tried = [round_weight(weight, fit_scales(name, weight, bits=bits, share=share), bits=bits) for share in _CLIPPING]
    errors = [((part.values() - weight.astype(np.float64)) ** 2).reshape(len(weight), -1).sum(axis=1) for part in tried]
    return _choose(tried, np.stack(errors))


def _choose(tried: list[IntegerWeight], errors: NDArray[np.float64]) -> IntegerWeight:
    """For each output channel the first of the tried with the least error; errors float64 [tried, O]."""
    best, channels = errors.argmin(axis=0), np.arange(errors.shape[1])
    codes = np.stack([part.codes for part in tried])[best, channels]
    return IntegerWeight(codes, np.stack([part.scales for part in tried])[best, channels])


class _Calls(TorchFunctionMode):
    """Sees every product of a weight with inputs, in linear layers and convolutions without groups, while active.

    Attributes:
        count: how often each weight, by name, was multiplied.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self._names = {id(weight): name for name, weight in module.named_parameters() if weight.ndim >= 2}

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear or func in _CONVOLUTIONS:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            if id(weight) in self._names and math.prod(weight.shape[1:]) <= _MAX_COLUMNS:
                name = self._names[id(weight)]
                self.count[name] += 1
                self.see(name, weight, _rows if func is functional.linear else _patches, args, kwargs)
        return func(*args, **kwargs)

    def see(self, name: str, weight: Tensor, rows: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        """Called before every product; `rows(num, *args, **kwargs)` are its inputs, [P, K], or None if grouped."""


class _Feedback(_Calls):
    """Rounds weights by error feedback during one run of a module, and puts them into it at once.

    So the layers after one see what they will see. A weight that is multiplied several times, frame by frame, is
    rounded at its last call, on the inputs of all calls.

    Attributes:
        weights: the rounded weights by name.
    """

    def __init__(self, module: nn.Module, num_calls: Mapping[str, int], bits: int) -> None:
        super().__init__(module)
        self.weights: dict[str, IntegerWeight] = {}
        self._num_calls, self._bits = num_calls, bits
        self._hessians: dict[str, NDArray[np.float64]] = {}

    def see(self, name: str, weight: Tensor, rows: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        """Adds to H; rounds at the last call. Inputs that are not finite leave the weight to clipping."""
        num_calls = max(1, self._num_calls.get(name, 0))
        inputs_PK = rows(max(1, _MAX_POSITIONS // num_calls), *args, **kwargs)
        if inputs_PK is None:
            return
        hessian_KK = self._hessians.get(name, 0) + _hessian(inputs_PK)
        self._hessians[name] = hessian_KK
        if self.count[name] == num_calls and np.isfinite(hessian_KK).all():
            own = weight.to("cpu", torch.float32).contiguous().numpy()
            self.weights[name] = round_by_feedback(name, own, self._hessians.pop(name), bits=self._bits)
            weight.copy_(torch.from_numpy(self.weights[name].values()))


def round_by_feedback(
    name: str, weight: NDArray[np.float32], hessian_KK: NDArray[np.float64], *, bits: int
) -> IntegerWeight:
    """Rounds a weight so that the layer's output changes little: GPTQ's error feedback, equations in the module's head.

    Every channel keeps, of error feedback and plain rounding under each clipping, what gives the least (w - q) H (w -
    q)ᵀ: never more than plain rounding does.

    Args:
        name: what to call the weight in an error.
        weight: float32 [O, ...], K numbers for each output channel.
        hessian_KK: float64 [K, K], positive semidefinite: 2 X Xᵀ of the inputs that the weight is multiplied with.
        bits: as in `quantize_weights`.
    """
    scales_SO = [fit_scales(name, weight, bits=bits, share=share) for share in _CLIPPING]
    tried = [round_weight(weight, scales, bits=bits) for scales in scales_SO]
    rows_OK = weight.reshape(len(weight), -1)
    fed_back = _feed_back(rows_OK, np.stack(scales_SO), hessian_KK, bits)
    tried += [
        IntegerWeight(codes.reshape(weight.shape), scales) for codes, scales in zip(fed_back, scales_SO, strict=True)
    ]
    moved_TOK = np.stack([part.values().astype(np.float64) - weight for part in tried]).reshape(-1, *rows_OK.shape)
    return _choose(tried, _output_errors(moved_TOK, hessian_KK))


def _feed_back(
    rows_OK: NDArray[np.float32], scales_SO: NDArray[np.float16], hessian_KK: NDArray[np.float64], bits: int
) -> NDArray[np.int8]:
    """Codes [S, O, K] of the same rows under S choices of scales."""
    num_choices, num_columns, limit = len(scales_SO), rows_OK.shape[1], largest_code(bits)
    # Columns come first: each step then reads and writes whole lines of memory.
    left_KR = torch.from_numpy(rows_OK.T.astype(np.float64)).repeat(1, num_choices)
    scales_R = torch.from_numpy(scales_SO.reshape(-1).astype(np.float64))
    safe_R = torch.where(scales_R > 0, scales_R, 1.0)
    codes_KR = torch.empty_like(left_KR)
    factor_KK = _inverse_factor(torch.from_numpy(hessian_KK))
    for start in range(0, num_columns, _BLOCK):
        stop = min(start + _BLOCK, num_columns)
        errors_BR = torch.empty_like(left_KR[start:stop])
        for j in range(start, stop):
            codes_KR[j] = (left_KR[j] / safe_R).round().clamp(-limit, limit)
            error_R = errors_BR[j - start] = (left_KR[j] - codes_KR[j] * scales_R) / factor_KK[j, j]
            left_KR[j + 1 : stop] -= factor_KK[j, j + 1 : stop, None] * error_R
        left_KR[stop:] -= factor_KK[start:stop, stop:].T @ errors_BR
    return codes_KR.T.reshape(*scales_SO.shape, num_columns).to(torch.int8).numpy()


def _inverse_factor(hessian_KK: Tensor) -> Tensor:
    """U, upper triangular with H⁻¹ = Uᵀ U, of H with damping."""
    mean = hessian_KK.diagonal().mean()
    damped_KK = hessian_KK + torch.eye(len(hessian_KK), dtype=hessian_KK.dtype) * (_DAMPING * mean if mean > 0 else 1.0)
    # From the last column to the first H = R Rᵀ with R upper triangular, and then U = R⁻¹: H itself is never inverted.
    upper_KK = torch.linalg.cholesky(damped_KK.flip(0, 1)).flip(0, 1)
    return torch.linalg.solve_triangular(upper_KK, torch.eye(len(upper_KK), dtype=upper_KK.dtype), upper=True)


def _output_errors(moved_TOK: NDArray[np.float64], hessian_KK: NDArray[np.float64]) -> NDArray[np.float64]:
    """(w - q) H (w - q)ᵀ of every output channel under T roundings, [T, O]."""
    # One product: on a busy machine each waits for its threads, and many small ones took sixty times as long.
    moved = torch.from_numpy(moved_TOK).flatten(0, 1)
    errors: NDArray[np.float64] = ((moved @ torch.from_numpy(hessian_KK)) * moved).sum(dim=1).numpy()
    return errors.reshape(moved_TOK.shape[:2])


def _hessian(inputs_PK: Tensor) -> NDArray[np.float64]:
    """2 X Xᵀ, [K, K]."""
    # Products of some thousand positions in float32 take half the time, and what they lose is far below the damping.
    parts = (part.float() for part in inputs_PK.split(_POSITIONS_AT_ONCE))
    return (2 * sum((part.T @ part).double() for part in parts)).cpu().numpy()


def _rows(num: int, input: Tensor, *_arguments: object, **_named: object) -> Tensor:
    """At most `num` of the inputs of a linear layer, [P, K]."""
    rows = input.reshape(-1, input.shape[-1])
    return rows[_spread(len(rows), num).to(rows.device)]


def _patches(
    num: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """At most `num` of the patches that a convolution multiplies with its kernel, [P, K]; None if it has groups."""
    if groups != 1:
        return None
    kernel = weight.shape[2:]
    strides, dilations = _each(stride, kernel), _each(dilation, kernel)
    reach = [step * (size - 1) for step, size in zip(dilations, kernel, strict=True)]
    if padding == "same":
        sides = [(whole // 2, whole - whole // 2) for whole in reach]
    else:
        sides = [(side, side) for side in _each(0 if padding == "valid" else padding, kernel)]
    batch = input if input.ndim == weight.ndim else input[None]
    padded = functional.pad(batch, [side for pair in reversed(sides) for side in pair])
    sizes = padded.shape[2:]
    counts = [(size - whole - 1) // step + 1 for size, whole, step in zip(sizes, reach, strides, strict=True)]
    grid = (len(padded), *counts)
    # Only the patches that are kept are ever copied: all of them would take the input's memory once for each weight.
    corner_P, *starts = torch.unravel_index(_spread(math.prod(grid), num), grid)
    offset_L = torch.zeros(1, dtype=torch.int64)
    for start_P, count, step, dilation_, size in zip(starts, kernel, strides, dilations, sizes, strict=True):
        corner_P = corner_P * size + start_P * step
        offset_L = (offset_L[:, None] * size + torch.arange(count) * dilation_).flatten()
    pixels = padded.movedim(1, -1).reshape(-1, padded.shape[1])
    return pixels[(corner_P[:, None] + offset_L).to(pixels.device)].transpose(1, 2).flatten(1)


def _each(value: Any, kernel: tuple[int, ...]) -> list[int]:
    """A convolution's argument, one number or one for each axis, for each axis."""
    return [value] * len(kernel) if isinstance(value, int) else list(value)


def _spread(total: int, num: int) -> Tensor:
    """At most `num` of the indices below `total`, at equal distances."""
    step = max(1, math.ceil(total / num))
    # A step that divides a frame's width would see some of its columns only.
    while math.gcd(step, total) > 1:
        step += 1
    return torch.arange(0, total, step)


def _output_means(module: nn.Module, run: Callable[[], Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Mean output of every layer with a bias, for each output channel, while `run` runs the module; and its output."""
    means: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
            means.setdefault(name, _channel_means(layer, output))

        return hook

    output = _run_with_hooks(((layer, note(name)) for name, layer in _layers_with_bias(module)), run)
    return means, output.float()


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
                biases[f"{name}.bias"] = moved.clamp(-65504, 65504).cpu().numpy().astype("<f2")
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


def _run_with_hooks(hooks: Iterable[tuple[nn.Module, Callable]], run: Callable[[], Tensor]) -> Tensor:
    handles = [layer.register_forward_hook(hook) for layer, hook in hooks]
    try:
        return run()
    finally:
        for handle in handles:
            handle.remove()


def _channel_axis(layer: nn.Module) -> int:
    return -1 if isinstance(layer, nn.Linear) else 1


def _channel_means(layer: nn.Module, output: Tensor) -> Tensor:
    axis = _channel_axis(layer) % output.ndim
    return output.float().mean(dim=[i for i in range(output.ndim) if i != axis])
