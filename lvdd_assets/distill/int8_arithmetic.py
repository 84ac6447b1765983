"""Decoders that compute in 8-bit integers, as the paper quantises its autoencoders.

What belongs here: the two recipes of the paper, and what they cost in bytes. What must NOT come here: quantised storage
(`quantization`: there weights are made float32 again before they are used), any particular model, a release's format.

Both recipes are torchao's, which is imported inside the functions: it is an optional extra.

- 2D autoencoders, `static_int8`: weights and activations are integers, with scales fixed on calibration batches. The
  graph computes on what integers stand for, s (q - z), in float32; `compiled` replaces that by integer kernels.
- 3D autoencoders, `two_stage_int8`: first linear layers get int8 weights and activations whose scales are computed for
  every input, then all the rest becomes float16.

Legend: N latents of one batch, C channels, h, w latent, H, W pixels.
"""

import copy
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# What export notes about where a node came from: paths of this machine and addresses of this process. It takes more
# bytes than the weights of a small decoder and nothing that runs reads it.
_ORIGIN_KEYS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


@dataclass(frozen=True)
class StaticInt8:
    """A decoder whose weights and activations are integers.

    Attributes:
        module: takes float32 latents [N, C, h, w] with the h and w of calibration and any N, gives float32 frames
            [N, 3, H, W]. It is for inference alone: it has no `train` and no `eval`.
        file: the same as a `.pt2` file, for `torch.export.load`. A state dict would not do: the scales of activations
            are constants of the graph.
        constant_bytes: bytes of the weights, biases, scales and zero points in `file`; all the rest is the graph.
        float32_bytes: bytes of the parameters and buffers that the decoder had, in float32, without a file around them.
        quantized_share: int8 constants for each parameter value of the decoder, 0 to 1. Biases stay float32.
        activation_tensors: activations with a scale of their own, uint8 with one scale and zero point each.
        reduced_range: whether activations are held to 0...127 of 0...255.
    """

    module: nn.Module
    file: bytes = field(repr=False)
    constant_bytes: int
    float32_bytes: int
    quantized_share: float
    activation_tensors: int
    reduced_range: bool

    def __post_init__(self) -> None:
        if not 0 <= self.quantized_share <= 1 or self.activation_tensors < 0:
            raise ValueError(f"{self.quantized_share = } and {self.activation_tensors = } are out of range")
        if not 0 < self.constant_bytes < len(self.file):
            raise ValueError(f"{self.constant_bytes = } in a file of {len(self.file)} bytes")

    @property
    def stored_bytes(self) -> int:
        """Length of `file`. Its graph is plain text: in a small decoder it is longer than the weights."""
        return len(self.file)


@dataclass(frozen=True)
class TwoStage:
    """A module with int8 linear layers and float16 for the rest.

    Attributes:
        module: takes and gives float16. Processors compute float16 several times slower than float32.
        stored_bytes: what `torch.save` makes of its state dict.
        float32_bytes: bytes of the parameters and buffers that the module had, in float32.
        linear_share: the share of parameter values that stage 1 made int8, 0 to 1. Convolutions hold most values of an
            autoencoder: expect some hundredths, and 0.0 where there is no linear layer.
        half_share: the share of parameter values that stage 2 left in float16.
    """

    module: nn.Module
    stored_bytes: int
    float32_bytes: int
    linear_share: float
    half_share: float

    def __post_init__(self) -> None:
        if not (0 <= self.linear_share <= 1 and 0 <= self.half_share <= 1):
            raise ValueError(f"{self.linear_share = } and {self.half_share = } must be within 0 to 1")


def static_int8(module: nn.Module, *, calibration: Sequence[Tensor], reduced_range: bool = False) -> StaticInt8:
    """Quantises a 2D decoder after training: weights, and activations by the ranges that calibration batches reach.

    This is PT2E quantisation with torchao's `X86InductorQuantizer`. Weights of convolutions and linear layers become
    int8 with one scale for each output channel, their inputs uint8 with one scale and zero point:

        q = clip(round(x / s) + z, 0, 255),    x' = s (q - z)

    Sums, activation functions and upsampling between them stay float32.

    Args:
        module: takes latents float [N, C, h, w] and gives frames [N, 3, H, W]; it is not changed.
        calibration: batches of latents as the decoder will get them, float [N, C, h, w], all with the same C, h and w.
            Latents beyond their range are clipped.
        reduced_range: keep activations to 0...127, at half the resolution, so that integer kernels are exact on
            processors without VNNI. Without compiling it only costs precision.

    Raises:
        ImportError: torchao is not installed.
        ValueError: the batches are none, unlike or not finite, or the decoder's output on them is not finite.
    """
    _require_torchao()
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer

    _check_calibration(calibration)
    num_values = _count_parameters(module)
    original = copy.deepcopy(module).float().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    batches = [batch.detach().float() for batch in calibration]
    with torch.no_grad():
        for batch in batches:
            _check_output(original(batch), "the decoder's output on a calibration batch")
        quantizer = x86_inductor_quantizer.X86InductorQuantizer()
        ranges = x86_inductor_quantizer.get_default_x86_inductor_quantization_config(reduce_range=reduced_range)
        quantizer.set_global(ranges)
        # Some decoders treat large batches apart (diffusers' upsampling from 64 on, for speed alone): the graph is that
        # of small ones. That it takes any N is made sure of once it is quantised.
        graph = _export(original, batches[0], torch.export.Dim.DYNAMIC).module(check_guards=False)
        observed = prepare_pt2e(graph, quantizer)
        for batch in batches:
            observed(batch)
        quantized = convert_pt2e(observed)
        _drop_unused(quantized)
        _check_output(quantized(batches[0]), "the quantised decoder's output")
        program = _export(quantized, batches[0], torch.export.Dim("N", min=1))
    constants = _constants(program)
    return StaticInt8(
        quantized,
        file=_save(program),
        constant_bytes=sum(tensor.nbytes for tensor in constants),
        float32_bytes=_float32_bytes(module),
        quantized_share=sum(tensor.numel() for tensor in constants if tensor.dtype == torch.int8) / num_values,
        activation_tensors=_count_activations(quantized),
        reduced_range=reduced_range,
    )


def compiled(static: StaticInt8) -> nn.Module:
    """The decoder on inductor's integer kernels, for benchmarks: the first batch compiles for some ten seconds or more.

    Args:
        static: what `static_int8` gave.

    Returns:
        A module of the same latents and frames. Frames differ a little from those of `static.module`.

    Raises:
        ImportError: torchao is not installed.
        RuntimeError: there is no C++ compiler.
        ValueError: this processor would get the sums wrong.
    """
    _require_torchao()
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torchao.utils import should_reduce_range

    if not static.reduced_range and should_reduce_range(torch.device("cpu")):
        # Two products of uint8 and int8 are summed in int16 there, which saturates.
        raise ValueError(
            "this processor has no VNNI: its integer kernels saturate on activations up to 255 and give wrong frames; "
            "quantise with reduced_range=True, or use the module uncompiled"
        )
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise RuntimeError(
            "compiling needs a C++ compiler and none was found; install g++ or name one in the environment variable "
            "CXX, or use the module uncompiled: it gives nearly the same frames, slower"
        ) from error
    return _Compiled(static.module)


def two_stage_int8(module: nn.Module, *, sample: Tensor) -> TwoStage:
    """Quantises a 3D autoencoder in the paper's two stages: linear layers dynamic int8, then float16 for the rest.

    Stage 1 is torchao's `Int8DynamicActivationInt8WeightConfig`: int8 weights with a scale for each output, inputs int8
    with a scale for each row, computed as they come. The result is for measuring fidelity: processors have no fast
    float16 convolution, it computes several times slower than float32.

    Args:
        module: a decoder or a part of one; it is not changed. Its forward takes one tensor and gives a tensor, or a
            tuple that begins with one.
        sample: an input, floating point of any shape that the module takes; the result is tried on it.

    Raises:
        ImportError: torchao is not installed.
        ValueError: the sample is not finite, or the output on it is not, as where a value does not fit float16.
    """
    _require_torchao()
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    from torchao.utils import TorchAOBaseTensor

    if not sample.is_floating_point() or not sample.isfinite().all():
        raise ValueError(f"expected a finite floating-point sample, got {_describe(sample)}; check how it was encoded")
    num_values = _count_parameters(module)
    half = copy.deepcopy(module).eval().half().requires_grad_(False)
    # The setter would change inductor's settings for the whole process. Ranges need no reduction: without compiling,
    # products are summed in int32 on every processor.
    quantize_(half, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    with torch.no_grad():
        output = half(sample.half())
    _check_output(output[0] if isinstance(output, tuple) else output, "the float16 output on the sample")
    # torchao leaves some linear layers alone, as in nn.MultiheadAttention: what it did is counted, not what was asked.
    parameters = list(half.parameters())
    integers = [parameter for parameter in parameters if isinstance(parameter, TorchAOBaseTensor)]
    halves = [p for p in parameters if p.dtype == torch.float16 and not isinstance(p, TorchAOBaseTensor)]
    stored = io.BytesIO()
    torch.save(half.state_dict(), stored)
    return TwoStage(
        half,
        stored_bytes=stored.getbuffer().nbytes,
        float32_bytes=_float32_bytes(module),
        linear_share=sum(parameter.numel() for parameter in integers) / num_values,
        half_share=sum(parameter.numel() for parameter in halves) / num_values,
    )


class _Compiled(nn.Module):
    """A graph on inductor's kernels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = torch.compile(module)

    def forward(self, latents_NChw: Tensor) -> Tensor:
        import torch._inductor.config

        # Frozen weights are what the integer kernels are matched on. As an option of torch.compile the setting comes
        # too late (torch 2.13: "UnsupportedOperatorException: onednn.qconv_prepack"), and a new N compiles again.
        with torch._inductor.config.patch(freezing=True), torch.no_grad():
            frames: Tensor = self.inner(latents_NChw)
        return frames


def _require_torchao() -> None:
    try:
        import torchao  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "integer arithmetic needs torchao, which is not installed: pip install 'lvdd-assets[int8]'"
        ) from error


def _check_calibration(batches: Sequence[Tensor]) -> None:
    if not len(batches):
        raise ValueError("got no calibration batch, expected at least one [N, C, h, w]: encode a few clips")
    for batch in batches:
        if batch.ndim != 4 or not batch.numel() or not batch.is_floating_point():
            raise ValueError(f"expected calibration batches float [N, C, h, w], got {_describe(batch)}")
        if batch.shape[1:] != batches[0].shape[1:]:
            raise ValueError(
                f"calibration batches of {tuple(batches[0].shape)} and {tuple(batch.shape)}: expected the same C, h, w "
                "in all; quantise once for each size"
            )
        if not batch.isfinite().all():
            raise ValueError("a calibration batch holds NaN or infinity, expected finite latents; encode it again")


def _check_output(output: Any, what: str) -> None:
    if not isinstance(output, Tensor):
        raise ValueError(f"{what} is a {type(output).__name__}, expected a tensor; pass the decoder alone")
    if not output.isfinite().all():
        raise ValueError(f"{what} holds NaN or infinity, expected finite frames; check weights and latents")


def _export(module: nn.Module, batch: Tensor, num_latents: Any) -> torch.export.ExportedProgram:
    """The graph of a module for batches of a number of latents that `torch.export` describes."""
    # A batch of one would be taken for a size that never changes.
    example = batch[:1].repeat(2, 1, 1, 1)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: num_latents},))
    program.example_inputs = None
    return program


def _drop_unused(graph_module: nn.Module) -> None:
    """Deletes the float32 weights that conversion left beside their int8 copies."""
    used = {node.target for node in _nodes(graph_module) if node.op == "get_attr"}
    tensors = [
        *graph_module.named_parameters(remove_duplicate=False),
        *graph_module.named_buffers(remove_duplicate=False),
    ]
    for name, _ in tensors:
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), attribute)


def _save(program: torch.export.ExportedProgram) -> bytes:
    for node in program.graph.nodes:
        for key in _ORIGIN_KEYS:
            node.meta.pop(key, None)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _constants(program: torch.export.ExportedProgram) -> list[Tensor]:
    """All that a file holds beside the graph; the program's other constants are not tensors."""
    values = [*program.state_dict.values(), *program.constants.values()]
    return [value for value in values if isinstance(value, Tensor)]


def _count_activations(graph_module: nn.Module) -> int:
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    return len({node.args[0] for node in _nodes(graph_module) if node.target == quantize})


def _nodes(graph_module: nn.Module) -> Iterator[torch.fx.Node]:
    assert isinstance(graph_module, torch.fx.GraphModule)
    return iter(graph_module.graph.nodes)


def _count_parameters(module: nn.Module) -> int:
    num_values = sum(parameter.numel() for parameter in module.parameters())
    if not num_values:
        raise ValueError(f"{type(module).__name__} has no parameters: there is nothing to quantise; pass a decoder")
    return num_values


def _float32_bytes(module: nn.Module) -> int:
    tensors = [tensor for tensor in [*module.parameters(), *module.buffers()] if tensor.is_floating_point()]
    return sum(tensor.numel() for tensor in tensors) * torch.float32.itemsize


def _describe(tensor: Tensor) -> str:
    finite = "" if tensor.isfinite().all() else ", with NaN or infinity"
    return f"{tensor.dtype} {tuple(tensor.shape)}{finite}"
