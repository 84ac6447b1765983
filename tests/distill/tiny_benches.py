"""Datasets of tiny clips with a judge, for tests of the paper's tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lvdd_assets.distill import video_ladders
from lvdd_assets.distill.benches import Bench
from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.training_sets import Originals
from tests.distill.nearest_mean import Calls, judge_by
from tests.distill.tiny_originals import drifting_blobs, make_originals

PROTOCOL = Protocol(epochs=3, seeds=(0, 1))


def bench_of(originals: Originals, calls: Calls | None = None, **changes: Any) -> Bench:
    """Three test clips of each class, none of them a train clip."""
    test = [drifting_blobs(40, seed)[-3:] for seed in range(len(originals.num_clips))]
    labels = np.repeat(np.arange(len(test)), 3)
    return Bench(originals, judge_by(np.concatenate(test), labels, calls), PROTOCOL, **changes)


def small_bench(calls: Calls | None = None, **changes: Any) -> Bench:
    """A dataset that is no benchmark, with latents and with a few encodings, which are quick."""
    originals = make_originals(**changes)
    return bench_of(originals, calls, stored_ladders=quick_ladders(originals))


def quick_ladders(originals: Originals) -> dict[str, video_ladders.VideoLadder]:
    return {
        name: video_ladders.build_ladder(
            originals.clips(name)[originals.selected_items(name)], codec="h264", crfs=(24, 36, 51), sizes=((32, 32),)
        )
        for name in originals.class_names
    }


def benchmark_bench(name: str, num_classes: int, calls: Calls | None = None) -> Bench:
    """A dataset that has a benchmark's name and number of classes; its clips are nobody's."""
    counts: Mapping[str, int] = {f"class {index}": 2 for index in range(num_classes)}
    return bench_of(make_originals(name, counts), calls)
