"""Files that each version wrote open for ever, and hold what they held.

`golden/release-vN.zarr.zip` was written by the package when N was its version (1, 2, 3 and 4), `release-vN.npz` by
the same package reading it back: first clip and latents of every class, labels, soft labels.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill import release_files
from lvdd_assets.distill.release import load_release, read_ledger

GOLDEN = Path(__file__).parent / "golden"
WITH_VALUES = (1, 3, 4)


def test_there_is_a_file_of_every_version_that_is_read() -> None:
    for version in release_files.READABLE:
        with zipfile.ZipFile(GOLDEN / f"release-v{version}.zarr.zip") as archive:
            assert json.loads(archive.read("zarr.json"))["attributes"]["version"] == version


@pytest.mark.parametrize("version", WITH_VALUES)
def test_a_file_holds_what_it_held(version: int) -> None:
    """Latents may differ in the last bits, as sums are rounded by the machine, so clips of a network by one level;
    labels and video may not."""
    path = GOLDEN / f"release-v{version}.zarr.zip"
    release, expected = load_release(path), np.load(GOLDEN / f"release-v{version}.npz")
    assert release.class_names == tuple(expected["classes"])
    np.testing.assert_array_equal(release.labels, expected["labels"])
    dataset = release.dataset()
    for label, name in enumerate(release.class_names):
        clip, got = dataset[int(np.flatnonzero(release.labels == label)[0])]
        difference = np.abs(clip.numpy().astype(int) - expected["clips"][label])
        is_video = f"latents {name}" not in expected
        assert (got, difference.max() <= (0 if is_video else 1)) == (label, True), name
        if not is_video:
            np.testing.assert_allclose(release.latents(label), expected[f"latents {name}"], atol=1e-5)
    assert release.has_soft_labels == ("soft_labels" in expected)
    if release.has_soft_labels:
        np.testing.assert_array_equal(release.soft_labels, expected["soft_labels"])
    assert read_ledger(path).total == path.stat().st_size


def test_the_files_hold_every_form_that_was_ever_written() -> None:
    forms = set()
    for version in WITH_VALUES:
        for item in load_release(GOLDEN / f"release-v{version}.zarr.zip").coded:
            forms.add(item.codec)
    assert forms == {"hosvd-lzma", "hosvd-range", "tucker-f32", "svd-f32", "av1", "hevc", "h264"}
