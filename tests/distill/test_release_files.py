"""The container writes the same bytes, reads back what it wrote, and believes nothing."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from lvdd_assets.distill import release_files
from lvdd_assets.distill.release_files import ReleaseError

ATTRIBUTES = {"classes": [["läuft", 2, 3, 0]], "empty": None}
ARRAYS = {"cores": np.arange(3, dtype=np.uint8), "labels": np.zeros(2, dtype=np.uint16)}


def _file(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "a.zarr.zip"
    path.write_bytes(release_files.write(ATTRIBUTES, {**ARRAYS, **arrays}))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    weights = np.arange(1000, dtype=np.uint8)
    attributes, arrays = release_files.read(_file(tmp_path, decoder=weights, encoder=weights))
    assert {key: attributes[key] for key in ATTRIBUTES} == ATTRIBUTES
    assert attributes["version"] == 3  # the lowest that has what is in it
    assert set(arrays) == {"cores", "labels", "decoder"}  # the encoder is counted and never read
    np.testing.assert_array_equal(arrays["cores"], ARRAYS["cores"])
    np.testing.assert_array_equal(arrays["labels"], [0, 0])  # nothing but the fill value, and still there


def test_soft_labels_make_it_the_next_version(tmp_path: Path) -> None:
    levels = np.array([255, 0, 3, 255], dtype=np.uint8)
    attributes, arrays = release_files.read(_file(tmp_path, soft_labels=levels))
    assert attributes["version"] == release_files.VERSION == 4
    np.testing.assert_array_equal(arrays["soft_labels"], levels)


def test_same_content_same_bytes() -> None:
    assert release_files.write(ATTRIBUTES, ARRAYS) == release_files.write(dict(ATTRIBUTES), dict(ARRAYS))


def test_sizes_are_those_in_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, decoder=np.zeros(5000, dtype=np.uint8))
    _, sizes = release_files.read_sizes(path)
    assert sizes["cores"] == 3  # stored plain
    assert sizes["decoder"] < 100  # compressed
    assert sum(sizes.values()) < path.stat().st_size


def test_plain_zarr_opens_it(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(_file(tmp_path), mode="r") as store:
        assert zarr.open_group(store, mode="r")["cores"][...].tolist() == [0, 1, 2]


@pytest.mark.parametrize("missing", ["cores", "labels"])
def test_a_file_without_what_every_release_has_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "a.zarr.zip"
    path.write_bytes(release_files.write(ATTRIBUTES, {name: ARRAYS[name] for name in ARRAYS if name != missing}))
    with pytest.raises(ReleaseError, match="missing, unknown or double"):
        release_files.read(path)
