"""What goes into a release must agree with itself; soft labels follow the clips that are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill import class_coding, release_files, tucker
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.quantization import quantize_weights
from lvdd_assets.distill.release_parts import ReleaseParts, check_sizes, pack, size_without_weights
from lvdd_assets.distill.soft_labels import quantize
from lvdd_assets.distill.vae import load_autoencoder

COUNTS = {"jump high": 5, "läuft": 3}


def _coders() -> dict[str, class_coding.ClassCoder]:
    generator = np.random.default_rng(0)
    return {
        name: class_coding.ClassCoder(tucker.decompose(generator.normal(size=(count, 4, 4, 4, 4)).astype(np.float32)))
        for name, count in COUNTS.items()
    }


@pytest.fixture(scope="module")
def parts() -> ReleaseParts:
    vae = load_autoencoder("embedded-2d")
    classes = {name: coder.encode(0.25) for name, coder in _coders().items()}
    return ReleaseParts("videos", ClipShape(4, 2, 32), classes, vae.decoder_spec, quantize_weights(vae.decoder()))


@pytest.fixture(scope="module")
def levels() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    return {name: quantize(generator.dirichlet([1, 1], size=count)) for name, count in COUNTS.items()}


def _arrays(parts: ReleaseParts, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "a.zarr.zip"
    path.write_bytes(pack(parts))
    return release_files.read(path)[1]


def test_parts_must_agree(parts: ReleaseParts) -> None:
    other = replace(parts.classes["läuft"], mode_sizes=(4, 4, 8, 8))
    with pytest.raises(ValueError, match="latents of one shape"):
        replace(parts, classes={**parts.classes, "läuft": other})
    with pytest.raises(ValueError, match="a decoder belongs to a release with coded latents"):
        replace(parts, decoder_spec=None)
    with pytest.raises(ValueError, match="at least one class"):
        replace(parts, classes={})


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "\ud800"], ids=repr)
def test_names_that_no_reader_takes_are_not_written(parts: ReleaseParts, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        replace(parts, classes={name: parts.classes["läuft"]})
    with pytest.raises(ValueError, match="is no name"):
        replace(parts, dataset=name)


@pytest.mark.parametrize(
    ("num_clips", "size", "num_bytes", "fits"),
    [
        (1, 64, 1, True),
        (680, 64, 0, True),  # 64 MiB are free
        (690, 64, 0, False),
        (690, 64, 520, True),
        (10**6, 4096, 10**12, False),  # whatever the bytes
        (10**30, 10**9, 10, False),
    ],
)
def test_a_class_decodes_to_no_more_than_its_bytes_can_be_worth(
    num_clips: int, size: int, num_bytes: int, fits: bool
) -> None:
    shape = ClipShape(8, 1, size)
    if fits:
        check_sizes(num_clips, shape, num_bytes)
        return
    with pytest.raises(ValueError, match=f"a class of {num_clips} clips .* keep fewer or smaller clips"):
        check_sizes(num_clips, shape, num_bytes)


def test_what_no_reader_takes_is_not_packed(parts: ReleaseParts) -> None:
    with pytest.raises(ValueError, match="keep fewer or smaller clips"):
        pack(replace(parts, shape=ClipShape(4, 2, 1 << 16)))


def test_weights_add_the_same_whatever_else_is_in_it(parts: ReleaseParts, levels: dict[str, np.ndarray]) -> None:
    soft = replace(parts, soft_labels=levels)
    assert len(pack(soft)) - size_without_weights(soft) == len(pack(parts)) - size_without_weights(parts)
    # A header, a chunk and two entries of the zip, and as many bytes as levels at most.
    assert 200 < size_without_weights(soft) - size_without_weights(parts) < 1000 + sum(map(np.size, levels.values()))


def test_soft_labels_of_the_clips_that_are_kept_are_kept(
    parts: ReleaseParts, levels: dict[str, np.ndarray], tmp_path: Path
) -> None:
    whole = _arrays(replace(parts, soft_labels=levels), tmp_path)["soft_labels"]
    np.testing.assert_array_equal(whole, np.concatenate(list(levels.values())).ravel())
    fewer = {name: coder.encode(0.25, num_clips=2) for name, coder in _coders().items()}
    kept = _arrays(replace(parts, classes=fewer, soft_labels=levels), tmp_path)["soft_labels"]
    np.testing.assert_array_equal(kept, np.concatenate([rows[:2] for rows in levels.values()]).ravel())
    assert "soft_labels" not in _arrays(parts, tmp_path)


def test_soft_labels_must_fit(parts: ReleaseParts, levels: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="class 'läuft' has no soft labels; expected levels of all 2 classes"):
        replace(parts, soft_labels={"jump high": levels["jump high"]})
    with pytest.raises(
        ValueError, match=r"'läuft' has 3 clips and soft labels \[2, 2\]; expected at least 3 rows of 2"
    ):
        replace(parts, soft_labels={**levels, "läuft": levels["läuft"][:2]})
    three = np.full((3, 3), 255, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"soft labels \[3, 3\]; expected at least 3 rows of 2 classes"):
        replace(parts, soft_labels={**levels, "läuft": three})
    with pytest.raises(ValueError, match="largest level of row 0 is 0"):
        replace(parts, soft_labels={**levels, "läuft": np.zeros((3, 2), dtype=np.uint8)})
