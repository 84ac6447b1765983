import io

import numpy as np
import pytest
from PIL import Image

from lvdd_assets.distill.report_pictures import contact_sheet, pair_sheet


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("scale", [1, 3])
def test_a_contact_sheet_has_clips_in_lines_and_frames_in_columns(scale: int) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 5, 7), dtype=np.uint8)
    pixels = _pixels(contact_sheet(clips, scale=scale))
    gap = 2
    assert pixels.shape == (2 * 5 * scale + gap, 3 * 7 * scale + 2 * gap, 3)
    for n in range(2):
        for t in range(3):
            top, left = n * (5 * scale + gap), t * (7 * scale + gap)
            tile = pixels[top : top + 5 * scale : scale, left : left + 7 * scale : scale]
            np.testing.assert_array_equal(tile, clips[n, t].transpose(1, 2, 0))


def test_a_sheet_may_be_a_jpeg() -> None:
    """Smaller than the PNG, and the same picture: a ramp comes back within a few levels."""
    clips = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (2, 4, 3, 64, 64))
    png, jpeg = contact_sheet(clips), contact_sheet(clips, jpeg_quality=90)
    assert jpeg.startswith(b"\xff\xd8")
    assert np.abs(_pixels(jpeg).astype(int) - _pixels(png)).mean() < 3


def test_a_pair_sheet_has_the_decoded_clip_below_its_original() -> None:
    generator = np.random.default_rng(0)
    original = generator.integers(0, 256, (2, 3, 3, 4, 4), dtype=np.uint8)
    decoded = generator.integers(0, 256, (2, 3, 3, 4, 4), dtype=np.uint8)
    order = np.stack([original[0], decoded[0], original[1], decoded[1]])
    assert pair_sheet(original, decoded, scale=2) == contact_sheet(order, scale=2)


def test_wrong_pictures_are_refused() -> None:
    clips = np.zeros((1, 2, 3, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="float32"):
        contact_sheet(clips.astype(np.float32))
    with pytest.raises(ValueError, match="with a clip"):
        contact_sheet(clips[:0])
    with pytest.raises(ValueError, match="scale = 0"):
        contact_sheet(clips, scale=0)
    with pytest.raises(ValueError, match="expected the same"):
        pair_sheet(clips, clips[:, :1])
