"""A contact sheet of a release: the first clips of each class as they are decoded, below its name.

Legend: N clips, T frames, H, W pixels.
"""

import io
import math
from collections.abc import Callable, Iterator

import numpy as np

from lvdd_assets.distill.clip_datasets import ReleaseDataset
from lvdd_assets.distill.extras import needing
from lvdd_assets.distill.release import Release

Progress = Callable[[int, int], None]
"""Told the classes that are decoded and the classes in all."""

MOST_PIXELS = 10**8
"""A sheet has no more: most viewers open no larger one."""

_MOST_FRAMES = 8
_LEAST_SIDE = 96  # smaller frames are enlarged by whole factors up to it
_TEXT_PIXELS, _LINE_PIXELS, _GAP_PIXELS = 14, 22, 10
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


def release_sheet(release: Release, *, num_clips: int = 2, progress: Progress | None = None) -> bytes:
    """A PNG picture: a tile for each class with its name and number of clips, a line for each clip, a column for each
    frame, of which at most eight are shown, evenly spread.

    Args:
        release: the opened release.
        num_clips: clips of each class at most, the most diverse first.
        progress: told the classes that are decoded.

    Raises:
        ValueError: `num_clips` is below 1, or the picture would be too large.
        ReleaseError: the release is damaged.
        MissingExtraError: Pillow is not installed, which the base install leaves out.
    """
    with needing("pipeline", "a contact sheet"):
        from PIL import Image, ImageDraw, ImageFont
    if num_clips < 1:
        raise ValueError(f"got {num_clips = }; expected at least 1")
    tile_width, tile_height = _tile_size(release, num_clips)
    columns, lines = _grid(release.num_classes, tile_width, tile_height)
    width, height = columns * tile_width + _GAP_PIXELS, lines * tile_height + _GAP_PIXELS
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"a sheet of {num_clips} clips of each of {release.num_classes} classes would have {width}×{height} "
            f"pixels, and no more than {MOST_PIXELS:,} are drawn: ask for fewer clips"
        )
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_PIXELS)
    for label, picture in enumerate(_pictures(release, num_clips)):
        left = label % columns * tile_width + _GAP_PIXELS
        top = label // columns * tile_height + _GAP_PIXELS
        name = _cut(f"{release.class_names[label]}  ({release.class_counts[label]})", font, tile_width - _GAP_PIXELS)
        draw.text((left, top), name, fill=_INK, font=font)
        with Image.open(io.BytesIO(picture)) as image:
            sheet.paste(image, (left, top + _LINE_PIXELS))
        if progress is not None:
            progress(label + 1, release.num_classes)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def _pictures(release: Release, num_clips: int) -> Iterator[bytes]:
    """A contact sheet for each class."""
    from lvdd_assets.distill.report_pictures import contact_sheet

    dataset, frames = ReleaseDataset(release, cache=None), _shown_frames(release.shape.frames)
    for label in range(release.num_classes):
        yield contact_sheet(dataset.clips_of(label)[:num_clips, frames], scale=_scale(release.shape.size))


def _shown_frames(num_frames: int) -> list[int]:
    count = min(num_frames, _MOST_FRAMES)
    return [int(place) for place in np.linspace(0, num_frames - 1, count).round()]


def _scale(size: int) -> int:
    return max(1, _LEAST_SIDE // size)


def _tile_size(release: Release, num_clips: int) -> tuple[int, int]:
    """Width and height of a class's tile, the gap after it included."""
    from PIL import Image

    from lvdd_assets.distill.report_pictures import contact_sheet

    num_frames, shown = len(_shown_frames(release.shape.frames)), min(num_clips, max(release.class_counts))
    blank_NTCHW = np.zeros((shown, num_frames, *release.clip_shape[1:]), np.uint8)
    with Image.open(io.BytesIO(contact_sheet(blank_NTCHW, scale=_scale(release.shape.size)))) as image:
        return image.width + _GAP_PIXELS, image.height + _LINE_PIXELS + _GAP_PIXELS


def _grid(num_tiles: int, width: int, height: int) -> tuple[int, int]:
    """Columns and lines of tiles, such that the whole is about as wide as high."""
    columns = min(num_tiles, max(1, round(math.sqrt(num_tiles * height / width))))
    return columns, -(-num_tiles // columns)


def _cut(text: str, font: object, width: int) -> str:
    """A text that fits a width."""
    measure: Callable[[str], float] = font.getlength  # type: ignore[attr-defined]
    if measure(text) <= width:
        return text
    while text and measure(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
