import io

import numpy as np
import pytest
from PIL import Image

from lvdd_assets.distill.report_pictures import contact_sheet, first_frame, looping_preview, mime_of, pair_sheet
from tests.distill.report_examples import make_clips


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


def _frames(picture: bytes) -> list[np.ndarray]:
    image = Image.open(io.BytesIO(picture))
    frames = []
    for index in range(image.n_frames):
        image.seek(index)
        frames.append(np.asarray(image.convert("RGB")).astype(int))
    return frames


def _flat_clips(levels: np.ndarray) -> np.ndarray:
    """Clips whose frames are of one grey each: uint8 [N, T, 3, 16, 16] of levels [N, T]."""
    return np.broadcast_to(levels[:, :, None, None, None], (*levels.shape, 3, 16, 16)).astype(np.uint8)


@pytest.mark.parametrize(("num_clips", "columns"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (6, 3), (8, 4)])
def test_a_preview_has_each_clip_above_what_is_decoded(num_clips: int, columns: int) -> None:
    # Frames that differ little are merged by the encoder.
    levels = 30 + 3 * np.arange(num_clips)[:, None] + 25 * np.arange(4)
    original, decoded = _flat_clips(levels), _flat_clips(levels + 90)
    frames = _frames(looping_preview(original, decoded, frames_per_second=8, scale=2))
    assert len(frames) == 4
    for t, frame in enumerate(frames):
        assert frame.shape == (-(-num_clips // columns) * 72 - 4, columns * 36 - 4, 3)
        for n in range(num_clips):
            top, left = n // columns * 72 + 16, n % columns * 36 + 16
            assert frame[top, left] == pytest.approx(original[n, t, :, 0, 0].astype(int), abs=6)
            assert frame[top + 36, left] == pytest.approx(decoded[n, t, :, 0, 0].astype(int), abs=6)


def test_a_preview_loops_for_ever_at_its_speed() -> None:
    image = Image.open(io.BytesIO(looping_preview(make_clips(2), make_clips(2, seed=1), frames_per_second=8)))
    assert image.format == "WEBP"
    assert image.info["loop"] == 0
    image.load()
    assert image.info["duration"] == 125


def test_the_same_clips_give_the_same_preview() -> None:
    clips = make_clips(2), make_clips(2, seed=1)
    assert looping_preview(*clips, frames_per_second=8) == looping_preview(*clips, frames_per_second=8)


def test_the_still_is_the_first_frame() -> None:
    levels = np.array([[40, 80, 120]])
    still = first_frame(looping_preview(_flat_clips(levels), _flat_clips(levels + 50), frames_per_second=8))
    frames = _frames(still)
    assert len(frames) == 1
    assert frames[0][8, 8] == pytest.approx(40, abs=6)


def test_the_media_type_is_the_contents() -> None:
    clips = make_clips(1)
    assert mime_of(contact_sheet(clips)) == "image/png"
    assert mime_of(contact_sheet(clips, jpeg_quality=80)) == "image/jpeg"
    assert mime_of(looping_preview(clips, clips, frames_per_second=8)) == "image/webp"


def test_wrong_previews_are_refused() -> None:
    clips = make_clips(2)
    with pytest.raises(ValueError, match="frames_per_second = 0"):
        looping_preview(clips, clips, frames_per_second=0)
    with pytest.raises(ValueError, match="expected the same"):
        looping_preview(clips, clips[:1], frames_per_second=8)
    with pytest.raises(ValueError, match="float32"):
        looping_preview(clips.astype(np.float32), clips.astype(np.float32), frames_per_second=8)
    with pytest.raises(ValueError, match="scale = 0"):
        looping_preview(clips, clips, frames_per_second=8, scale=0)
