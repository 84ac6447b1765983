"""What an engineer would keep in a number of bytes without this project: some clips, as pixels or as plain video.

The comparison is meant to be hard to beat: labels, names and lengths cost nothing, of video only packets and the stream
header count, and a rule may look at the latents that this project made. Types belong to `training_sets`, rules to
`coresets`, encoding and filling with video to `codec`.

Legend: N clips, T frames, H, W pixels.
"""

import functools
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from lvdd_assets.distill import coresets, paper, video_budget, video_ladders
from lvdd_assets.distill.bitstreams import Codec
from lvdd_assets.distill.features import Features, prepare
from lvdd_assets.distill.training_sets import (
    Candidate,
    NotPossible,
    OriginalClips,
    Originals,
    TrainingSet,
    count_range,
)
from lvdd_assets.distill.video_budget import KeptVideos, TooSmallError

Form = Literal["float32", "uint8", "H.264", "AV1"]

METHODS = ("random", "herding", "k-center", "k-means")
FORMS: tuple[Form, ...] = get_args(Form)
SUBSETS = tuple(f"{method}, {form}" for form in FORMS for method in METHODS)

_VALUE_BYTES = {"float32": paper.BUDGET_BYTES_PER_VALUE, "uint8": 1}
_CODECS: dict[str, Codec] = {"H.264": "h264", "AV1": "av1"}
_POOLED_DIMENSION = 512


def make_subset(originals: Originals, method: str, form: Form, allowed: int, *, seed: int = 0) -> Candidate:
    """As many clips as fit, chosen by a rule of the field and kept in a plain form; labels cost nothing.

    Classes take turns, so that none has more than one clip more than another until it has no more. Rules compare
    latents where there are any, else pixels averaged over a grid. As video, all clips are kept at the best quality
    that fits; where not even the worst does, the first by the rule, and smaller frames where they keep more.

    Args:
        originals: all of whose train clips can be chosen.
        method: one of `METHODS`.
        form: "float32", pixels as the field counts them; "uint8"; "H.264" or "AV1", packets alone.
        allowed: bytes.
        seed: of what the rule leaves to chance.

    Raises:
        ValueError: unknown method or form.
    """
    if method not in METHODS or form not in FORMS:
        raise ValueError(f"unknown subset {method!r}, {form!r}; known: {', '.join(METHODS)}; {', '.join(FORMS)}")
    if form in _VALUE_BYTES:
        return _pixel_subset(originals, method, form, allowed, seed)
    return _video_subset(originals, method, form, allowed, seed)


def _pixel_subset(originals: Originals, method: str, form: str, allowed: int, seed: int) -> Candidate:
    name, each, num_classes = f"{method}, {form}", clip_bytes(originals, form), len(originals.num_clips)
    total = min(allowed // each, originals.total_clips)
    if total < num_classes:
        reason = f"one clip of each of the {num_classes} classes takes {num_classes * each} B as {form} pixels"
        return NotPossible(name, f"{reason}; {allowed} B are allowed")
    counts = _take_turns(originals, total)
    # Rising, so that subsets of the same clips are the same sets, whatever rule chose them.
    items = {of: np.sort(choose(originals, of, method, count, seed)) for of, count in counts.items()}
    note = f"{count_range(list(counts.values()))} clips a class{_basis(originals, method)}, labels free"
    return TrainingSet(name, OriginalClips(originals, items), items, total * each, note)


def _video_subset(originals: Originals, method: str, form: str, allowed: int, seed: int) -> Candidate:
    name, video_codec = f"{method}, {form}", _CODECS[form]
    clips_NTCHW, labels_N = _all_clips(originals)
    # Whether all fit does not depend on their order; facility location has an order for any number, k-means has none.
    first_rule = "facility-location" if method == "k-means" else method
    wanted = {of: choose(originals, of, first_rule, count, seed) for of, count in originals.num_clips.items()}

    def fill() -> KeptVideos:
        order_N = _turns_of(originals, wanted)
        return _fill_video(clips_NTCHW, labels_N, order_N, allowed, video_codec)

    try:
        kept = fill()
        if method == "k-means" and kept.num_clips < len(labels_N):
            # As many centres as there was room for; what is left of the room goes to the others as before.
            for of, count in _counts(originals, kept).items():
                centres = choose(originals, of, method, count, seed)
                wanted[of] = np.concatenate([centres, wanted[of][~np.isin(wanted[of], centres)]])
            kept = fill()
    except TooSmallError as error:
        return NotPossible(name, str(error))
    starts = np.cumsum([0, *originals.num_clips.values()])
    items = {of: kept.items_N[kept.labels_N == label] - starts[label] for label, of in enumerate(originals.num_clips)}
    size = "" if kept.size is None else f", frames of {kept.size[0]} px"
    all_kept = kept.num_clips == len(labels_N)
    basis = ", all there are" if all_kept else _basis(originals, method)
    counts = count_range(list(map(len, items.values())))
    note = f"{counts} clips a class{basis}, crf {kept.crf}{size}, packets alone, labels free"
    dataset = TensorDataset(torch.from_numpy(kept.clips_NTCHW), torch.from_numpy(kept.labels_N))
    return TrainingSet(name, dataset, items, kept.stored_bytes, note)


def _fill_video(
    clips_NTCHW: NDArray[np.uint8], labels_N: NDArray[np.int64], order_N: NDArray[np.int64], allowed: int, video: Codec
) -> KeptVideos:
    """All clips at their own size where they fit; else the frame size that keeps most."""
    fill = functools.partial(
        video_budget.fill_budget, clips_NTCHW, labels_N, num_bytes=allowed, codec=video, seed=0, order_N=order_N
    )
    height, width = clips_NTCHW.shape[-2:]
    smaller = video_ladders.frame_sizes(height, width, video)[1:]
    try:
        kept = fill()
    except TooSmallError:
        if not smaller:
            raise
        return fill(sizes=smaller)
    if kept.num_clips == len(labels_N) or not smaller:
        return kept
    try:
        return max(kept, fill(sizes=smaller), key=lambda videos: videos.num_clips)
    except TooSmallError:
        return kept


def _all_clips(originals: Originals) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    clips_NTCHW = np.concatenate([originals.clips(name) for name in originals.class_names])
    return clips_NTCHW, np.repeat(np.arange(len(originals.num_clips)), list(originals.num_clips.values()))


def _counts(originals: Originals, kept: KeptVideos) -> dict[str, int]:
    return {name: int(np.sum(kept.labels_N == label)) for label, name in enumerate(originals.class_names)}


def _turns_of(originals: Originals, wanted: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Every clip of all classes once: each class's most wanted, then each class's next, … int64 [N]."""
    starts = np.cumsum([0, *originals.num_clips.values()])
    found = [
        (turn, label, starts[label] + item)
        for label, items in enumerate(wanted.values())
        for turn, item in enumerate(items)
    ]
    return np.array([index for _, _, index in sorted(found)], dtype=np.int64)


def _take_turns(originals: Originals, total: int) -> dict[str, int]:
    """Clips of each class where classes take turns until `total` are taken, the first classes first."""
    turns = sorted((turn, label) for label, count in enumerate(originals.num_clips.values()) for turn in range(count))
    taken = np.bincount([label for _, label in turns[:total]], minlength=len(originals.num_clips))
    return dict(zip(originals.num_clips, taken.tolist(), strict=True))


def choose(originals: Originals, name: str, method: str, k: int, seed: int) -> NDArray[np.int64]:
    """k of a class's clips by a rule of `coresets`, the most wanted first: int64 [k]. The seed is the dataset's; each
    class has its own from it."""
    label = originals.class_names.index(name)
    of_class = int(np.random.SeedSequence([seed, label]).generate_state(1)[0])
    if method == "random":  # which looks at nothing
        features = Features(np.zeros((originals.num_clips[name], 1)))
    elif originals.latents is not None:
        features = prepare(originals.latents(name))
    else:
        features = prepare(originals.clips(name), kind="pooled", dimension=_POOLED_DIMENSION)
    return np.asarray(coresets.METHODS[method](features, k, seed=of_class), dtype=np.int64)


def _basis(originals: Originals, method: str) -> str:
    if method == "random":
        return ""
    return " chosen by latents" if originals.latents is not None else " chosen by pooled pixels"


def clip_bytes(originals: Originals, form: str) -> int:
    """Bytes of a clip as "float32" or "uint8" pixels."""
    shape = originals.shape
    return paper.BUDGET_CHANNELS * shape.frames * shape.size**2 * _VALUE_BYTES[form]
