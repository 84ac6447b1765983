"""What a release keeps of clips as video: rates chosen clip by clip to fill a budget.

What belongs here: the choice among the encodings of ladders (`video_ladders`).
What must NOT come here: encoding. It happened when the ladders were built, so a changed budget encodes nothing.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from lvdd_assets.distill.allocation import Item, allocate
from lvdd_assets.distill.budget import BudgetError
from lvdd_assets.distill.coded_videos import CodedVideos
from lvdd_assets.distill.video_ladders import VideoLadder

# Squared error a byte, falling by a tenth of an octave each: from one at which nothing but bytes counts.
_SLOPES = tuple(2.0 ** (octave / 10) for octave in range(400, -100, -1))
# Flatter slopes whose frame sizes are tried when a budget falls between two.
_NUM_FLATTER = 8


def fill(ladders: Mapping[str, VideoLadder], num_bytes: int) -> dict[str, CodedVideos]:
    """Chooses a rung for every clip so that all classes together take at most `num_bytes` and least squared error.

    One slope of error against bytes holds for all clips of all classes, and for which frame sizes a class uses and
    whether it keeps patterns, as headers and patterns cost bytes, too; what is left then goes where it takes off most
    error (`allocation`). More bytes never give more error: what a slope chooses is optimal at its own size.

    Where not even the coarsest encodings of all clips fit, fewer are kept, the first of each class, as many of each as
    of any other. Nothing is encoded.

    Args:
        ladders: of each class, by name.
        num_bytes: allowance for the sum of `len(videos.to_bytes())`.

    Raises:
        BudgetError: one clip of each class does not fit.
    """
    if not ladders:
        raise ValueError("expected the ladder of at least one class, got none")
    options = [_options(ladder) for ladder in ladders.values()]
    most = max(ladder.num_clips for ladder in ladders.values())
    num_clips = bisect_right(range(1, most + 1), num_bytes, key=lambda count: _least_bytes(options, count))
    if num_clips < 1:
        left = f"{num_bytes} B are" if num_bytes > 0 else "nothing is"
        raise BudgetError(
            f"the budget is too small for video: one clip of each of the {len(ladders)} classes takes "
            f"{_least_bytes(options, 1)} B at the lowest rung, and {left} left for clips. Raise `budget`, or leave "
            "classes out."
        )
    best, least = None, 0
    for chosen in _configurations(options, num_clips, num_bytes):
        rungs = _allocate(chosen, num_clips, num_bytes)
        error = sum(
            int(ladder.squared_errors[rung, range(len(rung))].sum()) for ladder, rung in zip(chosen, rungs, strict=True)
        )
        if best is None or error < least:
            best, least = [ladder.keep(rung) for ladder, rung in zip(chosen, rungs, strict=True)], error
    assert best is not None
    return dict(zip(ladders, best, strict=True))


def _options(ladder: VideoLadder) -> list[VideoLadder]:
    """A ladder with every range of its frame sizes, each with and without patterns."""
    found = []
    sizes = sorted(set(ladder.sizes))
    variants = [ladder]
    if any(head.pattern for head in ladder.heads):
        variants.append(ladder.without_pattern())
    for first, last in combinations(range(len(sizes) + 1), 2):
        rungs = [rung for rung, size in enumerate(ladder.sizes) if size in sizes[first:last]]
        found += [variant.select_rungs(rungs) for variant in variants]
    return found


def _least_bytes(options: Sequence[Sequence[VideoLadder]], num_clips: int) -> int:
    """Bytes of the first clips of each class at their smallest."""
    return sum(min(part.least_bytes(num_clips) for part in parts) for parts in options)


def _configurations(
    options: Sequence[Sequence[VideoLadder]], num_clips: int, num_bytes: int
) -> Iterator[list[VideoLadder]]:
    """An option for each class: what the flattest slope that fits chooses, and what the next few would, which may fit
    at coarser rungs."""

    def choose(slope: float) -> tuple[list[VideoLadder], int]:
        picked = [
            min(((*part.at_slope(slope, num_clips), part) for part in parts), key=lambda row: row[:2])
            for parts in options
        ]
        return [part for _, _, part in picked], sum(size for _, size, _ in picked)

    steepest = [min(parts, key=lambda part: part.least_bytes(num_clips)) for parts in options]
    fits = bisect_right(_SLOPES, num_bytes, key=lambda slope: choose(slope)[1])
    previous = steepest if fits == 0 else choose(_SLOPES[fits - 1])[0]
    yield previous
    num_found = 0
    for slope in _SLOPES[fits:]:
        chosen = choose(slope)[0]
        if all(new is old for new, old in zip(chosen, previous, strict=True)):
            continue
        if num_found == _NUM_FLATTER or sum(part.least_bytes(num_clips) for part in chosen) > num_bytes:
            return
        yield chosen
        previous, num_found = chosen, num_found + 1


def _allocate(chosen: Sequence[VideoLadder], num_clips: int, num_bytes: int) -> list[list[int]]:
    """Rungs of the first clips of each class."""
    counts = [min(num_clips, ladder.num_clips) for ladder in chosen]
    items = [
        Item(tuple(ladder.clip_bytes[:, clip].tolist()), tuple(ladder.squared_errors[:, clip].tolist()))
        for ladder, count in zip(chosen, counts, strict=True)
        for clip in range(count)
    ]
    shared = sum(ladder.shared_bytes(count) for ladder, count in zip(chosen, counts, strict=True))
    rungs = allocate(items, num_bytes - shared)
    assert rungs is not None
    ends = np.cumsum(counts).tolist()
    return [rungs[end - count : end] for end, count in zip(ends, counts, strict=True)]
