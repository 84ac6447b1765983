import pytest
import torch

from lvdd_assets.distill import networks, paper


def _clips(num_clips: int, frames: int, size: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_clips, frames, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("num_classes", [50, 51])
def test_the_papers_network_has_3_65_million_parameters(num_classes: int) -> None:
    network = networks.ConvNet3D(num_classes, frames=16, size=112)
    assert round(networks.num_parameters(network) / 1e6, 2) == paper.CONVNET3D_PARAMETERS_MILLIONS


@pytest.mark.parametrize(
    ("frames", "size", "average"),
    [(16, 112, paper.CONVNET3D_AVERAGE_POOL_112), (8, 64, paper.CONVNET3D_AVERAGE_POOL_64)],
    ids=["112", "64"],
)
def test_the_average_pool_is_the_papers(frames: int, size: int, average: tuple[int, int, int]) -> None:
    network = networks.ConvNet3D(5, frames=frames, size=size, widths=(4, 4, 4))
    pools = [m for m in network.features if isinstance(m, torch.nn.AvgPool3d)]
    assert [pool.kernel_size for pool in pools] == [average]


def test_there_are_no_normalisation_layers() -> None:
    names = {type(module).__name__ for module in networks.ConvNet3D(5, frames=8, size=64).modules()}
    assert not [name for name in names if "Norm" in name]


@pytest.mark.parametrize(("frames", "size"), [(8, 43), (8, 64), (11, 80), (16, 112), (16, 128), (20, 224)])
def test_logits_have_one_row_per_clip_and_the_map_that_was_promised(frames: int, size: int) -> None:
    network = networks.ConvNet3D(7, frames=frames, size=size, widths=(4, 4, 4)).eval()
    with torch.no_grad():
        logits = network(_clips(2, frames, size))
        pixels = torch.zeros(1, 3, frames, size, size)
        features = network.features(pixels)
    assert logits.shape == (2, 7)
    assert tuple(features.shape[2:]) == network.feature_shape_THW


def test_logits_are_the_maximum_over_time() -> None:
    network = networks.ConvNet3D(3, frames=16, size=64, widths=(4, 4, 4)).eval()
    clips = _clips(2, 16, 64)
    pixels = (clips.float() / 255 - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1)
    with torch.no_grad():
        by_time = network.classifier(network.features(pixels.permute(0, 2, 1, 3, 4)))
        assert by_time.shape[2] == 3  # 4 frames averaged by twos, one step apart
        torch.testing.assert_close(network(clips), by_time[:, :, :, 0, 0].max(dim=2).values)


def test_relu_behind_the_pool_is_the_literatures_network() -> None:
    """Values and gradients are those of [convolution, ReLU, max pool]."""
    network = networks.ConvNet3D(3, frames=8, size=64, widths=(4, 4, 4)).eval()
    layers = list(network.features)
    for index in range(0, 9, 3):
        layers[index + 1], layers[index + 2] = layers[index + 2], layers[index + 1]
    assert [type(layer).__name__ for layer in layers[:3]] == ["Conv3d", "ReLU", "MaxPool3d"]
    clips = _clips(4, 8, 64)
    gradients = []
    for features in (network.features, torch.nn.Sequential(*layers)):
        network.zero_grad()
        network.features = features
        network(clips).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == 8
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_clips_logits_do_not_depend_on_its_batch() -> None:
    network = networks.ConvNet3D(3, frames=8, size=64, widths=(8, 8, 8)).eval()
    clips = _clips(6, 8, 64)
    clips[3:] //= 8
    with torch.no_grad():
        torch.testing.assert_close(network(clips)[:1], network(clips[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "size"),
    [(networks.MIN_FRAMES - 1, 64), (8, networks.MIN_SIZE - 1), (1, 64), (8, 8)],
)
def test_too_small_a_clip_is_refused_with_both_numbers(frames: int, size: int) -> None:
    with pytest.raises(ValueError, match=rf"{frames} frames at {size}×{size}.*at least 8 frames and 43 pixels"):
        networks.ConvNet3D(3, frames=frames, size=size)


def test_the_smallest_clip_is_accepted() -> None:
    network = networks.ConvNet3D(3, frames=networks.MIN_FRAMES, size=networks.MIN_SIZE, widths=(2, 2, 2))
    assert network(_clips(1, networks.MIN_FRAMES, networks.MIN_SIZE)).shape == (1, 3)


def test_wrong_input_is_refused() -> None:
    network = networks.ConvNet3D(3, frames=8, size=64, widths=(2, 2, 2))
    with pytest.raises(ValueError, match=r"expects uint8 \[N, T, C, H, W\]"):
        network(_clips(1, 8, 64).float())
    with pytest.raises(ValueError, match=r"\(1, 9, 3, 64, 64\)"):
        network(_clips(1, 9, 64))


@pytest.mark.parametrize(("num_classes", "widths"), [(1, (2, 2, 2)), (3, (2, 2)), (3, (2, 0, 2))])
def test_wrong_settings_are_refused(num_classes: int, widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got"):
        networks.ConvNet3D(num_classes, frames=8, size=64, widths=widths)
