"""Pictures of clips: contact sheets and looping previews, with originals and what is decoded side by side.

What must NOT come here: plots of figures, HTML.

Legend: N clips, T frames, C channels, H, W pixels.
"""

import io

import numpy as np
from PIL import Image

_GAP_PIXELS = 2
_GAP_BRIGHTNESS = 128
_CLIPS_ABREAST = 4
_WEBP_QUALITY = 80


def contact_sheet(clips_NTCHW: np.ndarray, *, scale: int = 1, jpeg_quality: int | None = None) -> bytes:
    """A PNG picture of clips: a line for each clip, a column for each frame.

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        scale: Each pixel becomes a square of this side.
        jpeg_quality: 1 to 95 for a JPEG picture instead, which for films is a seventh of the bytes.
    """
    clips_NTCHW = np.asarray(clips_NTCHW)
    _check_clips(clips_NTCHW, scale)
    large = clips_NTCHW.repeat(scale, axis=3).repeat(scale, axis=4)
    num_clips, num_frames, _, height, width = large.shape
    row, column = height + _GAP_PIXELS, width + _GAP_PIXELS
    sheet = np.full((num_clips * row - _GAP_PIXELS, num_frames * column - _GAP_PIXELS, 3), _GAP_BRIGHTNESS, np.uint8)
    for n in range(num_clips):
        for t in range(num_frames):
            sheet[n * row : n * row + height, t * column : t * column + width] = large[n, t].transpose(1, 2, 0)
    stream = io.BytesIO()
    if jpeg_quality is None:
        Image.fromarray(sheet).save(stream, format="PNG", compress_level=3)
    else:
        Image.fromarray(sheet).save(stream, format="JPEG", quality=jpeg_quality)
    return stream.getvalue()


def pair_sheet(original_NTCHW: np.ndarray, decoded_NTCHW: np.ndarray, *, scale: int = 1) -> bytes:
    """A contact sheet with each original clip and, in the line below it, the same clip as decoded.

    Args:
        original_NTCHW: uint8 [N, T, 3, H, W].
        decoded_NTCHW: uint8 of the same shape.
        scale: As for `contact_sheet`.
    """
    _check_pair(original_NTCHW, decoded_NTCHW)
    pairs = np.stack([original_NTCHW, decoded_NTCHW], axis=1)
    return contact_sheet(pairs.reshape(-1, *original_NTCHW.shape[1:]), scale=scale)


def looping_preview(
    original_NTCHW: np.ndarray, decoded_NTCHW: np.ndarray, *, frames_per_second: float, scale: int = 1
) -> bytes:
    """An animated WebP picture that loops: each original clip with the same clip as decoded below it, at most four
    abreast.

    Args:
        original_NTCHW: uint8 [N, T, 3, H, W].
        decoded_NTCHW: uint8 of the same shape.
        frames_per_second: Speed; above 0.
        scale: Each pixel becomes a square of this side.
    """
    if frames_per_second <= 0:
        raise ValueError(f"got {frames_per_second = }; expected above 0")
    _check_pair(original_NTCHW, decoded_NTCHW)
    _check_clips(original_NTCHW, scale)
    frames = [
        Image.fromarray(_preview_frame(original_NTCHW[:, t], decoded_NTCHW[:, t]).repeat(scale, 0).repeat(scale, 1))
        for t in range(original_NTCHW.shape[1])
    ]
    stream = io.BytesIO()
    duration = max(1, round(1000 / frames_per_second))
    frames[0].save(
        stream,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=duration,
        loop=0,
        quality=_WEBP_QUALITY,
        method=4,
    )
    return stream.getvalue()


def first_frame(picture: bytes) -> bytes:
    """The first frame of an animated picture as a still WebP, for readers who asked for less motion."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(stream, format="WEBP", quality=_WEBP_QUALITY, method=4)
    return stream.getvalue()


def mime_of(picture: bytes) -> str:
    """Media type of a picture by its content, such as image/png."""
    with Image.open(io.BytesIO(picture)) as image:
        return Image.MIME[str(image.format)]


def _preview_frame(original_NCHW: np.ndarray, decoded_NCHW: np.ndarray) -> np.ndarray:
    """One frame of all clips, uint8 [height, width, 3]."""
    num_clips, _, height, width = original_NCHW.shape
    columns = min(range(min(num_clips, _CLIPS_ABREAST), 1, -1), key=lambda columns: -num_clips % columns, default=1)
    lines = -(-num_clips // columns)
    row, column = 2 * height + 2 * _GAP_PIXELS, width + _GAP_PIXELS
    frame = np.full((lines * row - _GAP_PIXELS, columns * column - _GAP_PIXELS, 3), _GAP_BRIGHTNESS, np.uint8)
    for n in range(num_clips):
        top, left = n // columns * row, n % columns * column
        frame[top : top + height, left : left + width] = original_NCHW[n].transpose(1, 2, 0)
        top += height + _GAP_PIXELS
        frame[top : top + height, left : left + width] = decoded_NCHW[n].transpose(1, 2, 0)
    return frame


def _check_clips(clips_NTCHW: np.ndarray, scale: int) -> None:
    if clips_NTCHW.dtype != np.uint8 or clips_NTCHW.ndim != 5 or clips_NTCHW.shape[2] != 3 or clips_NTCHW.size == 0:
        raise ValueError(f"got {clips_NTCHW.dtype} {clips_NTCHW.shape}; expected uint8 [N, T, 3, H, W] with a clip")
    if scale < 1:
        raise ValueError(f"got {scale = }; expected at least 1")


def _check_pair(original_NTCHW: np.ndarray, decoded_NTCHW: np.ndarray) -> None:
    if original_NTCHW.shape != decoded_NTCHW.shape or original_NTCHW.dtype != decoded_NTCHW.dtype:
        raise ValueError(
            f"got originals {original_NTCHW.dtype} {original_NTCHW.shape} and decoded {decoded_NTCHW.dtype} "
            f"{decoded_NTCHW.shape}; expected the same"
        )
