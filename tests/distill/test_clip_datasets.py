"""`clip_datasets`: the same clips in the same order, whoever decodes them and wherever they are kept."""

import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from lvdd_assets.distill.clip_datasets import Cache, ReleaseDataset
from lvdd_assets.distill.latent_decoders import LatentDecoder
from lvdd_assets.distill.release import Release, ReleaseError, load_release

GOLDEN = Path(__file__).parent / "golden" / "release-v3.zarr.zip"  # latents and video of every kind


@pytest.fixture(scope="module")
def release() -> Release:
    return load_release(GOLDEN)


@pytest.fixture(scope="module")
def clips(release: Release) -> torch.Tensor:
    dataset = release.dataset(cache=None)
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


class Counting:
    """A release that says which classes were decoded, in the order of decoding."""

    def __init__(self, release: Release) -> None:
        self._release, self.decoded = release, list[int]()
        self.class_counts, self.sha256, self.clip_shape = release.class_counts, release.sha256, release.clip_shape
        self.needs_decoder, self.build_decoder = release.needs_decoder, release.build_decoder

    def decode_class(self, label: int, decoder: LatentDecoder | None) -> np.ndarray:
        self.decoded.append(label)
        return self._release.decode_class(label, decoder)


def _turn_upside_down(clip: torch.Tensor) -> torch.Tensor:
    """As a transform of `torchvision.transforms.v2` does it: the last two axes alone, any number before."""
    return clip.flip(-2).float().div(255)


def _spoil(clip: torch.Tensor) -> torch.Tensor:
    return clip.zero_()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_clips_in_the_same_order(
    release: Release, clips: torch.Tensor, tmp_path: Path, method: str
) -> None:
    """Also where the parent has decoded before it forks; all workers share one folder."""
    for cache in ("memory", tmp_path) if method == "fork" else (tmp_path,):
        dataset = release.dataset(cache=cache, transform=_turn_upside_down)
        dataset[0]
        loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context=method)
        batches = list(loader)
        torch.testing.assert_close(torch.cat([batch for batch, _ in batches]), _turn_upside_down(clips), rtol=0, atol=0)
        assert torch.cat([labels for _, labels in batches]).tolist() == release.labels.tolist()


def test_a_damaged_class_is_a_release_error_in_a_worker_too(tmp_path: Path) -> None:
    file = tmp_path / "damaged.zarr.zip"
    shutil.copy(GOLDEN, file)
    release = load_release(file)
    broken = [item if release.needs_decoder(label) else _cut(item) for label, item in enumerate(release.coded)]
    damaged = pickle.loads(pickle.dumps(release))
    object.__setattr__(damaged, "coded", tuple(broken))
    loader = DataLoader(damaged.dataset(), batch_size=2, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(ReleaseError, match=r"damaged.zarr.zip, class 'av1'"):
        list(loader)


def _cut(videos: object) -> object:
    return type(videos)(**{**videos.__dict__, "packets": tuple(packet[:3] for packet in videos.packets)})  # type: ignore[attr-defined]


@pytest.mark.parametrize("cache", ["memory", "folder", None])
def test_what_is_pickled_is_small_and_gives_the_same(
    release: Release, clips: torch.Tensor, tmp_path: Path, cache: str | None
) -> None:
    dataset = release.dataset(cache=tmp_path if cache == "folder" else cache)  # type: ignore[arg-type]
    fresh = len(pickle.dumps(dataset))
    assert torch.equal(torch.stack([clip for clip, _ in dataset]), clips)
    packed = pickle.dumps(dataset)
    assert len(packed) == fresh  # no decoder, no decoded clip
    again = pickle.loads(packed)
    assert torch.equal(torch.stack([clip for clip, _ in again]), clips)


@pytest.mark.parametrize("cache", ["memory", "folder", None])
def test_a_transform_may_change_its_clip_and_spoils_no_other(
    release: Release, clips: torch.Tensor, tmp_path: Path, cache: str | None
) -> None:
    place: Cache = tmp_path if cache == "folder" else cache  # type: ignore[assignment]
    spoiled = ReleaseDataset(release, transform=_spoil, cache=place)
    assert not spoiled[3][0].any()
    assert not any(clip.any() for clip, _ in spoiled.__getitems__([3, 4, 3]))
    spoiled._transform = None
    assert torch.equal(spoiled[3][0], clips[3])
    spoiled[3][0].zero_()
    assert torch.equal(spoiled[3][0], clips[3])


def test_soft_labels_go_with_transformed_clips() -> None:
    release = load_release(GOLDEN.with_name("release-v4.zarr.zip"))
    dataset = release.dataset("soft", transform=_turn_upside_down)
    clips, labels = next(iter(DataLoader(dataset, batch_size=3, sampler=[4, 0, -1])))
    plain = release.dataset()
    for index, clip, label in zip([4, 0, -1], clips, labels, strict=True):
        assert torch.equal(clip, _turn_upside_down(plain[index][0]))
        np.testing.assert_array_equal(label, release.soft_labels[index])


def test_without_a_cache_one_class_is_kept_and_a_batch_decodes_each_class_once(release: Release) -> None:
    source = Counting(release)
    dataset = ReleaseDataset(source, cache=None)
    for index in range(len(dataset)):
        dataset[index]
        assert len(dataset._decoded) == 1
    assert source.decoded == list(range(release.num_classes))
    source.decoded.clear()
    indices = [*range(0, len(dataset), 2), *range(1, len(dataset), 2)]
    items = dataset.__getitems__([*indices, 0])
    assert [label for _, label in items] == [int(release.labels[index]) for index in [*indices, 0]]
    assert len(source.decoded) == release.num_classes
    assert len(dataset._decoded) == 1


def test_in_memory_each_class_is_decoded_once(release: Release) -> None:
    source = Counting(release)
    loader = DataLoader(ReleaseDataset(source), batch_size=4, shuffle=True)
    for _ in range(2):
        assert sum(len(labels) for _, labels in loader) == release.num_clips
    assert sorted(source.decoded) == list(range(release.num_classes))


def test_subsets_and_indices_from_the_end(release: Release, clips: torch.Tensor) -> None:
    dataset = release.dataset()
    batch, _ = next(iter(DataLoader(Subset(dataset, [7, 1]), batch_size=2)))
    assert torch.equal(batch, clips[[7, 1]])
    assert torch.equal(dataset[-1][0], clips[-1])
    for ask in (lambda: dataset[len(dataset)], lambda: dataset.__getitems__([0, -len(dataset) - 1])):
        with pytest.raises(IndexError, match=f"of a release of {len(dataset)} clips"):
            ask()


def test_a_folder_is_read_by_the_next_and_decodes_nothing(
    release: Release, clips: torch.Tensor, tmp_path: Path
) -> None:
    list(ReleaseDataset(release, cache=tmp_path))
    source = Counting(release)
    again = ReleaseDataset(source, cache=tmp_path)
    assert torch.equal(torch.stack([clip for clip, _ in again]), clips)
    assert source.decoded == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: b"x" * 200]
)
def test_a_file_that_is_not_whole_is_made_anew(
    release: Release, clips: torch.Tensor, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    list(ReleaseDataset(release, cache=tmp_path))
    (file,) = tmp_path.glob("*/0.npy")
    file.write_bytes(damage(file.read_bytes()))
    source = Counting(release)
    assert torch.equal(ReleaseDataset(source, cache=tmp_path)[1][0], clips[1])
    assert source.decoded == [0]


def test_another_release_has_another_folder(release: Release, tmp_path: Path) -> None:
    other = load_release(GOLDEN.with_name("release-v4.zarr.zip"))
    release.dataset(cache=tmp_path)[0]
    clip = other.dataset(cache=tmp_path)[0][0]
    assert torch.equal(clip, other.dataset()[0][0])
    assert len(list(tmp_path.iterdir())) == 2


def _decode_slowly(folder: Path) -> None:
    """Writes half of a class's file, and waits to be killed."""
    release = load_release(GOLDEN)

    def save(file: object, array: np.ndarray) -> None:
        file.write(array.tobytes()[: array.nbytes // 2])  # type: ignore[attr-defined]
        file.flush()  # type: ignore[attr-defined]
        time.sleep(600)

    np.save = save  # type: ignore[assignment]
    release.dataset(cache=folder)[0]


def test_a_folder_survives_a_kill(release: Release, clips: torch.Tensor, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_decode_slowly, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("*/0.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert not list(tmp_path.glob("*/*.npy"))
    assert torch.equal(release.dataset(cache=tmp_path)[1][0], clips[1])  # its lock went with it
    assert not list(tmp_path.glob("*/*.partial"))


def test_what_cannot_be_is_said(release: Release) -> None:
    with pytest.raises(ValueError, match=r"cache = 'disk'; expected 'memory', a folder as pathlib.Path, or None"):
        release.dataset(cache="disk")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        release.dataset(device="abacus")
