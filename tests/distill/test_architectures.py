"""Networks by name: sizes, shapes, gradients, independence of clips, and that they learn."""

import pytest
import torch
from torch import nn

from lvdd_assets.distill import architectures, networks
from lvdd_assets.distill.architectures import build_network
from lvdd_assets.distill.protocols import NETWORKS

TINY = {
    "convnet3d": (4, 4, 4),
    "cnn-gru": (4, 4, 4, 6),
    "cnn-lstm": (4, 4, 4, 6),
    "c3d": (4, 4, 4, 4, 4, 8),
    "r2plus1d": (4, 4, 6, 6),
}
# The smallest that each accepts.
SMALLEST = {"convnet3d": (8, 43), "cnn-gru": (1, 8), "cnn-lstm": (1, 8), "c3d": (2, 17), "r2plus1d": (1, 17)}
DEMO = (8, 64)  # data/datasets.yaml


def _clips(num_clips: int, frames: int, size: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_clips, frames, 3, size, size), dtype=torch.uint8, generator=generator)


def _build(name: str, num_classes: int = 3, shape: tuple[int, int] = SMALLEST["convnet3d"]) -> networks.ClipNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(name, num_classes, frames=shape[0], size=shape[1], widths=TINY[name])


def _loud(network: networks.ClipNetwork) -> networks.ClipNetwork:
    """With He's initialisation, behind which narrow layers without normalisation still see their input."""
    generator = torch.Generator().manual_seed(0)
    for value in network.parameters():
        if value.ndim in (2, 5):
            nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)
    return network


def test_tables_name_the_same_networks() -> None:
    assert set(NETWORKS) == set(architectures._BUILDERS) == set(architectures.DEFAULT_WIDTHS) == set(TINY)


@pytest.mark.parametrize(
    ("name", "num_classes", "shape", "parameters"),
    [
        # By hand, layer by layer: inputs · 3·7·7 · outputs, and the biases.
        ("convnet3d", 50, (16, 112), 147 * (3 * 64 + 64 * 128 + 128 * 128) + 64 + 128 + 128 + 128 * 50 + 50),
        # 3·9·128+128, twice 128·9·128+128, three times 2·128 of normalisation; a recurrent
        # layer has 2·128·128+2·128 for each gate; 128·50+50.
        ("cnn-gru", 50, (8, 64), 3_584 + 2 * 147_584 + 768 + 3 * 33_024 + 6_450),
        ("cnn-lstm", 50, (8, 64), 3_584 + 2 * 147_584 + 768 + 4 * 33_024 + 6_450),
    ],
)
def test_parameters_are_as_many_as_the_definition_says(
    name: str, num_classes: int, shape: tuple[int, int], parameters: int
) -> None:
    network = build_network(name, num_classes, frames=shape[0], size=shape[1])
    assert networks.num_parameters(network) == parameters


def test_c3d_is_trans_at_its_own_shape() -> None:
    """Its first linear layer has 8,192 inputs, and all have 78 million values for 101 classes (ICCV 2015)."""
    with torch.device("meta"):
        network = build_network("c3d", 101, frames=16, size=112)
        small = build_network("c3d", 50, frames=8, size=64)
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8192, 4096), (4096, 4096), (4096, 101)]
    assert round(networks.num_parameters(network) / 1e6) == 78
    assert next(layer.in_features for layer in small.modules() if isinstance(layer, nn.Linear)) == 512 * 2 * 2


def test_r2plus1d_is_small_and_its_factors_weigh_what_the_whole_would() -> None:
    with torch.device("meta"):
        assert 3.5e6 < networks.num_parameters(build_network("r2plus1d", 50, frames=8, size=64)) < 3.7e6
    for inside, outside in ((64, 64), (64, 128), (128, 256)):
        factored = architectures.FactoredConvolution(inside, outside)
        weights = sum(layer.weight.numel() for layer in factored if isinstance(layer, nn.Conv3d))
        assert weights == pytest.approx(27 * inside * outside, rel=0.01)
        assert weights <= 27 * inside * outside


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [DEMO, (16, 112), (11, 50)], ids=str)
def test_logits_have_one_row_per_clip(name: str, shape: tuple[int, int]) -> None:
    network = _build(name, 7, shape).eval()
    with torch.no_grad():
        logits = network(_clips(2, *shape))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_clip_is_accepted_and_trains_alone(name: str) -> None:
    network = _build(name, 3, SMALLEST[name])
    network(_clips(1, *SMALLEST[name])).sum().backward()
    frames, size = SMALLEST[name]
    for shape in ((frames - 1, size), (frames, size - 1)):
        with pytest.raises(ValueError, match=rf"{shape[0]} frames at {shape[1]}×.*at least {frames} frames and {size}"):
            _build(name, 3, shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient(name: str) -> None:
    """After one step: some layers start behind ReLUs that are all off for a network as narrow as this."""
    torch.manual_seed(1)
    network = build_network(name, 3, frames=8, size=44, widths=[4 * width for width in TINY[name]])
    nn.functional.cross_entropy(network(_clips(6, 8, 44)), torch.arange(6) % 3).backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    # A bias whose effect the normalisation behind it takes out again has a gradient of rounding errors, or none.
    assert without == []


@pytest.mark.parametrize("name", NETWORKS)
def test_a_clips_logits_do_not_depend_on_its_batch(name: str) -> None:
    """A batch in another order gives the same rows in that order; a clip alone gives its row."""
    network = _build(name).eval()
    clips = _clips(5, *SMALLEST["convnet3d"])
    clips[3:] //= 8
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        logits = network(clips)
        torch.testing.assert_close(network(clips[order]), logits[order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(clips[:1]), logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn-gru", "cnn-lstm", "c3d", "r2plus1d"])
def test_the_order_of_frames_matters(name: str) -> None:
    network = _loud(_build(name)).eval()
    clips = _clips(2, *SMALLEST["convnet3d"])
    with torch.no_grad():
        assert (network(clips) - network(clips.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_four_clips_are_learnt_by_heart(name: str) -> None:
    frames, size = (8, 44) if name == "convnet3d" else (4, 20)
    torch.manual_seed(0)
    network = _loud(build_network(name, 2, frames=frames, size=size, widths=[2 * width for width in TINY[name]]))
    # Rough patterns; two of them darker, so that brightness does not tell the classes apart.
    clips = _clips(4, frames, size // 4).repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
    clips[2:] //= 2
    labels = torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(20):
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.train()(clips), labels).backward()
            optimizer.step()
        with torch.no_grad():
            logits = network.eval()(clips)
        if nn.functional.cross_entropy(logits, labels) < 0.3:
            break
    assert (logits.argmax(1) == labels).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_weights_give_the_same_logits(name: str) -> None:
    network = _build(name).eval()
    clips = _clips(2, *SMALLEST["convnet3d"])
    with torch.no_grad():
        plain = network(clips)
        torch.testing.assert_close(network.to(memory_format=torch.channels_last_3d)(clips), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"widths = \(2, 2\).*expects {len(TINY[name])} positive widths"):
        build_network(name, 3, frames=8, size=64, widths=(2, 2))
    with pytest.raises(ValueError, match="at least 2 classes"):
        build_network(name, 1, frames=8, size=64, widths=TINY[name])
    with pytest.raises(ValueError, match=r"expects uint8 \[N, T, C, H, W\]"):
        _build(name, 3, DEMO)(_clips(1, 9, 64))


def test_an_unknown_network_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown network 'resnet'; known: convnet3d, cnn-gru, cnn-lstm, c3d, r2plus1d"
    ):
        build_network("resnet", 3, frames=8, size=64)
