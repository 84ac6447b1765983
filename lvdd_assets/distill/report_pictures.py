"""Pictures of clips: contact sheets, with originals and what is decoded side by side.

What must NOT come here: plots of figures, HTML.

Legend: N clips, T frames, C channels, H, W pixels.
"""

import io

import numpy as np
from PIL import Image

_GAP_PIXELS = 2
_GAP_BRIGHTNESS = 128


def contact_sheet(clips_NTCHW: np.ndarray, *, scale: int = 1, jpeg_quality: int | None = None) -> bytes:
    """A PNG picture of clips: a line for each clip, a column for each frame.

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        scale: Each pixel becomes a square of this side.
        jpeg_quality: 1 to 95 for a JPEG picture instead, which for films is a seventh of the bytes.
    """
    clips_NTCHW = np.asarray(clips_NTCHW)
    if clips_NTCHW.dtype != np.uint8 or clips_NTCHW.ndim != 5 or clips_NTCHW.shape[2] != 3 or clips_NTCHW.size == 0:
        raise ValueError(f"got {clips_NTCHW.dtype} {clips_NTCHW.shape}; expected uint8 [N, T, 3, H, W] with a clip")
    if scale < 1:
        raise ValueError(f"got {scale = }; expected at least 1")
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
    if original_NTCHW.shape != decoded_NTCHW.shape:
        raise ValueError(f"got {original_NTCHW.shape = } and {decoded_NTCHW.shape = }; expected the same")
    pairs = np.stack([original_NTCHW, decoded_NTCHW], axis=1)
    return contact_sheet(pairs.reshape(-1, *original_NTCHW.shape[1:]), scale=scale)
