"""What `lvdd plan` prints: brings a few classes up to selection, measures what they take, foresees the rest.

What it computes of these classes is stored like any other partition, so a run afterwards finds it fresh. The arithmetic
belongs to `distill.planning`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lvdd_assets.definitions import build_pipeline
from lvdd_assets.distill import class_coding, paper, planning, selection, tucker, video_ladders
from lvdd_assets.distill.budget import allowed_bytes
from lvdd_assets.distill.catalog import Budget, DatasetSpec
from lvdd_assets.distill.class_coding import TRIAL_STEPS, ClassCoder
from lvdd_assets.distill.listing import class_names, list_dataset
from lvdd_assets.distill.planning import Plan, Sample
from lvdd_assets.distill.quantization import QuantizedWeights, quantize_weights, read_weights
from lvdd_assets.distill.release import ReleaseParts
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import VideoAutoencoder, load_autoencoder
from lvdd_assets.distill.video_ladders import VideoLadder
from lvdd_assets.incremental import Pipeline
from lvdd_assets.partitions import class_key
from lvdd_assets.resources import Workspace

_BITS = 6  # what most decoders come down to; used while quantized_vae has not chosen
# Encoding video takes longer than all the rest: fewer clips are tried.
_VIDEO_CLASSES, _VIDEO_CLIPS = 4, 4
_CHAIN = ("raw_clips", "latents", "dpp_subsets")


@dataclass(frozen=True)
class Plans:
    """What a budget buys, for every recipe.

    Attributes:
        plans: of the recipes tight, paper and codec.
        picked: the recipe that is expected to keep most of what a classifier learns from.
        why: the reason, in words.
        allowed: the allowance in bytes.
        num_sampled: classes that were looked at.
        num_classes: of so many.
        notes: what is assumed and not measured, in sentences.
    """

    plans: tuple[Plan, ...]
    picked: str
    why: str
    allowed: int
    num_sampled: int
    num_classes: int
    notes: tuple[str, ...]


def make_plans(workspace: Workspace, spec: DatasetSpec, *, budget: Budget | None, most_classes: int) -> Plans:
    """Plans for a dataset.

    Args:
        workspace: where everything lies.
        spec: the registry's entry.
        budget: instead of the registry's.
        most_classes: classes to sample, evenly spread; all of a dataset with fewer.

    Raises:
        BudgetError: nothing fits the budget.
        ValueError: the sampled classes could not be prepared.
    """
    names = class_names(spec)
    allowed = allowed_bytes(budget or spec.budget, num_classes=len(names), shape=spec.shape)
    places = np.unique(np.linspace(0, len(names) - 1, min(most_classes, len(names))).astype(int))
    sampled = [names[place] for place in places]
    pipeline = build_pipeline(workspace)
    for step in _CHAIN:
        pipeline.bring_up_to_date(step, [class_key(spec.name, name) for name in sampled], None)
    sample = _measure(pipeline, spec, sampled)
    vae = load_autoencoder(spec.vae, base=spec.base)
    weights, note = _decoder_weights(workspace, spec, vae)
    notes = [note] if note else []
    if not sample.is_whole:
        notes.append(f"foreseen from {len(sampled)} of {len(names)} classes; --classes {len(names)} measures all")
    plans = _plan_all(spec, vae, sample, weights, allowed)
    picked, why = planning.pick(plans, pixels_per_clip=spec.shape.frames * spec.shape.size**2)
    return Plans(plans, picked.recipe, why, allowed, len(sampled), len(names), tuple(notes))


def _measure(pipeline: Pipeline, spec: DatasetSpec, sampled: Sequence[str]) -> Sample:
    """The sampled classes' rates, coded as `hosvd_cores` would, and their clips as video."""
    stores = {step: ZarrStore(pipeline.workspace.data_root, step) for step in _CHAIN}
    rates: dict[str, dict[float, int]] = {}
    ladders: dict[str, VideoLadder] = {}
    counts: dict[str, int] = {}
    sizes: tuple[int, ...] = ()
    for name in sampled:
        key = class_key(spec.name, name)
        items = stores["dpp_subsets"].open(key).read("items")
        latents = stores["latents"].open(key).read("latents")[items].astype(np.float32)
        coder = ClassCoder(tucker.decompose(latents))
        rates[name] = {step: len(coder.encode(step).data) for step in TRIAL_STEPS}
        if len(ladders) < _VIDEO_CLASSES:
            clips = stores["raw_clips"].open(key).read("train", items[:_VIDEO_CLIPS])
            ladders[name] = video_ladders.build_ladder(clips)
        counts[name], sizes = len(items), latents.shape[1:]
    return Sample(_all_counts(spec, counts), rates, ladders, counts, tuple(sizes))


def _all_counts(spec: DatasetSpec, known: Mapping[str, int]) -> dict[str, int]:
    """Clips that will be selected of every class: known of the sampled ones, of the others by their listed files."""
    counts = {}
    for name, listing in list_dataset(spec).items():
        clips = sum(not clip.is_test for clip in listing.clips) * spec.sampling.clips_per_video
        wanted = selection.clips_wanted(spec.clips_per_class, recipe=spec.recipe, num_clips=clips)
        counts[name] = known.get(name, min(wanted, clips))
    return counts


def _decoder_weights(workspace: Workspace, spec: DatasetSpec, vae: VideoAutoencoder) -> tuple[QuantizedWeights, str]:
    """The decoder as `quantized_vae` has stored it; where it has not, rounded to an assumed number of bits, with a
    note that says so."""
    store, decoder = ZarrStore(workspace.data_root, "quantized_vae"), vae.decoder()
    commit = store.commit_of(spec.name)
    if commit is not None and commit.metrics.get("decoder") == vae.decoder_spec.to_json():
        return read_weights(store.open(spec.name).read("weights").tobytes(), decoder, commit.metrics["scheme"]), ""
    note = f"quantized_vae has not chosen the decoder's bits yet: {_BITS} are assumed"
    return quantize_weights(decoder, bits=_BITS), note


def _plan_all(
    spec: DatasetSpec, vae: VideoAutoencoder, sample: Sample, weights: QuantizedWeights, allowed: int
) -> tuple[Plan, ...]:
    first = next(iter(sample.counts))
    coded = class_coding.CodedClass("hosvd-range", 1, sample.mode_sizes, (), 1.0, b"\x00")
    provenance: dict[str, Any] = {
        # As long as the real ones: their bytes count.
        "lvdd_assets": "0.0.0",
        "release": "0" * 16,
        "recipe": "tight",
        "vae": "embedded-2d",
        "inputs": {f"hosvd_cores {spec.name}/{name}": "0" * 16 for name in sample.counts},
        "budget": {"ipc": None, "bytes": allowed},
    }
    tight = ReleaseParts(
        spec.name,
        spec.shape,
        {first: coded},
        vae.decoder_spec,
        weights,
        provenance,
    )
    at_eight = replace(tight, decoder_weights=quantize_weights(vae.decoder(), bits=paper.WEIGHT_BITS))
    with_encoder = replace(at_eight, encoder=quantize_weights(vae.encoder).to_bytes())
    smallest = next(iter(sample.ladders.values())).keep([0])
    video = ReleaseParts(spec.name, spec.shape, {first: smallest}, None, None, provenance)
    return (
        planning.plan_tight(sample, planning.fixed_parts(tight, sample.counts), allowed=allowed),
        planning.plan_paper(
            sample, planning.fixed_parts(with_encoder, sample.counts), allowed=allowed, rank_ratio=paper.RANK_RATIO
        ),
        planning.plan_codec(sample, planning.fixed_parts(video, sample.counts), allowed=allowed),
    )


def clips_range(clips: Mapping[str, int]) -> str:
    """Clips of a class in words: "24", or "9 to 24" where classes differ, or a dash for none."""
    if not clips:
        return "–"
    low, high = min(clips.values()), max(clips.values())
    return f"{low}" if low == high else f"{low} to {high}"
