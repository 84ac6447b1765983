"""`release_sheet`: the picture shows the first clips of each class as the loader decodes them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvdd_assets.distill import release_sheet as module
from lvdd_assets.distill.release import Release, ReleaseError, load_release
from lvdd_assets.distill.release_sheet import release_sheet
from lvdd_assets.distill.report_pictures import contact_sheet

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def release() -> Release:
    return load_release(GOLDEN / "release-v3.zarr.zip")


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _is_within(small: np.ndarray, large: np.ndarray) -> bool:
    """Whether a picture is a part of another."""
    height, width, _ = small.shape
    corners = np.argwhere((large == small[0, 0]).all(axis=2))
    return any(
        np.array_equal(large[top : top + height, left : left + width], small)
        for top, left in corners
        if top + height <= len(large) and left + width <= large.shape[1]
    )


@pytest.mark.parametrize("num_clips", [1, 5])
def test_every_class_is_there_as_it_is_decoded(release: Release, num_clips: int) -> None:
    told = list[tuple[int, int]]()
    sheet = _pixels(release_sheet(release, num_clips=num_clips, progress=lambda *done: told.append(done)))
    assert told == [(number, 9) for number in range(1, 10)]
    dataset = release.dataset()
    for label in range(release.num_classes):
        clips = dataset.clips_of(label)[:num_clips]
        assert _is_within(_pixels(contact_sheet(clips, scale=6)), sheet), release.class_names[label]


def test_names_are_drawn(release: Release) -> None:
    other = replace(release, class_names=("another name", *release.class_names[1:]))
    first, second = _pixels(release_sheet(release)), _pixels(release_sheet(other))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    endless = replace(release, class_names=("name " * 100, *release.class_names[1:]))
    assert _pixels(release_sheet(endless)).shape == first.shape


def test_a_sheet_is_bounded_and_a_mistake_is_said(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        release_sheet(release, num_clips=0)
    monkeypatch.setattr(module, "MOST_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"2 clips of each of 9 classes .*ask for fewer clips"):
        release_sheet(release)


def test_long_clips_show_eight_frames_from_the_first_to_the_last() -> None:
    assert module._shown_frames(3) == [0, 1, 2]
    shown = module._shown_frames(64)
    assert (len(shown), shown[0], shown[-1]) == (8, 0, 63)


def test_damage_is_a_release_error(release: Release) -> None:
    with pytest.raises(ReleaseError):
        release_sheet(replace(release, decoder_data=b""))
