import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from lvdd_assets.distill import networks, training
from lvdd_assets.distill.protocols import AUGMENTATIONS, NETWORKS, Augmentation, Protocol
from lvdd_assets.distill.training import DivergedError, Run, train
from tests.distill.moving_noise import brightness_clips

TINY = Protocol(epochs=2, batch_size=4, widths=(2, 2, 2))


def _set(num_clips: int, *, seed: int = 0) -> TensorDataset:
    clips, labels = zip(*brightness_clips(num_clips, 2, seed=seed), strict=True)
    return TensorDataset(torch.stack(clips), torch.tensor(labels))


def _parameters(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_batches_are_full_and_every_clip_comes_once_before_any_comes_again() -> None:
    stream = training._batches(5, 4, torch.Generator().manual_seed(0))
    batches = list(itertools.islice(stream, 5))
    assert [len(batch) for batch in batches] == [4] * 5
    order = torch.cat(batches).tolist()
    passes = [order[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_a_set_smaller_than_a_batch_repeats_within_it() -> None:
    batch = next(training._batches(3, 8, torch.Generator().manual_seed(0)))
    assert sorted(torch.bincount(batch).tolist()) == [2, 3, 3]


def test_learning_rate_rises_to_its_peak_and_falls() -> None:
    rates = [training._cycle((step + 0.5) / 100) for step in range(100)]
    peak = rates.index(max(rates))
    assert 0 < min(rates) < 0.01
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert training._cycle(0.5) > 0.5  # a single update is not made with a rate of 0


def test_the_papers_schedule_falls_to_a_tenth_half_way() -> None:
    assert [training._step((step + 0.5) / 10) for step in range(10)] == [1.0] * 5 + [0.1] * 5


def test_whole_epochs_end_with_what_remains() -> None:
    batches = list(itertools.islice(training._batches(5, 2, torch.Generator(), whole_epochs=True), 6))
    assert [len(batch) for batch in batches] == [2, 2, 1] * 2
    assert sorted(torch.cat(batches[:3]).tolist()) == list(range(5))


def test_the_same_seed_trains_the_same_network() -> None:
    first, again, other = (_parameters(train(_set(8), 2, Run(TINY, seed, 3))) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_loss_that_is_not_finite_stops_the_training_at_its_step() -> None:
    wild = Protocol(batch_size=4, learning_rate=1e30, clip_norm=None, widths=(2, 2, 2))
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ of 40 \(seed 3\).*learning_rate"):
        train(_set(8), 2, Run(wild, 3, 40))


def test_losses_that_are_looked_at_together_still_name_their_step() -> None:
    losses = training._Losses(Run(TINY, 3, 40), a_look=4)
    for step, value in enumerate((1.0, 1.0, 1.0, 1.0, 1.0, math.nan, math.inf), 1):
        losses.add(torch.tensor(value), step)
    with pytest.raises(DivergedError, match=r"the loss is nan at step 6 of 40 \(seed 3\)"):
        losses.add(torch.tensor(math.inf), 8)


def test_the_last_losses_are_looked_at_too() -> None:
    losses = training._Losses(Run(TINY, 3, 2), a_look=50)
    losses.add(torch.tensor(1.0), 1)
    with pytest.raises(DivergedError, match="at step 2 of 2"):
        losses.add(torch.tensor(math.inf), 2)


def test_repeatable_convolutions_still_use_cudnn() -> None:
    """Torch's own default is to turn it off for the time."""
    with training.repeatable():
        flags = torch.backends.cudnn
        assert (flags.enabled, flags.deterministic, flags.benchmark) == (True, True, False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_seed_trains_the_same_network_on_a_gpu(network: str) -> None:
    shape = (40, 8, 3, 64, 64)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    protocol = Protocol(batch_size=16, network=network, augmentation=AUGMENTATIONS)
    sets = TensorDataset(clips, torch.arange(40) % 5)
    first, again = (_parameters(train(sets, 5, Run(protocol, 0, 10, device="cuda"))) for _ in range(2))
    assert torch.equal(first, again)


def test_soft_labels_of_one_are_hard_labels() -> None:
    hard = _set(8)
    soft = TensorDataset(hard.tensors[0], nn.functional.one_hot(hard.tensors[1]).float())
    first, second = (_parameters(train(clips, 2, Run(TINY, 0, 3))) for clips in (hard, soft))
    torch.testing.assert_close(first, second)


def test_out_of_memory_halves_what_is_computed_at_once_and_not_the_update(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that fails above two clips, as an allocator does, and has no dropout: the same update, in pieces."""
    sizes: list[int] = []

    class Greedy(networks.ConvNet3D):
        def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
            sizes.append(len(clips_NTCHW))
            if len(clips_NTCHW) > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
            self.features[-1].p = 0.0
            return super().forward(clips_NTCHW)

    monkeypatch.setattr(training, "build_network", lambda _name, classes, **shape: Greedy(classes, **shape))
    protocol = Protocol(batch_size=8, widths=(2, 2, 2))
    most = 8
    whole = _parameters(train(_set(8), 2, Run(protocol, 0, 2)))
    sizes.clear()
    most = 2
    pieces = _parameters(train(_set(8), 2, Run(protocol, 0, 2)))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    torch.testing.assert_close(pieces, whole)
    assert "out of memory at step 1 of 2: batches of 8 clips are computed in 4 pieces" in caplog.text
    most = 0
    with pytest.raises(RuntimeError, match="can't allocate"):
        train(_set(8), 2, Run(protocol, 0, 2))


@given(st.sets(st.sampled_from(AUGMENTATIONS)), st.integers(0, 2**32))
def test_augmentation_moves_pixels_and_makes_none_up(kinds: set[Augmentation], seed: int) -> None:
    clips = torch.arange(3 * 8 * 8 * 16).remainder(251).to(torch.uint8).view(3, 8, 1, 8, 16)
    before = clips.clone()
    found = training.augment(clips, tuple(kinds), torch.Generator().manual_seed(seed))
    assert torch.equal(clips, before)
    assert (found.shape, found.dtype) == (clips.shape, torch.uint8)
    for clip, changed in zip(clips, found, strict=True):
        assert set(changed.unique().tolist()) <= set(clip.unique().tolist())
    if not kinds:
        assert torch.equal(found, clips)


def _clip_by_clip(clips: torch.Tensor, kinds: tuple[Augmentation, ...], generator: torch.Generator) -> torch.Tensor:
    """What `augment` does, in the words of its definition."""
    count, frames, _, height, width = clips.shape
    if "crop" in kinds:
        most = max(1, height // 8)
        moves = torch.randint(-most, most + 1, (count, 2), generator=generator)
        rows = (torch.arange(height) + moves[:, :1]).clamp(0, height - 1)
        columns = (torch.arange(width) + moves[:, 1:]).clamp(0, width - 1)
        clips = torch.stack([clip[..., rows[i], :][..., columns[i]] for i, clip in enumerate(clips)])
    if "shift" in kinds:
        most = max(1, frames // 4)
        moves = torch.randint(-most, most + 1, (count, 1), generator=generator)
        times = (torch.arange(frames) + moves).clamp(0, frames - 1)
        clips = torch.stack([clip[times[i]] for i, clip in enumerate(clips)])
    if "flip" in kinds:
        mirrored = torch.rand(count, generator=generator) < 0.5
        clips = torch.stack([clip.flip(-1) if mirrored[i] else clip for i, clip in enumerate(clips)])
    return clips


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@given(st.sets(st.sampled_from(AUGMENTATIONS)), st.integers(0, 2**32))
def test_augmentation_is_that_of_each_clip_alone(device: str, kinds: set[Augmentation], seed: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    shape = (5, 8, 3, 12, 16)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    found = training.augment(clips.to(device), tuple(kinds), torch.Generator().manual_seed(seed))
    assert torch.equal(found.cpu(), _clip_by_clip(clips, tuple(kinds), torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("kind", "axis", "most"), [("shift", 1, 2), ("crop", 3, 1), ("crop", 4, 1)])
def test_moves_are_whole_and_bounded(kind: Augmentation, axis: int, most: int) -> None:
    """Along a ramp, a move adds the same to all but the edge, which is repeated."""
    shape = [1, 1, 1, 1, 1]
    shape[axis] = 8
    ramp = (10 * torch.arange(8)).to(torch.uint8).view(shape).expand(40, 8, 1, 8, 8)
    found = training.augment(ramp, (kind,), torch.Generator().manual_seed(0)).int()
    moved = found.movedim(axis, -1)[:, 0, 0, 0] if axis != 1 else found[:, :, 0, 0, 0]
    places = torch.arange(8)
    offsets = set()
    for line in moved:
        matching = [move for move in range(-most, most + 1) if torch.equal(line, 10 * (places + move).clamp(0, 7))]
        assert len(matching) == 1
        offsets.add(matching[0])
    assert offsets == set(range(-most, most + 1))


def test_half_of_the_clips_are_mirrored_and_the_set_stays() -> None:
    clips = torch.arange(400 * 4).view(400, 1, 1, 1, 4).remainder(200).to(torch.uint8)
    found = training.augment(clips, ("flip",), torch.Generator().manual_seed(0))
    mirrored = sum(torch.equal(a, b.flip(-1)) for a, b in zip(found, clips, strict=True))
    plain = sum(torch.equal(a, b) for a, b in zip(found, clips, strict=True))
    assert mirrored + plain == 400
    assert abs(mirrored - 200) < 60  # six standard errors


def test_an_update_is_needed() -> None:
    with pytest.raises(ValueError, match="num_updates = 0"):
        Run(TINY, 0, 0)
    assert math.isclose(training._cycle(1.0), 0.0, abs_tol=1e-12)
