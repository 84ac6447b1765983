import math

import pytest

from lvdd_assets.distill import paper, protocols
from lvdd_assets.distill.protocols import LITERATURE, PROTOCOLS, Protocol, named_protocol, updates_for


def test_updates_are_epochs_over_clips() -> None:
    protocol = Protocol(epochs=3, batch_size=16)
    assert [updates_for(n, protocol) for n in (1, 16, 17, 1200)] == [1, 3, 4, 225]
    with pytest.raises(ValueError, match="num_clips = 0"):
        updates_for(0, protocol)


def test_counting_epochs_gives_a_small_set_one_update_an_epoch() -> None:
    """The literature's counting: 1,200 clips get 5 updates an epoch of batches of 256, 50 clips get 1."""
    protocol = named_protocol("literature", 1200, counting="epochs")
    assert [updates_for(n, protocol) // paper.TRAINING_EPOCHS for n in (50, 256, 257, 1200)] == [1, 1, 2, 5]


def test_the_literatures_protocol_is_the_papers() -> None:
    assert (LITERATURE.epochs, LITERATURE.learning_rate, LITERATURE.momentum) == (500, 0.01, 0.9)
    assert (LITERATURE.weight_decay, LITERATURE.batch_size, len(LITERATURE.seeds)) == (5e-4, 256, 5)
    assert (LITERATURE.schedule, LITERATURE.network, LITERATURE.clip_norm) == ("step", "convnet3d", None)
    assert LITERATURE.counting == "equal"  # the trap is closed unless it is asked for


@pytest.mark.parametrize(("num_clips", "epochs"), [(5000, 12), (200, 12), (83, 29), (10, 240)])
def test_quick_makes_at_least_150_updates_and_12_epochs(num_clips: int, epochs: int) -> None:
    protocol = named_protocol("quick", num_clips)
    assert protocol.epochs == epochs
    assert updates_for(num_clips, protocol) >= 150
    assert named_protocol("quick", num_clips, epochs=3).epochs == 3


def test_settings_change_a_preset_and_none_leaves_them() -> None:
    changed = named_protocol("literature", 100, seeds=(7,), batch_size=None)
    assert (changed.seeds, changed.batch_size) == ((7,), PROTOCOLS["literature"].batch_size)
    with pytest.raises(ValueError, match="unknown protocol 'slow'; known: quick, literature"):
        named_protocol("slow", 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"batch_size": -1}, "batch_size = -1"),
        ({"learning_rate": math.nan}, "learning_rate = nan"),
        ({"clip_norm": 0.0}, r"clip_norm = 0\.0"),
        ({"momentum": 1.0}, r"momentum = 1\.0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "all different"),
        ({"seeds": (-1,)}, "not negative"),
        ({"augmentation": ("turn",)}, "augmentation = turn; expected each at most once of flip, crop, shift"),
        ({"augmentation": ("flip", "flip")}, "augmentation = flip, flip"),
        ({"schedule": "flat"}, "schedule = flat; expected each at most once of one-cycle, step"),
        ({"counting": "none"}, "counting = none"),
    ],
)
def test_wrong_protocols_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**settings)  # type: ignore[arg-type]


def test_every_preset_has_a_name() -> None:
    assert set(protocols.PROTOCOLS.values()) == {protocols.QUICK, protocols.LITERATURE}
