"""What the planner picks against plain AV1 in as many bytes, whole files: does the pick ever lose?

    LVDD_DATASETS=benchmarks/development.yaml LVDD_DATA_ROOT=FOLDER python benchmarks/whole_files.py DATASET \
        [--bytes-per-clip 50 100 200 400 800] [--seeds 3]

The chain must have been run on DATASET (`lvdd run`). For each budget, a number of bytes for each train clip:

    tight, codec    the files that the recipes write, decoder and metadata counted
    pick            the one of the two that recipe auto takes, by the share of a network's features that survives
    av1             AV1 packets of as many clips as fit: of frames of the clips' size, of three quarters and of half of
                    it, scaled back up, and of all qualities the one that keeps most clips and of those the highest
                    PSNR; labels, lengths and names are free

Each set trains ConvNet3D by protocol `quick`, as long as the full data; scores are kept in the data root.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import TensorDataset

from lvdd_assets.distill import video_budget, video_ladders
from lvdd_assets.distill.benches import Bench
from lvdd_assets.distill.candidates import CODEC, TIGHT, make_codec, make_tight
from lvdd_assets.distill.scores import Row
from lvdd_assets.distill.training_sets import Candidate, NotPossible, Originals, TrainingSet
from lvdd_assets.distill.utility import Judge, decode_judged, judged_positions, train_judge
from lvdd_assets.distill.video_budget import TooSmallError

AV1 = "av1"


@dataclass(frozen=True)
class Point:
    """A set at a budget; `row` and `signal_kept` are None where it is not possible."""

    bytes_per_clip: int
    candidate: Candidate
    row: Row | None
    signal_kept: float | None
    is_pick: bool


class Judging:
    """The judge that recipe auto trains on a dataset, and what it sees of a training set."""

    def __init__(self, originals: Originals, device: str) -> None:
        items = {name: originals.selected_items(name) for name in originals.class_names}
        self._judged = judged_positions({name: len(chosen) for name, chosen in items.items()})
        clips = [originals.clips(name)[items[name][self._judged[name]]] for name in originals.class_names]
        self._originals = np.concatenate(clips)
        labels = np.repeat(np.arange(len(clips)), [len(of_class) for of_class in clips])
        self._judge: Judge = train_judge(self._originals, labels, num_classes=len(clips), device=device)

    def signal_kept(self, made: TrainingSet) -> float:
        """Of a recipe's set, whose clips of each class are the first of the selected ones."""
        counts = {name: len(items) for name, items in made.items.items()}
        return self._judge.signal_kept(self._originals, *decode_judged(made.dataset, counts, self._judged))


def plain_video(originals: Originals, allowed: int) -> Candidate:
    """AV1 packets in at most so many bytes."""
    clips = np.concatenate([originals.clips(name) for name in originals.class_names])
    counts = list(originals.num_clips.values())
    labels = np.repeat(np.arange(len(counts)), counts)
    sizes = video_ladders.frame_sizes(*clips.shape[-2:])[:3]
    try:
        kept = video_budget.fill_budget(clips, labels, num_bytes=allowed, codec="av1", seed=0, sizes=sizes)
    except TooSmallError as error:
        return NotPossible(AV1, str(error))
    starts = np.cumsum([0, *counts])
    items = {
        name: kept.items_N[kept.labels_N == label] - starts[label] for label, name in enumerate(originals.num_clips)
    }
    size = kept.size or clips.shape[-2:]
    dataset = TensorDataset(torch.from_numpy(kept.clips_NTCHW), torch.from_numpy(kept.labels_N))
    return TrainingSet(AV1, dataset, items, kept.stored_bytes, f"frames of {size[0]} px, crf {kept.crf}")


def measure(bench: Bench, bytes_per_clip: int, judging: Judging) -> list[Point]:
    """The three sets at one budget."""
    originals = bench.originals
    allowed = bytes_per_clip * originals.total_clips
    made = [
        make_tight(originals, allowed, sources=bench.sources),
        make_codec(originals, allowed, ladders=bench.ladders),
        plain_video(originals, allowed),
    ]
    possible = {one.name: one for one in made if isinstance(one, TrainingSet)}
    kept = {name: judging.signal_kept(one) for name, one in possible.items() if name in (TIGHT, CODEC)}
    pick = max(kept, key=kept.__getitem__, default="")
    rows = bench.score(possible.values())
    return [Point(bytes_per_clip, one, rows.get(one.name), kept.get(one.name), one.name == pick) for one in made]


def table(bench: Bench, points: Sequence[Point]) -> Iterator[str]:
    """Markdown, line by line."""
    columns = ("budget, B a clip", "set", "file, B", "clips", "how", "signal kept", "pick", "top-1 by seed, %", "mean")
    yield f"| {' | '.join(columns)} |"
    yield "|---:|---|---:|---:|---|---:|---|---|---:|"
    for point in points:
        made = point.candidate
        if isinstance(made, NotPossible):
            yield f"| {point.bytes_per_clip} | {made.name} | – | – | {made.reason} | – | | – | – |"
            continue
        assert point.row is not None
        by_seed = ", ".join(f"{100 * score.top1:.1f}" for score in point.row.scores)
        mean, deviation, _ = bench.accuracy(point.row)
        cells = (
            str(point.bytes_per_clip),
            made.name,
            f"{made.stored_bytes:,}",
            str(made.num_clips),
            made.note,
            "–" if point.signal_kept is None else f"{point.signal_kept:.3f}",
            "pick" if point.is_pick else "",
            by_seed,
            f"{mean:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else ""),
        )
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    # Here, so that the functions above do without the pipeline.
    from lvdd_assets.assets.eval_report import EvalReportConfig
    from lvdd_assets.definitions import build_pipeline
    from lvdd_assets.evaluating import bring_site_up, make_bench
    from lvdd_assets.resources import workspace_from_environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--bytes-per-clip", type=int, nargs="+", default=(50, 100, 200, 400, 800))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    workspace = workspace_from_environment()
    config = EvalReportConfig(seeds=list(range(options.seeds)), rivals=["tight", "codec"]).settings()
    site = bring_site_up(build_pipeline(workspace), workspace.catalog().dataset(options.dataset), config)
    bench = make_bench(site, config, lambda _text: None)
    judging = Judging(bench.originals, site.device)
    points = [point for size in options.bytes_per_clip for point in measure(bench, size, judging)]
    print(f"{bench.name}: {bench.originals.total_clips} train clips, {site.device}, chance {bench.chance:.1f} %\n")
    print("\n".join(table(bench, points)))


if __name__ == "__main__":
    main()
