"""Originals say what does not belong together; sets of originals are the originals, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
from torch.utils.data import TensorDataset

from lvdd_assets.distill import paper
from lvdd_assets.distill.quantization import read_weights
from lvdd_assets.distill.training_sets import OriginalClips, Originals, TrainingSet, count_range, paper_decoding
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.tiny_originals import COUNTS, make_originals


@pytest.fixture(scope="module")
def originals() -> Originals:
    return make_originals()


def test_some_of_the_originals_come_as_they_are_and_a_class_at_a_time(originals: Originals) -> None:
    read: list[str] = []

    def load(name: str) -> np.ndarray:
        read.append(name)
        return originals.clips(name)

    items = {"jump": np.array([5, 0]), "run": np.array([2]), "wave": np.array([1, 0, 2])}
    dataset = OriginalClips(replace(originals, clips=load), items)
    assert len(dataset) == 6
    got = [dataset[index] for index in range(len(dataset))]
    assert [label for _, label in got] == [0, 0, 1, 2, 2, 2]
    expected = np.concatenate([originals.clips(name)[chosen] for name, chosen in items.items()])
    np.testing.assert_array_equal(np.stack([clip.numpy() for clip, _ in got]), expected)
    assert read == list(COUNTS)
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"index {index} of 6"):
            _ = dataset[index]


def test_selected_latents_are_the_wanted_ones_first(originals: Originals) -> None:
    assert originals.latents is not None
    chosen = originals.selected_items("jump")
    assert sorted(chosen) == list(range(6))
    latents = originals.selected_latents("jump", 2)
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(latents, originals.latents("jump")[chosen[:2]].astype(np.float32))
    plain = replace(originals, latents=None, selected={})
    assert plain.selected_items("run").tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="without latents"):
        plain.selected_latents("run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clips": {}}, "needs a train clip"),
        ({"num_clips": {"jump": 0}}, "needs a train clip"),
        ({"selected": {"swim": np.array([0])}}, "'swim', which is no class"),
        ({"selected": {"run": np.array([0, 4])}}, "clips 0 to 3"),
        ({"selected": {"run": np.array([1, 1])}}, "clips 0 to 3"),
        ({"selected": {"run": np.array([], dtype=int)}}, "clips 0 to 3"),
    ],
)
def test_originals_that_do_not_fit_are_refused(originals: Originals, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(originals, **changes)


def test_a_training_set_counts_its_clips() -> None:
    import torch

    clips = TensorDataset(torch.zeros(3, 1, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1]))
    made = TrainingSet("some", clips, {"a": np.array([4, 2]), "b": np.array([0])}, 99, "")
    assert (made.num_clips, made.clips_per_class) == (3, "1 to 2")
    for items in ({"a": np.array([1])}, {"a": np.array([0, 1, 2]), "b": np.array([], dtype=int)}):
        with pytest.raises(ValueError, match="dataset of 3 clips"):
            TrainingSet("some", clips, items, 99, "")


def test_the_papers_decoder_is_of_8_bits_and_its_encoder_is_there() -> None:
    vae = load_autoencoder("embedded-2d")
    decoding = paper_decoding(vae)
    assert read_weights(decoding.weights.to_bytes(), vae.decoder(), decoding.scheme).names == decoding.weights.names
    largest = max(int(np.abs(weight.codes).max()) for weight in decoding.weights.weights.values())
    assert largest == 2 ** (paper.WEIGHT_BITS - 1) - 1
    assert len(decoding.encoder) > sum(parameter.numel() for parameter in vae.encoder.parameters())


def test_count_range() -> None:
    assert count_range([4, 4]) == "4"
    assert count_range([9, 3, 4]) == "3 to 9"
