"""Which frames of a video become a clip: from the frames' times to windows of frame numbers.

Arithmetic only; files are opened in `video`. A video is seen as a row of slots, one nominal frame interval apart, each
showing the frame that is on the screen at that time. At a constant frame rate slots are frames; at a variable one a
frame that stays longer fills several, so that `stride` means the same time everywhere in the file.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.catalog import ClipShape, Sampling


@dataclass(frozen=True)
class Window:
    """The frames of one clip.

    Attributes:
        frames: numbers of the frames in the order in which they are shown, int64 [T], never falling.
        start: slot of the first one.
        stride: slots from one to the next: what was asked for, or less where the video is short; 0 where it has fewer
            slots than the clip has frames, so that frames are repeated.
    """

    frames: NDArray[np.int64]
    start: int
    stride: int

    @property
    def num_repeated(self) -> int:
        """Frames of the clip that are a copy of the one before."""
        return int((np.diff(self.frames) == 0).sum())


def count_slots(times: NDArray[np.int64]) -> int:
    """Slots that `frame_slots` would give, without making them.

    Args:
        times: when each frame is shown, in any unit, rising, int64 [n] with n of at least 1.
    """
    ticks = _ticks(times)
    if _is_regular(ticks):
        return len(ticks)
    return max(1, round(int(ticks[-1]) / _interval(ticks)) + 1)


def frame_slots(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the frame on the screen in each slot, int64 [count_slots(times)].

    Args:
        times: when each frame is shown, in any unit, rising, int64 [n] with n of at least 1.
    """
    ticks = _ticks(times)
    if _is_regular(ticks):
        return np.arange(len(ticks))
    interval = _interval(ticks)
    # Half an interval later than its slot a frame still counts for it: cameras jitter.
    odd = 2 * np.arange(count_slots(times)).astype(ticks.dtype) + 1
    return np.searchsorted(ticks * (2 * interval.denominator), odd * interval.numerator, side="right") - 1


def _ticks(times: NDArray[np.int64]) -> NDArray[Any]:
    """Times from 0 in their largest common unit: what follows is exact, so that unit and origin mean nothing."""
    ticks = times - times[0]
    ticks = ticks // max(1, int(np.gcd.reduce(ticks)))
    # Products below have at most this size; Python's numbers know no limit.
    return ticks if int(ticks[-1]) * 2 * len(ticks) < 2**62 else ticks.astype(object)


def _is_regular(ticks: NDArray[Any]) -> bool:
    """Whether an even grid over the whole time has every frame within half an interval; rounded milliseconds do."""
    if len(ticks) < 3:
        return True
    offsets = ticks * (len(ticks) - 1) - np.arange(len(ticks)).astype(ticks.dtype) * ticks[-1]
    return bool(offsets.max() - offsets.min() <= ticks[-1])


def _interval(ticks: NDArray[Any]) -> Fraction:
    """The nominal frame interval: the mean of the differences near the lower median, which gaps cannot pull away."""
    steps = np.sort(np.diff(ticks))
    median = steps[(len(steps) - 1) // 2]
    near = steps[2 * np.abs(steps - median) <= median]
    return Fraction(int(near.sum()), len(near))


def choose_windows(slots: NDArray[np.int64], shape: ClipShape, sampling: Sampling, *, name: str) -> list[Window]:
    """The windows of a video that become clips, first to last; fewer than asked for where they would be the same.

    A video shorter than the window gives the same number of frames at the largest stride that fits. One with fewer
    slots than the clip has frames is spread over it evenly, frame k showing slot ⌊k·slots/frames⌋.

    Args:
        slots: `frame_slots` of the video.
        shape: frames and stride of a clip.
        sampling: the protocol, its seed and the number of windows.
        name: the file's name in its dataset, which with the seed decides the random starts.
    """
    stride = shape.stride
    if shape.frames > 1:
        stride = min(stride, (len(slots) - 1) // (shape.frames - 1))
    if stride == 0:
        return [Window(slots[np.arange(shape.frames) * len(slots) // shape.frames], start=0, stride=0)]
    num_starts = len(slots) - (shape.frames - 1) * stride
    return [
        Window(slots[start : start + (shape.frames - 1) * stride + 1 : stride], start, stride)
        for start in _starts(num_starts, sampling, name)
    ]


def _starts(num_starts: int, sampling: Sampling, name: str) -> list[int]:
    """Distinct starts in [0, num_starts), rising."""
    count = min(sampling.clips_per_video, num_starts)
    if sampling.protocol == "center":
        # The middle of each of `count` equal parts, rounded down; a part is at least one start wide: none is the same.
        return [((2 * index + 1) * num_starts - count) // (2 * count) for index in range(count)]
    # A hash, not a generator: the same start on every machine and with every version of every library.
    drawn: set[int] = set()
    attempt = 0
    while len(drawn) < count:
        digest = hashlib.sha256(f"{sampling.seed}\n{attempt}\n{name}".encode()).digest()
        drawn.add(int.from_bytes(digest[:8], "big") % num_starts)
        attempt += 1
    return sorted(drawn)
