"""Fills a byte allowance with a dataset: which basis, which step and how many clips of each class a release gets.

Every size is measured on the file as it will be, never foreseen: what fits is known, not hoped. The search itself
belongs to `budget`, coding to `class_coding`, the file to `release`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lvdd_assets.distill import video_coding
from lvdd_assets.distill.budget import COARSEST_STEP, Fit, clips_of_share, fit_allowance
from lvdd_assets.distill.class_coding import Basis, ClassCoder, CodedClass, SharedBasis, gram_matrices, share_basis
from lvdd_assets.distill.release import CodedClips, ReleaseParts, pack, size_without_weights
from lvdd_assets.distill.tucker import TuckerTensor
from lvdd_assets.distill.video_ladders import VideoLadder

Build = Callable[[Mapping[str, CodedClips], SharedBasis | None], ReleaseParts]
"""Makes a release of coded classes and the basis that they may share."""


@dataclass(frozen=True)
class Source:
    """A class before it is coded.

    Attributes:
        load: reads its HOSVD; called again for each pass, so that memory does not grow with the number of classes.
        num_clips: clips that it has.
        rates: bytes that it takes at some steps, by rising step.
    """

    load: Callable[[], TuckerTensor]
    num_clips: int
    rates: Mapping[float, int]


def foresee_bytes(rates: Mapping[float, int], step: float) -> float:
    """Bytes of a class at a step between two at which they were measured: straight lines between their logarithms."""
    steps = sorted(rates)
    logs = np.interp(math.log(step), np.log(steps), np.log([rates[known] for known in steps]))
    return float(np.exp(logs))


def foresee_step(sources: Sequence[Source], *, allowed: float) -> float:
    """The step at which all clips of all classes will take about as many bytes as allowed."""
    low, high = min(min(source.rates) for source in sources), max(max(source.rates) for source in sources)
    for _ in range(20):
        middle = math.sqrt(low * high)
        if sum(foresee_bytes(source.rates, middle) for source in sources) <= allowed:
            high = middle
        else:
            low = middle
    return high


def fill_with_latents(
    sources: Mapping[str, Source],
    build: Build,
    *,
    allowed: int,
    coarsest: float = COARSEST_STEP,
    progress: Callable[[str], None] | None = None,
) -> tuple[ReleaseParts, Fit]:
    """The release with the finest step for all clips that fits, or with the most clips, as `fit_allowance` has it.

    Args:
        sources: classes by name, in the order of their labels.
        build: makes a release of them.
        allowed: bytes of the file.
        coarsest: step beyond which clips are left out.
        progress: called with a line of text before each pass over the classes.

    Raises:
        BudgetError: the smallest release does not fit.
    """
    say = progress or (lambda _text: None)
    guess = foresee_step(list(sources.values()), allowed=allowed)
    say("choose the bases")
    shared = share_basis([gram_matrices(source.load()) for source in sources.values()])
    bases = _choose_bases(sources, shared, guess)
    coded: dict[tuple[float, float], dict[str, CodedClips]] = {}

    def code(step: float, share: float) -> ReleaseParts:
        if (step, share) not in coded:
            say(f"code at step {step:.3g}" + (f", {share:.0%} of the clips" if share < 1 else ""))
            coded[step, share] = {
                name: ClassCoder(source.load(), shared).encode(
                    step, num_clips=clips_of_share(source.num_clips, share), basis=bases[name]
                )
                for name, source in sources.items()
            }
        return build(coded[step, share], shared)

    first = code(guess, 1.0)
    weights = len(pack(first)) - size_without_weights(first)
    fit = fit_allowance(
        lambda step, share: size_without_weights(code(step, share)) + weights,
        allowed=allowed,
        most_clips=max(source.num_clips for source in sources.values()),
        coarsest=coarsest,
        guess=foresee_step(list(sources.values()), allowed=allowed - (len(pack(first)) - _core_bytes(first))),
    )
    return code(fit.step, fit.share), fit


def fill_with_videos(ladders: Mapping[str, VideoLadder], build: Build, *, allowed: int) -> ReleaseParts:
    """The release with the least error that fits, its clips kept as video; a rung for each clip (`video_coding.fill`).

    Args:
        ladders: classes by name, in the order of their labels.
        build: makes a release of them.
        allowed: bytes of the file.

    Raises:
        BudgetError: one clip of each class does not fit.
    """
    smallest = {name: ladder.keep([len(ladder.crfs) - 1]) for name, ladder in ladders.items()}
    rest = len(pack(build(smallest, None))) - sum(len(videos.to_bytes()) for videos in smallest.values())
    # What is not video grows by some digits with the clips; each round takes away what the last one was over.
    while True:
        parts = build(dict(video_coding.fill(ladders, allowed - rest)), None)
        over = len(pack(parts)) - allowed
        if over <= 0:
            return parts
        rest += over


def _core_bytes(parts: ReleaseParts) -> int:
    return sum(len(coded.data) for coded in parts.classes.values() if isinstance(coded, CodedClass))


def _choose_bases(sources: Mapping[str, Source], shared: SharedBasis, step: float) -> dict[str, Basis]:
    """The cheapest basis of each class; the shared one only where it pays for itself."""
    costs = {name: ClassCoder(source.load(), shared).costs(step) for name, source in sources.items()}
    alone: dict[str, dict[Basis, float]] = {
        name: {basis: cost for basis, cost in of_class.items() if basis != "shared"} for name, of_class in costs.items()
    }

    def best(table: Mapping[str, Mapping[Basis, float]]) -> float:
        return sum(min(of_class.values()) for of_class in table.values())

    chosen = costs if best(costs) + len(shared.angles) < best(alone) else alone
    return {name: min(of_class, key=of_class.__getitem__) for name, of_class in chosen.items()}
