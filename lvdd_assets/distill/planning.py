"""What a budget buys, before it is spent: for every recipe the clips, the step or rate, and the bytes by part.

From a sample of classes: their HOSVD, coded at some steps, and their clips as video at a ladder of rates. What the
other classes will take follows from their clips. Parts that do not depend on the clips are measured, not foreseen. A
release fills its budget afterwards whatever was foreseen: the total holds, the step may move by what the sample missed.

Legend: T frames, C channels, h, w of the latents.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lvdd_assets.distill import float_coding, tucker, video_coding
from lvdd_assets.distill.budget import COARSEST_STEP, FINEST_STEP, BudgetError, clips_of_share, fit_allowance
from lvdd_assets.distill.class_coding import CodedClass
from lvdd_assets.distill.filling import foresee_bytes
from lvdd_assets.distill.release import CodedClips, ReleaseParts, pack, read_ledger
from lvdd_assets.distill.video_ladders import VideoLadder

# What latents are worth in video: bits for a pixel of the clips as latents, and as video of recipe codec at which a
# trained network's features err as much. A rule of thumb from one real set (docs/coding.md); recipe auto measures on
# the set itself.
_LATENT_BITS = (0.010, 0.019, 0.026, 0.031, 0.045, 0.2)
_WORTH_VIDEO_BITS = (0.022, 0.032, 0.037, 0.039, 0.042, 0.065)


@dataclass(frozen=True)
class Sample:
    """What is known of a dataset before it is distilled.

    Attributes:
        counts: clips that will be selected of every class, by name, in the order of the labels.
        rates: of the sampled classes: bytes at some steps, by name.
        ladders: of the sampled classes: some of their clips as video, by name.
        sampled_counts: of the sampled classes: how many clips their rates are of.
        mode_sizes: T, C, h, w.
    """

    counts: Mapping[str, int]
    rates: Mapping[str, Mapping[float, int]]
    ladders: Mapping[str, VideoLadder]
    sampled_counts: Mapping[str, int]
    mode_sizes: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the rates of every class were measured, with all its clips."""
        return dict(self.sampled_counts) == dict(self.counts)


@dataclass(frozen=True)
class Plan:
    """What one recipe makes of a budget.

    Attributes:
        recipe: tight, paper or codec.
        clips: clips that are kept of every class, by name.
        setting: the step, rank ratio or rate, in words.
        parts: bytes by part of the ledger.
        allowed: the allowance in bytes.
        problem: why there can be no such release; empty where there can.
    """

    recipe: str
    clips: Mapping[str, int]
    setting: str
    parts: Mapping[str, int]
    allowed: int
    problem: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there can be such a release within the budget."""
        return not self.problem and self.num_bytes <= self.allowed


def fixed_parts(template: ReleaseParts, counts: Mapping[str, int]) -> dict[str, int]:
    """Bytes of a release's parts that do not depend on how clips are coded, by part of the ledger.

    Args:
        template: a release with its decoder, if any, and some class; classes are replaced.
        counts: clips of every class.
    """
    some = next(iter(template.classes.values()))

    def empty(count: int) -> CodedClips:
        if isinstance(some, CodedClass):
            return replace(some, num_clips=count, data=b"\x00")
        return replace(some, packets=some.packets[:1] * count, head_of=some.head_of[:1] * count)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.zip"
        path.write_bytes(pack(replace(template, classes={name: empty(count) for name, count in counts.items()})))
        lines = read_ledger(path).lines
    return {line.part: line.num_bytes for line in lines if line.part != "cores"}


def plan_tight(sample: Sample, fixed: Mapping[str, int], *, allowed: int, coarsest: float = COARSEST_STEP) -> Plan:
    """Latents at one step: the finest at which all clips fit, or as many clips as fit."""
    rest = sum(fixed.values())

    def measure(step: float, share: float) -> int:
        # Bytes of a class go with its clips; what it pays for its basis is small beside them.
        kept = sum(clips_of_share(count, share) for count in sample.counts.values())
        sampled = sum(foresee_bytes(rates, step) for rates in sample.rates.values())
        return rest + round(sampled * kept / sum(sample.sampled_counts.values()))

    try:
        fit = fit_allowance(measure, allowed=allowed, most_clips=max(sample.counts.values()), coarsest=coarsest)
    except BudgetError as error:
        return Plan("tight", {}, "–", dict(fixed), allowed, str(error))
    clips = {name: clips_of_share(count, fit.share) for name, count in sample.counts.items()}
    finest = ", the finest there is" if fit.step <= FINEST_STEP else ""
    return Plan("tight", clips, f"step {fit.step:.2f}{finest}", {**fixed, "cores": fit.num_bytes - rest}, allowed)


def plan_paper(sample: Sample, fixed: Mapping[str, int], *, allowed: int, rank_ratio: float) -> Plan:
    """Truncated HOSVD in float32: its size follows from shapes alone, and does not bend to the budget."""
    ranks = tucker.ranks_from_ratio(sample.mode_sizes, rank_ratio)
    cores = sum(float_coding.tucker_num_bytes(count, sample.mode_sizes, ranks) for count in sample.counts.values())
    return Plan("paper", dict(sample.counts), f"r = {rank_ratio:g}", {**fixed, "cores": cores}, allowed)


def plan_codec(sample: Sample, fixed: Mapping[str, int], *, allowed: int) -> Plan:
    """Video at the rates that the sample's share of the budget buys."""
    rest = sum(fixed.values())
    num_clips = sum(ladder.num_clips for ladder in sample.ladders.values())
    scale = sum(sample.counts.values()) / num_clips
    for_sample = math.floor((allowed - rest) / scale)
    try:
        filled = video_coding.fill(sample.ladders, for_sample)
    except BudgetError as error:
        return Plan("codec", {}, "–", dict(fixed), allowed, str(error))
    share = sum(videos.num_clips for videos in filled.values()) / num_clips
    clips = {name: clips_of_share(count, share) for name, count in sample.counts.items()}
    edges = sorted({head.size[0] for videos in filled.values() for head in videos.heads})
    codec = next(iter(filled.values())).codec
    pixels = " and ".join(f"{edge}" for edge in edges)
    cores = min(allowed - rest, round(sum(len(videos.to_bytes()) for videos in filled.values()) * scale))
    return Plan("codec", clips, f"{codec}, frames of {pixels} px", {**fixed, "cores": cores}, allowed)


def pick(plans: Sequence[Plan], *, pixels_per_clip: int) -> tuple[Plan, str]:
    """The plan that is expected to keep most of what a classifier learns from, and why.

    More clips come before finer ones; between latents and video that keep as many, the measured worth of their bits
    decides. Recipe paper is for reproduction and is never picked.

    Args:
        plans: of the recipes tight and codec, and perhaps others.
        pixels_per_clip: T · H · W of the clips.

    Raises:
        BudgetError: neither latents nor video fit.
    """
    possible = {plan.recipe: plan for plan in plans if plan.fits and plan.recipe in ("tight", "codec")}
    if not possible:
        raise BudgetError("; ".join(f"recipe {plan.recipe}: {plan.problem}" for plan in plans if plan.problem))
    if len(possible) == 1:
        (plan,) = possible.values()
        return plan, "the only one that fits"
    tight, codec = possible["tight"], possible["codec"]
    kept = {plan.recipe: sum(plan.clips.values()) for plan in (tight, codec)}
    if kept["tight"] != kept["codec"]:
        best = max((tight, codec), key=lambda plan: kept[plan.recipe])
        return best, f"it keeps {max(kept.values())} clips, the other {min(kept.values())}"
    latent_bits, video_bits = (8 * plan.parts["cores"] / kept[plan.recipe] / pixels_per_clip for plan in (tight, codec))
    worth = float(np.interp(latent_bits, _LATENT_BITS, _WORTH_VIDEO_BITS))
    why = f"{latent_bits:.3f} bits for a pixel as latents are worth {worth:.3f} as video; it would get {video_bits:.3f}"
    return (codec if video_bits > worth else tight), why
