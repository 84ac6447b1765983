"""`int8_arithmetic`: activations that really are integers, bytes that really are small, shares that really are counted.

Peak signal-to-noise ratios are between the quantised and the float32 output, with the float32 output's range as peak.
An activation of range R and b bits has an error of variance R² / (12 · 4^b) or less: 59 dB below the peak for 8 bits.
Weights have about as much, and errors of all layers add up.
"""

import copy
import io
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lvdd_assets
from lvdd_assets.distill import int8_arithmetic
from lvdd_assets.distill.int8_arithmetic import StaticInt8, TwoStage, compiled, static_int8, two_stage_int8


class _Decoder(nn.Module):
    """A small decoder with what occurs in 2D ones: biases or none, a residual sum, a linear layer, upsampling."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.linear = nn.Linear(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents_NChw: Tensor) -> Tensor:
        hidden = self.first(latents_NChw).relu()
        hidden = hidden + self.linear(hidden.movedim(1, -1)).movedim(-1, 1).relu()
        hidden = nn.functional.interpolate(self.second(hidden).relu(), scale_factor=2.0)
        return self.last(self.dropout(hidden))


class _VideoDecoder(nn.Module):
    """4·8·27 + 8 values in `first`, 8·8 + 8 in `attention`, 8·3·27 + 3 in `last`."""

    def __init__(self, *, with_linear: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv3d(4, 8, 3, padding=1)
        self.attention: nn.Module = nn.Linear(8, 8) if with_linear else nn.Identity()
        self.last = nn.Conv3d(8, 3, 3, padding=1)

    def forward(self, latents_NCThw: Tensor) -> Tensor:
        hidden = self.first(latents_NCThw).relu()
        return self.last(self.attention(hidden.movedim(1, -1)).movedim(-1, 1))


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return _Decoder()  # in training mode, with dropout


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def embedded() -> nn.Module:
    from diffusers import AutoencoderTiny

    folder = Path(lvdd_assets.__file__).parent / "weights" / "embedded-2d"
    return AutoencoderTiny.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False).decoder.eval()


@torch.no_grad()
def _psnr(output: Tensor, target: Tensor) -> float:
    peak = target.max() - target.min()
    return float(10 * torch.log10(peak.square() / (output.float() - target).square().mean()))


def _graph_targets(static: StaticInt8) -> list[str]:
    assert isinstance(static.module, torch.fx.GraphModule)
    return [str(node.target) for node in static.module.graph.nodes]


@torch.no_grad()
def test_static_output_is_close_to_float32(module: nn.Module, latents: Tensor) -> None:
    static = static_int8(module, calibration=[latents[:4], latents[4:]])
    output, target = static.module(latents), copy.deepcopy(module).eval()(latents)
    assert output.dtype == torch.float32
    assert _psnr(output, target) > 35  # four layers of 59 dB, twice for weights, would be 50; some latents are clipped


@torch.no_grad()
def test_static_embedded_decoder_is_close_to_float32(embedded: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    static = static_int8(embedded, calibration=[torch.randn(32, 4, 8, 8, generator=generator)])
    fresh = torch.randn(16, 4, 8, 8, generator=generator)
    # 14 layers of 59 dB, twice for weights, would be 45 dB if no layer amplified; measured 50 dB.
    assert _psnr(static.module(fresh), embedded(fresh)) > 40
    assert static.activation_tensors == 14  # the inputs of its 14 convolutions
    num_biases = sum(p.numel() for p in embedded.parameters() if p.ndim == 1)
    num_values = sum(p.numel() for p in embedded.parameters())
    assert static.quantized_share == (num_values - num_biases) / num_values
    assert static.constant_bytes < 0.45 * static.float32_bytes
    assert static.stored_bytes == len(static.file)


@torch.no_grad()
def test_activations_are_quantized_with_static_scales(module: nn.Module, latents: Tensor) -> None:
    static = static_int8(module, calibration=[latents])
    targets = _graph_targets(static)
    assert static.activation_tensors == 4  # the inputs of three convolutions and a linear layer
    assert sum("quantized_decomposed.quantize_per_tensor" in target for target in targets) == 4
    assert sum("quantized_decomposed.dequantize_per_tensor" in target for target in targets) >= 4
    wide = static_int8(module, calibration=[10 * latents])
    target = copy.deepcopy(module).eval()(latents)
    # Ten times the step is 20 dB more noise from activations; the noise from weights stays.
    assert _psnr(static.module(latents), target) > _psnr(wide.module(latents), target) + 10
    # Beyond its calibration a decoder clips, one with dynamic scales would not.
    target = copy.deepcopy(module).eval()(10 * latents)
    assert _psnr(wide.module(10 * latents), target) > 35
    assert _psnr(static.module(10 * latents), target) < 25


@torch.no_grad()
def test_activations_take_few_values() -> None:
    # With weights of 1 the output shows the quantised latents themselves.
    one = nn.Conv2d(1, 3, 1, bias=False)
    one.weight.fill_(1.0)
    latents = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    for reduced_range, num_values in ((False, 256), (True, 128)):
        static = static_int8(one, calibration=[latents], reduced_range=reduced_range)
        found = static.module(latents).unique()
        assert 0.9 * num_values < len(found) <= num_values
        # Weights have 255 steps from -1 to 1 and the largest code is 127: it stands for 127 / 127.5. The range of the
        # latents, 1, has num_values - 1 steps; rounding is off by a quarter of a step in the mean.
        error = (static.module(latents) - latents * 127 / 127.5).abs().mean() * (num_values - 1)
        assert error == pytest.approx(0.25, rel=0.2)  # the range found may be a little off


def test_static_file_holds_no_float32_weight(latents: Tensor) -> None:
    torch.manual_seed(0)
    module = _Decoder(width=128)
    static = static_int8(module, calibration=[latents])
    program = torch.export.load(io.BytesIO(static.file))
    tensors = [*program.state_dict.values(), *program.constants.values()]
    assert all(tensor.ndim < 2 for tensor in tensors if tensor.dtype != torch.int8)
    weights = [p.numel() for p in module.parameters() if p.ndim > 1]
    assert sum(tensor.numel() for tensor in tensors if tensor.dtype == torch.int8) == sum(weights)
    assert sum(weights) < static.constant_bytes < static.stored_bytes < 0.45 * static.float32_bytes
    assert static.float32_bytes == 4 * sum(p.numel() for p in module.parameters())
    # No path of this machine goes along.
    assert str(Path(torch.__file__).parent).encode() not in static.file
    with torch.no_grad():
        assert torch.equal(program.module()(latents), static.module(latents))


@torch.no_grad()
@pytest.mark.parametrize("num_calibration", [1, 8])
def test_static_takes_any_number_of_latents(module: nn.Module, latents: Tensor, num_calibration: int) -> None:
    static = static_int8(module, calibration=[latents[:num_calibration]])
    whole = static.module(latents)
    assert whole.shape == (8, 3, 12, 12)
    for size in (1, 3):
        parts = torch.cat([static.module(part) for part in latents.split(size)])
        # Sums come in another order, and a value on the edge between two integers may fall to the other side.
        assert _psnr(parts, whole) > 45


@torch.no_grad()
def test_static_traces_small_batches_where_large_ones_differ(latents: Tensor) -> None:
    class Branching(_Decoder):
        def forward(self, latents_NChw: Tensor) -> Tensor:
            frames = super().forward(latents_NChw)
            return (
                frames.contiguous() if frames.shape[0] >= 6 else frames
            )  # as the upsampling of diffusers' AutoencoderKL

    module = Branching()
    static = static_int8(module, calibration=[latents])
    loaded = torch.export.load(io.BytesIO(static.file)).module()
    target = module.eval()(latents)
    for size in (1, 8):
        assert _psnr(loaded(latents[:size]), target[:size]) > 35


def test_static_leaves_the_module_alone(module: nn.Module, latents: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    static_int8(module, calibration=[latents])
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_static_share_counts_only_integers(latents: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 3, 2, stride=2))
    static = static_int8(module, calibration=[latents])
    # Norms and transposed convolutions are left in float32.
    assert static.quantized_share == 288 / (288 + 8 + 16 + 96 + 3)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        pytest.param([], "got no calibration batch", id="none"),
        pytest.param([torch.zeros(4, 6, 6)], r"got torch.float32 \(4, 6, 6\)", id="no batch dimension"),
        pytest.param([torch.zeros(0, 4, 6, 6)], r"got torch.float32 \(0, 4, 6, 6\)", id="no latents"),
        pytest.param([torch.zeros(2, 4, 6, 6, dtype=torch.int8)], "got torch.int8", id="integers"),
        pytest.param([torch.zeros(2, 4, 6, 6), torch.zeros(2, 4, 6, 7)], "the same C, h, w in all", id="unlike sizes"),
        pytest.param([torch.full((2, 4, 6, 6), torch.nan)], "encode it again", id="not finite"),
    ],
)
def test_static_refuses_calibration(module: nn.Module, calibration: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        static_int8(module, calibration=calibration)


def test_static_refuses_unusable_modules(module: nn.Module, latents: Tensor) -> None:
    with pytest.raises(ValueError, match="nothing to quantise"):
        static_int8(nn.ReLU(), calibration=[latents])
    with torch.no_grad():
        module.get_parameter("second.weight")[0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="holds NaN or infinity, expected finite frames; check weights"):
        static_int8(module, calibration=[latents])


def test_compiling_needs_a_compiler(module: nn.Module, latents: Tensor) -> None:
    import torch._inductor.config

    static = static_int8(module, calibration=[latents], reduced_range=True)
    no_compiler = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with no_compiler, pytest.raises(RuntimeError, match=r"install g\+\+ .* or use the module uncompiled"):
        compiled(static)


def test_compiling_refuses_what_would_saturate(
    module: nn.Module, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchao.utils.should_reduce_range", lambda device: True)
    with pytest.raises(ValueError, match=r"no VNNI.*reduced_range=True"):
        compiled(static_int8(module, calibration=[latents]))


@pytest.mark.slow
@torch.no_grad()
def test_compiled_gives_nearly_the_same_frames(module: nn.Module, latents: Tensor) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("no C++ compiler")
    static = static_int8(module, calibration=[latents], reduced_range=True)
    fast = compiled(static)
    # Only values on the edge between two integers may differ; saturated sums give about 30 dB.
    assert _psnr(fast(latents), static.module(latents)) > 45


@torch.no_grad()
def test_two_stages_touch_what_they_say() -> None:
    torch.manual_seed(0)
    module = _VideoDecoder()
    before = copy.deepcopy(module.state_dict())
    sample = torch.randn(2, 4, 3, 6, 6)
    result = two_stage_int8(module, sample=sample)
    num_values = (864 + 8) + (64 + 8) + (648 + 3)
    assert result.linear_share == 64 / num_values
    assert result.half_share == (num_values - 64) / num_values
    assert result.float32_bytes == 4 * num_values
    assert result.stored_bytes > 2 * num_values - 64  # the file around the tensors comes on top
    for name, parameter in result.module.named_parameters():
        assert parameter.dtype == torch.float16
        assert (type(parameter.data) is Tensor) == (name != "attention.weight")
    target = module(sample)
    output = result.module(sample.half())
    assert output.dtype == torch.float16
    assert _psnr(output, target) > 40  # one layer of 8 bits, symmetric: 53 dB less what its weights add
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


@torch.no_grad()
def test_two_stages_without_linear_layers_are_float16() -> None:
    torch.manual_seed(0)
    module = _VideoDecoder(with_linear=False)
    sample = torch.randn(1, 4, 3, 6, 6)
    result = two_stage_int8(module, sample=sample)
    assert (result.linear_share, result.half_share) == (0.0, 1.0)
    assert torch.equal(result.module(sample.half()), copy.deepcopy(module).half()(sample.half()))


def test_two_stages_take_the_first_of_a_tuple() -> None:
    class Cached(_VideoDecoder):
        def forward(self, latents_NCThw: Tensor) -> tuple[Tensor, dict]:  # type: ignore[override]
            return super().forward(latents_NCThw), {}

    assert two_stage_int8(Cached(), sample=torch.zeros(1, 4, 2, 4, 4)).linear_share > 0


def test_two_stages_refuse_what_is_not_finite() -> None:
    module = _VideoDecoder()
    with pytest.raises(ValueError, match=r"finite floating-point sample, got .* with NaN or infinity"):
        two_stage_int8(module, sample=torch.full((1, 4, 2, 4, 4), torch.inf))
    with torch.no_grad():
        module.first.weight.fill_(1e5)  # float16 ends at 65504
    with pytest.raises(ValueError, match="float16 output on the sample holds NaN or infinity"):
        two_stage_int8(module, sample=torch.ones(1, 4, 2, 4, 4))
    with pytest.raises(ValueError, match="nothing to quantise"):
        two_stage_int8(nn.ReLU(), sample=torch.ones(1))


def test_missing_torchao_is_named(module: nn.Module, latents: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ImportError, match=r"pip install 'lvdd-assets\[int8\]'"):
        static_int8(module, calibration=[latents])
    with pytest.raises(ImportError, match=r"pip install 'lvdd-assets\[int8\]'"):
        two_stage_int8(module, sample=latents)


def test_results_check_themselves(module: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"quantized_share = 1.5"):
        StaticInt8(module, b"file", 3, 16, 1.5, 1, False)
    with pytest.raises(ValueError, match="in a file of 4 bytes"):
        StaticInt8(module, b"file", 4, 16, 1.0, 1, False)
    with pytest.raises(ValueError, match=r"linear_share = -0.1"):
        TwoStage(module, 1, 4, -0.1, 1.0)


def test_torchao_stays_out_of_the_import() -> None:
    source = Path(int8_arithmetic.__file__).read_text().splitlines()
    assert not [line for line in source if line.startswith(("import torchao", "from torchao"))]
