"""Training sets in a number of bytes, made from one dataset's train clips, for a fair comparison: full data, recipes.

Recipes are files as `release` writes them, read back as a stranger would. What an engineer would keep without any of
this belongs to `plain_subsets`, the types to `training_sets`, what a set is worth to `evaluation`. What does not fit
says so, with both sizes.

Names: "full data"; "recipe tight", "recipe paper", "recipe codec"; of subsets the rule and the form, "herding, AV1".
"""

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lvdd_assets.distill import class_coding, float_coding, paper, tucker
from lvdd_assets.distill.bitstreams import Codec
from lvdd_assets.distill.budget import COARSEST_STEP, BudgetError
from lvdd_assets.distill.class_coding import TRIAL_STEPS, ClassCoder, CodedClass, SharedBasis
from lvdd_assets.distill.filling import Source, fill_with_latents, fill_with_videos
from lvdd_assets.distill.plain_subsets import SUBSETS, clip_bytes, make_subset
from lvdd_assets.distill.release import CodedClips, ReleaseParts, load_release, pack, size_without_weights
from lvdd_assets.distill.training_sets import (
    Candidate,
    Decoding,
    NotPossible,
    OriginalClips,
    Originals,
    TrainingSet,
    count_range,
)
from lvdd_assets.distill.tucker import TuckerTensor
from lvdd_assets.distill.video_ladders import VideoLadder, build_ladder

FULL, TIGHT, PAPER, CODEC = "full data", "recipe tight", "recipe paper", "recipe codec"
NAMES = (FULL, TIGHT, PAPER, CODEC, *SUBSETS)

_CODEC_NAMES = {"av1": "AV1", "hevc": "HEVC", "h264": "H.264"}


def make_full(originals: Originals) -> TrainingSet:
    """All train clips: the ceiling of any comparison. Its bytes are those of the video files where they are known."""
    items = {name: np.arange(count) for name, count in originals.num_clips.items()}
    pixels = originals.total_clips * clip_bytes(originals, "uint8")
    kind = "uint8 pixels" if originals.file_bytes is None else "video files as they are"
    note = f"{count_range(list(originals.num_clips.values()))} clips a class, {kind}"
    stored_bytes = pixels if originals.file_bytes is None else originals.file_bytes
    return TrainingSet(FULL, OriginalClips(originals, items), items, stored_bytes, note)


def latent_sources(originals: Originals, steps: Sequence[float] = TRIAL_STEPS) -> dict[str, Source]:
    """What recipe tight codes: each class's HOSVD, computed anew for each pass, and its bytes at some steps."""

    def load(name: str) -> TuckerTensor:
        return tucker.decompose(originals.selected_latents(name))

    sources = {}
    for name in originals.class_names:
        coder = ClassCoder(load(name))
        rates = {step: len(coder.encode(step).data) for step in steps}
        sources[name] = Source(functools.partial(load, name), coder.hosvd.num_clips, rates)
    return sources


def make_tight(
    originals: Originals,
    allowed: int,
    *,
    sources: Mapping[str, Source] | None = None,
    coarsest: float = COARSEST_STEP,
    progress: Callable[[str], None] | None = None,
) -> Candidate:
    """Recipe tight: the file that `release` would write in so many bytes, as its loader gives it.

    Args:
        originals: with latents and a decoder.
        allowed: bytes of the file.
        sources: `latent_sources` of these originals, made here by default; they serve every budget.
        coarsest: step beyond which clips are left out.
        progress: as for `fill_with_latents`.
    """
    decoding = originals.decoding
    if originals.latents is None or decoding is None:
        return NotPossible(TIGHT, "there are no latents, or no decoder for them")
    if sources is None:
        sources = latent_sources(originals)

    def build(classes: Mapping[str, CodedClips], shared: SharedBasis | None) -> ReleaseParts:
        return replace(_parts(originals, decoding, classes), shared=shared)

    try:
        parts, fit = fill_with_latents(sources, build, allowed=allowed, coarsest=coarsest, progress=progress)
    except BudgetError as error:
        return NotPossible(TIGHT, str(error))
    return open_parts(TIGHT, originals, parts, note=f"step {fit.step:.2f}, decoder counted")


def make_paper(
    originals: Originals, allowed: int | None, *, rank_ratio: float = paper.RANK_RATIO, name: str = PAPER
) -> Candidate:
    """Recipe paper: truncated HOSVD in float32 with the int8 decoder, and the encoder where `paper_decoding` has it.

    The recipe's bytes do not bend to a budget, so as many clips are kept of each class as fit, the most wanted first,
    each class decomposed with the clips that it keeps.

    Args:
        originals: with latents and `paper_decoding`.
        allowed: bytes of the file; None for all selected clips, whatever they take.
        rank_ratio: share of T, h, w that is kept, in (0, 1].
        name: of the set.
    """
    decoding = originals.paper_decoding
    if originals.latents is None or decoding is None:
        return NotPossible(name, "there are no latents, or no decoder for them")
    weights_counted = f"decoder{' and encoder' if decoding.encoder else ''} counted"
    note = f"r = {rank_ratio:g}, {weights_counted}"

    def parts_of(num_clips: int | None) -> ReleaseParts:
        return _parts(originals, decoding, _truncate(originals, num_clips, rank_ratio))

    if allowed is None:
        return open_parts(name, originals, parts_of(None), note=note)
    one = parts_of(1)
    weights = len(pack(one)) - size_without_weights(one)  # their compression takes long and is always the same
    num_clips = _foreseen_clips(originals, one, allowed - weights, rank_ratio)
    while num_clips > 0:
        parts = parts_of(num_clips)
        if size_without_weights(parts) + weights <= allowed:
            return open_parts(name, originals, parts, note=note)
        num_clips -= 1
    reason = (
        f"one clip of each class takes {size_without_weights(one) + weights} B, of which {weights} B are the "
        f"autoencoder's weights; {allowed} B are allowed"
    )
    return NotPossible(name, reason)


def make_svd(originals: Originals, like: TrainingSet, *, rank_ratio: float = paper.RANK_RATIO) -> Candidate:
    """The paper's ablation of recipe paper: of each class the same clips, by a truncated SVD in at most as many bytes.

    Args:
        originals: with latents and `paper_decoding`.
        like: `make_paper` of these originals.
        rank_ratio: of `like`.
    """
    name, decoding = f"{like.name}, SVD", originals.paper_decoding
    if originals.latents is None or decoding is None:
        return NotPossible(name, "there are no latents, or no decoder for them")
    coded: dict[str, CodedClips] = {}
    for class_name, items in like.items.items():
        latents = originals.selected_latents(class_name, len(items))
        sizes = latents.shape[1:]
        allowed = float_coding.tucker_num_bytes(len(latents), sizes, tucker.ranks_from_ratio(sizes, rank_ratio))
        try:
            rank = tucker.svd_rank_for_bytes(len(latents), sizes, allowed)
        except ValueError as error:
            return NotPossible(name, f"class {class_name!r}: {error}")
        coded[class_name] = class_coding.encode_svd(tucker.truncated_svd(latents, rank))
    encoder = " and encoder" if decoding.encoder else ""
    note = f"SVD in the bytes of r = {rank_ratio:g}, decoder{encoder} counted"
    return open_parts(name, originals, _parts(originals, decoding, coded), note=note)


def _truncate(originals: Originals, num_clips: int | None, rank_ratio: float) -> dict[str, CodedClips]:
    coded: dict[str, CodedClips] = {}
    for name in originals.class_names:
        latents = originals.selected_latents(name, num_clips)
        ranks = tucker.ranks_from_ratio(latents.shape[1:], rank_ratio)
        coded[name] = class_coding.encode_tucker(tucker.decompose(latents, ranks=ranks))
    return coded


def _foreseen_clips(originals: Originals, one: ReleaseParts, allowed: int, rank_ratio: float) -> int:
    """Clips of a class that will fit beside the weights, from shapes alone; what else grows is some digits."""
    counts = [len(originals.selected_items(name)) for name in originals.class_names]
    sizes = next(coded.mode_sizes for coded in one.classes.values() if isinstance(coded, CodedClass))
    ranks = tucker.ranks_from_ratio(sizes, rank_ratio)

    def cores(num_clips: int) -> int:
        return sum(float_coding.tucker_num_bytes(min(num_clips, count), sizes, ranks) for count in counts)

    rest = size_without_weights(one) - cores(1)
    return sum(rest + cores(num_clips) <= allowed for num_clips in range(1, max(counts) + 1))


def video_ladders(originals: Originals, video_codec: Codec = "av1") -> dict[str, VideoLadder]:
    """What recipe codec chooses from: each class's selected clips, encoded once at every rung."""
    return {
        name: build_ladder(originals.clips(name)[originals.selected_items(name)], codec=video_codec)
        for name in originals.class_names
    }


def make_codec(
    originals: Originals,
    allowed: int,
    *,
    video_codec: Codec = "av1",
    ladders: Mapping[str, VideoLadder] | None = None,
) -> Candidate:
    """Recipe codec: the file that `release` would write in so many bytes, its clips kept as video.

    Args:
        originals: whose selected clips are kept.
        allowed: bytes of the file.
        video_codec: "av1", "hevc" or "h264"; not used where there are ladders.
        ladders: `video_ladders` of these originals, made here by default; they serve every budget.
    """
    if ladders is None:
        ladders = video_ladders(originals, video_codec)
    try:
        parts = fill_with_videos(ladders, lambda classes, _: _parts(originals, None, classes), allowed=allowed)
    except BudgetError as error:
        return NotPossible(CODEC, str(error))
    codec_name = _CODEC_NAMES[next(iter(ladders.values())).codec]
    return open_parts(CODEC, originals, parts, note=f"{codec_name} at rates chosen clip by clip")


def _parts(originals: Originals, decoding: Decoding | None, classes: Mapping[str, CodedClips]) -> ReleaseParts:
    name, shape, provenance = originals.dataset, originals.shape, originals.provenance
    if decoding is None:
        return ReleaseParts(name, shape, classes, None, None, provenance)
    parts = ReleaseParts(name, shape, classes, decoding.spec, decoding.weights, provenance, decoding.scheme)
    return replace(parts, encoder=decoding.encoder)


def open_parts(name: str, originals: Originals, parts: ReleaseParts, *, note: str) -> TrainingSet:
    """The training set that a stranger gets from a release of these parts, which hold each class's first selected
    clips: packed, read back from a file, decoded class by class when it is asked for.

    Args:
        name: of the set.
        originals: what the parts were made of.
        parts: the release.
        note: what to say beside the number of clips.
    """
    trusted = next((of.trusted_classes for of in (originals.decoding, originals.paper_decoding) if of is not None), ())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "release.zarr.zip"
        path.write_bytes(pack(parts))
        release = load_release(path, trusted_classes=trusted)
        stored_bytes = release.stored_bytes
    counts = {class_name: coded.num_clips for class_name, coded in parts.classes.items()}
    items = {class_name: originals.selected_items(class_name)[:count] for class_name, count in counts.items()}
    text = f"{count_range(list(counts.values()))} clips a class, {note}"
    return TrainingSet(name, release.dataset(), items, stored_bytes, text)


def make_candidates(
    originals: Originals,
    allowed: int,
    *,
    names: Sequence[str] = NAMES,
    seed: int = 0,
    sources: Mapping[str, Source] | None = None,
    ladders: Mapping[str, VideoLadder] | None = None,
) -> Iterator[Candidate]:
    """Training sets by name, in that order, in the same bytes (but for the full data), one after the other.

    A video subset that keeps all clips is the same whatever rule chose them, and is encoded once.

    Args:
        originals: what they are made of.
        allowed: bytes.
        names: which; some of `NAMES`.
        seed: of the plain subsets.
        sources: `latent_sources`, as for `make_tight`.
        ladders: `video_ladders`, as for `make_codec`.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"unknown training sets {', '.join(unknown)}; known: {'; '.join(NAMES)}")
    with_all: dict[str, TrainingSet] = {}
    for name in names:
        if name == FULL:
            yield make_full(originals)
        elif name == TIGHT:
            yield make_tight(originals, allowed, sources=sources)
        elif name == PAPER:
            yield make_paper(originals, allowed)
        elif name == CODEC:
            yield make_codec(originals, allowed, ladders=ladders)
        else:
            method, form = name.split(", ")
            if form in with_all:
                yield replace(with_all[form], name=name)
                continue
            subset = make_subset(originals, method, form, allowed, seed=seed)  # type: ignore[arg-type]
            if isinstance(subset, TrainingSet) and subset.num_clips == originals.total_clips:
                with_all[form] = subset
            yield subset
