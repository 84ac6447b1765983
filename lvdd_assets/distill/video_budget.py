"""A byte budget filled with video: what an engineer would keep in the same budget without this project.

What belongs here: how many clips, which, and at what quality, in one quality for all.
What must NOT come here: how a clip becomes bytes (`codec`), rates chosen clip by clip (`video_coding`), the ledger of a
release.

The comparison is meant to be hard to beat, so packets alone are counted, and the stream header once for the whole set.
Lengths and labels are not counted.

Legend: N clips, T frames, C channels, H, W pixels.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.bitstreams import Codec
from lvdd_assets.distill.codec import BEST_CRF, WORST_CRF, EncodedClip, decode_clip, encode_clip

# Clips encoded to find the neighbourhood of the right quality before all of them are.
_NUM_SAMPLED = 16
# Clips encoded before it is asked whether they fit still.
_CLIPS_AT_ONCE = 64


class TooSmallError(ValueError):
    """Not even one clip of each class fits. The message gives both sizes."""


@dataclass(frozen=True)
class KeptVideos:
    """What a byte budget holds as plain video.

    Attributes:
        clips_NTCHW: uint8, decoded from the stored bytes.
        labels_N: int64, the label of each kept clip.
        items_N: int64, which of the given clips they are, rising.
        stored_bytes: packets of all kept clips and the header that they share.
        crf: the quality of all of them.
        num_clips: N.
        size: height and width of the coded frames; None where they are the clips'.
    """

    clips_NTCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    items_N: NDArray[np.int64]
    stored_bytes: int
    crf: int
    num_clips: int
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not len(self.clips_NTCHW) == len(self.labels_N) == len(self.items_N) == self.num_clips:
            raise ValueError(
                f"{self.num_clips = }, {self.clips_NTCHW.shape = }, {self.labels_N.shape = }, {self.items_N.shape = } "
                "disagree"
            )


def fill_budget(
    clips_NTCHW: NDArray[np.uint8],
    labels_N: NDArray[np.integer],
    *,
    num_bytes: int,
    codec: Codec,
    seed: int,
    sizes: Sequence[tuple[int, int] | None] = (None,),
    order_N: NDArray[np.integer] | None = None,
) -> KeptVideos:
    """Keeps as much plain video as the bytes allow: all clips at the best quality that fits, else fewer at the worst.

    Fewer clips are the first in a given order, or are drawn at random, as many of each class as of any other (give or
    take one).

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        labels_N: class of each clip.
        num_bytes: the allowance.
        codec: "av1", "hevc" or "h264".
        seed: of the draw.
        sizes: frame sizes to try, as in `encode_clip`; the one that keeps most clips wins, and of two that keep all,
            the one with the smaller squared error.
        order_N: every clip's index once, in the order in which a small budget keeps them, each class once at the
            start; nothing is drawn then.

    Raises:
        TooSmallError: not even one clip of each class fits at the worst quality.
        ValueError: clips, labels and order do not belong together.
    """
    if len(clips_NTCHW) != len(labels_N) or len(labels_N) == 0:
        raise ValueError(f"expected as many labels as clips, at least one: {clips_NTCHW.shape = }, {labels_N.shape = }")
    if not sizes:
        raise ValueError("expected at least one frame size to try, got none: None stands for the clips' own")
    order = _draw_order(labels_N, seed) if order_N is None else _check_order(order_N, labels_N)
    found, best_rank, refusals = None, (-1, 0.0), []
    for size in sizes:
        try:
            kept = _fill(clips_NTCHW, labels_N, order, num_bytes, codec, size)
        except TooSmallError as error:
            refusals.append(error)
            continue
        rank = (kept.num_clips, 0.0)
        if len(sizes) > 1 and kept.num_clips == len(labels_N):
            rank = (kept.num_clips, -_squared_error(kept.clips_NTCHW, clips_NTCHW[kept.items_N]))
        if rank > best_rank:
            found, best_rank = kept, rank
    if found is None:
        raise refusals[-1]
    return found


def _fill(
    clips_NTCHW: NDArray[np.uint8],
    labels_N: NDArray[np.integer],
    order: NDArray[np.intp],
    num_bytes: int,
    codec: Codec,
    size: tuple[int, int] | None,
) -> KeptVideos:
    """What fits at one frame size."""
    num_classes = len(np.unique(labels_N))
    crf, encoded = _find_quality([clips_NTCHW[index] for index in order], num_bytes, codec, size, least=num_classes)
    stored = np.cumsum([clip.stored_bytes for clip in encoded]) + _header_bytes(encoded)
    num_clips = int(np.searchsorted(stored, num_bytes, side="right"))
    if num_clips < num_classes:
        raise TooSmallError(
            f"{num_bytes} bytes hold {num_clips} clips as {codec} at its lowest quality (crf {crf}); one of each of "
            f"the {num_classes} classes takes {stored[num_classes - 1]} bytes: raise the budget or leave classes out"
        )
    chosen = np.sort(order[:num_clips])
    rank = np.argsort(order[:num_clips])
    return KeptVideos(
        clips_NTCHW=np.stack([decode_clip(encoded[index]) for index in rank]),
        labels_N=np.asarray(labels_N[chosen], dtype=np.int64),
        items_N=chosen.astype(np.int64),
        stored_bytes=int(stored[num_clips - 1]),
        crf=crf,
        num_clips=num_clips,
        size=size,
    )


def _squared_error(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Sum over all pixels and channels, a clip at a time."""
    return float(sum(np.square(a.astype(np.float64) - b).sum() for a, b in zip(first, second, strict=True)))


def _draw_order(labels_N: NDArray[np.integer], seed: int) -> NDArray[np.intp]:
    """A random order of the clips in which every class has its turn before any has its next: [N] indices."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels_N))
    labels = labels_N[shuffled]
    turn = np.array([np.count_nonzero(labels[:place] == label) for place, label in enumerate(labels)])
    return shuffled[np.argsort(turn, kind="stable")]


def _check_order(order_N: NDArray[np.integer], labels_N: NDArray[np.integer]) -> NDArray[np.intp]:
    order = np.asarray(order_N, dtype=np.intp)
    if not np.array_equal(np.sort(order), np.arange(len(labels_N))):
        raise ValueError(f"expected an order of all {len(labels_N)} clips, each once, got {len(order)} indices")
    num_classes = len(np.unique(labels_N))
    first = len(np.unique(labels_N[order[:num_classes]]))
    if first != num_classes:
        raise ValueError(
            f"the first {num_classes} clips of the order are of {first} classes: begin with one of each of the "
            f"{num_classes}, so that a small budget keeps every class"
        )
    return order


def _find_quality(
    clips: list[NDArray[np.uint8]], num_bytes: int, codec: Codec, size: tuple[int, int] | None, *, least: int
) -> tuple[int, list[EncodedClip]]:
    """The lowest crf at which all clips fit, with the clips at it; where there is none, the worst crf with the first
    clips, at least `least` and more than fit.

    Encoding costs, so a few clips say where to begin, and all are encoded only around there.
    """

    def encode(crf: int) -> list[EncodedClip]:
        return _encode_while_fitting(clips, codec, crf, size, num_bytes=num_bytes, least=least)

    worst = WORST_CRF[codec]
    sample = clips[:_NUM_SAMPLED]
    low, high = BEST_CRF, worst
    while low < high:
        middle = (low + high) // 2
        if _measure(_encode_all(sample, codec, middle, size)) * len(clips) <= num_bytes * len(sample):
            high = middle
        else:
            low = middle + 1
    crf, encoded = low, encode(low)
    while crf < worst and _measure(encoded) > num_bytes:
        crf += 1
        encoded = encode(crf)
    while low == crf > BEST_CRF and _measure(encoded) <= num_bytes:
        better = encode(crf - 1)
        if _measure(better) > num_bytes:
            break
        crf, encoded, low = crf - 1, better, crf - 1
    return crf, encoded


def _encode_while_fitting(
    clips: list[NDArray[np.uint8]],
    codec: Codec,
    crf: int,
    size: tuple[int, int] | None,
    *,
    num_bytes: int,
    least: int,
) -> list[EncodedClip]:
    """All clips where they fit; else no more of them than it takes to see that they do not, but at least `least`."""
    encoded: list[EncodedClip] = []
    while len(encoded) < len(clips) and (len(encoded) < least or _measure(encoded) <= num_bytes):
        encoded += _encode_all(clips[len(encoded) : len(encoded) + _CLIPS_AT_ONCE], codec, crf, size)
    return encoded


def _encode_all(
    clips: Sequence[NDArray[np.uint8]], codec: Codec, crf: int, size: tuple[int, int] | None
) -> list[EncodedClip]:
    # Each clip is encoded by one thread, so that its bytes do not depend on how many clips are encoded side by side.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda clip: encode_clip(clip, codec=codec, crf=crf, size=size), clips))


def _measure(encoded: Sequence[EncodedClip]) -> int:
    return sum(clip.stored_bytes for clip in encoded) + _header_bytes(encoded)


def _header_bytes(encoded: Sequence[EncodedClip]) -> int:
    """Bytes of the headers, each different one once; clips of one size and crf have the same one."""
    return sum(len(header) for header in {clip.header for clip in encoded})
