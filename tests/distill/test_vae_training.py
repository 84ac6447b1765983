"""`vae_training`: the loss is what its formula says, training lowers it, and the same seed gives the same weights."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.distill.vae_training import Schedule, Trainee, export, latent_terms, reconstruction_terms, train
from tests.distill.autoencoders import KINDS, random_clips, small_model


def _stripes(num_clips: int, num_frames: int, seed: int) -> torch.Tensor:
    """Clips of moving stripes in [-1, 1]: something that can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(num_clips, 1, 1, 1, 1, generator=generator) * 6.3
    colour = torch.rand(num_clips, 1, 3, 1, 1, generator=generator)
    t = torch.arange(num_frames).reshape(1, -1, 1, 1, 1)
    x = torch.arange(16).reshape(1, 1, 1, 1, -1)
    return (torch.sin(0.4 * x + 0.3 * t + phase) * colour).expand(num_clips, num_frames, 3, 16, 16).contiguous()


def _train(kind: str, steps: int, seed: int = 0) -> tuple[Trainee, list[float]]:
    losses: list[float] = []
    trained = train(
        Trainee(small_model(kind)),
        iter(_stripes(4, 8, seed=step) for step in range(steps)).__next__,
        Schedule(steps=steps, learning_rate=2e-3, average_decay=0.5),
        copy_of=lambda: Trainee(small_model(kind)),
        seed=seed,
        after_step=lambda _step, _done, terms, _average: losses.append(sum(terms.values())),
    )
    return trained, losses


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKL", "AutoencoderTinyVideo"])
def test_training_lowers_the_loss(kind: str) -> None:
    _, losses = _train(kind, 40)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, second, other = (_train("AutoencoderTiny", 5, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_nothing_is_lost_between_a_clip_and_itself() -> None:
    clips = _stripes(2, 4, seed=0)
    assert all(float(term) == 0 for term in reconstruction_terms(clips, clips).values())


def test_a_constant_error_has_no_edges() -> None:
    clips = _stripes(2, 4, seed=0)
    terms = reconstruction_terms(clips + 0.5, clips)
    assert float(terms["mse"]) == pytest.approx(4 * 0.25)
    assert float(terms["l1"]) == pytest.approx(0.5 * 0.5)
    assert float(terms["coarse"]) == pytest.approx(0.5 * 0.5)
    assert float(terms["edges"]) == pytest.approx(0, abs=1e-6)


def test_motion_that_is_lost_counts_as_an_edge_in_time() -> None:
    clips = torch.zeros(1, 4, 3, 8, 8)
    flickering = clips.clone()
    flickering[:, 1::2] = 0.2
    assert float(reconstruction_terms(flickering, clips)["edges"]) == pytest.approx(0.25 * 0.2)


def test_divergence_is_that_of_two_normals() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 3, 4, 5, 5, generator=generator)
    log_variance = torch.randn(mean.shape, generator=generator)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    assert float(latent_terms(mean, log_variance, kl_weight=3.0)["kl"]) == pytest.approx(3 * float(expected), rel=1e-4)


def test_latents_of_unit_scale_have_no_moments_to_mend() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(64, 4, 4, 8, 8, generator=generator) * math.sqrt(0.9)
    terms = latent_terms(mean, torch.full((64, 1, 1, 1, 1), math.log(0.1)), kl_weight=0.0)
    assert float(terms["moments"]) < 1e-4
    assert float(latent_terms(5 * mean, torch.zeros(64, 1, 1, 1, 1), kl_weight=0.0)["moments"]) > 1


def test_all_decoders_of_one_encoder_learn() -> None:
    def build() -> Trainee:
        return Trainee(small_model("AutoencoderTiny"), small_model("AutoencoderTiny").decoder)

    trainee = build()
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    train(trainee, lambda: _stripes(2, 2, 0), Schedule(steps=3), copy_of=build, seed=0)
    changed = {
        name.split(".")[0] for name, value in trainee.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"model", "more_decoders"}
    assert [clip.shape for clip in trainee.decode(trainee.posterior(_stripes(2, 2, 0))[0])] == [(2, 2, 3, 16, 16)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_loads_as_what_was_trained(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    export(model, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    clips = random_clips(1, 9)
    model.save_pretrained(tmp_path / "full")
    half, full = (load_autoencoder(str(tmp_path / name)).encode(clips) for name in ("out", "full"))
    assert np.abs(half - full).max() < 0.02 * np.abs(full).max()  # float16 weights
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


def test_exported_configuration_takes_changes(tmp_path: Path) -> None:
    export(small_model("AutoencoderTiny"), tmp_path, scaling_factor=1.75)
    assert json.loads((tmp_path / "config.json").read_text())["scaling_factor"] == 1.75


@pytest.mark.parametrize("length", [{}, {"steps": 3, "minutes": 1.0}, {"minutes": 0.0}, {"steps": 0}])
def test_a_schedule_without_a_length(length: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either steps or minutes, above 0"):
        Schedule(**length)  # type: ignore[arg-type]


def test_the_rate_warms_up_and_comes_down() -> None:
    schedule = Schedule(steps=1000, learning_rate=1e-3)
    rates = [schedule.rate(step, step / 1000) for step in range(1000)]
    assert rates[0] < 2e-5
    assert max(rates) <= 1e-3
    assert rates.index(max(rates)) < 200
    assert 1e-5 < rates[-1] < 4e-5


def test_a_schedule_by_the_clock_ends() -> None:
    assert len(list(Schedule(minutes=0.001).progress())) > 0


def test_a_loss_that_is_not_finite_says_when() -> None:
    with pytest.raises(ValueError, match="at step 0; lower the learning rate"):
        train(
            Trainee(small_model("AutoencoderTiny")),
            lambda: torch.full((1, 1, 3, 16, 16), float("nan")),
            Schedule(steps=2),
            copy_of=lambda: Trainee(small_model("AutoencoderTiny")),
            seed=0,
        )
